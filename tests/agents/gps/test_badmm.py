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


@pytest.fixture(autouse=True)
def _wide(double):
  del double


def _setting(problem):
  """Two controllers, multipliers, and points of four rollouts of eight steps."""
  random = np.random.default_rng(0)
  p, pi = problem(0).controller, problem(1).controller
  multipliers = badmm.Multipliers(
    jnp.asarray(random.normal(size=[8, 2])),
    jnp.asarray(random.uniform(0.2, 1.0, 8)),
    jnp.int32(0),
  )
  states, actions = random.normal(size=[4, 8, 3]), random.normal(size=[4, 8, 2])
  return p, pi, multipliers, jnp.asarray(states), jnp.asarray(actions)


def test_augmented_cost_at_samples_is_the_quadratic_one(problem):
  _, pi, multipliers, x, u = _setting(problem)
  cost = problem(2).cost
  z = np.concatenate([x, u], axis=2)
  point = [lg.Gaussian(z[n], np.zeros([8, 5, 5])) for n in range(4)]
  plain = jnp.stack([lg.expected_cost(cost, at) for at in point])
  quadratic = badmm.augment(cost, multipliers, pi)
  expected = jnp.stack([lg.expected_cost(quadratic, at) for at in point])
  found = badmm.sampled_costs(plain, multipliers, pi, x, u)
  np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_targets_minimise_the_policys_lagrangian(problem):
  # sum w (m - u)^T P (m - u) / 2 + lambda . m over the mean m of pi.
  p, _, multipliers, x, _ = _setting(problem)
  own, precision = lg.mean_action(p, x), lg.precision(p)

  def lagrangian(mean):
    apart = mean - own
    squares = jnp.einsum('nta,tab,ntb->nt', apart, precision, apart)
    pull = jnp.einsum('ta,nta->nt', multipliers.slope, mean)
    return jnp.sum(0.5 * multipliers.weight[None] * squares + pull)

  slope = jax.grad(lagrangian)(badmm.targets(multipliers, p, x))
  np.testing.assert_allclose(slope, 0.0, atol=1e-9)


def test_multipliers_push_both_sides_together(problem):
  # Where p acts above pi, p shall pay for u and pi's targets lie above p.
  p = problem(0).controller
  x = jnp.zeros([4, 8, 3])
  means = lg.mean_action(p, x) - np.array([[[0.01, 0.02]]])
  start = badmm.begin(8, 2, _OPTIONS)
  new = badmm.ascend(start, p, means, x, _OPTIONS)
  apart = jnp.broadcast_to(jnp.array([0.01, 0.02]), (8, 2))
  expected = -0.1 * 0.5 * jnp.einsum('tab,tb->ta', lg.precision(p), apart)
  np.testing.assert_allclose(new.slope, expected, rtol=1e-6)
  assert new.clipped == 0
  moved = badmm.targets(new, p, x) - lg.mean_action(p, x)
  np.testing.assert_allclose(moved[0], 0.1 * apart, rtol=1e-6)


def test_agreement_moves_nothing(problem):
  p = problem(0).controller
  x = jnp.ones([4, 8, 3])
  start = badmm.begin(8, 2, _OPTIONS)
  new = badmm.ascend(start, p, lg.mean_action(p, x), x, _OPTIONS)
  np.testing.assert_allclose(new.slope, 0.0, atol=1e-14)


@pytest.mark.parametrize('gap', [1e1, 1e8])
def test_a_shift_is_bounded_and_counted(problem, gap):
  p = problem(0).controller
  x = jnp.zeros([4, 8, 3])
  multipliers = badmm.begin(8, 2, _OPTIONS)
  for _ in range(30):
    means = lg.mean_action(p, x) - gap
    multipliers = badmm.ascend(multipliers, p, means, x, _OPTIONS)
  shift = badmm.targets(multipliers, p, x) - lg.mean_action(p, x)
  white = jnp.einsum('tab,ntb->nta', lg.inverse_factor(p.scale_tril), shift)
  np.testing.assert_allclose(jnp.linalg.norm(white, axis=2), 1.0, rtol=1e-9)
  assert multipliers.clipped > 100


def test_weights_follow_the_divergence():
  # Mean 5, deviation 2.63: below 2.37 halves, from 6.32 on doubles, within the bounds.
  divergence = jnp.array([0.0, 4.0, 5.0, 6.0, 6.5, 8.5])
  start = badmm.begin(6, 2, _OPTIONS)
  new = badmm.reweigh(start, divergence, _OPTIONS)
  np.testing.assert_allclose(new.weight, [0.25, 0.5, 0.5, 0.5, 1.0, 1.0])
  again = badmm.reweigh(new, divergence, _OPTIONS)
  assert again.weight[-1] == 1.0
  same = badmm.reweigh(start, jnp.ones(6), _OPTIONS)
  np.testing.assert_array_equal(same.weight, start.weight)
