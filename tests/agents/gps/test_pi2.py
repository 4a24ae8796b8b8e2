"""PI2: exact temperatures, golden cases, and rollouts that say little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import pi2

_OPTIONS = pi2.Options(
  epsilon=1.0, min_temperature=1e-3, damping=2.0, covariance_floor=1e-12
)
_temperature = jax.jit(pi2.temperature)
_improve = jax.jit(pi2.improve, static_argnums=4)
_reweigh = jax.jit(pi2.reweigh, static_argnums=4)
_covariance = jax.jit(lg.covariance)


def _golden(golden):
  """The golden rollouts as those of a controller without gains."""
  known = golden('pi2')
  anchor = lg.Controller(
    np.zeros([20, 2, 3]),
    known['in_mean_old'],
    np.linalg.cholesky(known['in_cov_old']),
  )
  return known, anchor, known['in_samples'], known['in_costs']


def test_golden_at_the_golden_temperature(double, golden):
  known, anchor, samples, costs = _golden(golden)
  share = jax.jit(pi2.weights)(jax.jit(pi2.costs_to_go)(costs), known['out_eta'])
  states = np.zeros([*samples.shape[:2], 3])
  found = _reweigh(anchor, states, samples, share, _OPTIONS)
  np.testing.assert_allclose(share, known['out_prob'].T, rtol=1e-8)
  np.testing.assert_allclose(found.offset, known['out_k'], rtol=1e-8)
  np.testing.assert_allclose(_covariance(found), known['out_C'], rtol=1e-8)


def test_golden_exact_temperature(double, golden):
  known, anchor, samples, costs = _golden(golden)
  states = np.zeros([*samples.shape[:2], 3])
  found = _improve(anchor, states, samples, costs, _OPTIONS)
  np.testing.assert_allclose(found.temperature, known['chk_eta_exact'], rtol=1e-8)
  np.testing.assert_allclose(
    found.controller.offset, known['chk_k_exact'], rtol=1e-8, atol=1e-10
  )
  # The optimiser of the published code stops short of it.
  np.testing.assert_allclose(found.temperature, known['out_eta'], rtol=1e-3)


def _entropy(costs, eta):
  weights = scipy.special.softmax(-np.asarray(costs) / eta)
  return scipy.stats.entropy(weights, np.full(len(costs), 1.0 / len(costs)))


@pytest.mark.parametrize('unit', [1e-8, 1.0, 1e12])
@pytest.mark.parametrize('epsilon', [1e-6, 1.0, 2.9])
def test_temperature_is_the_root(double, unit, epsilon):
  costs = unit * np.random.default_rng(0).exponential(size=20) ** 2
  eta = np.asarray(_temperature(costs, np.float64(epsilon), np.float64(1e-20)))
  np.testing.assert_allclose(_entropy(costs, eta), epsilon, rtol=1e-6)
  root = scipy.optimize.brentq(
    lambda x: _entropy(costs, unit * np.exp(x)) - epsilon, -14.0, 14.0, xtol=1e-13
  )
  np.testing.assert_allclose(np.log(eta / unit), root, atol=1e-9)


def test_temperature_minimises_the_dual(double):
  # The same eta minimises eta eps + eta log mean exp(-S / eta).
  costs = np.random.default_rng(1).normal(size=15)
  eta = np.asarray(_temperature(costs, np.float64(0.7), np.float64(1e-9)))

  @jax.jit
  def dual(x):
    return x * 0.7 + x * jax.nn.logsumexp(-costs / x) - x * jnp.log(15.0)

  np.testing.assert_allclose(jax.jit(jax.grad(dual))(eta), 0.0, atol=1e-10)
  assert dual(eta) < min(dual(0.9 * eta), dual(1.1 * eta))


def test_temperature_in_single_precision():
  costs = np.random.default_rng(2).normal(size=30)
  bounds = np.float32(1.0), np.float32(1e-3)
  eta = np.asarray(_temperature(np.float32(costs), *bounds))
  np.testing.assert_allclose(_entropy(costs, eta), 1.0, rtol=1e-4)


@pytest.mark.parametrize(
  'costs',
  [np.zeros(8), np.full(8, 1e9), np.repeat([0.0, 1.0], [4, 4]), np.eye(8)[0] * 1e-9],
  ids=['zeros', 'same', 'ties', 'below the floor'],
)
def test_no_root_gives_the_floor(double, costs):
  # Four ties of eight leave log 2 = 0.69 nats even at eta = 0.
  eta = _temperature(costs, np.float64(1.0), np.float64(1e-3))
  assert eta == 1e-3


def _rollouts(count=30, seed=0):
  random = np.random.default_rng(seed)
  tril = np.broadcast_to(np.array([[0.5, 0.0], [0.2, 0.3]]), (6, 2, 2))
  gain, offset = random.normal(size=[6, 2, 3]), random.normal(size=[6, 2])
  anchor = lg.Controller(gain, offset, tril)
  states = random.normal(size=[count, 6, 3])
  shaken = np.einsum('tab,ntb->nta', tril, random.normal(size=[count, 6, 2]))
  return anchor, states, np.einsum('tax,ntx->nta', gain, states) + offset + shaken


def test_improvement_lowers_the_cost(double):
  anchor, states, actions = _rollouts(500)
  goal = anchor.offset + 0.3
  offsets = actions - np.einsum('tax,ntx->nta', anchor.gain, states)
  costs = np.sum((offsets - goal[None]) ** 2, axis=2)
  found = jax.device_get(_improve(anchor, states, actions, costs, _OPTIONS).controller)
  before, after = (np.sum((c.offset - goal) ** 2, axis=1) for c in (anchor, found))
  assert (after[-1] < before[-1]).all()
  assert after.sum() < before.sum()
  np.testing.assert_array_equal(found.gain, anchor.gain)


def test_undamped_covariance_is_that_of_the_weighted_actions(double):
  anchor, states, actions = _rollouts()
  costs = np.random.default_rng(3).normal(size=[30, 6])
  options = _OPTIONS._replace(damping=0.0)
  found = jax.device_get(_improve(anchor, states, actions, costs, options))
  covariance = np.asarray(_covariance(found.controller))
  offsets = actions - np.einsum('tax,ntx->nta', anchor.gain, states)
  for t in range(6):
    expected = np.cov(offsets[:, t].T, aweights=found.weights[:, t], ddof=0)
    np.testing.assert_allclose(covariance[t], expected)


@pytest.mark.parametrize('damping', [0.0, 2.0])
@pytest.mark.parametrize('kind', ['huge', 'same', 'repeated', 'one winner'])
def test_covariance_never_collapses(double, damping, kind):
  anchor, states, actions = _rollouts()
  costs = np.random.default_rng(4).normal(size=[30, 6])
  if kind == 'huge':
    costs = 1e200 * costs
  if kind == 'same':
    costs = np.ones([30, 6])
  if kind == 'repeated':
    actions = np.einsum('tax,ntx->nta', anchor.gain, states)
  if kind == 'one winner':
    costs = 1e6 * (np.arange(30) > 0)[:, None] * np.ones([1, 6])
  options = _OPTIONS._replace(damping=damping, covariance_floor=1e-4)
  found = _improve(anchor, states, actions, costs, options).controller
  assert all(np.isfinite(x).all() for x in found)
  assert (np.linalg.eigvalsh(_covariance(found)) >= 1e-4 * (1.0 - 1e-9)).all()


@pytest.mark.parametrize(('epsilon', 'rollouts'), [(0.0, 9), (1.0, 1), (2.0, 7)])
def test_a_temperature_that_does_not_exist_is_refused(epsilon, rollouts):
  with pytest.raises(ValueError, match='use more rollouts or a smaller epsilon'):
    pi2.check(_OPTIONS._replace(epsilon=epsilon), rollouts)


def test_options_that_are_fine():
  pi2.check(_OPTIONS, 30)
  with pytest.raises(ValueError, match='must be positive'):
    pi2.check(_OPTIONS._replace(covariance_floor=0.0), 30)


def test_improve_traces_once(double):
  before = _improve._cache_size()
  for seed in range(3):
    anchor, states, actions = _rollouts(11, seed)
    _improve(anchor, states, actions, np.full([11, 6], float(seed)), _OPTIONS)
  assert _improve._cache_size() == before + 1
