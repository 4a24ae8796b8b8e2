"""Golden cases of another implementation, precision, and random problems."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.gps import linear_gaussian as lg

_GOLDEN = pathlib.Path(__file__).parent / 'golden'


@pytest.fixture
def double():
  """Double precision for the whole of a test."""
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)


class Golden:
  """Arrays of a golden case, by name, in the precision of the test."""

  def __init__(self, name):
    self._arrays = np.load(_GOLDEN / f'{name}.npz')

  def __getitem__(self, name):
    return jnp.asarray(self._arrays[name])

  def controller(self, prefix):
    gain, offset, cov = (self._arrays[f'{prefix}_{part}'] for part in ('K', 'k', 'C'))
    tril = np.linalg.cholesky(cov)
    return lg.Controller(*map(jnp.asarray, (gain, offset, tril)))

  def dynamics(self, prefix='in'):
    names = 'Fm', 'fv', 'dyn_covar'
    return lg.Dynamics(*(self[f'{prefix}_{name}'] for name in names))

  def initial(self):
    return lg.Gaussian(self['in_x0mu'], self['in_x0sigma'])

  def cost(self):
    return lg.Quadratic(self['in_Cm'], self['in_cv'], self['in_cc'])


@pytest.fixture
def golden():
  return Golden


class Problem:
  """A random stable system with a convex cost, drawn with numpy."""

  def __init__(self, seed, steps=8, state=3, action=2):
    random = np.random.default_rng(seed)
    z = state + action
    decay = 0.9 * np.linalg.qr(random.normal(size=[state, state]))[0]
    push = random.normal(size=[state, action])
    matrix = np.broadcast_to(np.concatenate([decay, push], 1), (steps, state, z))
    root = random.normal(size=[steps, z, z])
    self.dynamics = lg.Dynamics(
      jnp.asarray(matrix),
      jnp.asarray(0.1 * random.normal(size=[steps, state])),
      jnp.broadcast_to(0.01 * jnp.eye(state), (steps, state, state)),
    )
    self.cost = lg.Quadratic(
      jnp.asarray(root @ root.swapaxes(1, 2) / z + 0.1 * np.eye(z)),
      jnp.asarray(random.normal(size=[steps, z])),
      jnp.asarray(random.normal(size=[steps])),
    )
    self.initial = lg.Gaussian(
      jnp.asarray(random.normal(size=[state])), 0.1 * jnp.eye(state)
    )
    tril = np.tril(0.3 * random.normal(size=[steps, action, action]), -1)
    self.controller = lg.Controller(
      jnp.asarray(0.1 * random.normal(size=[steps, action, state])),
      jnp.asarray(0.1 * random.normal(size=[steps, action])),
      jnp.asarray(tril + 0.5 * np.eye(action)),
    )


@pytest.fixture
def problem():
  return Problem


@pytest.fixture(scope='session')
def problem_class():
  """`problem`, for examples that share their fixtures; restores the precision."""
  yield Problem
  jax.config.update('jax_enable_x64', False)
