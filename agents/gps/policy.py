"""The global policy: any network for its mean, one covariance for all states.

It minimises E KL(pi(u|o) || p(u|x)) to the local controllers p, Eqs. 1 and 4 of Yahya
et al. 2016. For its mean that is a weighted square, in the metric of their precisions
P; for its covariance, which depends on no state, the inverse of the mean of P.

Letters as in `armfarm.agents.gps.linear_gaussian`; [B] examples.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from armfarm.agents import types
from armfarm.agents.gps import dynamics
from armfarm.agents.gps import linear_gaussian as lg


class Examples(NamedTuple):
  """What local controllers teach; a weight of nought marks padding.

  Attributes:
    observation: o, [B O].
    action: the mean of the local controller, [B A].
    precision: P of the local controller, [B A A].
    weight: importance, not negative, [B].
  """

  observation: chex.Array
  action: chex.Array
  precision: chex.Array
  weight: chex.Array


class Network(NamedTuple):
  """What is taught, and on what scale it looks at an observation.

  Attributes:
    module: maps normalised observations [B O] to mean actions [B A].
    min_deviation: that an entry is divided by, at least: what has hardly varied yet,
      such as the place of a goal, should not count for much when it does.
  """

  module: nn.Module
  min_deviation: float


class Moments(NamedTuple):
  """Running sums over examples, as of Welford.

  Attributes:
    count: how many were seen, [].
    mean: [O].
    squares: sum of squared deviations from the mean, [O].
  """

  count: chex.Array
  mean: chex.Array
  squares: chex.Array


class Policy(NamedTuple):
  """Everything that acting needs.

  Attributes:
    params: of the network.
    moments: of the observations, which are normalised by them.
    precision: diagonal of the inverse covariance, [A].
  """

  params: types.Params
  moments: Moments
  precision: chex.Array


def no_moments(size: int) -> Moments:
  """Returns the sums before the first example."""
  return Moments(jnp.zeros([]), jnp.zeros([size]), jnp.zeros([size]))


def moments(observation: chex.Array, weight: chex.Array) -> Moments:
  """The sums of a batch: observations [B O] that count if their weight [B] is not 0."""
  counted = (weight > 0.0).astype(observation.dtype)[:, None]
  count = jnp.sum(counted)
  mean = jnp.sum(counted * observation, axis=0) / jnp.maximum(count, 1.0)
  squares = jnp.sum(counted * (observation - mean[None]) ** 2, axis=0)
  return Moments(count, mean, squares)


def merge(left: Moments, right: Moments) -> Moments:
  """The sums over both (Chan et al. 1979)."""
  count = left.count + right.count
  share = right.count / jnp.maximum(count, 1.0)
  apart = right.mean - left.mean
  squares = left.squares + right.squares + left.count * share * apart**2
  return Moments(count, left.mean + share * apart, squares)


def normalize(
  seen: Moments, observation: chex.Array, min_deviation: float
) -> chex.Array:
  """(o - mean) / deviation, [B O]; deviations below the least count as that.

  Before the first example, observations stay as they are.
  """
  variance = seen.squares / jnp.maximum(seen.count, 1.0)
  deviation = jnp.maximum(jnp.sqrt(variance), min_deviation)
  scale = jnp.where(seen.count > 0.0, deviation, 1.0)
  return (observation - seen.mean[None]) / scale[None]


def mean(network: Network, policy: Policy, observation: chex.Array) -> chex.Array:
  """The mean of pi(u|o), [... A], of observations [... O]."""
  flat = observation.reshape(-1, observation.shape[-1])
  inputs = normalize(policy.moments, flat, network.min_deviation)
  found = network.module.apply({'params': policy.params}, inputs, train=False)
  return jnp.asarray(found).reshape(*observation.shape[:-1], -1)


def loss(
  params: types.Params, network: Network, seen: Moments, examples: Examples
) -> chex.Array:
  """Mean over a batch of w (mu(o) - u)^T P (mu(o) - u) / 2: the part of the KL with mu.

  Args:
    params: of the network.
    network: of the policy.
    seen: by which observations are normalised.
    examples: [B ...].
  """
  chex.assert_rank(list(examples), [2, 2, 3, 1])
  inputs = normalize(seen, examples.observation, network.min_deviation)
  found = network.module.apply({'params': params}, inputs, train=True)
  apart = found - examples.action
  squares = jnp.einsum('ba,bac,bc->b', apart, examples.precision, apart)
  return 0.5 * jnp.mean(examples.weight * squares)


def mean_precision(examples: Examples) -> chex.Array:
  """Diagonal of the weighted mean of P, [A].

  Its inverse is the diagonal covariance that minimises
  sum_b w_b [tr(P_b C) - log|C|].
  """
  diagonal = jnp.diagonal(examples.precision, axis1=1, axis2=2)
  total = jnp.maximum(jnp.sum(examples.weight), 1e-30)
  return jnp.sum(examples.weight[:, None] * diagonal, axis=0) / total


def log_density(
  network: Network, policy: Policy, observation: chex.Array, action: chex.Array
) -> chex.Array:
  """log pi(u|o), [...], of observations [... O] and actions [... A]."""
  apart = action - mean(network, policy, observation)
  precision = jnp.broadcast_to(policy.precision, apart.shape)
  logs = jnp.log(precision / (2.0 * jnp.pi)) - precision * apart**2
  return 0.5 * jnp.sum(logs, axis=-1)


def linearize(
  network: Network, policy: Policy, observations: chex.Array, state_size: int
) -> lg.Controller:
  """The controller nearest to the policy around rollouts.

  The gain is the mean over rollouts of the derivative of mu in x, which for Gaussian x
  is that of a linear regression of mu on x (Stein 1981), and is whole however few
  rollouts there are. What it leaves of mu adds to the covariance.

  Args:
    network: of the policy.
    policy: to linearise.
    observations: of rollouts, the state first, [N T O].
    state_size: X; what follows in an observation is held.
  """

  def one(observation: chex.Array) -> chex.Array:
    return mean(network, policy, observation)

  jacobian = jax.vmap(jax.vmap(jax.jacrev(one)))(observations)[..., :state_size]
  gain = jnp.mean(jacobian, axis=0)
  states = observations[..., :state_size]
  rest = mean(network, policy, observations) - jnp.einsum('tax,ntx->nta', gain, states)
  offset = jnp.mean(rest, axis=0)
  apart = rest - offset[None]
  cov = jnp.mean(lg.outer(apart), axis=0) + jnp.diag(1.0 / policy.precision)[None]
  return lg.Controller(gain, offset, jnp.linalg.cholesky(cov))


def regress(
  means: chex.Array,
  covariances: chex.Array,
  states: chex.Array,
  strength: float,
  regularization: float,
) -> lg.Controller:
  """The linearisation of the published code: a regression of means on states.

  For comparison: what is used is `linearize`.

  Args:
    means: of the policy at the states, [N T A].
    covariances: likewise, [N T A A].
    states: of rollouts, [N T X].
    strength: of a prior that says that the policy is nought, in rollouts.
    regularization: of the covariance of the states, to every entry.
  """
  size, action = states.shape[2], means.shape[2]
  ones = jnp.concatenate([jnp.ones([size]), jnp.full([action], 1e-5)])
  nought = jnp.asarray(0.0, means.dtype)
  prior = dynamics.Prior(
    jnp.zeros_like(ones), strength * jnp.diag(ones), nought, nought + strength
  )
  points = jnp.swapaxes(jnp.concatenate([states, means], axis=2), 0, 1)
  added = dynamics.Regularization(regularization, everywhere=True)

  def step(at: chex.Array) -> dynamics.Regression:
    return dynamics.regress(dynamics.posterior(at, prior), size, added)

  found = jax.vmap(step)(points)
  cov = found.covariance + jnp.mean(covariances, axis=0)
  return lg.Controller(found.matrix, found.offset, jnp.linalg.cholesky(cov))
