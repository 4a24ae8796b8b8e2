"""A mixture of Gaussians by expectation maximisation: global knowledge for local fits.

With the features phi(y) = (y, y y^T) of every point, the log densities of all Gaussians
are theta phi, for their natural parameters theta, and the sums of the maximisation are
phi r^T, for the responsibilities r: two matrix products a step. A step goes through the
points block by block, so that the features of a block stay in a processor's cache.
Sums of squares cancel against squares of means, so this is for double precision, and in
standardised units.

Letters, beyond those of `armfarm.agents.gps.linear_gaussian`:

  [P] points    [D] dimensions of a point    [G] Gaussians    [B] points of a block
  [F] = D + D (D + 1) / 2, features of a point
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from armfarm.agents.gps import linear_gaussian as lg

_BLOCK = 64  # points, B


class Mixture(NamedTuple):
  """Gaussians of which those with weight nought do not exist yet.

  Kept in single precision, a covariance this thin may cease to be positive definite; a
  factor of it cannot.

  Attributes:
    weights: sum to 1, [G].
    mean: [G D].
    scale_tril: Cholesky factors of the covariances, lower, [G D D].
  """

  weights: chex.Array
  mean: chex.Array
  scale_tril: chex.Array

  @property
  def covariance(self) -> chex.Array:
    """[G D D]."""
    return self.scale_tril @ lg.transpose(self.scale_tril)


class Options(NamedTuple):
  """Of a fit.

  Attributes:
    ridge: added to the diagonal of covariances of standardised points.
    tolerance: gain of log-likelihood, nats a point, below which it ends.
    max_steps: of expectation and maximisation.
  """

  ridge: float
  tolerance: float
  max_steps: int


class Fit(NamedTuple):
  """The best mixture of a fit.

  Attributes:
    mixture: in the units of the points.
    log_likelihood: mean over points, of standardised points, nats, [].
    steps: made, [] int32.
  """

  mixture: Mixture
  log_likelihood: chex.Array
  steps: chex.Array


class _Units(NamedTuple):
  """Standardised y is (y - center) / scale, each [D]."""

  center: chex.Array
  scale: chex.Array


def empty(gaussians: int, size: int) -> Mixture:
  """Returns a mixture of which nothing exists yet."""
  eye = jnp.broadcast_to(jnp.eye(size), (gaussians, size, size))
  return Mixture(jnp.zeros([gaussians]), jnp.zeros([gaussians, size]), eye)


def log_densities(mixture: Mixture, points: chex.Array) -> chex.Array:
  """log (weight_g N(y; g)), [P G], of points [P D]; -inf for what does not exist."""
  deviation = points[None] - mixture.mean[:, None]
  white = solve_triangular(mixture.scale_tril, lg.transpose(deviation), lower=True)
  size = points.shape[1] * jnp.log(2.0 * jnp.pi)
  spread = lg.log_determinant(mixture.scale_tril)
  constant = jnp.log(mixture.weights) - 0.5 * (spread + size)
  return (constant[:, None] - 0.5 * jnp.sum(white**2, axis=1)).T


def responsibilities(mixture: Mixture, points: chex.Array) -> chex.Array:
  """Probabilities of each Gaussian given a point, [P G], of points [P D]."""
  return jax.nn.softmax(log_densities(mixture, points), axis=1)


def _units(points: chex.Array, mask: chex.Array) -> _Units:
  """Mean and deviation of the points that count; what is constant is left as it is."""
  share = mask[:, None] / jnp.sum(mask)
  center = jnp.sum(share * points, axis=0)
  scale = jnp.sqrt(jnp.sum(share * (points - center[None]) ** 2, axis=0))
  tiny = jnp.sqrt(lg.rounding(points)) * jnp.maximum(jnp.abs(center), 1.0)
  return _Units(center, jnp.where(scale > tiny, scale, 1.0))


def _to(units: _Units, mixture: Mixture) -> Mixture:
  """Converts a mixture to standardised units."""
  return Mixture(
    mixture.weights,
    (mixture.mean - units.center[None]) / units.scale[None],
    mixture.scale_tril / units.scale[None, :, None],
  )


def _from(units: _Units, mixture: Mixture) -> Mixture:
  """Converts a mixture from standardised units."""
  return Mixture(
    mixture.weights,
    mixture.mean * units.scale[None] + units.center[None],
    mixture.scale_tril * units.scale[None, :, None],
  )


def _blocks(points: chex.Array) -> chex.Array:
  """Points [P ...] in blocks, [P/B ... B], the last one filled up with noughts."""
  missing = -len(points) % _BLOCK
  padded = jnp.pad(points, ((0, missing),) + ((0, 0),) * (points.ndim - 1))
  blocks = padded.reshape(-1, _BLOCK, *points.shape[1:])
  return jnp.moveaxis(blocks, 1, -1)


def _triangle(size: int) -> tuple[chex.Array, chex.Array]:
  """Rows and columns of the upper triangle of a matrix."""
  pairs = [(row, column) for row in range(size) for column in range(row, size)]
  rows, columns = zip(*pairs, strict=True)
  return jnp.array(rows), jnp.array(columns)


def _features(points: chex.Array) -> chex.Array:
  """phi(y): y and the upper triangle of y y^T, [F B], of points [D B]."""
  rows, columns = _triangle(len(points))
  return jnp.concatenate([points, points[rows] * points[columns]])


def _natural(mixture: Mixture) -> tuple[chex.Array, chex.Array]:
  """theta, as `_features` has it, [G F], and the constants [G]."""
  size = mixture.mean.shape[1]
  eye = jnp.eye(size, dtype=mixture.mean.dtype)
  tril = mixture.scale_tril
  inverse = solve_triangular(tril, jnp.broadcast_to(eye, tril.shape), lower=True)
  precision = lg.transpose(inverse) @ inverse
  slope = jnp.einsum('gde,ge->gd', precision, mixture.mean)
  rows, columns = _triangle(size)
  twice = jnp.where(rows == columns, 0.5, 1.0).astype(slope.dtype)
  squares = -twice[None] * precision[:, rows, columns]
  constant = jnp.log(mixture.weights) - 0.5 * (
    lg.log_determinant(tril)
    + jnp.sum(slope * mixture.mean, axis=1)
    + size * jnp.log(2.0 * jnp.pi)
  )
  return jnp.concatenate([slope, squares], axis=1), constant


class _Sums(NamedTuple):
  """Over points, of which each Gaussian has a share, the responsibility.

  Attributes:
    mass: of the shares, [G].
    features: of the shares' features, [F G].
    log_likelihood: of log densities, [].
  """

  mass: chex.Array
  features: chex.Array
  log_likelihood: chex.Array


def _expect(mixture: Mixture, blocks: chex.Array, mask: chex.Array) -> _Sums:
  """Sums over the points [P/B D B] that count, by their mask [P/B B]."""
  theta, constant = _natural(mixture)

  def add(sums: _Sums, at: tuple[chex.Array, chex.Array]) -> tuple[_Sums, None]:
    block, counts = at
    features = _features(block)
    logits = theta @ features + constant[:, None]
    logs = jax.nn.logsumexp(logits, axis=0)
    given = jnp.exp(logits - logs[None]) * counts[None]
    found = _Sums(jnp.sum(given, axis=1), features @ given.T, jnp.sum(counts * logs))
    return jax.tree.map(jnp.add, sums, found), None

  nought = _Sums(constant, theta.T, jnp.sum(constant))
  return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, nought), (blocks, mask))[0]


def _maximise(old: Mixture, sums: _Sums, ridge: float) -> Mixture:
  """The mixture that is likeliest given an expectation's sums.

  A Gaussian with less than 1e-4 of a point stays where it is, and fades.
  """
  size, mass = old.mean.shape[1], sums.mass
  alive = mass > 1e-4
  moments = sums.features.T / jnp.where(alive, mass, 1.0)[:, None]
  mean = moments[:, :size]
  rows, columns = _triangle(size)
  second = jnp.zeros_like(old.scale_tril).at[:, rows, columns].set(moments[:, size:])
  second = second.at[:, columns, rows].set(moments[:, size:])
  eye = jnp.eye(size, dtype=mean.dtype)
  cov = second - lg.outer(mean) + ridge * eye[None]
  return Mixture(
    mass / jnp.sum(mass),
    jnp.where(alive[:, None], mean, old.mean),
    jnp.where(alive[:, None, None], jnp.linalg.cholesky(cov), old.scale_tril),
  )


def _seed(
  mixture: Mixture,
  points: chex.Array,
  mask: chex.Array,
  born: chex.Array,
  key: chex.PRNGKey,
) -> chex.Array:
  """Draws the means [G D] of Gaussians that are born [G], far from those that live.

  Each is a point drawn in proportion to its squared distance from the nearest mean so
  far: k-means++ (Arthur and Vassilvitskii 2007), which begins with any point.
  """

  def place(
    distance: chex.Array, at: tuple[chex.Array, ...]
  ) -> tuple[chex.Array, chex.Array]:
    new, old, key = at
    logits = jnp.log(mask * jnp.minimum(distance, 1e30))
    logits = jnp.where(jnp.any(jnp.isfinite(logits)), logits, jnp.log(mask))
    mean = jnp.where(new, points[jax.random.categorical(key, logits)], old)
    squares = jnp.sum((points - mean[None]) ** 2, axis=1)
    return jnp.where(new, jnp.minimum(distance, squares), distance), mean

  lives = mixture.weights > 0.0
  squares = jnp.sum((points[:, None] - mixture.mean[None]) ** 2, axis=2)
  distance = jnp.min(jnp.where(lives[None], squares, jnp.inf), axis=1)
  keys = jax.random.split(key, len(born))
  return jax.lax.scan(place, distance, (born, mixture.mean, keys))[1]


def grow(
  mixture: Mixture,
  points: chex.Array,
  mask: chex.Array,
  wanted: chex.Array,
  ridge: float,
  key: chex.PRNGKey,
) -> Mixture:
  """Makes the first Gaussians exist, up to a number; those that do, stay as they are.

  Args:
    mixture: of standardised points.
    points: standardised, [P D].
    mask: 1 for points that count, else 0, [P].
    wanted: how many Gaussians shall exist, [].
    ridge: added to the diagonal of the covariance of all points, which they begin with.
    key: consumed.
  """
  first = jnp.arange(len(mixture.weights)) < wanted
  mixture = mixture._replace(weights=jnp.where(first, mixture.weights, 0.0))
  born = first & (mixture.weights <= 0.0)
  counted = (mask / jnp.sum(mask))[:, None] * points
  pooled = counted.T @ points + ridge * jnp.eye(points.shape[1], dtype=points.dtype)
  tril = jnp.linalg.cholesky(pooled)
  weights = jnp.where(born, 1.0 / wanted, mixture.weights)
  return Mixture(
    weights / jnp.sum(weights),
    _seed(mixture, points, mask, born, key),
    jnp.where(born[:, None, None], tril[None], mixture.scale_tril),
  )


class _Search(NamedTuple):
  """Where expectation maximisation stands: the next mixture and the best so far."""

  mixture: Mixture
  best: Mixture
  log_likelihood: chex.Array
  steps: chex.Array
  done: chex.Array


def maximise(
  mixture: Mixture, points: chex.Array, mask: chex.Array, options: Options
) -> Fit:
  """Climbs the likelihood from a mixture, and keeps the best of the way.

  Args:
    mixture: to begin with.
    points: standardised, [P D].
    mask: 1 for points that count, else 0, [P].
    options: of the fit.
  """
  blocks, counts = _blocks(points), _blocks(mask)

  def step(s: _Search) -> _Search:
    sums = _expect(s.mixture, blocks, counts)
    found = sums.log_likelihood / jnp.sum(mask)
    better = found > s.log_likelihood
    return _Search(
      _maximise(s.mixture, sums, options.ridge),
      jax.tree.map(lambda new, old: jnp.where(better, new, old), s.mixture, s.best),
      jnp.where(better, found, s.log_likelihood),
      s.steps + 1,
      ~(found > s.log_likelihood + options.tolerance),
    )

  worst = jnp.array(-jnp.inf, points.dtype)
  first = _Search(mixture, mixture, worst, jnp.int32(0), jnp.array(False))
  last = jax.lax.while_loop(
    lambda s: ~s.done & (s.steps < options.max_steps), step, first
  )
  return Fit(last.best, last.log_likelihood, last.steps)


def fit(
  mixture: Mixture,
  points: chex.Array,
  mask: chex.Array,
  wanted: chex.Array,
  options: Options,
  key: chex.PRNGKey,
) -> Fit:
  """Fits a mixture to points, from where the last fit ended.

  Args:
    mixture: the last one, in the units of the points, or `empty`.
    points: [P D].
    mask: 1 for points that count, of which there is at least one, else 0, [P].
    wanted: how many Gaussians shall exist, [].
    options: of the fit.
    key: consumed.
  """
  chex.assert_rank([points, mask, wanted], [2, 1, 0])
  units = _units(points, mask)
  standard = (points - units.center[None]) / units.scale[None]
  standard = jnp.where(mask[:, None] > 0.0, standard, 0.0)
  start = grow(_to(units, mixture), standard, mask, wanted, options.ridge, key)
  found = maximise(start, standard, mask, options)
  return found._replace(mixture=_from(units, found.mixture))
