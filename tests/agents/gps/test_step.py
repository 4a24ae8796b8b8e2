"""The size of steps, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.gps import step

_OPTIONS = step.Options(kl_step=0.2, min_multiplier=0.01, max_multiplier=10.0)


def _after(before, promised, actual, multiplier=1.0):
  state = step.begin()._replace(multiplier=jnp.float32(multiplier))
  state = step.promise(
    state, jnp.float32(before), jnp.float32(promised), jnp.array(False), _OPTIONS
  )
  return float(step.adjust(state, jnp.float32(actual), _OPTIONS).multiplier)


@pytest.mark.parametrize(
  ('actual', 'expected'),
  [
    (7.0, 4.0 / 2.0),  # promised 4, came 3: 4 / (2 (4 - 3))
    (8.0, 4.0 / 4.0),
    (14.0, 4.0 / 16.0),
    (5.0, 5.0),  # better than promised: the most
    (1e6, 0.1),  # much worse: the least
  ],
)
def test_rule(actual, expected):
  np.testing.assert_allclose(_after(10.0, 6.0, actual), expected, rtol=1e-6)


def test_multiplier_stays_in_its_bounds():
  assert _after(10.0, 6.0, 5.0, multiplier=9.0) == 10.0
  np.testing.assert_allclose(_after(10.0, 6.0, 1e6, multiplier=0.02), 0.01)


@pytest.mark.parametrize(
  ('promised', 'actual'),
  [(6.0, np.nan), (6.0, np.inf), (np.nan, 8.0), (np.inf, np.inf)],
)
def test_costs_that_are_not_finite_make_it_fall(promised, actual):
  np.testing.assert_allclose(_after(10.0, promised, actual), 0.1)


def test_nothing_promised_changes_nothing():
  assert step.adjust(step.begin(), jnp.float32(1e9), _OPTIONS).multiplier == 1.0


def test_an_anchor_that_was_kept_halves_once():
  nought = jnp.zeros([])
  state = step.promise(step.begin(), nought, nought, jnp.array(True), _OPTIONS)
  assert state.multiplier == 0.5
  assert step.adjust(state, jnp.float32(3.0), _OPTIONS).multiplier == 0.5


def test_epsilon():
  state = step.begin()._replace(multiplier=jnp.float32(0.5))
  np.testing.assert_allclose(step.epsilon(state, 100, _OPTIONS), 10.0)
