"""QT-Opt: Q-learning with continuous actions and no actor (Kalashnikov et al. 2018).

Find Q, whose best action CEM finds, from transitions of any policy:

  act       argmax_a Q_1(s, a), by CEM
  explore   the same, or with probability epsilon a random action
  label     y = r + gamma min_i Q_i(s', argmax_a Q_1(s', a)), Bellman updaters' work
  update    theta   <- theta - SGD(grad mean D(Q(s, a), y))
            theta_1 <- polyak theta_1 + (1 - polyak) theta
            theta_2 <- theta_1 of about `lag` updates ago

The scripted policy that begins a run looks at no Q: it is another `explore`, put in
its place with `_replace`. Letters as in `armfarm.agents.types`.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from armfarm.agents import bellman
from armfarm.agents import devices
from armfarm.agents import types
from armfarm.agents.networks import Normalization
from armfarm.agents.networks import join
from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import augment
from armfarm.agents.qtopt import cem
from armfarm.agents.qtopt import losses
from armfarm.agents.qtopt import networks
from armfarm.agents.qtopt import noisy


class Config(NamedTuple):
  """Every number of the agent.

  Attributes:
    network: 'mlp', 'things', 'grasping64' or 'grasping472'.
    hidden: widths of the hidden layers of the first two.
    normalization: of the MLP: 'none', 'batch' or 'layer'.
    angles: sine-cosine pairs in the action, after the numbers in [-1, 1].
    commands: names of the commands at the end of the action.
    gamma: discount factor, in [0, 1).
    bootstrap_at_time_limit: False for episodes that end with their last step.
    value_range: least and greatest that Q can be; the network says where it is between.
    target: 'clipped', or for ablations 'double' or 'single'.
    loss: 'cross_entropy', or for an ablation 'squared'.
    polyak: share of theta_1 that stays in it at an update.
    lag: mean age of theta_2, updates.
    optimizer: 'sgd' or 'adam', which has its own momentum.
    learning_rate: of it, to begin with.
    decay_updates: in which that falls to a tenth, where it stays; 0: it does not fall.
    momentum: likewise.
    weight_decay: of half the sum of squared weights in the loss.
    cem: numbers of the search of who acts.
    label_cem: of the search behind a label.
    noise: numbers of exploration.
    augmentation: of images in training, None for none.
  """

  network: str
  hidden: Sequence[int]
  normalization: str
  angles: int
  commands: tuple[str, ...]
  gamma: float
  bootstrap_at_time_limit: bool
  value_range: tuple[float, float]
  target: str
  loss: str
  polyak: float
  lag: int
  optimizer: str
  learning_rate: float
  decay_updates: int
  momentum: float
  weight_decay: float
  cem: cem.Options
  label_cem: cem.Options
  noise: noisy.Options
  augmentation: augment.Options | None


class Variables(NamedTuple):
  """What actors and Bellman updaters need: two target networks.

  Attributes:
    target: parameters theta_1 and running averages, as flax takes them.
    lagged: theta_2 and the running averages of its time.
    updates: behind them, [].
    success: share of the episodes of the best trial so far that succeeded, [].
  """

  target: Any
  lagged: Any
  updates: chex.Array
  success: chex.Array


class LearnerState(NamedTuple):
  """What the trainer keeps.

  Attributes:
    params: theta.
    statistics: running averages of batch normalisation, empty without it.
    target: theta_1.
    copies: of theta_1 and its running averages, for theta_2.
    optimizer: state of SGD.
    updates: made so far, [].
    success: as in `Variables`, [].
  """

  params: types.Params
  statistics: Any
  target: types.Params
  copies: bellman.Lag
  optimizer: optax.OptState
  updates: chex.Array
  success: chex.Array


class Example(NamedTuple):
  """A labelled transition.

  Attributes:
    observation: as the network takes it, augmented, [O].
    action: [A].
    target: y, not clipped, [].
  """

  observation: Any
  action: chex.Array
  target: chex.Array


class Model(NamedTuple):
  """What `make` builds once, for all functions.

  Attributes:
    network: Q.
    layout: of the action.
    optimizer: of theta.
    mean: of gradients over devices.
    config: every number.
    spec: of the boundary.
  """

  network: nn.Module
  layout: actions.Layout
  optimizer: optax.GradientTransformation
  mean: devices.Mean
  config: Config
  spec: types.Spec


def init(model: Model, key: chex.PRNGKey) -> LearnerState:
  """Returns a learner at the start of training; the key is consumed."""
  observation = networks.blank(model.config.network, model.spec)
  action = jnp.zeros([1, model.spec.action_size])
  variables = model.network.init(key, observation, action, train=False)
  params, statistics = variables['params'], variables.get('batch_stats', {})
  target = join(params, statistics)
  return LearnerState(
    params,
    statistics,
    params,
    bellman.Lag(target, target),
    model.optimizer.init(params),
    jnp.zeros([], jnp.int32),
    jnp.zeros([]),
  )


def target_variables(state: LearnerState) -> Variables:
  """Returns both target networks: averaged parameters, copied statistics."""
  target = join(state.target, state.statistics)
  return Variables(target, state.copies.lagged, state.updates, state.success)


def judge(state: LearnerState, success: chex.Array) -> LearnerState:
  """Keeps in mind how well a policy did, if none did better; `success` is []."""
  return state._replace(success=jnp.maximum(state.success, success))


# The policy.


def seen(model: Model, observation: Any) -> Any:
  """Returns an observation as the network takes it: its image from the centre."""
  side = networks.IMAGE_SIZES.get(model.config.network)
  if side is None:
    return observation
  image = augment.centre(observation.image, side)
  return networks.Observation(image, observation.state)


def greedy(
  model: Model, options: cem.Options, variables: Any, embedding: Any, key: chex.PRNGKey
) -> cem.Optimum:
  """argmax_a Q(s, a) by CEM; the values that it returns are logits.

  Args:
    model: see there.
    options: numbers of the search.
    variables: of one network.
    embedding: of one state, unbatched.
    key: consumed.
  """
  state = jax.tree.map(lambda x: x[None], embedding)

  def objective(action: chex.Array) -> chex.Array:
    return model.network.apply(variables, state, action, False, method='score')

  return cem.maximise(objective, model.layout, options, key)


def search(
  model: Model, variables: Variables, observation: Any, key: chex.PRNGKey
) -> cem.Optimum:
  """All that CEM saw on the way to the action of `act`, with its values, not logits."""
  state = jax.tree.map(lambda x: x[None], seen(model, observation))
  embedding = model.network.apply(variables.target, state, False, method='embed')
  first = jax.tree.map(lambda x: x[0], embedding)
  found = greedy(model, model.config.cem, variables.target, first, key)
  values = model.config.value_range
  q, every_q = (losses.q_value(values, x) for x in (found.value, found.values))
  return found._replace(value=q, values=every_q)


def act(
  model: Model, variables: Variables, observation: Any, key: chex.PRNGKey
) -> chex.Array:
  """argmax_a Q_1(s, a), [A]; the key is consumed."""
  return search(model, variables, observation, key).action


def explore(
  model: Model,
  variables: Variables,
  actor_state: noisy.Gripper,
  observation: Any,
  key: chex.PRNGKey,
) -> tuple[chex.Array, noisy.Gripper]:
  """The noisy policy of appendix B, [A]; the key is consumed."""
  key_act, key_noise = jax.random.split(key)
  best = act(model, variables, observation, key_act)
  action = noisy.mixture(model.layout, model.config.noise, actor_state, best, key_noise)
  return action, noisy.after(model.layout, actor_state, action)


# The Bellman update.


def augmented(
  model: Model, transition: types.Transition, key: chex.PRNGKey
) -> types.Transition:
  """Returns one transition as training takes it, s and s' changed alike."""
  options = model.config.augmentation
  side = networks.IMAGE_SIZES.get(model.config.network)
  if options is None or side is None:
    change = functools.partial(seen, model)
  else:
    change = functools.partial(changed, augment.draw(options, key), side)
  return transition._replace(
    observation=change(transition.observation),
    next_observation=change(transition.next_observation),
  )


def changed(changes: augment.Draw, side: int, observation: Any) -> networks.Observation:
  """Returns an observation with drawn changes in its image."""
  image = augment.apply(changes, observation.image, side)
  return networks.Observation(image, observation.state)


def next_value(
  model: Model, variables: Variables, observation: Any, keys: chex.PRNGKey
) -> chex.Array:
  """V(s') of a batch of next states, [B] (F.4)."""
  config, network = model.config, model.network
  state = network.apply(variables.target, observation, False, method='embed')
  search = functools.partial(greedy, model, config.label_cem, variables.target)
  best = jax.vmap(search)(state, keys)
  logit = best.value
  if config.target != 'single':
    logit = network.apply(variables.lagged, observation, best.action, False)
  q_1, q_2 = (losses.q_value(config.value_range, x) for x in (best.value, logit))
  return bellman.double_q(config.target, q_1, q_2)


def label(
  model: Model,
  variables: Variables,
  actor_state: types.ActorState,
  experience: types.Transition,
  key: chex.PRNGKey,
) -> tuple[Example, types.ActorState]:
  """Labels transitions [B ...] with their targets; the key is consumed.

  Networks normalise by running averages, so a label depends on its transition alone.
  """
  count = experience.reward.shape[0]
  key_augment, key_search = jax.random.split(key)
  keys = jax.random.split(key_augment, count)
  batch = jax.vmap(functools.partial(augmented, model))(experience, keys)
  keys = jax.random.split(key_search, count)
  v_t = next_value(model, variables, batch.next_observation, keys)

  def target(transition: types.Transition, v_t: chex.Array) -> chex.Array:
    proceeds = bellman.continuation(transition, model.config.bootstrap_at_time_limit)
    return bellman.td_target(transition.reward, proceeds, model.config.gamma, v_t)

  y = jax.vmap(target)(experience, v_t)
  return Example(batch.observation, batch.action, y), actor_state


# Training.


def loss(
  params: types.Params, model: Model, statistics: Any, batch: Example
) -> tuple[chex.Array, tuple[Any, types.Metrics]]:
  """Mean divergence of a batch from its targets, the new statistics and metrics."""
  logit, new = model.network.apply(
    join(params, statistics),
    batch.observation,
    batch.action,
    train=True,
    mutable=['batch_stats'],
  )
  y, q = batch.target, losses.q_value(model.config.value_range, logit)
  part = losses.part(model.config.value_range, y)
  mean = jnp.mean(losses.batch_divergence(model.config.loss, logit, part))
  metrics = {
    'loss': mean,
    'q': jnp.mean(q),
    'target': jnp.mean(y),
    'error': jnp.mean(jnp.abs(y - q)),
    'outside': jnp.mean(losses.outside(part).astype(jnp.float32)),
  }
  return mean, (new.get('batch_stats', {}), metrics)


def update(
  model: Model, state: LearnerState, examples: Example, key: chex.PRNGKey
) -> tuple[LearnerState, types.Metrics]:
  """One gradient step towards stored targets, and both target networks follow."""
  del key  # the update draws nothing
  config = model.config
  grads, (statistics, metrics) = jax.grad(loss, has_aux=True)(
    state.params, model, state.statistics, examples
  )
  grads = model.mean(grads)
  steps, optimizer = model.optimizer.update(grads, state.optimizer, state.params)
  params = optax.apply_updates(state.params, steps)
  target = optax.incremental_update(params, state.target, 1.0 - config.polyak)
  updates = state.updates + 1
  copies = bellman.lag(
    state.copies, join(target, statistics), updates, lag_period(config.lag)
  )
  metrics['gradient_norm'] = optax.tree.norm(grads)
  new = LearnerState(
    params, statistics, target, copies, optimizer, updates, state.success
  )
  return new, metrics


def lag_period(lag: int) -> int:
  """Returns the period of `bellman.lag` for a mean age, updates."""
  return max(1, round(lag / 1.5))


def kernels(params: types.Params) -> Any:
  """Marks the weights of layers: neither biases nor what normalisation scales by."""
  return jax.tree.map(lambda x: x.ndim > 1, params)


def descent(config: Config) -> optax.GradientTransformation:
  """Gradient descent on a loss with squared weights; with momentum, that of E."""
  rate = config.learning_rate
  if config.decay_updates:
    rate = optax.exponential_decay(rate, config.decay_updates, 0.1, end_value=rate / 10)
  if config.optimizer == 'adam':
    descent = optax.adam(rate)
  else:
    descent = optax.sgd(rate, config.momentum)
  decay = optax.add_decayed_weights(config.weight_decay, mask=kernels)
  return optax.chain(decay, optax.flatten(descent))  # flat: fewer arrays in a call


def check(config: Config) -> None:
  """Raises ValueError unless there is such a target, and numbers are in their range."""
  for name, value, known in (
    ('target', config.target, bellman.DOUBLE_Q),
    ('loss', config.loss, losses.LOSSES),
    ('optimizer', config.optimizer, ('sgd', 'adam')),
  ):
    if value not in known:
      raise ValueError(f'{name} is {value!r}; choose one of {known}')
  if not config.value_range[0] < config.value_range[1]:
    raise ValueError(
      f'value_range is {tuple(config.value_range)}; give the least and the greatest'
      ' return, discounted, the lower one first'
    )
  for name, share in (('polyak', config.polyak), ('momentum', config.momentum)):
    if not 0.0 <= share < 1.0:
      raise ValueError(f'{name} is {share}; choose at least 0 and less than 1')
  if config.weight_decay < 0.0:
    raise ValueError(f'weight_decay is {config.weight_decay}; choose 0 or more')
  if config.lag < 1:
    raise ValueError(f'lag is {config.lag}; choose at least one update')
  noisy.check(config.noise)
  cem.check(config.cem)
  cem.check(config.label_cem)


def build(spec: types.Spec, config: Config, axis_name: str | None = None) -> Model:
  """Builds what all functions of the agent share; arguments as for `make`.

  Raises:
    ValueError: the config asks for what does not exist.
  """
  check(config)
  layout = actions.layout(spec.action_size, config.angles, config.commands)
  normalization = Normalization(config.normalization, axis_name)
  network = networks.make(
    config.network, layout.parts, spec, config.hidden, normalization
  )
  mean = devices.mean(axis_name)
  return Model(network, layout, descent(config), mean, config, spec)


def make(spec: types.Spec, config: Config, axis_name: str | None = None) -> types.Agent:
  """Builds the agent for a boundary of `spec`.

  Args:
    spec: sizes of that boundary; where there is an image, O counts what is beside it.
    config: every number.
    axis_name: of the devices that `update` is mapped over, each with its part of the
      batch; None for one device.

  Raises:
    ValueError: the config asks for what does not exist.
  """
  model = build(spec, config, axis_name)
  partial = functools.partial
  return types.Agent(
    init=partial(init, model),
    variables=target_variables,
    begin=noisy.begin,
    explore=partial(explore, model),
    act=partial(act, model),
    label=partial(label, model),
    update=partial(update, model),
    search=partial(search, model),
    judge=judge,
  )
