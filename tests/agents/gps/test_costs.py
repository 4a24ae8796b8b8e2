"""Costs: golden cases, derivatives, and absolute coordinates."""

import jax
import numpy as np
import pytest

from armfarm.agents.gps import costs

_penalize = jax.jit(costs.penalize, static_argnums=0)


@pytest.mark.parametrize('kind', ['l1l2', 'logl2'])
@pytest.mark.parametrize('case', [0, 1, 2])
def test_golden_penalty(double, golden, kind, case):
  known = golden('cost_terms')
  numbers = [float(known[f'{kind}_{case}_{name}']) for name in ('l1', 'l2', 'alpha')]
  penalty = costs.Penalty(*numbers, logarithmic=kind == 'logl2')
  found = _penalize(penalty, known['in_d'], known['in_wp'], known['in_J'])
  for x, name in zip(found, ['l', 'lx', 'lxx'], strict=True):
    expected = known[f'{kind}_{case}_{name}']
    np.testing.assert_allclose(x, expected, rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.parametrize(('index', 'kind'), list(enumerate(costs.RAMPS, 1)))
def test_golden_ramp(double, golden, index, kind):
  ramp = jax.jit(costs.ramp, static_argnums=(0, 1))
  found = ramp(kind, 15, 10.0)
  np.testing.assert_allclose(found, golden('cost_terms')[f'ramp{index}'], rtol=1e-6)
  assert np.asarray(ramp(kind, 15))[-1] == 1.0


def test_an_unknown_ramp_is_refused():
  with pytest.raises(ValueError, match="the ramp is 'x'; choose one of"):
    costs.ramp('x', 3)


@pytest.mark.parametrize('logarithmic', [False, True])
def test_gradient_is_that_of_the_value(double, golden, logarithmic):
  known = golden('cost_terms')
  penalty = costs.Penalty(0.3, 2.0, 1e-2, logarithmic)
  d, w, jacobian = (known[f'in_{name}'][0] for name in ('d', 'wp', 'J'))

  def value(z):
    return costs.penalize(penalty, d + jacobian @ z, w, jacobian).value

  found = _penalize(penalty, d, w, jacobian)
  np.testing.assert_allclose(
    found.gradient, jax.jit(jax.grad(value))(np.zeros(7)), rtol=1e-10
  )
  if not logarithmic:
    hessian = jax.jit(jax.hessian(value))(np.zeros(7))
    np.testing.assert_allclose(found.hessian, hessian, 1e-9)


def test_average_has_the_mean_value_at_every_point(double):
  # Quadratic costs are their own expansions, wherever they were expanded.
  random = np.random.default_rng(0)
  points = random.normal(size=[3, 4, 5])
  root = random.normal(size=[3, 4, 5, 5])
  hessian = root @ root.swapaxes(2, 3)
  slope, constant = random.normal(size=[3, 4, 5]), random.normal(size=[3, 4])

  def value(z):
    curved = np.einsum('ntyz,nty,ntz->nt', hessian, z, z)
    return constant + (slope * z).sum(-1) + 0.5 * curved

  gradient = slope + np.einsum('ntyz,ntz->nty', hessian, points)
  expansion = costs.Expansion(value(points), gradient, hessian)
  found = jax.device_get(jax.jit(costs.average)(expansion, points))
  z = random.normal(size=5)
  expected = value(np.broadcast_to(z, points.shape)).mean(0)
  curved = 0.5 * np.einsum('tyz,y,z->t', found.hessian, z, z)
  np.testing.assert_allclose(found.constant + found.gradient @ z + curved, expected)
