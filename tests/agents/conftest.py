"""The numbers that tests build each agent from, and what they look at inside it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import pytest

from armfarm import agents
from armfarm.agents import types

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
    rates: which of those are learning rates.
    copied: `params -> the part of them that has a target network`.
  """

  entry: agents.Entry
  numbers: dict[str, Any]
  rates: tuple[str, ...]
  copied: Callable[[Any], Any]

  def config(self, **changes):
    return self.entry.Config(**{**self.numbers, **changes})

  def make(self, spec=types.Spec(3, 2), **changes):  # noqa: B008
    return self.entry.make(spec, self.config(**changes))


_SUBJECTS = {
  'naf': Subject(
    agents.AGENTS['naf'], _NAF, ('learning_rate',), lambda params: params['value']
  ),
  'linear-naf': Subject(
    agents.AGENTS['naf'],
    dict(_NAF, network='linear'),
    ('learning_rate',),
    lambda params: params['value'],
  ),
  'ddpg': Subject(
    agents.AGENTS['ddpg'],
    _DDPG,
    ('actor_learning_rate', 'critic_learning_rate'),
    lambda params: params,
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


@pytest.fixture
def double_precision():
  """Finite differences need it."""
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)
