"""BADMM's multipliers: the Lagrangian's own derivatives, bounds, fixed points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.gps import badmm
from armfarm.agents.gps import linear_gaussian as lg

_OPTIONS = badmm.Options(
  rate=0.1, initial_weight=0.5, min_weight=0.01, max_weight=1.0, max_shift=1.0
)

_augment = jax.jit(badmm.augment)
_sampled_costs = jax.jit(badmm.sampled_costs)
_targets = jax.jit(badmm.targets)
_ascend = jax.jit(badmm.ascend)
_reweigh = jax.jit(badmm.reweigh)
_expected_cost = jax.jit(lg.expected_cost)
_mean_action = jax.jit(lg.mean_action)
_precision = jax.jit(lg.precision)


@pytest.fixture(autouse=True)
def _wide(double):
  del double


def _setting(problem):
  """Two controllers, multipliers, and points of four rollouts of eight steps."""
  random = np.random.default_rng(0)
  p, pi = problem(0).controller, problem(1).controller
  multipliers = badmm.Multipliers(
    random.normal(size=[8, 2]),
    random.uniform(0.2, 1.0, 8),
    np.int32(0),
  )
  states, actions = random.normal(size=[4, 8, 3]), random.normal(size=[4, 8, 2])
  return p, pi, multipliers, states, actions


def test_augmented_cost_at_samples_is_the_quadratic_one(problem):
  _, pi, multipliers, x, u = _setting(problem)
  cost = problem(2).cost
  z = np.concatenate([x, u], axis=2)
  point = [lg.Gaussian(z[n], np.zeros([8, 5, 5])) for n in range(4)]
  plain = np.stack([_expected_cost(cost, at) for at in point])
  quadratic = _augment(cost, multipliers, pi)
  expected = np.stack([_expected_cost(quadratic, at) for at in point])
  found = _sampled_costs(plain, multipliers, pi, x, u)
  np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_targets_minimise_the_policys_lagrangian(problem):
  # sum w (m - u)^T P (m - u) / 2 + lambda . m over the mean m of pi.
  p, _, multipliers, x, _ = _setting(problem)
  own, precision = _mean_action(p, x), _precision(p)

  def lagrangian(mean):
    apart = mean - own
    squares = jnp.einsum('nta,tab,ntb->nt', apart, precision, apart)
    pull = jnp.einsum('ta,nta->nt', multipliers.slope, mean)
    return jnp.sum(0.5 * multipliers.weight[None] * squares + pull)

  slope = jax.jit(jax.grad(lagrangian))(_targets(multipliers, p, x))
  np.testing.assert_allclose(slope, 0.0, atol=1e-9)


def test_multipliers_push_both_sides_together(problem):
  # Where p acts above pi, p shall pay for u and pi's targets lie above p.
  p = problem(0).controller
  x = np.zeros([4, 8, 3])
  own = np.asarray(_mean_action(p, x))
  means = own - np.array([[[0.01, 0.02]]])
  start = badmm.begin(8, 2, _OPTIONS)
  new = _ascend(start, p, means, x, _OPTIONS)
  apart = np.broadcast_to(np.array([0.01, 0.02]), (8, 2))
  expected = -0.1 * 0.5 * np.einsum('tab,tb->ta', _precision(p), apart)
  np.testing.assert_allclose(new.slope, expected, rtol=1e-6)
  assert new.clipped == 0
  moved = np.asarray(_targets(new, p, x)) - own
  np.testing.assert_allclose(moved[0], 0.1 * apart, rtol=1e-6)


def test_agreement_moves_nothing(problem):
  p = problem(0).controller
  x = np.ones([4, 8, 3])
  start = badmm.begin(8, 2, _OPTIONS)
  new = _ascend(start, p, _mean_action(p, x), x, _OPTIONS)
  np.testing.assert_allclose(new.slope, 0.0, atol=1e-14)


@pytest.mark.parametrize('gap', [1e1, 1e8])
def test_a_shift_is_bounded_and_counted(problem, gap):
  p = problem(0).controller
  x = np.zeros([4, 8, 3])
  multipliers = badmm.begin(8, 2, _OPTIONS)
  own = np.asarray(_mean_action(p, x))
  for _ in range(30):
    means = own - gap
    multipliers = _ascend(multipliers, p, means, x, _OPTIONS)
  shift = np.asarray(_targets(multipliers, p, x)) - own
  white = np.einsum('tab,ntb->nta', np.linalg.inv(p.scale_tril), shift)
  np.testing.assert_allclose(np.linalg.norm(white, axis=2), 1.0, rtol=1e-9)
  assert multipliers.clipped > 100


def test_weights_follow_the_divergence():
  # Mean 5, deviation 2.63: below 2.37 halves, from 6.32 on doubles, within the bounds.
  divergence = np.array([0.0, 4.0, 5.0, 6.0, 6.5, 8.5])
  start = badmm.begin(6, 2, _OPTIONS)
  new = _reweigh(start, divergence, _OPTIONS)
  np.testing.assert_allclose(new.weight, [0.25, 0.5, 0.5, 0.5, 1.0, 1.0])
  again = _reweigh(new, divergence, _OPTIONS)
  assert np.asarray(again.weight)[-1] == 1.0
  same = _reweigh(start, np.ones(6), _OPTIONS)
  np.testing.assert_array_equal(same.weight, start.weight)
