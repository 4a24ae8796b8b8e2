"""Linear-Gaussian controllers: golden cases, closed forms and samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from armfarm.agents.gps import linear_gaussian as lg

_marginals = jax.jit(lg.marginals)
_divergence = jax.jit(lg.divergence)
_expected_cost = jax.jit(lg.expected_cost)
_log_density = jax.jit(lg.log_density)
_mean_action = jax.jit(lg.mean_action)
_covariance = jax.jit(lg.covariance)
_state_marginals = jax.jit(lg.state_marginals, static_argnums=1)


@pytest.mark.parametrize('case', [0, 1, 2])
def test_golden_a_forward_pass(double, golden, case):
  known = golden('lqr_pass')
  new, old = known.controller(f'out{case}'), known.controller('in_prev')
  flow = _marginals(known.dynamics(), new, known.initial())
  found = {
    'mu': flow.mean,
    'sigma': flow.covariance,
    'pred_cost_per_step': _expected_cost(known.cost(), flow),
    'kl_per_step': _divergence(new, old, _state_marginals(flow, 6)),
  }
  for name, values in found.items():
    expected = known[f'out{case}_{name}']
    np.testing.assert_allclose(values, expected, rtol=1e-8, atol=1e-10, err_msg=name)


def test_golden_divergence_under_the_anchor(double, golden):
  known = golden('lqr_update')
  new, old = known.controller('out'), known.controller('in_prev')
  before = _marginals(known.dynamics(), old, known.initial())
  found = _divergence(new, old, _state_marginals(before, 6))
  np.testing.assert_allclose(found, known['out_kl_under_prev_per_step'], rtol=1e-8)


def test_log_density_is_that_of_scipy(double, problem):
  controller = problem(0).controller
  random = np.random.default_rng(1)
  states, actions = random.normal(size=[4, 8, 3]), random.normal(size=[4, 8, 2])
  found = _log_density(controller, states, actions)
  means = np.asarray(_mean_action(controller, states))
  covs = np.asarray(_covariance(controller))
  expected = [
    [
      scipy.stats.multivariate_normal(m, c).logpdf(u)
      for m, c, u in zip(*row, strict=True)
    ]
    for row in zip(means, [covs] * 4, actions, strict=True)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_divergence_is_the_mean_log_ratio(double, problem):
  # Against half a million samples: four standard errors.
  new, old = problem(0).controller, problem(1).controller
  flow = _marginals(problem(0).dynamics, new, problem(0).initial)
  states = jax.device_get(_state_marginals(flow, 3))
  random = np.random.default_rng(2)
  root = np.linalg.cholesky(states.covariance)
  drawn = random.normal(size=[60_000, 8, 3])
  x = states.mean[None] + np.einsum('txy,nty->ntx', root, drawn)
  shaken = np.einsum('tab,ntb->nta', new.scale_tril, random.normal(size=[60_000, 8, 2]))
  u = np.asarray(_mean_action(new, x)) + shaken
  ratio = np.subtract(_log_density(new, x, u), _log_density(old, x, u))
  error = ratio.std(0) / np.sqrt(len(ratio))
  expected = np.asarray(_divergence(new, old, states))
  assert (abs(ratio.mean(0) - expected) < 4.0 * error).all()


def test_divergence_from_itself_is_nought(double, problem):
  controller = problem(0).controller
  flow = _marginals(problem(0).dynamics, controller, problem(0).initial)
  own = _divergence(controller, controller, _state_marginals(flow, 3))
  np.testing.assert_allclose(own, 0.0, atol=1e-14)


def test_surprise_is_the_density_but_for_a_constant(double, problem):
  controller = problem(0).controller
  random = np.random.default_rng(3)
  x, u = random.normal(size=[8, 3]), random.normal(size=[8, 2])
  point = lg.Gaussian(np.concatenate([x, u], 1), np.zeros([8, 5, 5]))
  spread = np.asarray(jax.jit(lg.log_determinant)(controller.scale_tril))
  normaliser = 0.5 * spread + np.log(2.0 * np.pi)
  np.testing.assert_allclose(
    _expected_cost(jax.jit(lg.surprise)(controller), point) + normaliser,
    np.negative(_log_density(controller, x, u)),
    rtol=1e-10,
  )


def test_precision_inverts_the_covariance(double, problem):
  controller = problem(0).controller
  precision = np.asarray(jax.jit(lg.precision)(controller))
  product = precision @ np.asarray(_covariance(controller))
  np.testing.assert_allclose(product, np.broadcast_to(np.eye(2), (8, 2, 2)), atol=1e-12)


def test_marginals_trace_once(problem):
  traces = []

  @jax.jit
  def flow(*arguments):
    traces.append(arguments)
    return lg.marginals(*arguments)

  for seed in range(3):
    found = flow(problem(seed).dynamics, problem(seed).controller, problem(0).initial)
  assert len(traces) == 1
  assert found.mean.dtype == jnp.float32


def test_elimination_is_a_cholesky_factor_and_its_inverse(double):
  random = np.random.default_rng(4)
  root, right = random.normal(size=[3, 7, 9]), random.normal(size=[3, 7, 2])
  matrix = root @ root.swapaxes(1, 2)
  factor, solved = lg.eliminate(jnp.asarray(matrix), jnp.asarray(right))
  known = np.linalg.cholesky(matrix)
  np.testing.assert_allclose(factor, known, rtol=1e-10, atol=1e-12)
  np.testing.assert_allclose(solved, np.linalg.solve(known, right), rtol=1e-9)
  inverse = lg.inverse_factor(jnp.asarray(known))
  np.testing.assert_allclose(inverse, np.linalg.inv(known), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('least', [0.0, -1.0])
def test_what_is_not_positive_definite_has_no_factor(double, least):
  matrix = jnp.diag(jnp.array([1.0, least, 2.0]))
  assert jnp.isnan(jnp.diagonal(lg.cholesky(matrix))).any()
