"""Expectation maximisation, against its textbook form and on bad data."""

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from armfarm.agents.gps import mixture as gmm

_OPTIONS = gmm.Options(ridge=1e-6, tolerance=1e-5, max_steps=100)
_fit = jax.jit(gmm.fit, static_argnums=4)
_grow = jax.jit(gmm.grow)
_maximise = jax.jit(gmm.maximise, static_argnums=3)
_log_densities = jax.jit(gmm.log_densities)
_responsibilities = jax.jit(gmm.responsibilities)
_covariance = jax.jit(lambda mixture: mixture.covariance)


@pytest.fixture(autouse=True)
def _wide(double):
  del double


def _points(seed=0, count=300):
  """Points of two flat Gaussians in four dimensions, and of which one each is."""
  random = np.random.default_rng(seed)
  which = random.integers(0, 2, count)
  root = random.normal(size=[2, 4, 4])
  center = 8.0 * random.normal(size=[2, 4])
  noise = np.einsum('nij,nj->ni', root[which], random.normal(size=[count, 4]))
  return center[which] + noise, which


def _start(points, gaussians, options=_OPTIONS, mixture=None, wanted=None, seed=0):
  mixture = gmm.empty(gaussians, points.shape[1]) if mixture is None else mixture
  wanted = np.float64(gaussians if wanted is None else wanted)
  mask = np.ones(len(points))
  return _fit(mixture, points, mask, wanted, options, jax.random.key(seed))


def _logs(mixture, points):
  """log (w N(y)), by scipy."""
  columns = [
    np.log(w) + scipy.stats.multivariate_normal(m, c).logpdf(points)
    for w, m, c in zip(
      *map(np.asarray, (mixture.weights, mixture.mean, _covariance(mixture))),
      strict=True,
    )
  ]
  return np.stack(columns, axis=1)


def _textbook(mixture, points, ridge):
  """One step with centred sums, and the likelihood before it."""
  logs = _logs(mixture, points)
  likelihood = scipy.special.logsumexp(logs, axis=1)
  given = np.exp(logs - likelihood[:, None])
  mass = given.sum(0)
  mean = given.T @ points / mass[:, None]
  apart = points[:, None] - mean[None]
  cov = np.einsum('pg,pgd,pge->gde', given, apart, apart) / mass[:, None, None]
  cov += ridge * np.eye(points.shape[1])
  return gmm.Mixture(
    mass / mass.sum(), mean, np.linalg.cholesky(cov)
  ), likelihood.mean()


def test_steps_are_those_of_the_textbook():
  points = scipy.stats.zscore(_points()[0])
  mask = np.ones(len(points))
  start = _grow(gmm.empty(3, 4), points, mask, 3.0, 1e-6, jax.random.key(0))
  mixture, likelihoods = start, []
  for _ in range(7):
    mixture, likelihood = _textbook(mixture, points, 1e-6)
    likelihoods.append(likelihood)
  options = gmm.Options(ridge=1e-6, tolerance=-1.0, max_steps=8)
  found = _maximise(start, points, mask, options)
  assert found.steps == 8
  assert (np.diff(likelihoods) > 0.0).all()
  for x, y in zip(found.mixture, mixture, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10)


def test_two_clusters_are_told_apart():
  points, which = _points()
  found = _start(points, 4, wanted=2).mixture
  given = np.asarray(_responsibilities(found, points)).argmax(1)
  assert (given == which).all() or (given == 1 - which).all()
  one = int(given[which == 0][0])
  part = points[which == 0]
  weight, mean, covariance = (
    np.asarray(x)[one] for x in (found.weights, found.mean, _covariance(found))
  )
  np.testing.assert_allclose(mean, part.mean(0), rtol=1e-6)
  cov = np.cov(part.T, bias=True)
  np.testing.assert_allclose(covariance, cov, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(weight, (which == 0).mean())


def test_log_densities_are_those_of_scipy():
  points, _ = _points()
  found = _start(points, 4).mixture
  np.testing.assert_allclose(
    _log_densities(found, points), _logs(found, points), rtol=1e-8
  )


def test_units_do_not_matter():
  points, _ = _points()
  units = np.array([1e-3, 1.0, 1e4, 7.0])
  plain, scaled = _start(points, 4), _start(points * units[None] + 5.0, 4)
  assert plain.steps == scaled.steps
  np.testing.assert_allclose(plain.log_likelihood, scaled.log_likelihood, rtol=1e-6)
  np.testing.assert_allclose(
    np.asarray(plain.mixture.mean) * units[None] + 5.0, scaled.mixture.mean, rtol=1e-5
  )


def test_a_warm_start_goes_on_from_the_last():
  points, _ = _points()
  first = _start(points, 4)
  again = _start(points, 4, mixture=first.mixture)
  assert first.steps > 2
  assert again.steps <= 2
  assert again.log_likelihood >= first.log_likelihood - 1e-6


def test_growing_keeps_those_that_exist():
  points = scipy.stats.zscore(_points()[0])
  two = jax.device_get(_start(points, 4, wanted=2).mixture)
  assert (two.weights > 0.0).tolist() == [True, True, False, False]
  grown = _grow(two, points, np.ones(len(points)), 4.0, 1e-6, jax.random.key(1))
  four = jax.device_get(grown)
  np.testing.assert_array_equal(four.mean[:2], two.mean[:2])
  np.testing.assert_array_equal(four.scale_tril[:2], two.scale_tril[:2])
  np.testing.assert_allclose(four.weights.sum(), 1.0)
  rows = {tuple(row) for row in points}
  assert all(tuple(row) in rows for row in four.mean[2:])
  assert len({tuple(row) for row in four.mean}) == 4


def test_points_that_do_not_count_change_nothing():
  points, _ = _points()
  wanted = np.float64(1.0)
  none, first, second = gmm.empty(1, 4), jax.random.key(0), jax.random.key(1)
  fewer = _fit(none, points[:200].copy(), np.ones(200), wanted, _OPTIONS, first)
  points[200:] = 1e6
  mask = (np.arange(300) < 200).astype(float)
  masked = _fit(none, points, mask, wanted, _OPTIONS, second)
  np.testing.assert_allclose(masked.mixture.mean, fewer.mixture.mean, rtol=1e-10)
  np.testing.assert_allclose(
    _covariance(masked.mixture), _covariance(fewer.mixture), rtol=1e-9
  )


def test_single_precision_is_enough_between_two_fits():
  random = np.random.default_rng(0)
  still = 1e-6 * random.normal(size=[500, 12])
  line = random.normal(size=[5, 1]) * random.normal(size=[1, 12])  # its own Gaussian
  points = np.concatenate([still, line])
  found = _start(points, 2)
  rounded = jax.tree.map(np.float32, found.mixture)
  cov = np.asarray(_covariance(found.mixture), np.float32).astype(np.float64)
  assert np.linalg.eigvalsh(cov).min() < 0.0  # as a covariance it would not be
  again = _start(points, 2, mixture=jax.tree.map(np.float64, rounded))
  np.testing.assert_allclose(again.log_likelihood, found.log_likelihood, rtol=1e-3)


@pytest.mark.parametrize('kind', ['one', 'repeated', 'constant', 'line', 'huge'])
def test_bad_points_give_a_mixture(kind):
  points, _ = _points()
  points = {
    'one': np.repeat(points[:1], 300, 0),
    'repeated': np.repeat(points[:3], 100, 0),
    'constant': points * np.array([1.0, 0.0, 1.0, 0.0]),
    'line': points[:, :1] * np.ones([1, 4]),
    'huge': 1e12 * points,
  }[kind]
  found = _start(points, 4).mixture
  assert all(np.isfinite(x).all() for x in found)
  assert (np.linalg.eigvalsh(_covariance(found)) > 0.0).all()
  np.testing.assert_allclose(np.sum(found.weights), 1.0)
  assert np.isfinite(_responsibilities(found, points)).all()
