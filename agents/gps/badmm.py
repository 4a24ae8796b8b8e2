"""Bregman ADMM: local controllers and the global policy pulled together.

  minimise  sum_t E_p[c_t] + w_t KL(p || pi) + lambda_t . (E_pi u - E_p u)

over p with pi fixed, over pi with p fixed, and climbing in lambda (Levine et al. 2016,
section 4.2; Yahya et al. 2016, Eqs. 1 and 2). Over p, this is an LQR with pi's
precision as cost, and the entropy weighted by w; over pi, a regression on targets
moved by -C lambda / w. That shift is bounded in standard deviations of the local
controller: a multiplier that runs away, as it does in published runs, moves no target.

Letters as in `armfarm.agents.gps.linear_gaussian`.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp

from armfarm.agents.gps import linear_gaussian as lg


class Options(NamedTuple):
  """Of the multipliers and weights.

  Attributes:
    rate: of the multipliers' ascent, in units of w P.
    initial_weight: w at the start.
    min_weight: smallest w.
    max_weight: largest.
    max_shift: how far a multiplier may move a target, in standard deviations.
  """

  rate: float
  initial_weight: float
  min_weight: float
  max_weight: float
  max_shift: float


class Multipliers(NamedTuple):
  """What a local controller keeps.

  Attributes:
    slope: lambda, of the action, [T A].
    weight: w, [T].
    clipped: how many multipliers have been bounded so far, [] int32.
  """

  slope: chex.Array
  weight: chex.Array
  clipped: chex.Array


def begin(steps: int, action: int, options: Options) -> Multipliers:
  """Returns the multipliers before the first iteration."""
  weight = jnp.full([steps], options.initial_weight, float)
  return Multipliers(jnp.zeros([steps, action]), weight, jnp.int32(0))


def augment(
  cost: lg.Quadratic, multipliers: Multipliers, policy: lg.Controller
) -> lg.Quadratic:
  """The cost of p: c - lambda.u + w (u - pi)^T P_pi (u - pi) / 2.

  Args:
    cost: of the task.
    multipliers: of this controller; w is also the weight of p's entropy.
    policy: the linearised global policy.
  """
  size = policy.gain.shape[2]
  pull = lg.surprise(policy)
  w = multipliers.weight
  return lg.Quadratic(
    cost.hessian + w[:, None, None] * pull.hessian,
    cost.gradient.at[:, size:].add(-multipliers.slope) + w[:, None] * pull.gradient,
    cost.constant + w * pull.constant,
  )


def bound(
  multipliers: Multipliers, controller: lg.Controller, options: Options
) -> Multipliers:
  """Bounds the shift of targets, |S^T lambda| / w with C = S S^T, by max_shift."""
  shift = jnp.einsum('tba,tb->ta', controller.scale_tril, multipliers.slope)
  length = jnp.sqrt(jnp.sum(shift**2, axis=1)) / multipliers.weight
  scale = options.max_shift / jnp.maximum(length, options.max_shift)
  over = jnp.sum(length > options.max_shift)
  return multipliers._replace(
    slope=scale[:, None] * multipliers.slope,
    clipped=multipliers.clipped + over.astype(jnp.int32),
  )


def ascend(
  multipliers: Multipliers,
  controller: lg.Controller,
  policy_means: chex.Array,
  states: chex.Array,
  options: Options,
) -> Multipliers:
  """lambda <- lambda - rate w P mean_n(u_p - u_pi), bounded.

  Args:
    multipliers: of this controller.
    controller: p, as the policy was taught it.
    policy_means: of the global policy at the observations of rollouts, [N T A].
    states: of the rollouts, [N T X].
    options: of the multipliers.
  """
  apart = jnp.mean(lg.mean_action(controller, states) - policy_means, axis=0)
  pull = jnp.einsum('tab,tb->ta', lg.precision(controller), apart)
  slope = multipliers.slope - options.rate * multipliers.weight[:, None] * pull
  return bound(multipliers._replace(slope=slope), controller, options)


def reweigh(
  multipliers: Multipliers, divergence: chex.Array, options: Options
) -> Multipliers:
  """Doubles w where p and pi are far apart, and halves it where they are near.

  Args:
    multipliers: of this controller.
    divergence: KL(p || pi) of each step, for p as pi was taught it, [T].
    options: of the weights.

  Returns:
    w is halved below mean - deviation over the steps, and doubled from
    mean + deviation / 2 on, as in the examples of the published code.
  """
  mean, deviation = jnp.mean(divergence), jnp.std(divergence)
  scale = jnp.where(divergence < mean - deviation, 0.5, 1.0)
  scale = jnp.where(divergence >= mean + 0.5 * deviation, 2.0, scale)
  scale = jnp.where(deviation > 0.0, scale, 1.0)
  weight = jnp.clip(scale * multipliers.weight, options.min_weight, options.max_weight)
  return multipliers._replace(weight=weight)


def targets(
  multipliers: Multipliers, controller: lg.Controller, states: chex.Array
) -> chex.Array:
  """K x + k - C lambda / w, [N T A]: what minimises over pi's mean."""
  cov = lg.covariance(controller)
  shift = jnp.einsum('tab,tb->ta', cov, multipliers.slope)
  shift = shift / multipliers.weight[:, None]
  return lg.mean_action(controller, states) - jnp.broadcast_to(
    shift, (len(states), *shift.shape)
  )


def sampled_costs(
  costs: chex.Array,
  multipliers: Multipliers,
  policy: lg.Controller,
  states: chex.Array,
  actions: chex.Array,
) -> chex.Array:
  """What `augment` adds, at the samples themselves, for PI2.

  Args:
    costs: of the task, [N T].
    multipliers: of this controller.
    policy: the linearised global policy.
    states: [N T X].
    actions: [N T A].
  """
  apart = actions - lg.mean_action(policy, states)
  white = jnp.einsum('tab,ntb->nta', lg.inverse_factor(policy.scale_tril), apart)
  pull = 0.5 * multipliers.weight[None] * jnp.sum(white**2, axis=2)
  return costs + pull - jnp.einsum('ta,nta->nt', multipliers.slope, actions)


def regularized(
  costs: chex.Array, multipliers: Multipliers, divergence: chex.Array
) -> chex.Array:
  """Sum over steps of costs [T] plus w KL(p || pi) [T], by which steps are sized."""
  return jnp.sum(costs + multipliers.weight * divergence)
