"""The numbers that tests build QT-Opt from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types
from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import cem
from armfarm.agents.qtopt import networks
from armfarm.configs import qtopt as configs
from armfarm.launchers import guided

_SMALL = {
  'hidden': (8, 8),
  'gamma': 0.5,
  'polyak': 0.75,
  'lag': 3,
  'learning_rate': 1e-2,
}


def _config(network):
  numbers = configs.agent(network).to_dict() | _SMALL
  del numbers['name']
  return guided.fill(qtopt.Config, numbers)


@pytest.fixture(scope='session')
def config():
  """Numbers of a small agent."""
  return _config('mlp')


@pytest.fixture(scope='session')
def images():
  """Numbers of an agent that sees, and learns from changing images."""
  return _config('grasping64')


@pytest.fixture(scope='session')
def spec():
  """Three numbers, and the action of the paper."""
  return types.Spec(observation_size=3, action_size=8)


@pytest.fixture(scope='session')
def layout():
  """The action of the paper, D.2."""
  return actions.layout(8, 1, ('close', 'open', 'terminate'))


@pytest.fixture(scope='session')
def batch(layout):
  """Random transitions: a third terminated, a third cut, a third under way."""
  random, size = np.random.default_rng(0), 12
  ends = np.arange(size) % 3
  fields = types.Transition(
    observation=random.normal(size=[size, 3]),
    action=cem.draw(layout, cem.prior(layout, 1.0), size, jax.random.key(0)),
    reward=random.uniform(size=[size]),
    discount=np.where(ends == 0, 0.0, 1.0),
    truncation=np.where(ends == 1, 1.0, 0.0),
    next_observation=random.normal(size=[size, 3]),
  )
  return jax.tree.map(jnp.float32, fields)


@pytest.fixture(scope='session')
def filmed(batch):
  """The same with images, 70 pixels high and 76 wide."""
  random = np.random.default_rng(1)

  def observation(state):
    pixels = random.integers(0, 256, [len(state), 70, 76, 3], np.uint8)
    return networks.Observation(jnp.asarray(pixels), state)

  return batch._replace(
    observation=observation(batch.observation),
    next_observation=observation(batch.next_observation),
  )


@pytest.fixture(params=[lambda function: function, jax.jit], ids=['python', 'jit'])
def variant(request):
  """Runs a function as it is, and compiled."""
  return request.param
