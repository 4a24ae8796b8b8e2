"""The numbers that tests build each agent from, and what they look at inside it."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm import agents
from armfarm.agents import types

SPEC = types.Spec(observation_size=3, action_size=2)

_COMMON = dict(
  hidden=(8, 8),
  normalization='batch',
  gamma=0.5,
  tau=0.25,
  bootstrap_at_time_limit=True,
  noise_theta=0.15,
  noise_sigma=0.2,
)
_NAF = dict(_COMMON, network='mlp', learning_rate=1e-2)
_DDPG = dict(_COMMON, actor_learning_rate=1e-2, critic_learning_rate=1e-2)


class Subject(NamedTuple):
  """An agent under test.

  Attributes:
    entry: how a launcher finds it.
    numbers: arguments of its `Config`.
    rates: name of a learning rate -> `params -> the part that it moves`.
    copied: `params -> the part that has a target network`.
    alone: whether no next observation counts for other examples' targets.
  """

  entry: agents.Entry
  numbers: dict[str, Any]
  rates: dict[str, Callable[[Any], Any]]
  copied: Callable[[Any], Any]
  alone: bool = True

  def config(self, **changes):
    return self.entry.Config(**{**self.numbers, **changes})

  def make(self, spec=SPEC, **changes):
    return self.entry.make(spec, self.config(**changes))


def _naf(network):
  return Subject(
    agents.AGENTS['naf'],
    dict(_NAF, network=network),
    {'learning_rate': lambda params: params},
    lambda params: params['value'],
  )


_SUBJECTS = {
  'naf': _naf('mlp'),
  'linear-naf': _naf('linear'),
  'ddpg': Subject(
    agents.AGENTS['ddpg'],
    _DDPG,
    {
      'actor_learning_rate': lambda params: params.actor,
      'critic_learning_rate': lambda params: params.critic,
    },
    lambda params: params,
    alone=False,
  ),
}


@pytest.fixture(scope='session')
def subjects():
  """Name of an agent -> its `Subject`."""
  return _SUBJECTS


@pytest.fixture(scope='session', params=sorted(_SUBJECTS))
def subject(request):
  """Every agent in turn."""
  return _SUBJECTS[request.param]


@pytest.fixture(params=[lambda function: function, jax.jit], ids=['python', 'jit'])
def variant(request):
  """Runs a function as it is, and compiled."""
  return request.param


@pytest.fixture(scope='session')
def batch():
  """Random transitions: a third terminated, a third cut, a third under way."""
  random, size = np.random.default_rng(0), 12
  ends = np.arange(size) % 3
  fields = types.Transition(
    observation=random.normal(size=[size, SPEC.observation_size]),
    action=random.uniform(-1.0, 1.0, [size, SPEC.action_size]),
    reward=random.normal(size=[size]),
    discount=np.where(ends == 0, 0.0, 1.0),
    truncation=np.where(ends == 1, 1.0, 0.0),
    next_observation=random.normal(size=[size, SPEC.observation_size]),
  )
  return jax.tree.map(jnp.float32, fields)


@pytest.fixture(scope='session')
def scatter():
  """Draws a learner far from the small and symmetric numbers that it starts with."""

  def scattered(agent):
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(agent.init, jax.random.key(0))

    def draw(low, high, tree):
      uniform = functools.partial(random.uniform, low, high)
      return jax.tree.map(lambda x: jnp.asarray(uniform(x.shape), x.dtype), tree)

    return shapes._replace(
      params=draw(-0.7, 0.7, shapes.params),
      statistics=draw(0.5, 1.5, shapes.statistics),
      target=draw(-0.7, 0.7, shapes.target),
      optimizer=draw(0.0, 0.0, shapes.optimizer),
    )

  return scattered


@pytest.fixture
def differentiate():
  """Takes a gradient in double precision and holds it to a central difference."""

  def checked(loss, params, *rest):
    wide = jax.tree.map(lambda x: x.astype(jnp.float64), (params, *rest))
    compiled = jax.jit(jax.value_and_grad(loss, argnums=range(len(wide))))
    gradient = compiled(*wide)[1]
    random = np.random.default_rng(2)
    along = jax.tree.map(lambda x: random.normal(size=x.shape), wide[0])
    ahead = jax.tree.map(lambda x, v: x + 1e-6 * v, wide[0], along)
    behind = jax.tree.map(lambda x, v: x - 1e-6 * v, wide[0], along)
    rise = compiled(ahead, *wide[1:])[0] - compiled(behind, *wide[1:])[0]
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient[0], along)))
    np.testing.assert_allclose(slope, rise / 2e-6, rtol=1e-6)
    return gradient

  jax.config.update('jax_enable_x64', True)
  yield checked
  jax.config.update('jax_enable_x64', False)
