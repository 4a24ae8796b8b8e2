"""Expectation maximisation, against its textbook form and on bad data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from armfarm.agents.gps import mixture as gmm

_OPTIONS = gmm.Options(ridge=1e-6, tolerance=1e-5, max_steps=100)
_fit = jax.jit(gmm.fit, static_argnums=4)


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
  points = jnp.asarray(points)
  mixture = gmm.empty(gaussians, points.shape[1]) if mixture is None else mixture
  wanted = jnp.float64(gaussians if wanted is None else wanted)
  mask = jnp.ones(len(points))
  return _fit(mixture, points, mask, wanted, options, jax.random.key(seed))


def _logs(mixture, points):
  """log (w N(y)), by scipy."""
  columns = [
    np.log(w) + scipy.stats.multivariate_normal(m, c).logpdf(points)
    for w, m, c in zip(mixture.weights, mixture.mean, mixture.covariance, strict=True)
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
  mask = jnp.ones(len(points))
  start = gmm.grow(
    gmm.empty(3, 4), jnp.asarray(points), mask, 3.0, 1e-6, jax.random.key(0)
  )
  mixture, likelihoods = start, []
  for _ in range(7):
    mixture, likelihood = _textbook(mixture, points, 1e-6)
    likelihoods.append(likelihood)
  options = gmm.Options(ridge=1e-6, tolerance=-1.0, max_steps=8)
  found = gmm.maximise(start, jnp.asarray(points), mask, options)
  assert found.steps == 8
  assert (np.diff(likelihoods) > 0.0).all()
  for x, y in zip(found.mixture, mixture, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10)


def test_two_clusters_are_told_apart():
  points, which = _points()
  found = _start(points, 2).mixture
  given = gmm.responsibilities(found, jnp.asarray(points)).argmax(1)
  assert (given == which).all() or (given == 1 - which).all()
  one = int(given[which == 0][0])
  part = points[which == 0]
  np.testing.assert_allclose(found.mean[one], part.mean(0), rtol=1e-6)
  cov = np.cov(part.T, bias=True)
  np.testing.assert_allclose(found.covariance[one], cov, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(found.weights[one], (which == 0).mean())


def test_log_densities_are_those_of_scipy():
  points, _ = _points()
  found = _start(points, 3).mixture
  np.testing.assert_allclose(
    gmm.log_densities(found, jnp.asarray(points)), _logs(found, points), rtol=1e-8
  )


def test_units_do_not_matter():
  points, _ = _points()
  units = np.array([1e-3, 1.0, 1e4, 7.0])
  plain, scaled = _start(points, 3), _start(points * units[None] + 5.0, 3)
  assert plain.steps == scaled.steps
  np.testing.assert_allclose(plain.log_likelihood, scaled.log_likelihood, rtol=1e-6)
  np.testing.assert_allclose(
    plain.mixture.mean * units[None] + 5.0, scaled.mixture.mean, rtol=1e-5
  )


def test_a_warm_start_goes_on_from_the_last():
  points, _ = _points()
  first = _start(points, 3)
  again = _start(points, 3, mixture=first.mixture)
  assert first.steps > 2
  assert again.steps <= 2
  assert again.log_likelihood >= first.log_likelihood - 1e-6


def test_growing_keeps_those_that_exist():
  points = scipy.stats.zscore(_points()[0])
  two = _start(points, 4, wanted=2).mixture
  assert (two.weights > 0.0).tolist() == [True, True, False, False]
  four = gmm.grow(
    two, jnp.asarray(points), jnp.ones(len(points)), 4.0, 1e-6, jax.random.key(1)
  )
  np.testing.assert_array_equal(four.mean[:2], two.mean[:2])
  np.testing.assert_array_equal(four.scale_tril[:2], two.scale_tril[:2])
  np.testing.assert_allclose(four.weights.sum(), 1.0)
  rows = {tuple(row) for row in points}
  assert all(tuple(np.asarray(row)) in rows for row in four.mean[2:])
  assert len({tuple(np.asarray(row)) for row in four.mean}) == 4


def test_points_that_do_not_count_change_nothing():
  points, _ = _points()
  wanted = jnp.float64(1.0)
  fewer = _fit(
    gmm.empty(1, 4),
    jnp.asarray(points[:200]),
    jnp.ones(200),
    wanted,
    _OPTIONS,
    jax.random.key(0),
  )
  points[200:] = 1e6
  mask = jnp.asarray(np.arange(300) < 200, float)
  masked = _fit(
    gmm.empty(1, 4), jnp.asarray(points), mask, wanted, _OPTIONS, jax.random.key(1)
  )
  np.testing.assert_allclose(masked.mixture.mean, fewer.mixture.mean, rtol=1e-10)
  np.testing.assert_allclose(
    masked.mixture.covariance, fewer.mixture.covariance, rtol=1e-9
  )


def test_single_precision_is_enough_between_two_fits():
  random = np.random.default_rng(0)
  still = 1e-6 * random.normal(size=[500, 12])
  line = random.normal(size=[5, 1]) * random.normal(size=[1, 12])  # its own Gaussian
  points = np.concatenate([still, line])
  found = _start(points, 2)
  rounded = jax.tree.map(lambda x: x.astype(jnp.float32), found.mixture)
  cov = np.asarray(found.mixture.covariance, np.float32).astype(np.float64)
  assert np.linalg.eigvalsh(cov).min() < 0.0  # as a covariance it would not be
  again = _start(points, 2, mixture=jax.tree.map(jnp.float64, rounded))
  np.testing.assert_allclose(again.log_likelihood, found.log_likelihood, rtol=1e-3)


@pytest.mark.parametrize('kind', ['one', 'repeated', 'constant', 'line', 'huge'])
def test_bad_points_give_a_mixture(kind):
  points, _ = _points(count=60)
  points = {
    'one': np.repeat(points[:1], 60, 0),
    'repeated': np.repeat(points[:3], 20, 0),
    'constant': points * np.array([1.0, 0.0, 1.0, 0.0]),
    'line': points[:, :1] * np.ones([1, 4]),
    'huge': 1e12 * points,
  }[kind]
  found = _start(points, 5).mixture
  assert all(bool(jnp.isfinite(x).all()) for x in found)
  assert (jnp.linalg.eigvalsh(found.covariance) > 0.0).all()
  np.testing.assert_allclose(found.weights.sum(), 1.0)
  assert jnp.isfinite(gmm.responsibilities(found, jnp.asarray(points))).all()
