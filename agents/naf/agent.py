"""NAF: Q-learning with a Q-function quadratic in the action (Gu et al. 2016).

Find mu that maximises the discounted return, off policy, from one regression:

  act       u = mu(x)
  explore   u = clip(mu(x) + n, -1, 1), n an Ornstein-Uhlenbeck process
  target    y = r + gamma V'(x'), or y = r where nothing follows
  update    theta  <- theta - Adam(grad mean (y - Q(x, u))^2)
            theta' <- tau theta + (1 - tau) theta'

Only V' of the target network enters the target, so only V has one. Linear-NAF is
the same agent with `network='linear'`. Letters as in `armfarm.agents.types`.
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
from armfarm.agents import exploration
from armfarm.agents import host
from armfarm.agents import types
from armfarm.agents.naf import losses
from armfarm.agents.naf import networks
from armfarm.agents.networks import Normalization
from armfarm.agents.networks import batch_statistics


class Config(NamedTuple):
  """Every number of the agent; `configs/naf.py` says where each comes from.

  Attributes:
    network: 'mlp' for NAF, 'linear' for Linear-NAF.
    hidden: widths of the hidden layers of each of mu, L and V.
    normalization: 'none', 'batch' or 'layer'.
    gamma: discount factor, in [0, 1).
    learning_rate: of Adam.
    tau: share of the learner that enters the target network at an update.
    bootstrap_at_time_limit: False for y = r at t = T, as in Algorithm 1.
    noise_theta: see `exploration.ornstein_uhlenbeck`.
    noise_sigma: likewise, in units of the action.
  """

  network: str
  hidden: Sequence[int]
  normalization: str
  gamma: float
  learning_rate: float
  tau: float
  bootstrap_at_time_limit: bool
  noise_theta: float
  noise_sigma: float


class LearnerState(NamedTuple):
  """What the trainer keeps.

  Attributes:
    params: of mu, L and V.
    statistics: running averages of batch normalisation, empty without it.
    target: parameters of V'.
    optimizer: state of Adam.
  """

  params: types.Params
  statistics: Any
  target: types.Params
  optimizer: optax.OptState


def init(
  network: nn.Module,
  optimizer: optax.GradientTransformation,
  observation_size: int,
  key: chex.PRNGKey,
) -> LearnerState:
  """Returns a learner at the start of training; the key is consumed."""
  variables = network.init(key, jnp.zeros([1, observation_size]), train=False)
  params, statistics = variables['params'], variables.get('batch_stats', {})
  return LearnerState(params, statistics, params['value'], optimizer.init(params))


def policy_variables(state: LearnerState) -> types.Variables:
  """Returns what acting needs: mu and its running averages."""
  statistics = {k: v for k, v in state.statistics.items() if k == 'mu'}
  return {'params': {'mu': state.params['mu']}, 'batch_stats': statistics}


def act(
  network: nn.Module,
  variables: types.Variables,
  observation: chex.Array,
  key: chex.PRNGKey,
) -> chex.Array:
  """u = mu(x), [A], of an observation [O]."""
  del key  # mu is deterministic
  chex.assert_rank(observation, 1)
  return network.apply(variables, observation[None], False, method='policy')[0]


def explore(
  network: nn.Module,
  config: Config,
  variables: types.Variables,
  actor_state: exploration.OrnsteinUhlenbeck,
  observation: chex.Array,
  key: chex.PRNGKey,
) -> tuple[chex.Array, exploration.OrnsteinUhlenbeck]:
  """u = clip(mu(x) + n, -1, 1), [A], of an observation [O]; the key is consumed."""
  key_act, key_noise = jax.random.split(key)
  action = act(network, variables, observation, key_act)
  actor_state = exploration.ornstein_uhlenbeck(
    actor_state,
    config.noise_theta,
    config.noise_sigma,
    jax.random.normal(key_noise, actor_state.noise.shape),
  )
  return jnp.clip(action + actor_state.noise, -1.0, 1.0), actor_state


def loss(
  params: types.Params,
  network: nn.Module,
  config: Config,
  state: LearnerState,
  batch: types.Transition,
) -> tuple[chex.Array, tuple[Any, types.Metrics]]:
  """Mean squared Bellman error of a batch, the new statistics and metrics.

  Both networks normalise by the batch of x, the target network x' as well: what a
  batch of other states would move, V and V' move alike, and their difference keeps.
  """
  heads, new = network.apply(
    {'params': params, 'batch_stats': state.statistics},
    batch.observation,
    train=True,
    mutable=['batch_stats'],
  )
  v_t = target_value(network, state, batch)
  q_tm1 = losses.batch_naf_q(heads.value, heads.tril, heads.mu, batch.action)
  error = bellman.batch_td_error(
    batch, q_tm1, v_t, config.gamma, config.bootstrap_at_time_limit
  )
  mean = jnp.mean(error**2)
  return mean, (new.get('batch_stats', {}), {'loss': mean, 'q': jnp.mean(q_tm1)})


def target_value(
  network: nn.Module, state: LearnerState, batch: types.Transition
) -> chex.Array:
  """V'(x') of a batch, [B], normalised by the statistics of its x."""
  x, x_t, head = batch.observation, batch.next_observation, 'state_value'
  target = {'params': {'value': state.target}, 'batch_stats': state.statistics}
  target['batch_stats'] = batch_statistics(network, target, x, method=head)
  return network.apply(target, x_t, train=False, method=head)


def update(
  network: nn.Module,
  optimizer: optax.GradientTransformation,
  mean: devices.Mean,
  config: Config,
  state: LearnerState,
  examples: types.Transition,
  key: chex.PRNGKey,
) -> tuple[LearnerState, types.Metrics]:
  """One step of the trainer thread of Algorithm 1 on a batch of transitions."""
  del key  # the update draws nothing
  gradient = jax.grad(loss, has_aux=True)
  grads, (statistics, metrics) = gradient(
    state.params, network, config, state, examples
  )
  grads = mean(grads)
  steps, optimizer_state = optimizer.update(grads, state.optimizer)
  params = optax.apply_updates(state.params, steps)
  target = optax.incremental_update(params['value'], state.target, config.tau)
  metrics['gradient_norm'] = optax.tree.norm(grads)
  return LearnerState(params, statistics, target, optimizer_state), metrics


def make(spec: types.Spec, config: Config, axis_name: str | None = None) -> types.Agent:
  """Builds the agent for a boundary of `spec`.

  Args:
    spec: sizes of that boundary.
    config: every number.
    axis_name: of the devices that `update` is mapped over, each with its part of the
      batch; None for one device.

  Raises:
    ValueError: the config asks for what does not exist.
  """
  normalization = Normalization(config.normalization, axis_name)
  network = networks.make(
    config.network, spec.action_size, config.hidden, normalization
  )
  optimizer = optax.flatten(optax.adam(config.learning_rate))
  mean = devices.mean(axis_name)
  partial = functools.partial
  return types.Agent(
    init=partial(init, network, optimizer, spec.observation_size),
    variables=policy_variables,
    begin=partial(exploration.begin, spec.action_size),
    explore=partial(explore, network, config),
    act=partial(act, network),
    label=types.identity,
    update=partial(update, network, optimizer, mean, config),
    host=types.Host(
      partial(host.prepare, module='mu'),
      partial(host.explore, config.noise_theta, config.noise_sigma),
    ),
  )
