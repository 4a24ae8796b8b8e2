"""Golden cases of another implementation, precision, and random problems.

Arrays are numpy's: nothing compiles where a test makes or changes them.
"""

import pathlib

import jax
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


def _precise(array):
  """An array in the precision of the test."""
  return np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))


class Golden:
  """Arrays of a golden case, by name, in the precision of the test."""

  def __init__(self, name):
    self._arrays = np.load(_GOLDEN / f'{name}.npz')

  def __getitem__(self, name):
    return _precise(self._arrays[name])

  def controller(self, prefix):
    gain, offset, cov = (self._arrays[f'{prefix}_{part}'] for part in ('K', 'k', 'C'))
    tril = np.linalg.cholesky(cov)
    return lg.Controller(*map(_precise, (gain, offset, tril)))

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
    dynamics = lg.Dynamics(
      matrix,
      0.1 * random.normal(size=[steps, state]),
      np.broadcast_to(0.01 * np.eye(state), (steps, state, state)),
    )
    cost = lg.Quadratic(
      root @ root.swapaxes(1, 2) / z + 0.1 * np.eye(z),
      random.normal(size=[steps, z]),
      random.normal(size=[steps]),
    )
    initial = lg.Gaussian(random.normal(size=[state]), 0.1 * np.eye(state))
    tril = np.tril(0.3 * random.normal(size=[steps, action, action]), -1)
    controller = lg.Controller(
      0.1 * random.normal(size=[steps, action, state]),
      0.1 * random.normal(size=[steps, action]),
      tril + 0.5 * np.eye(action),
    )
    self.dynamics, self.cost, self.initial, self.controller = jax.tree.map(
      _precise, (dynamics, cost, initial, controller)
    )


@pytest.fixture
def problem():
  return Problem


@pytest.fixture(scope='session')
def problem_class():
  """`problem`, for examples that share their fixtures; restores the precision."""
  yield Problem
  jax.config.update('jax_enable_x64', False)
