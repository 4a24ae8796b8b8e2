"""Costs and their second-order expansions at the steps of rollouts.

Letters as in `armfarm.agents.gps.linear_gaussian`, and [D] entries of a distance.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp

from armfarm.agents.gps import linear_gaussian as lg

RAMPS = ('constant', 'linear', 'quadratic', 'final')


class Expansion(NamedTuple):
  """A cost at points z, with its derivatives there.

  Attributes:
    value: l, [...].
    gradient: [... Z].
    hessian: [... Z Z].
  """

  value: chex.Array
  gradient: chex.Array
  hessian: chex.Array


class Penalty(NamedTuple):
  """Of a distance d, with weights w and r = alpha + sum (w d)^2.

    l2 sum w d^2 / 2 + l1 sqrt(r)       or, if logarithmic,
    l2 sum w d^2 / 2 + l1 log(r) / 2

  Attributes:
    l1: weight of the second term, which asks for precision near the goal.
    l2: weight of the first, which asks for speed far from it.
    alpha: smooths the second at d = 0, in the square of w d's unit.
    logarithmic: which second term.
  """

  l1: float
  l2: float
  alpha: float
  logarithmic: bool


def ramp(kind: str, steps: int, final: float = 1.0) -> chex.Array:
  """Weights of the steps of a rollout, [T]; the last is multiplied by `final`.

  Raises:
    ValueError: there is no such kind in `RAMPS`.
  """
  if kind not in RAMPS:
    raise ValueError(f'the ramp is {kind!r}; choose one of {RAMPS}')
  linear = jnp.arange(1, steps + 1) / steps
  last = jnp.arange(1, steps + 1) == steps
  shapes = jnp.ones([steps]), linear, linear**2, last.astype(linear.dtype)
  return shapes[RAMPS.index(kind)] * jnp.where(last, final, 1.0)


def penalize(
  penalty: Penalty, distance: chex.Array, weights: chex.Array, jacobian: chex.Array
) -> Expansion:
  """The penalty of distances, with Gauss-Newton curvature: d'' is left out.

  As in the published code, the logarithm's last term is half of its exact one, which
  leaves the curvature nearer to convex.

  Args:
    penalty: to expand.
    distance: d, [... D].
    weights: w, [... D].
    jacobian: of d in z, [... D Z].
  """
  d, w = distance, weights
  r = penalty.alpha + jnp.sum((w * d) ** 2, axis=-1)
  log = penalty.logarithmic
  steep = jnp.expand_dims(r if log else jnp.sqrt(r), -1)
  curl = jnp.expand_dims(jnp.expand_dims(r**2 if log else r**1.5, -1), -1)
  second = 0.5 * jnp.log(r) if log else jnp.sqrt(r)
  value = 0.5 * penalty.l2 * jnp.sum(w * d**2, axis=-1) + penalty.l1 * second
  slope = penalty.l2 * w * d + penalty.l1 * w**2 * d / steep
  diagonal = penalty.l2 * w + penalty.l1 * w**2 / steep
  eye = jnp.eye(d.shape[-1], dtype=d.dtype)
  inner = jnp.expand_dims(diagonal, -1) * jnp.broadcast_to(eye, (*d.shape, d.shape[-1]))
  inner -= penalty.l1 * lg.outer(w**2 * d) / curl
  gradient = jnp.einsum('...dz,...d->...z', jacobian, slope)
  return Expansion(value, gradient, lg.transpose(jacobian) @ inner @ jacobian)


def average(expansion: Expansion, points: chex.Array) -> lg.Quadratic:
  """The mean over rollouts of expansions, in absolute z.

  Args:
    expansion: at the points, [N T].
    points: z, [N T Z].
  """
  value, gradient, hessian = expansion
  curved = jnp.einsum('nty,ntyz->ntz', points, hessian)
  constant = value - jnp.sum((gradient - 0.5 * curved) * points, axis=-1)
  return lg.Quadratic(
    jnp.mean(hessian, axis=0),
    jnp.mean(gradient - curved, axis=0),
    jnp.mean(constant, 0),
  )
