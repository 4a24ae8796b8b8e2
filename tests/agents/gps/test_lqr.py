"""The constrained regulator: golden cases, closed forms, and anything finite."""

import hypothesis
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import lqr

_OPTIONS = lqr.Options(tolerance=0.1, min_eta=1e-8, max_eta=1e16, max_passes=50)


@jax.jit
def _improve(*arguments):
  return lqr.improve(*arguments)


def _run(model, cost, anchor, epsilon, eta=1.0, entropy=None, options=_OPTIONS):
  like = anchor.offset.dtype
  entropy = np.zeros(len(anchor.offset), like) if entropy is None else entropy
  scalars = np.asarray(epsilon, like), np.asarray(eta, like)
  return _improve(model, cost, anchor, *scalars, entropy, options)


_marginals = jax.jit(lg.marginals)  # not compiled, a scan is traced at every call
_optimal = jax.jit(lqr.optimal)
_covariance = jax.jit(lg.covariance)
_precision = jax.jit(lg.precision)
_expected_cost = jax.jit(lg.expected_cost)
_surprise = jax.jit(lg.surprise)


@jax.jit
def _divergence(model, new, old):
  flow = lg.marginals(model.dynamics, new, model.initial)
  states = model.states or lg.state_marginals(flow, new.gain.shape[2])
  return lg.divergence(new, old, states).sum()


def _distance(model, new, old):
  return float(_divergence(model, new, old))


def _error(found, expected):
  """Largest difference, relative to the largest entry."""
  return np.abs(found - expected).max() / np.abs(expected).max()


def _golden_pass(golden, case):
  """What one pass at the golden eta gives: epsilon is just above its divergence."""
  known = golden('lqr_pass')
  model = lqr.Model(known.dynamics(), known.initial())
  epsilon, eta = 1.001 * known[f'out{case}_kl'], known[f'out{case}_eta']
  return known, _run(model, known.cost(), known.controller('in_prev'), epsilon, eta)


@pytest.mark.parametrize('case', [0, 1, 2])
def test_golden_pass(double, golden, case):
  known, found = _golden_pass(golden, case)
  assert found.passes == 1
  assert _error(found.controller.gain, known[f'out{case}_K']) < 1e-8
  assert _error(found.controller.offset, known[f'out{case}_k']) < 1e-8
  assert _error(_covariance(found.controller), known[f'out{case}_C']) < 1e-8
  np.testing.assert_allclose(found.divergence, known[f'out{case}_kl'], rtol=1e-8)


@pytest.mark.parametrize('case', [0, 1, 2])
def test_golden_pass_in_single_precision(golden, case):
  known, found = _golden_pass(golden, case)
  assert found.controller.gain.dtype == jnp.float32
  assert _error(found.controller.gain, known[f'out{case}_K']) < 1e-4
  assert _error(found.controller.offset, known[f'out{case}_k']) < 1e-4
  assert _error(_covariance(found.controller), known[f'out{case}_C']) < 1e-4


def _golden_update(golden):
  known = golden('lqr_update')
  model = lqr.Model(known.dynamics(), known.initial())
  return known, model, known.cost(), known.controller('in_prev')


def test_golden_divergence_at_every_eta_of_the_search(double, golden):
  known, *problem = _golden_update(golden)
  once = _OPTIONS._replace(max_passes=1)
  for eta, kl in zip(known['out_eta_in_trace'], known['out_kl_trace'], strict=True):
    found = _run(*problem, 1.001 * kl, eta, options=once)
    np.testing.assert_allclose(found.divergence, kl, rtol=1e-8)
  assert _error(found.controller.gain, known['out_K']) < 1e-8
  assert _error(found.controller.offset, known['out_k']) < 1e-8
  assert _error(_covariance(found.controller), known['out_C']) < 1e-8


def test_search_needs_fewer_passes_than_the_golden_one(double, golden):
  known, *problem = _golden_update(golden)
  found = _run(*problem, known['out_kl_target'], known['in_eta0'])
  assert lqr.REASONS[found.reason] == 'met'
  assert found.passes < known['out_n_backward']
  assert 0.9 * 4.0 <= found.divergence <= 4.0


def test_mdgps_golden(double, golden):
  known = golden('mdgps')
  model = lqr.Model(known.dynamics(), known.initial())
  anchor = lg.Controller(
    known['out_pol_K'], known['out_pol_k'], np.linalg.cholesky(known['out_pol_S'])
  )
  found = _run(model, known.cost(), anchor, known['out_kl_target'])
  assert found.passes == known['out_n_backward']
  assert _error(found.controller.gain, known['out_K']) < 1e-8
  assert _error(found.controller.offset, known['out_k']) < 1e-8
  assert _error(_covariance(found.controller), known['out_C']) < 1e-8
  np.testing.assert_allclose(found.divergence, known['out_kl'], rtol=1e-8)


def _kkt(dynamics, hessian, gradient, x):
  """Minimises sum_t z.H.z / 2 + g.z subject to the mean dynamics, as one system."""
  steps, state, both = dynamics.matrix.shape
  rows, right = np.zeros([steps, state, steps, both]), np.zeros([steps, state])
  for t in range(steps):
    rows[t, :, t, :state] = np.eye(state)
    if t:
      rows[t, :, t - 1] = -dynamics.matrix[t - 1]
    right[t] = dynamics.offset[t - 1] if t else x
  rows = rows.reshape(steps * state, steps * both)
  dense = scipy.linalg.block_diag(*hessian)
  system = np.block([[dense, rows.T], [rows, np.zeros([len(rows)] * 2)]])
  solution = np.linalg.solve(system, np.concatenate([-gradient.ravel(), right.ravel()]))
  return solution[: steps * both].reshape(steps, both)


def test_mean_trajectory_solves_the_dense_system(double, problem):
  p = problem(0)
  eta = 0.7
  found = _run(
    lqr.Model(p.dynamics, p.initial),
    p.cost,
    p.controller,
    1e9,
    eta,
    options=_OPTIONS._replace(max_passes=1),
  )
  pull = _surprise(p.controller)
  expected = _kkt(
    p.dynamics,
    p.cost.hessian / eta + np.asarray(pull.hessian),
    p.cost.gradient / eta + np.asarray(pull.gradient),
    p.initial.mean,
  )
  flow = _marginals(p.dynamics, found.controller, p.initial)
  np.testing.assert_allclose(flow.mean, expected, rtol=1e-9, atol=1e-9)


def test_regulator_tends_to_that_of_riccati(double, problem):
  p = problem(1, steps=200)
  hessian = np.broadcast_to(p.cost.hessian[0], (200, 5, 5))
  cost = p.cost._replace(hessian=hessian, gradient=np.zeros([200, 5]))
  a, b = np.split(p.dynamics.matrix[0], [3], axis=1)
  q, r, s = hessian[0, :3, :3], hessian[0, 3:, 3:], hessian[0, :3, 3:]
  value = scipy.linalg.solve_discrete_are(a, b, q, r, s=s)
  curvature = r + b.T @ value @ b
  gain = -np.linalg.solve(curvature, b.T @ value @ a + s.T)
  found = _optimal(p.dynamics, cost)
  first = np.asarray(_precision(found))[0]
  np.testing.assert_allclose(np.asarray(found.gain)[0], gain, rtol=1e-8)
  np.testing.assert_allclose(first, curvature, rtol=1e-8)


def test_one_step_with_an_entropy_and_a_pull(double, problem):
  # min E c + w KL(p || q) + eta KL(p || old) in one step is a product of Gaussians:
  # (eta + w) P = H_uu + eta P_old + w P_q, and P (K x + k) adds up likewise.
  p, q, weight, eta = problem(0, steps=1), problem(1, steps=1).controller, 0.6, 1.7
  pull = jax.device_get(_surprise(q))
  cost = jax.tree.map(lambda c, s: c + weight * s, p.cost, pull)
  found = _run(
    lqr.Model(p.dynamics, p.initial),
    cost,
    p.controller,
    1e9,
    eta,
    np.full([1], weight),
    _OPTIONS._replace(max_passes=1),
  ).controller
  old, own, new = (np.asarray(_precision(c))[0] for c in (p.controller, q, found))
  hessian, gradient = p.cost.hessian[0], p.cost.gradient[0]
  curved = hessian[3:, 3:] + eta * old + weight * own
  gain = eta * old @ p.controller.gain[0] + weight * own @ q.gain[0] - hessian[3:, :3]
  offset = eta * old @ p.controller.offset[0] + weight * own @ q.offset[0]
  np.testing.assert_allclose(new, curved / (eta + weight))
  np.testing.assert_allclose(found.gain, np.linalg.solve(curved, gain)[None])
  np.testing.assert_allclose(
    found.offset, np.linalg.solve(curved, offset - gradient[3:])[None]
  )


@pytest.mark.parametrize('epsilon', [1e-3, 1.0, 100.0])
@pytest.mark.parametrize('eta', [1e-6, 1.0, 1e8])
def test_search_meets_the_constraint_from_anywhere(double, problem, epsilon, eta):
  p = problem(2)
  model = lqr.Model(p.dynamics, p.initial)
  found = _run(model, p.cost, p.controller, epsilon, eta)
  assert lqr.REASONS[found.reason] == 'met'
  assert found.passes <= 12
  assert 0.9 * epsilon <= _distance(model, found.controller, p.controller) <= epsilon
  costs = [
    np.sum(_expected_cost(p.cost, _marginals(p.dynamics, c, p.initial)))
    for c in (found.controller, p.controller)
  ]
  assert costs[0] < costs[1]


def test_a_constraint_that_is_not_active(double, problem):
  p = problem(2)
  found = _run(lqr.Model(p.dynamics, p.initial), p.cost, p.controller, 1e6)
  free = _optimal(p.dynamics, p.cost)
  assert lqr.REASONS[found.reason] == 'slack'
  np.testing.assert_allclose(found.controller.gain, free.gain, rtol=1e-5, atol=1e-6)


def test_divergence_over_given_states(double, problem):
  p = problem(3)
  seen = lg.Gaussian(np.ones([8, 3]), np.zeros([8, 3, 3]))
  model = lqr.Model(p.dynamics, p.initial, seen)
  found = _run(model, p.cost, p.controller, 2.0)
  assert lqr.REASONS[found.reason] == 'met'
  distance = _distance(model, found.controller, p.controller)
  np.testing.assert_allclose(found.divergence, distance)
  assert 1.8 <= distance <= 2.0


def test_an_indefinite_cost_is_met_with_a_larger_eta(double, problem):
  p = problem(4)
  cost = p.cost._replace(hessian=p.cost.hessian - 3.0 * np.eye(5)[None])
  model = lqr.Model(p.dynamics, p.initial)
  found = _run(model, cost, p.controller, 0.5, 1e-4)
  assert lqr.REASONS[found.reason] == 'met'
  assert 0.45 <= _distance(model, found.controller, p.controller) <= 0.5


def test_a_model_that_explodes_keeps_the_anchor(double, problem):
  # What the reference dies of: the divergence falls with log eta only.
  p = problem(5, steps=100)
  matrix = p.dynamics.matrix * [2.5, 2.5, 2.5, 1.0, 1.0]
  model = lqr.Model(p.dynamics._replace(matrix=matrix), p.initial)
  found = _run(model, p.cost, p.controller, 1e-3)
  assert lqr.REASONS[found.reason] == 'unreachable'
  assert found.passes <= 50
  assert found.divergence == 0.0
  for new, old in zip(found.controller, p.controller, strict=True):
    np.testing.assert_array_equal(new, old)


def test_a_cost_that_is_indefinite_beyond_rescue_keeps_the_anchor(double, problem):
  p = problem(5, steps=100)
  matrix = p.dynamics.matrix * [2.5, 2.5, 2.5, 1.0, 1.0]
  cost = p.cost._replace(hessian=-p.cost.hessian)
  model = lqr.Model(p.dynamics._replace(matrix=matrix), p.initial)
  found = _run(model, cost, p.controller, 1.0)
  assert lqr.REASONS[found.reason] == 'indefinite'
  np.testing.assert_array_equal(found.controller.gain, p.controller.gain)


def test_single_precision_agrees_with_double(double, problem):
  p = problem(6)
  arguments = lqr.Model(p.dynamics, p.initial), p.cost, p.controller
  single = jax.tree.map(lambda x: x.astype(np.float32), arguments)
  wide, narrow = _run(*arguments, 1.0), _run(*single, 1.0)
  assert narrow.controller.gain.dtype == jnp.float32
  assert wide.passes == narrow.passes
  for x, y in zip(wide.controller, narrow.controller, strict=True):
    assert _error(y, x) < 1e-4


_EXPONENTS = strategies.floats(-12.0, 12.0)
_DEGENERATE = strategies.fixed_dictionaries(
  {
    'seed': strategies.integers(0, 2**31),
    'growth': strategies.floats(0.0, 3.0),  # of the state, in a step
    'cost': _EXPONENTS,
    'shift': strategies.sampled_from([0.0, 1.0, 30.0]),  # indefinite, concave
    'flat': strategies.booleans(),
    'noise': strategies.sampled_from([0.0, 1e-12, 1.0]),
  }
)


def _degenerate(problem_class, case):
  """A model, a cost and an anchor that may be bad in every way that is finite."""
  p = problem_class(case['seed'], steps=20)
  scale = 0.0 if case['flat'] else 10.0 ** case['cost']
  like, growth = p.cost.hessian.dtype, case['growth']
  cost = p.cost._replace(
    hessian=scale * (p.cost.hessian - case['shift'] * np.eye(5, dtype=like)[None]),
    gradient=scale * p.cost.gradient,
  )
  dynamics = p.dynamics._replace(
    matrix=p.dynamics.matrix * np.array([growth, growth, growth, 1.0, 1.0], like),
    covariance=case['noise'] * p.dynamics.covariance,
  )
  initial = p.initial._replace(covariance=case['noise'] * p.initial.covariance)
  return lqr.Model(dynamics, initial), cost, p.controller


@hypothesis.given(
  case=_DEGENERATE,
  epsilon=strategies.floats(-6.0, 3.0),
  eta=_EXPONENTS,
  wide=strategies.booleans(),
)
@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
def test_total(problem_class, case, epsilon, eta, wide):
  jax.config.update('jax_enable_x64', wide)
  model, cost, anchor = _degenerate(problem_class, case)
  epsilon = 10.0**epsilon
  found = _run(model, cost, anchor, epsilon, 10.0**eta)
  assert found.passes <= 50
  assert all(np.isfinite(x).all() for x in found.controller)
  assert (np.diagonal(found.controller.scale_tril, axis1=1, axis2=2) > 0.0).all()
  if found.reason > lqr.INSIDE:
    return np.testing.assert_array_equal(found.controller.gain, anchor.gain)
  distance = _distance(model, found.controller, anchor)
  slack = 1e-6 if wide else 1e-3
  assert distance <= epsilon * (1.0 + slack) + (0.0 if wide else 1e-5)
  np.testing.assert_allclose(found.divergence, distance, rtol=1e-3, atol=1e-5)


def test_improve_traces_once(double, problem):
  before = _improve._cache_size()
  for seed in range(3):
    p = problem(seed, steps=5)
    model = lqr.Model(p.dynamics, p.initial)
    _run(model, p.cost, p.controller, 10.0**seed, 0.1**seed)
  assert _improve._cache_size() == before + 1
