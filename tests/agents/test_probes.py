"""Environments whose answers are known, each asking for one more thing of a learner.

All have one observation, -1 or 1, and one action, so that Linear-NAF can represent
the answers too. The data come of random actions, the updates are off policy, and the
numbers are the same for all.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import networks
from armfarm.agents import types
from armfarm.agents.ddpg.networks import Critic
from armfarm.agents.naf import networks as naf_networks

_GAMMA = 0.5
_STEPS, _BATCH, _UPDATES = 2000, 64, 1500
_X = np.array([[-1.0], [1.0]], np.float32)
_SPEC = types.Spec(observation_size=1, action_size=1)
_NUMBERS = dict(hidden=(32, 32), gamma=_GAMMA, tau=0.05)
_RATES = {
  'naf': dict(learning_rate=5e-3),
  'linear-naf': dict(learning_rate=5e-3),
  'ddpg': dict(actor_learning_rate=1e-3, critic_learning_rate=5e-3),
}


class Probe(NamedTuple):
  """An environment and what is to be learned of it.

  Attributes:
    step: `x, u -> reward, discount, truncation`; the next observation is -x.
    values: V(-1), V(1).
    actions: the best at -1 and at 1, None where all are alike.
    bootstrap: at the time limit.
  """

  step: Callable
  values: tuple[float, float]
  actions: tuple[float, float] | None = None
  bootstrap: bool = True


def _clock(x, u):
  """Two steps, -1 and then 1, of a loop that goes on beyond the time limit."""
  return 0.8, 1.0, x > 0


_PROBES = {
  'a constant': Probe(lambda x, u: (0.8, 0.0, 0.0), (0.8, 0.8)),
  'the observation': Probe(lambda x, u: (x, 0.0, 0.0), (-1.0, 1.0)),
  # The reward comes at the second of two steps: V(-1) = gamma V(1).
  'a delay': Probe(lambda x, u: (x > 0, x < 0, 0.0), (_GAMMA, 1.0)),
  'the action': Probe(lambda x, u: (-((u - 0.25) ** 2), 0.0, 0.0), (0, 0), (0.25, 0.25)),
  'both': Probe(lambda x, u: (-((u - 0.5 * x) ** 2), 0.0, 0.0), (0, 0), (-0.5, 0.5)),
  # V = r / (1 - gamma) in the loop, but V(1) = r and V(-1) = r + gamma r to the limit.
  'a time limit': Probe(_clock, (1.6, 1.6)),
  'an end in time': Probe(_clock, (1.2, 0.8), bootstrap=False),
}


@functools.partial(jax.jit, static_argnums=0)
def _experience(step, key):
  """Random actions, [T ...], with a random start wherever an episode ends."""

  def play(x, key):
    key_action, key_start = jax.random.split(key)
    u = jax.random.uniform(key_action, [1], minval=-1.0)
    outcome = [jnp.float32(value) for value in step(x[0], u[0])]
    ends = (outcome[1] == 0.0) | (outcome[2] == 1.0)
    start = jax.random.rademacher(key_start, [1], jnp.float32)
    return jnp.where(ends, start, -x), types.Transition(x, u, *outcome, -x)

  start, keys = jnp.ones([1]), jax.random.split(key, _STEPS)
  return jax.lax.scan(play, start, keys)[1]


def _values(config, state):
  """V of the observations, which for DDPG is Q(x, mu(x)), and mu."""
  if hasattr(config, 'network'):
    network = naf_networks.make(config.network, 1, config.hidden, config.normalization)
    variables = {'params': state.params, 'batch_stats': state.statistics}
    heads = network.apply(variables, _X, False)
    return heads.value, heads.mu[:, 0]
  variables = [
    {'params': params, 'batch_stats': statistics}
    for params, statistics in zip(state.params, state.statistics, strict=True)
  ]
  mu = networks.Policy(config.hidden, 1, config.normalization)
  u = mu.apply(variables[0], _X, False)
  q = Critic(config.hidden, config.normalization)
  return q.apply(variables[1], _X, u, False), u[:, 0]


@pytest.fixture(scope='module')
def learn(subjects):
  """Returns the compiled `experience, key -> values, actions` of an agent."""

  @functools.cache
  def compiled(name, normalization, bootstrap):
    changes = dict(normalization=normalization, bootstrap_at_time_limit=bootstrap)
    numbers = dict(_NUMBERS, **_RATES[name], **changes)
    agent = subjects[name].make(_SPEC, **numbers)
    config = subjects[name].config(**numbers)

    def update(state, inputs):
      rows, key, experience = inputs
      return agent.update(state, jax.tree.map(lambda x: x[rows], experience), key)

    def run(experience, key):
      key_init, key_rows, key_update = jax.random.split(key, 3)
      rows = jax.random.randint(key_rows, [_UPDATES, _BATCH], 0, _STEPS)
      keys = jax.random.split(key_update, _UPDATES)
      state, _ = jax.lax.scan(
        lambda state, x: update(state, (*x, experience)), agent.init(key_init), (rows, keys)
      )
      return _values(config, state)

    return jax.jit(run)

  return compiled


@pytest.mark.parametrize('normalization', networks.NORMALIZATIONS)
@pytest.mark.parametrize('name', _RATES)
@pytest.mark.parametrize('about', _PROBES)
def test_learns(learn, name, normalization, about):
  probe = _PROBES[about]
  experience = _experience(probe.step, jax.random.key(0))
  run = learn(name, normalization, probe.bootstrap)
  values, actions = run(experience, jax.random.key(1))
  print('VAL', name, normalization, about, np.abs(values-np.array(probe.values)).max(), '' if probe.actions is None else np.abs(actions - np.array(probe.actions)).max())
  np.testing.assert_allclose(values, probe.values, atol=0.1)
  if probe.actions is not None:
    np.testing.assert_allclose(actions, probe.actions, atol=0.1)
