"""The cost of points that are to be at a goal, both of which are observed.

  l_t = penalty(x_points - o_goal, r_t w) + effort u'u / 2

with the penalty of `armfarm.agents.gps.costs`, weights w of the entries of the points
and a ramp r for each: what is to happen last has its weight last. The points are part
of the state x, so that the cost is quadratic in z = [x; u] but for the penalty: its
expansion leaves out no kinematics.

Letters as in `armfarm.agents.gps.linear_gaussian`, and [D] entries of the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax.numpy as jnp

from armfarm.agents.gps import costs


class Options(NamedTuple):
  """Of the cost.

  Attributes:
    state_size: X; the state is the beginning of an observation.
    points: where the points begin in the state.
    goal: where their goal begins in an observation.
    weights: of the entries of their distance, [D].
    penalty: of that distance.
    ramps: of the same, each one of `costs.RAMPS`, [D].
    final_weight: multiplies the penalty's weights at the last step.
    effort: weight of the action.
  """

  state_size: int
  points: int
  goal: int
  weights: Sequence[float]
  penalty: costs.Penalty
  ramps: Sequence[str]
  final_weight: float
  effort: float


def check(options: Options) -> None:
  """Raises ValueError unless every entry has a weight and a ramp."""
  weights, ramps = len(options.weights), len(options.ramps)
  if weights != ramps:
    raise ValueError(f'cost.ramps has {ramps} entries and cost.weights {weights}')


def distance(options: Options, observation: chex.Array) -> chex.Array:
  """From the first point to its goal, m, [...], of observations [... O]."""
  start, goal = options.points, options.goal
  point = observation[..., start : start + 3]
  return jnp.linalg.norm(point - observation[..., goal : goal + 3], axis=-1)


def cost(
  options: Options, observation: chex.Array, action: chex.Array
) -> costs.Expansion:
  """The cost of one rollout, [T], expanded in z.

  The ramp weighs what is squared, as in the published code: w is ramp times weight.

  Args:
    options: numbers.
    observation: [T O].
    action: [T A].
  """
  chex.assert_rank([observation, action], 2)
  steps, size = action.shape
  state, entries = options.state_size, len(options.weights)
  start, goal = options.points, options.goal
  distance = observation[:, start : start + entries]
  distance -= observation[:, goal : goal + entries]
  ramps = [costs.ramp(kind, steps, options.final_weight) for kind in options.ramps]
  weights = jnp.stack(ramps, axis=1) * jnp.asarray(options.weights)[None]
  jacobian = jnp.eye(entries, state + size, k=start, dtype=observation.dtype)
  jacobian = jnp.broadcast_to(jacobian, (steps, *jacobian.shape))
  reach = costs.penalize(
    options.penalty, distance, weights.astype(observation.dtype), jacobian
  )
  acts = jnp.pad(jnp.full([size], options.effort, action.dtype), (state, 0))
  z = jnp.pad(action, ((0, 0), (state, 0)))
  return costs.Expansion(
    reach.value + 0.5 * options.effort * jnp.sum(action**2, axis=1),
    reach.gradient + acts[None] * z,
    reach.hessian + jnp.diag(acts)[None],
  )
