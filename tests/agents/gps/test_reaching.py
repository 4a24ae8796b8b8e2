"""The cost of points that are to be at a goal: by hand and against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.gps import costs
from armfarm.agents.gps import reaching

_OPTIONS = reaching.Options(
  state_size=5,
  points=2,
  goal=6,
  weights=(1.0, 0.5, 0.3),
  penalty=costs.Penalty(l1=0.3, l2=2.0, alpha=1e-2, logarithmic=False),
  ramps=('linear', 'constant', 'quadratic'),
  final_weight=10.0,
  effort=0.1,
)
_T, _O, _A = 4, 10, 2
_cost = jax.jit(reaching.cost, static_argnums=0)


def _rollout():
  random = np.random.default_rng(0)
  return random.normal(size=[_T, _O]), random.normal(size=[_T, _A])


def test_the_value_by_hand(double):
  observation, action = _rollout()
  found = _cost(_OPTIONS, observation, action)
  ramps = np.array([[1, 4, 1 / 4], [2, 4, 1], [3, 4, 9 / 4], [40, 40, 40]]) / 4
  for o, u, value, r in zip(
    observation, action, np.asarray(found.value), ramps, strict=True
  ):
    d, w = o[2:5] - o[6:9], r * np.array([1.0, 0.5, 0.3])
    expected = (w * d**2).sum() + 0.3 * np.sqrt(1e-2 + ((w * d) ** 2).sum())
    np.testing.assert_allclose(value, expected + 0.05 * (u @ u))


def test_the_expansion_is_that_of_autodiff(double):
  observation, action = _rollout()

  def value(z):
    moved = jnp.concatenate([z[:, :5], observation[:, 5:]], axis=1)
    return reaching.cost(_OPTIONS, moved, z[:, 5:]).value

  z = np.concatenate([observation[:, :5], action], axis=1)
  found = _cost(_OPTIONS, observation, action)
  steps = np.arange(_T)
  gradient = np.asarray(jax.jit(jax.jacobian(value))(z))[steps, steps]
  hessian = np.asarray(jax.jit(jax.hessian(value))(z))[steps, steps, :, steps]
  np.testing.assert_allclose(found.gradient, gradient, rtol=1e-10, atol=1e-12)
  np.testing.assert_allclose(found.hessian, hessian, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('kind', ['float32', 'float64'])
def test_it_keeps_the_precision(double, kind):
  observation, action = (x.astype(kind) for x in _rollout())
  found = _cost(_OPTIONS, observation, action)
  assert {x.dtype for x in found} == {np.dtype(kind)}


def test_a_ramp_for_every_weight():
  reaching.check(_OPTIONS)
  with pytest.raises(ValueError, match='cost.ramps has 2 entries and cost.weights 3'):
    reaching.check(_OPTIONS._replace(ramps=('linear',) * 2))


def test_the_distance_is_that_of_the_first_point():
  observation = np.zeros([2, _O])
  observation[1, 2:5], observation[1, 6:9] = (1.0, 2.0, 3.0), (1.0, 5.0, -1.0)
  np.testing.assert_allclose(reaching.distance(_OPTIONS, observation), [0.0, 5.0])
