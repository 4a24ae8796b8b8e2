"""DDPG: an actor that climbs a critic (Lillicrap et al. 2016; Gu et al. 2016, IV-C).

Find mu that maximises the discounted return, off policy:

  act       u = mu(x)
  explore   u = clip(mu(x) + n, -1, 1), n an Ornstein-Uhlenbeck process
  target    y = r + gamma Q'(x', mu'(x')), or y = r where nothing follows
  update    Q   <- Q - Adam(grad mean (y - Q(x, u))^2)
            mu  <- mu + Adam(grad mean Q(x, mu(x)))
            Q', mu' <- tau (Q, mu) + (1 - tau) (Q', mu')

Letters as in `armfarm.agents.types`.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from armfarm.agents import bellman
from armfarm.agents import devices
from armfarm.agents import exploration
from armfarm.agents import host
from armfarm.agents import networks
from armfarm.agents import types
from armfarm.agents.ddpg.networks import Critic


class Config(NamedTuple):
  """Every number of the agent; `configs/ddpg.py` says where each comes from.

  Attributes:
    hidden: widths of the hidden layers of mu and of Q.
    normalization: 'none', 'batch' or 'layer'.
    gamma: discount factor, in [0, 1).
    actor_learning_rate: of Adam for mu.
    critic_learning_rate: of Adam for Q.
    tau: share of the learner that enters the target networks at an update.
    bootstrap_at_time_limit: False for y = r at t = T, as in Algorithm 1.
    noise_theta: see `exploration.ornstein_uhlenbeck`.
    noise_sigma: likewise, in units of the action.
  """

  hidden: Sequence[int]
  normalization: str
  gamma: float
  actor_learning_rate: float
  critic_learning_rate: float
  tau: float
  bootstrap_at_time_limit: bool
  noise_theta: float
  noise_sigma: float


class Pair(NamedTuple):
  """One of something for each network."""

  actor: Any
  critic: Any


class LearnerState(NamedTuple):
  """What the trainer keeps, each as a `Pair`.

  Attributes:
    params: of mu and Q.
    statistics: running averages of batch normalisation, empty without it.
    target: parameters of mu' and Q'.
    optimizer: states of the two Adams.
  """

  params: Pair
  statistics: Pair
  target: Pair
  optimizer: Pair


def init(
  network: Pair, optimizer: Pair, spec: types.Spec, key: chex.PRNGKey
) -> LearnerState:
  """Returns a learner at the start of training; the key is consumed."""
  key_actor, key_critic = jax.random.split(key)
  x = jnp.zeros([1, spec.observation_size])
  u = jnp.zeros([1, spec.action_size])
  actor = network.actor.init(key_actor, x, train=False)
  critic = network.critic.init(key_critic, x, u, train=False)
  params = Pair(actor['params'], critic['params'])
  statistics = Pair(actor.get('batch_stats', {}), critic.get('batch_stats', {}))
  optimizers = Pair(
    optimizer.actor.init(params.actor), optimizer.critic.init(params.critic)
  )
  return LearnerState(params, statistics, params, optimizers)


def policy_variables(state: LearnerState) -> types.Variables:
  """Returns what acting needs: mu and its running averages."""
  return networks.join(state.params.actor, state.statistics.actor)


def act(
  network: Pair,
  variables: types.Variables,
  observation: chex.Array,
  key: chex.PRNGKey,
) -> chex.Array:
  """u = mu(x), [A], of an observation [O]."""
  del key  # mu is deterministic
  chex.assert_rank(observation, 1)
  return network.actor.apply(variables, observation[None], train=False)[0]


def explore(
  network: Pair,
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


def critic_loss(
  params: types.Params,
  network: Pair,
  config: Config,
  state: LearnerState,
  batch: types.Transition,
) -> tuple[chex.Array, tuple[Any, types.Metrics]]:
  """Mean squared Bellman error of a batch, the new statistics and metrics.

  Q normalises by the batch of x, the targets by that of x'.
  """
  q_tm1, new = network.critic.apply(
    networks.join(params, state.statistics.critic),
    batch.observation,
    batch.action,
    train=True,
    mutable=['batch_stats'],
  )
  q_t = target_value(network, state, batch)
  error = bellman.batch_td_error(
    batch, q_tm1, q_t, config.gamma, config.bootstrap_at_time_limit
  )
  mean = jnp.mean(error**2)
  return mean, (new.get('batch_stats', {}), {'loss': mean, 'q': jnp.mean(q_tm1)})


def target_value(
  network: Pair, state: LearnerState, batch: types.Transition
) -> chex.Array:
  """Q'(x', mu'(x')) of a batch, [B], normalised by the statistics of its x'.

  A batch lies within sqrt(B) of its own deviations. By those of x, an x' that moves
  what no x has moved would lie far outside, where Q' means nothing.
  """
  x_t = batch.next_observation
  actor, critic = map(networks.join, state.target, state.statistics)
  u_t, _ = network.actor.apply(actor, x_t, train=True, mutable=['batch_stats'])
  q_t, _ = network.critic.apply(critic, x_t, u_t, train=True, mutable=['batch_stats'])
  return q_t


def actor_loss(
  params: types.Params, network: Pair, state: LearnerState, observation: chex.Array
) -> tuple[chex.Array, Any]:
  """Minus the mean of Q(x, mu(x)) over a batch, and the new statistics of mu."""
  u, new = network.actor.apply(
    networks.join(params, state.statistics.actor),
    observation,
    train=True,
    mutable=['batch_stats'],
  )
  critic = networks.join(state.params.critic, state.statistics.critic)
  q = network.critic.apply(critic, observation, u, train=False)
  return -jnp.mean(q), new.get('batch_stats', {})


def update(
  network: Pair,
  optimizer: Pair,
  mean: devices.Mean,
  config: Config,
  state: LearnerState,
  examples: types.Transition,
  key: chex.PRNGKey,
) -> tuple[LearnerState, types.Metrics]:
  """One gradient step on each network, both taken from the same state."""
  del key  # the update draws nothing
  critic_grads, (critic_statistics, metrics) = jax.grad(critic_loss, has_aux=True)(
    state.params.critic, network, config, state, examples
  )
  actor_grads, actor_statistics = jax.grad(actor_loss, has_aux=True)(
    state.params.actor, network, state, examples.observation
  )
  actor_grads, critic_grads = mean((actor_grads, critic_grads))
  actor_steps, actor_optimizer = optimizer.actor.update(
    actor_grads, state.optimizer.actor
  )
  critic_steps, critic_optimizer = optimizer.critic.update(
    critic_grads, state.optimizer.critic
  )
  params = optax.apply_updates(state.params, Pair(actor_steps, critic_steps))
  target = optax.incremental_update(params, state.target, config.tau)
  statistics = Pair(actor_statistics, critic_statistics)
  metrics['gradient_norm'] = optax.tree.norm(critic_grads)
  metrics['actor_gradient_norm'] = optax.tree.norm(actor_grads)
  optimizers = Pair(actor_optimizer, critic_optimizer)
  return LearnerState(params, statistics, target, optimizers), metrics


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
  normalization = networks.Normalization(config.normalization, axis_name)
  networks.check_normalization(normalization)
  hidden = tuple(config.hidden)
  network = Pair(
    networks.Policy(hidden, spec.action_size, normalization),
    Critic(hidden, normalization),
  )
  rates = Pair(config.actor_learning_rate, config.critic_learning_rate)
  # Flat: on a CPU, every array of a call takes its microseconds.
  optimizer = Pair(*(optax.flatten(optax.adam(rate)) for rate in rates))
  mean = devices.mean(axis_name)
  partial = functools.partial
  return types.Agent(
    init=partial(init, network, optimizer, spec),
    variables=policy_variables,
    begin=partial(exploration.begin, spec.action_size),
    explore=partial(explore, network, config),
    act=partial(act, network),
    label=types.identity,
    update=partial(update, network, optimizer, mean, config),
    host=types.Host(
      host.prepare, partial(host.explore, config.noise_theta, config.noise_sigma)
    ),
  )
