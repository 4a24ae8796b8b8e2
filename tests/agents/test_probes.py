"""Environments with known answers, each asking a learner for one thing more.

There is one observation, -1 or 1, and one action: little enough for Linear-NAF to
represent every answer. The data are of random actions, so learning is off policy,
and an agent has the same numbers in all of them.
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
from armfarm.agents.networks import Normalization

# Two thousand updates are worth the time that it takes to optimise them.
pytestmark = pytest.mark.usefixtures('optimized')

_SPEC = types.Spec(observation_size=1, action_size=1)
_STEPS, _BATCH, _UPDATES = 2000, 64, 2000
# Rates stay as large as they are, so that one step may leave an answer for a moment:
# what counts is the median after each of the last blocks.
_BLOCKS, _LAST = 40, 5
_NUMBERS = {
  'naf': dict(hidden=(32, 32), learning_rate=5e-3),
  'linear-naf': dict(learning_rate=1e-2),
  'ddpg': dict(hidden=(64, 64), actor_learning_rate=1e-3, critic_learning_rate=5e-3),
}

# Normalisation -> whether to bootstrap at time limits. Only two probes have any.
_BOOTSTRAP = {'batch': True, 'layer': False}


class Probe(NamedTuple):
  """An environment, and what is to be learned of it with gamma = 1/2.

  Attributes:
    step: `x, u -> reward, discount, truncation`; the next observation is -x.
    values: V(-1) and V(1).
    actions: the best at -1 and at 1, None where all are as good.
    bootstrap: the choice at time limits that the answer is for, None where any is.
  """

  step: Callable
  values: tuple[float, float]
  actions: tuple[float, float] | None = None
  bootstrap: bool | None = None


def _constant(x, u):
  return 0.8, 0.0, 0.0


def _observation(x, u):
  return x, 0.0, 0.0


def _delay(x, u):
  """Two steps, of which the second is rewarded."""
  return x > 0, x < 0, 0.0


def _action(x, u):
  return -((u - 0.25) ** 2), 0.0, 0.0


def _both(x, u):
  return -((u - 0.5 * x) ** 2), 0.0, 0.0


def _loop(x, u):
  """Two steps of a loop, then the time limit."""
  return 0.8, 1.0, x > 0


_PROBES = {
  'constant': Probe(_constant, (0.8, 0.8)),
  'observation': Probe(_observation, (-1.0, 1.0)),
  'delay': Probe(_delay, (0.5, 1.0)),
  'action': Probe(_action, (0.0, 0.0), (0.25, 0.25)),
  'both': Probe(_both, (0.0, 0.0), (-0.5, 0.5)),
  # V = r / (1 - gamma) for ever; but V(1) = r and V(-1) = r + gamma r to the end.
  'loop': Probe(_loop, (1.6, 1.6), bootstrap=True),
  'loop to the end': Probe(_loop, (1.2, 0.8), bootstrap=False),
}


@functools.partial(jax.jit, static_argnums=0)
def _experience(step, key):
  """Transitions of random actions [T ...]; an episode starts at -1 or at 1."""

  def play(x, key):
    key_action, key_start = jax.random.split(key)
    u = jax.random.uniform(key_action, [1], minval=-1.0)
    reward, discount, truncation = map(jnp.float32, step(x[0], u[0]))
    start = jax.random.rademacher(key_start, [1], jnp.float32)
    proceeds = discount * (1.0 - truncation)
    transition = types.Transition(x, u, reward, discount, truncation, -x)
    return jnp.where(proceeds, -x, start), transition

  return jax.lax.scan(play, jnp.ones([1]), jax.random.split(key, _STEPS))[1]


def _naf_answers(config, state):
  """V(x) and mu(x)."""
  normalization = Normalization(config.normalization)
  network = naf_networks.make(config.network, 1, config.hidden, normalization)
  variables = {'params': state.params, 'batch_stats': state.statistics}
  heads = network.apply(variables, jnp.array([[-1.0], [1.0]]), False)
  return heads.value, heads.mu[:, 0]


def _ddpg_answers(config, state):
  """Q(x, mu(x)) and mu(x)."""
  x, (params, statistics) = jnp.array([[-1.0], [1.0]]), (state.params, state.statistics)
  actor = {'params': params.actor, 'batch_stats': statistics.actor}
  critic = {'params': params.critic, 'batch_stats': statistics.critic}
  shape = config.hidden, Normalization(config.normalization)
  u = networks.Policy(shape[0], 1, shape[1]).apply(actor, x, False)
  return Critic(*shape).apply(critic, x, u, False), u[:, 0]


_ANSWERS = {'naf': _naf_answers, 'linear-naf': _naf_answers, 'ddpg': _ddpg_answers}


@pytest.fixture(scope='module')
def learner(subjects):
  """`name, normalization -> (experience, key -> values, actions)`, compiled."""

  def learn(name, config, experience, key):
    agent = subjects[name].entry.make(_SPEC, config)
    keys = jax.random.split(key, 3)
    rows = jax.random.randint(keys[0], [_UPDATES, _BATCH], 0, _STEPS)

    def update(state, inputs):
      examples = jax.tree.map(lambda x: x[inputs[0]], experience)
      return agent.update(state, examples, inputs[1])

    def block(state, inputs):
      state, _ = jax.lax.scan(update, state, inputs)
      return state, _ANSWERS[name](config, state)

    inputs = rows, jax.random.split(keys[1], _UPDATES)
    blocks = jax.tree.map(lambda x: x.reshape(_BLOCKS, -1, *x.shape[1:]), inputs)
    _, answers = jax.lax.scan(block, agent.init(keys[2]), blocks)
    return jax.tree.map(lambda x: jnp.median(x[-_LAST:], axis=0), answers)

  @functools.cache
  def compiled(name, normalization):
    config = subjects[name].config(
      **_NUMBERS[name],
      normalization=normalization,
      bootstrap_at_time_limit=_BOOTSTRAP[normalization],
      gamma=0.5,
      tau=0.05,
    )
    return jax.jit(functools.partial(learn, name, config))

  return compiled


@pytest.mark.parametrize(
  ('normalization', 'probe'),
  [
    pytest.param(normalization, probe, id=f'{normalization}-{name}')
    for normalization, bootstrap in _BOOTSTRAP.items()
    for name, probe in _PROBES.items()
    if probe.bootstrap in (None, bootstrap)
  ],
)
@pytest.mark.parametrize('name', _NUMBERS)
@pytest.mark.no_cover  # here and in other tests: what it runs, smaller ones measure
def test_learns(learner, name, normalization, probe):
  experience = _experience(probe.step, jax.random.key(0))
  values, actions = learner(name, normalization)(experience, jax.random.key(1))
  np.testing.assert_allclose(values, probe.values, atol=0.1)
  if probe.actions is not None:
    np.testing.assert_allclose(actions, probe.actions, atol=0.15)
