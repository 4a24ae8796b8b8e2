"""Guided policy search, in the parts that processes run (Yahya et al. 2016).

  explore   u = K_t x + k_t + S_t e_t, or the global policy with its own noise
  label     rollouts -> an improved local controller -> lessons (Algorithm 2)
  gradient  of E w KL(pi(u|o) || p(u|x)) / 2 on a minibatch of lessons (Algorithm 3)
  apply     one step of Adam on the parameter server; rolled back if it did harm
  update    apply(gradient)

What differs between BADMM and mirror descent, LQR and PI2, is local, in
`armfarm.agents.gps.local`. Letters as in `armfarm.agents.gps.linear_gaussian`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from armfarm.agents import networks
from armfarm.agents import types
from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import local
from armfarm.agents.gps import policy as global_policy
from armfarm.agents.gps import precision


class Config(NamedTuple):
  """Every number of the agent.

  Attributes:
    hidden: widths of the hidden layers of the global policy.
    min_deviation: see `policy.Network`.
    learning_rate: of Adam.
    weight_decay: of all parameters, in a step, over the learning rate.
    initial_variance: of the global policy's action before it has been taught.
    precision_rate: share of a minibatch in the running mean of P, at least.
    snapshot_period: updates between copies of the parameters to roll back to.
    harm: times the snapshot's loss on the same minibatch that calls for a rollback.
    noise_deviation: of the filter that smooths exploration noise, steps; 0 for none.
    local: numbers of the local half.
  """

  hidden: Sequence[int]
  min_deviation: float
  learning_rate: float
  weight_decay: float
  initial_variance: float
  precision_rate: float
  snapshot_period: int
  harm: float
  noise_deviation: float
  local: local.Options


class LearnerState(NamedTuple):
  """What the parameter server keeps.

  Attributes:
    policy: parameters, moments of observations, precision of actions.
    optimizer: state of Adam; gradients need none, so that workers may do without.
    snapshot: parameters to roll back to.
    updates: gradients applied, [] int32.
    rollbacks: how many were not, [] int32.
  """

  policy: global_policy.Policy
  optimizer: optax.OptState
  snapshot: types.Params
  updates: chex.Array
  rollbacks: chex.Array


class Gradients(NamedTuple):
  """What a global worker sends.

  Attributes:
    params: gradient of the loss.
    moments: of the minibatch's observations.
    precision: diagonal of its mean P, [A].
    loss: of the parameters, [].
    snapshot_loss: of those to roll back to, on the same minibatch, [].
  """

  params: Any
  moments: global_policy.Moments
  precision: chex.Array
  loss: chex.Array
  snapshot_loss: chex.Array


class GuidedPolicySearch(NamedTuple):
  """An `armfarm.agents.types.Agent`, with an update in two halves that may travel.

  Attributes:
    init: as of every agent, and likewise the next six.
    variables: see there.
    begin: see there; the state that it returns stays for all rollouts of a robot.
    explore: see there.
    act: see there.
    label: see there; `experience` is `local.Experience`. Compiles itself.
    update: `apply` of `gradient`.
    gradient: `(learner_state, examples [B ...]) -> Gradients`.
    apply: `(learner_state, Gradients) -> LearnerState, metrics`.
    relabel: `(variables, actor_state) -> examples, ActorState`: improves the controller
      once more on the same rollouts, BADMM's inner iteration. Compiles itself.
  """

  init: Callable[[chex.PRNGKey], LearnerState]
  variables: Callable[[LearnerState], global_policy.Policy]
  begin: Callable[[chex.PRNGKey], local.LocalState]
  explore: Callable[..., tuple[chex.Array, local.LocalState]]
  act: Callable[..., chex.Array]
  label: Callable[..., tuple[global_policy.Examples, local.LocalState]]
  update: Callable[..., tuple[LearnerState, types.Metrics]]
  gradient: Callable[[LearnerState, global_policy.Examples], Gradients]
  apply: Callable[[LearnerState, Gradients], tuple[LearnerState, types.Metrics]]
  relabel: Callable[..., tuple[global_policy.Examples, local.LocalState]]


class Parts(NamedTuple):
  """What the functions below share."""

  tools: local.Tools
  config: Config
  spec: types.Spec
  optimizer: optax.GradientTransformation
  controller: lg.Controller


def init(parts: Parts, key: chex.PRNGKey) -> LearnerState:
  """Returns a learner at the start of training; the key is consumed."""
  size, action = parts.spec
  module = parts.tools.network.module
  params = module.init(key, jnp.zeros([1, size]), train=False)['params']
  policy = global_policy.Policy(
    params,
    global_policy.no_moments(size),
    jnp.full([action], 1.0 / parts.config.initial_variance, float),
  )
  zero = jnp.int32(0)
  return LearnerState(policy, parts.optimizer.init(params), params, zero, zero)


def adopt(state: LearnerState, policy: global_policy.Policy) -> LearnerState:
  """A learner at the start of training, with a policy that was taught before."""
  return state._replace(policy=policy, snapshot=policy.params)


def variables(state: LearnerState) -> global_policy.Policy:
  """Returns the global policy."""
  return state.policy


def portable(state: LearnerState) -> LearnerState:
  """What workers need of a learner: all but the optimizer's state."""
  return state._replace(optimizer=())


def gradient_shapes(state: LearnerState) -> Gradients:
  """Shapes and types of the gradients of a learner, given its own."""
  policy = state.policy
  loss = jax.eval_shape(jnp.sum, policy.precision)
  return Gradients(policy.params, policy.moments, policy.precision, loss, loss)


def no_examples(options: local.Options, spec: types.Spec) -> global_policy.Examples:
  """Examples of nought, [R T ...] as one batch, as `label` returns them."""
  size, action = options.remembered * options.steps, spec.action_size
  return global_policy.Examples(
    jnp.zeros([size, spec.observation_size]),
    jnp.zeros([size, action]),
    jnp.zeros([size, action, action]),
    jnp.zeros([size]),
  )


def exploring(state: local.LocalState) -> local.LocalState:
  """What `explore` needs of a local state; the rest is None.

  So a control step need not pass it all through.
  """
  needed = ('controller', 'iteration', 'clock', 'noise')
  dropped: dict[str, Any] = {x: None for x in state._fields if x not in needed}
  return state._replace(**dropped)


def begin(parts: Parts, key: chex.PRNGKey) -> local.LocalState:
  """Returns a robot's state before its first rollout."""
  del key  # noise is drawn as each rollout begins
  return local.begin(parts.config.local, parts.spec, parts.controller)


def draw_noise(
  steps: int, size: int, deviation: float, key: chex.PRNGKey
) -> chex.Array:
  """Standard normal noise [T A], smoothed in time; each step keeps variance 1.

  So the noise of a step is what formulas take it for; that of two steps is not
  independent, which they ignore. The key is consumed.
  """
  noise = jax.random.normal(key, [steps, size])
  if deviation == 0.0:
    return noise
  apart = jnp.arange(steps)[:, None] - jnp.arange(steps)[None]
  kernel = jnp.exp(-0.5 * (apart / deviation) ** 2)
  kernel = kernel / jnp.sqrt(jnp.sum(kernel**2, axis=1, keepdims=True))
  return kernel @ noise


def act(
  parts: Parts,
  policy: global_policy.Policy,
  observation: chex.Array,
  key: chex.PRNGKey,
) -> chex.Array:
  """u = mu(o), clipped to [-1, 1], [A], of an observation [O]."""
  del key  # mu is deterministic
  chex.assert_rank(observation, 1)
  mean = global_policy.mean(parts.tools.network, policy, observation)
  return jnp.clip(mean, -1.0, 1.0)


def explore(
  parts: Parts,
  policy: global_policy.Policy,
  state: local.LocalState,
  observation: chex.Array,
  key: chex.PRNGKey,
) -> tuple[chex.Array, local.LocalState]:
  """An action of the rollout under way, [A], of an observation [O].

  A rollout has T steps; after its last, the clock is back at its first. The key is
  consumed.
  """
  options, config = parts.config.local, parts.config
  steps, size = state.noise.shape
  t = state.clock
  noise = jax.lax.cond(
    t == 0,
    lambda: draw_noise(steps, size, config.noise_deviation, key),
    lambda: state.noise,
  )
  gain, offset, tril = (part[t] for part in state.controller)
  own = gain @ observation[: options.state_size] + offset + tril @ noise[t]
  if options.on_policy:
    mean = global_policy.mean(parts.tools.network, policy, observation)
    shaken = mean + noise[t] / jnp.sqrt(policy.precision)
    own = jnp.where(local.knows_nothing(options, state.iteration), own, shaken)
  following = state._replace(clock=(t + 1) % steps, noise=noise)
  return jnp.clip(own, -1.0, 1.0), following


def gradient(
  parts: Parts, state: LearnerState, examples: global_policy.Examples
) -> Gradients:
  """The gradient of a minibatch [B ...], and what else the server needs of it."""
  policy, network = state.policy, parts.tools.network
  batch = global_policy.moments(examples.observation, examples.weight)
  # The first minibatch is normalised by itself, later ones by all before them.
  seen = jax.tree.map(
    lambda old, new: jnp.where(policy.moments.count > 0.0, old, new),
    policy.moments,
    batch,
  )
  loss, grads = jax.value_and_grad(global_policy.loss)(
    policy.params, network, seen, examples
  )
  before = global_policy.loss(state.snapshot, network, seen, examples)
  diagonal = global_policy.mean_precision(examples)
  return Gradients(grads, batch, diagonal, loss, before)


def _averaged(
  config: Config, state: LearnerState, gradients: Gradients
) -> global_policy.Policy:
  """The policy with the running averages of one more minibatch."""
  policy, batch = state.policy, gradients.moments
  # The first minibatches count alike, unless others came before them.
  alike = 0.0 if config.local.taught else 1.0 / (state.updates + 1.0)
  rate = jnp.maximum(config.precision_rate, alike)
  mixed = policy.precision + rate * (gradients.precision - policy.precision)
  counts = jnp.all(gradients.precision > 0.0) & jnp.all(jnp.isfinite(mixed))
  return policy._replace(
    moments=global_policy.merge(policy.moments, batch),
    precision=jnp.where(counts, mixed, policy.precision),
  )


def apply(
  parts: Parts, state: LearnerState, gradients: Gradients
) -> tuple[LearnerState, types.Metrics]:
  """One step of Adam, or a rollback.

  Where a loss or a gradient is not finite, or the loss is `harm` times that of the
  snapshot on the same minibatch, the parameters go back to the snapshot, and Adam's
  moments to before that gradient: had it to start afresh, its first step would be one
  of full length, which near an optimum does harm again.

  Args:
    parts: of the agent.
    state: of the server.
    gradients: of one worker, for parameters that may be a little older.
  """
  config = parts.config
  norm = optax.tree.norm(gradients.params)
  harmful = gradients.loss > config.harm * gradients.snapshot_loss
  fine = jnp.isfinite(norm) & jnp.isfinite(gradients.loss) & ~harmful
  finite = jax.tree.map(jnp.nan_to_num, gradients.params)
  averaged = _averaged(config, state, gradients)
  steps, moved = parts.optimizer.update(finite, state.optimizer, state.policy.params)
  params = optax.apply_updates(state.policy.params, steps)

  def choose(new: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(fine, x, y), new, old)

  updates = state.updates + fine.astype(jnp.int32)
  due = fine & (updates % config.snapshot_period == 0)
  snapshot = jax.tree.map(
    lambda new, old: jnp.where(due, new, old), params, state.snapshot
  )
  back = state.policy._replace(params=state.snapshot)
  after = LearnerState(
    choose(averaged._replace(params=params), back),
    choose(moved, state.optimizer),
    snapshot,
    updates,
    state.rollbacks + (~fine).astype(jnp.int32),
  )
  metrics = {
    'loss': gradients.loss,
    'gradient_norm': norm,
    'rollbacks': after.rollbacks,
  }
  return after, metrics


def update(
  parts: Parts,
  state: LearnerState,
  examples: global_policy.Examples,
  key: chex.PRNGKey,
) -> tuple[LearnerState, types.Metrics]:
  """`apply` of `gradient`, on a minibatch [B ...]."""
  del key  # the update draws nothing
  return apply(parts, state, gradient(parts, state, examples))


def check(config: Config, spec: types.Spec, controller: lg.Controller) -> None:
  """Raises ValueError unless the numbers fit each other and the controller."""
  local.check(config.local)
  steps, size = config.local.steps, config.local.state_size
  expected = steps, spec.action_size, size
  if size > spec.observation_size:
    raise ValueError(
      f'state_size is {size}, but an observation has {spec.observation_size} entries'
    )
  if controller.gain.shape != expected:
    raise ValueError(
      f'the first controller has gains {controller.gain.shape}; T, A, X are {expected}'
    )
  if config.harm <= 1.0:
    raise ValueError(f'harm is {config.harm}; a rollback needs more than 1')
  if config.min_deviation <= 0.0:
    raise ValueError(f'min_deviation is {config.min_deviation}; give more than 0')


def make(
  spec: types.Spec, config: Config, cost: local.Cost, controller: lg.Controller
) -> GuidedPolicySearch:
  """Builds the agent for a boundary of `spec` and one task.

  Args:
    spec: sizes of that boundary; an observation begins with the state.
    config: every number.
    cost: `(observations [T O], actions [T A]) -> costs.Expansion` in [x; u].
    controller: to begin with, see `armfarm.agents.gps.initial`.

  Raises:
    ValueError: the config asks for what does not exist or cannot be.
  """
  check(config, spec, controller)
  none = networks.Normalization('none')
  module = networks.MLP(tuple(config.hidden), spec.action_size, none)
  network = global_policy.Network(module, config.min_deviation)
  tools = local.Tools(network, cost, config.local)
  adam = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
  parts = Parts(tools, config, spec, optax.flatten(adam), controller)
  partial = functools.partial
  return GuidedPolicySearch(
    init=partial(init, parts),
    variables=variables,
    begin=partial(begin, parts),
    explore=partial(explore, parts),
    act=partial(act, parts),
    label=precision.double(partial(local.label, tools)),
    update=partial(update, parts),
    gradient=partial(gradient, parts),
    apply=partial(apply, parts),
    relabel=precision.double(partial(local.relabel, tools)),
  )
