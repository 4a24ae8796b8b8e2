"""Time-varying linear-Gaussian models of rollouts (Levine and Abbeel 2014, 3.1).

At each step, x' is regressed on [x; u] over the rollouts, with a normal-inverse-Wishart
prior from a mixture of Gaussians of all steps of recent rollouts. Precise in double
precision only, which `armfarm.agents.gps.precision` is for.

Letters as in `armfarm.agents.gps.mixture`; a joint sample is y = [x; u; x'], D = Z + X.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import mixture as gmm


class Prior(NamedTuple):
  """A normal-inverse-Wishart prior of Gaussians of y.

  Attributes:
    mean: mu_0, [... D].
    scatter: Phi, [... D D].
    mean_weight: m, pseudo-samples of the mean, [].
    degrees: n_0, pseudo-samples of the scatter, [].
  """

  mean: chex.Array
  scatter: chex.Array
  mean_weight: chex.Array
  degrees: chex.Array


class Regularization(NamedTuple):
  """What is added to the covariance of the inputs of a regression.

  Attributes:
    amount: in the square of their units.
    everywhere: to every entry, as the published code has it, not to the diagonal alone.
      That leaves directions without data as they were; it is for comparisons.
  """

  amount: float
  everywhere: bool = False


class Options(NamedTuple):
  """Of a model with a mixture prior.

  Attributes:
    prior_weight: of the prior, in rollouts.
    points_per_gaussian: points that each Gaussian of the mixture should have.
    regularization: of the regressions, on the diagonal.
    mixture: of its fit.
  """

  prior_weight: float
  points_per_gaussian: int
  regularization: float
  mixture: gmm.Options


class Memory(NamedTuple):
  """Recent rollouts and the mixture fitted to them.

  Attributes:
    points: y of each step of each rollout, latest last, [N T-1 D].
    count: rollouts seen so far, [] int32.
    mixture: [G].
  """

  points: chex.Array
  count: chex.Array
  mixture: gmm.Mixture


class Spread(NamedTuple):
  """A Gaussian of y, whose covariance R^T R is kept as the rows R that it is made of.

  What a regression leaves of the covariance can be 1e-17 of it. Left of rows it is a
  sum of squares; left of their sum of squares it would be rounding, of either sign.

  Attributes:
    mean: [... D].
    root: R, a row for each sample and pseudo-sample, [... M D].
  """

  mean: chex.Array
  root: chex.Array


class Regression(NamedTuple):
  """p(o|i) = N(matrix i + offset, covariance)."""

  matrix: chex.Array
  offset: chex.Array
  covariance: chex.Array


def joint(states: chex.Array, actions: chex.Array) -> chex.Array:
  """Returns y, [N T-1 D], of states [N T X] and actions [N T A]."""
  return jnp.concatenate([states[:, :-1], actions[:, :-1], states[:, 1:]], axis=2)


def posterior(points: chex.Array, prior: Prior | None) -> Spread:
  """The Gaussian of points [N D], as a mode of its posterior.

  The mean is that of the points: the prior's moves the covariance alone, as in the
  published code, so that a model passes through its data.
  """
  chex.assert_rank(points, 2)
  size = len(points)
  mean = jnp.mean(points, axis=0)
  deviation = points - mean[None]
  if prior is None:
    return Spread(mean, deviation / jnp.sqrt(size))
  weight = size * prior.mean_weight / (size + prior.mean_weight)
  apart = jnp.sqrt(weight) * (mean - prior.mean)
  scatter = jnp.linalg.cholesky(prior.scatter + _least(prior.scatter))
  root = jnp.concatenate([deviation, apart[None], scatter.T])
  return Spread(mean, root / jnp.sqrt(size + prior.degrees))


def regress(spread: Spread, inputs: int, regularization: Regularization) -> Regression:
  """Conditions the last entries of a Gaussian [D] on its first."""
  given, wanted = spread.root[:, :inputs], spread.root[:, inputs:]
  cov = given.T @ given
  added = jnp.ones([inputs, inputs], cov.dtype)
  if not regularization.everywhere:
    added = jnp.eye(inputs, dtype=cov.dtype)
  added = regularization.amount * added + _least(cov)
  tril = jnp.linalg.cholesky(cov + added)
  matrix = cho_solve((tril, True), given.T @ wanted).T
  left = wanted - given @ matrix.T
  unexplained = left.T @ left + matrix @ added @ matrix.T
  offset = spread.mean[inputs:] - matrix @ spread.mean[:inputs]
  return Regression(matrix, offset, lg.symmetric(unexplained))


def _least(cov: chex.Array) -> chex.Array:
  """What leaves a matrix [D D] definite in spite of rounding, whatever the units."""
  variance = jnp.maximum(jnp.diagonal(cov), 1e-30)  # of nought too
  return jnp.diag(10.0 * len(cov) * lg.rounding(cov) * variance)


def fit(
  states: chex.Array,
  actions: chex.Array,
  prior: Prior | None,
  regularization: Regularization,
  gain: chex.Array | None = None,
) -> lg.Dynamics:
  """Fits a model to rollouts.

  With the gain of the controller that acted, x' is regressed on [x; u - K x]. Without
  regularization that changes nothing. With it, a direction of x of which the rollouts
  say nothing fades in the closed loop, where A + B K = 0, not in the open one: there
  a large K would move it by B K, and a few steps of that explode.

  Args:
    states: [N T X].
    actions: [N T A].
    prior: of each step but the last, [T-1 D]; without one, the fit means something for
      N > Z only.
    regularization: of the regressions.
    gain: K, [T A X]; None for none.

  Returns:
    The model; its last step is nought.
  """
  chex.assert_rank([states, actions], 3)
  inputs = states.shape[2] + actions.shape[2]
  points = jnp.swapaxes(joint(states, actions), 0, 1)
  axes = None if prior is None else Prior(0, 0, None, None)
  spreads = jax.vmap(posterior, in_axes=(0, axes))(points, prior)
  if gain is not None:
    shear = _shear(gain[:-1], points.shape[2])
    spreads = _sheared(spreads, shear)
  found = jax.vmap(lambda x: regress(x, inputs, regularization))(spreads)
  if gain is not None:
    found = found._replace(matrix=found.matrix @ shear[:, :inputs, :inputs])
  return lg.Dynamics(*(jnp.pad(x, ((0, 1),) + ((0, 0),) * (x.ndim - 1)) for x in found))


def _shear(gain: chex.Array, size: int) -> chex.Array:
  """The matrices that make [x; u - K x; x'] of [x; u; x'], [T D D], of K [T A X]."""
  steps, action, state = gain.shape
  eye = jnp.broadcast_to(jnp.eye(size, dtype=gain.dtype), (steps, size, size))
  return eye.at[:, state : state + action, :state].set(-gain)


def _sheared(spread: Spread, shear: chex.Array) -> Spread:
  """The Gaussian of sheared points, [T D]."""
  mean = (shear @ spread.mean[..., None])[..., 0]
  return Spread(mean, spread.root @ lg.transpose(shear))


def local_prior(
  mixture: gmm.Mixture, points: chex.Array, seen: chex.Array, weight: float
) -> Prior:
  """The prior of each step, from the Gaussians that its points belong to.

  Args:
    mixture: of all points.
    points: of each step of each rollout, [N T D].
    seen: how many points the mixture was fitted to, [].
    weight: of the prior, in rollouts.

  Returns:
    The moments of the mixture with the mean responsibilities of a step, [T D].
  """
  rollouts, steps, size = points.shape
  given = gmm.responsibilities(mixture, points.reshape(-1, size))
  share = jnp.mean(given.reshape(rollouts, steps, -1), axis=0)
  mean = share @ mixture.mean
  apart = mixture.mean[None] - mean[:, None]
  within = jnp.einsum('tg,gde->tde', share, mixture.covariance)
  between = jnp.einsum('tg,tgd,tge->tde', share, apart, apart)
  degrees = weight * jnp.maximum(seen - 2.0 - size, 0.0) / seen
  weight_array = jnp.asarray(weight, points.dtype)
  return Prior(mean, weight * (within + between), weight_array, degrees)


def remember(rollouts: int, steps: int, state: int, action: int, size: int) -> Memory:
  """Returns an empty memory of rollouts, with a mixture of up to `size` Gaussians."""
  joint_size = 2 * state + action
  return Memory(
    jnp.zeros([rollouts, steps - 1, joint_size]),
    jnp.int32(0),
    gmm.empty(size, joint_size),
  )


class Learned(NamedTuple):
  """A model, what it was fitted with, and how well the mixture fits its points."""

  dynamics: lg.Dynamics
  memory: Memory
  log_likelihood: chex.Array
  steps: chex.Array


def learn(
  memory: Memory,
  states: chex.Array,
  actions: chex.Array,
  options: Options,
  key: chex.PRNGKey,
  gain: chex.Array | None = None,
) -> Learned:
  """Adds rollouts to the memory, fits its mixture again, and a model with it as prior.

  Args:
    memory: of earlier rollouts of the same system.
    states: of N rollouts, no more than the memory holds, [N T X].
    actions: [N T A].
    options: of the fits.
    key: consumed.
    gain: of the controller that acted, as of `fit`.
  """
  new = joint(states, actions)
  length, steps, size = memory.points.shape
  points = jnp.concatenate([memory.points, new])[-length:]
  count = jnp.minimum(memory.count + len(new), length)
  mask = jnp.repeat(jnp.arange(length) >= length - count, steps).astype(points.dtype)
  seen = (count * steps).astype(points.dtype)
  most = len(memory.mixture.weights)
  wanted = jnp.clip(seen // options.points_per_gaussian, min(2, most), most)
  flat = points.reshape(-1, size)
  found = gmm.fit(memory.mixture, flat, mask, wanted, options.mixture, key)
  prior = local_prior(found.mixture, new, seen, options.prior_weight)
  added = Regularization(options.regularization)
  model = fit(states, actions, prior, added, gain)
  memory = Memory(points, count, found.mixture)
  return Learned(model, memory, found.log_likelihood, found.steps)


def initial_state(first: chex.Array, floor: float) -> lg.Gaussian:
  """The distribution of x_0 from those of rollouts.

  Args:
    first: x_0 of each rollout, [N X].
    floor: of each variance.

  Returns:
    Mean [X] and covariance [X X], diagonal.
  """
  variance = jnp.maximum(jnp.var(first, axis=0), floor)
  return lg.Gaussian(jnp.mean(first, axis=0), jnp.diag(variance))
