"""Divergences, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.qtopt import losses

_HALF, _LOG2 = 0.0, np.log(2.0)  # sigmoid(0) = 1/2
_THREE_QUARTERS = np.log(3.0)  # sigmoid(log 3) = 3/4


@pytest.mark.parametrize(
  ('kind', 'logit', 'target', 'expected'),
  [
    ('cross_entropy', _HALF, 1.0, _LOG2),
    ('cross_entropy', _HALF, 0.3, _LOG2),  # log 2 whatever y is
    ('cross_entropy', _THREE_QUARTERS, 1.0, np.log(4 / 3)),
    ('cross_entropy', _THREE_QUARTERS, 0.0, np.log(4.0)),
    ('cross_entropy', _THREE_QUARTERS, 0.5, (np.log(4 / 3) + np.log(4.0)) / 2),
    ('cross_entropy', _THREE_QUARTERS, 1.7, np.log(4 / 3)),  # clipped to 1
    ('cross_entropy', _THREE_QUARTERS, -0.05, np.log(4.0)),  # clipped to 0
    ('squared', _THREE_QUARTERS, 0.5, 1 / 16),
    ('squared', _THREE_QUARTERS, -0.25, 1.0),  # not clipped
  ],
)
def test_divergence(variant, kind, logit, target, expected):
  function = variant(lambda *x: losses.divergence(kind, *x))
  found = function(jnp.float32(logit), jnp.float32(target))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('kind', losses.LOSSES)
def test_the_minimum_is_the_target(kind):
  slope = jax.grad(losses.divergence, argnums=1)
  logit, y = jnp.float32(_THREE_QUARTERS), jnp.float32(0.75)
  np.testing.assert_allclose(slope(kind, logit, y), 0.0, atol=1e-6)
  assert slope(kind, logit, y - 0.1) > 0.0 > slope(kind, logit, y + 0.1)


def test_outside():
  y = jnp.array([-0.05, 0.0, 0.5, 1.0, 1.01])
  assert losses.outside(y).tolist() == [True, False, False, False, True]


def test_parts_of_a_range():
  values, y = (-2.0, 6.0), jnp.array([-3.0, -2.0, 2.0, 6.0])
  np.testing.assert_allclose(losses.part(values, y), [-0.125, 0.0, 0.5, 1.0])
  logit = jnp.log(jnp.array([1.0, 3.0]))  # Q is 1/2 and 3/4 of the way
  np.testing.assert_allclose(losses.q_value(values, logit), [2.0, 4.0], rtol=1e-6)
