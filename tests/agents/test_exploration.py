"""The Ornstein-Uhlenbeck process against its closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import exploration

_THETA, _SIGMA = 0.5, 0.3


def test_it_begins_at_rest(variant):
  state = variant(lambda key: exploration.begin(2, key))(jax.random.key(0))
  assert state.noise.tolist() == [0.0, 0.0]


def test_one_step(variant):
  # n' = (1 - 1/4) n + sigma e. Without noise, (4, -8) goes to (3, -6).
  step = variant(exploration.ornstein_uhlenbeck)
  state = exploration.OrnsteinUhlenbeck(jnp.array([4.0, -8.0]))
  draw = jnp.array([1.0, -0.5])
  assert step(state, 0.25, 0.0, draw).noise.tolist() == [3.0, -6.0]
  assert step(state, 0.25, 0.5, draw).noise.tolist() == [3.5, -6.25]


@pytest.fixture(scope='module')
def path():
  """50000 steps of two processes, [T 2]."""

  def step(state, draw):
    state = exploration.ornstein_uhlenbeck(state, _THETA, _SIGMA, draw)
    return state, state.noise

  draws = jax.random.normal(jax.random.key(1), [50_000, 2])
  start = exploration.begin(2, jax.random.key(0))
  return np.asarray(jax.jit(lambda x: jax.lax.scan(step, start, x)[1])(draws))


def test_stationary_moments(path):
  # Var = sigma^2 + (1 - theta)^2 Var, so std = 0.3 / sqrt(0.5 * 1.5) = 0.3464.
  np.testing.assert_allclose(path.std(0), 0.3464, rtol=0.02)
  np.testing.assert_allclose(path.mean(0), 0.0, atol=0.01)


@pytest.mark.parametrize('lag', [1, 2, 3])
def test_autocorrelation(path, lag):
  # E[n_t n_{t+k}] / Var = (1 - theta)^k = 1/2, 1/4, 1/8.
  covariance = np.mean(path[:-lag] * path[lag:], axis=0)
  np.testing.assert_allclose(covariance / path.var(0), 0.5**lag, atol=0.02)


def test_actions_are_perturbed_independently(path):
  assert abs(np.corrcoef(path.T)[0, 1]) < 0.02
