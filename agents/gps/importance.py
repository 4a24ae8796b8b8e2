"""Importance weights of remembered rollouts (Levine and Koltun 2013).

A rollout that q made stands for one that p would make with the ratio of their
densities. The dynamics are the same and cancel, so that up to a step it is a product of
ratios of actions. Its variance grows with every factor; so only the last few enter,
weights are normalised over the rollouts at each step, and clipped:

  w_nt = prod_(t - horizon < s <= t) p(u_ns|x_ns) / q(u_ns|x_ns)
  w_nt <- min(w_nt / mean_n w_nt, limit)

Letters as in `armfarm.agents.gps.linear_gaussian`.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def weigh(
  target: chex.Array,
  behaviour: chex.Array,
  mask: chex.Array,
  horizon: int,
  limit: float,
) -> chex.Array:
  """Weights of the steps of rollouts; exactly 1 where both densities are the same.

  Args:
    target: log p(u|x) under the controller that they shall stand for, [N T].
    behaviour: log q(u|x) when they were made, [N T].
    mask: 1 for rollouts that exist, else 0, [N].
    horizon: factors of a product; T or more take all since the beginning, and correct
      for the states too; 1 corrects for the action alone.
    limit: largest weight; a mean weight is 1.

  Returns:
    [N T], nought where the mask is.
  """
  chex.assert_rank([target, behaviour, mask], [2, 2, 1])
  total = jnp.cumsum(target - behaviour, axis=1)
  steps = total.shape[1]
  earlier = jnp.pad(total, ((0, 0), (min(horizon, steps), 0)))[:, :steps]
  exists = mask[:, None] > 0.0
  logs = jnp.where(exists, total - earlier, -jnp.inf)
  largest = jax.lax.stop_gradient(jnp.max(logs, axis=0, keepdims=True))
  ratio = jnp.exp(logs - jnp.where(jnp.isfinite(largest), largest, 0.0))
  mean = jnp.sum(ratio, axis=0, keepdims=True) / jnp.maximum(jnp.sum(mask), 1.0)
  return jnp.where(exists, jnp.minimum(ratio / mean, limit), 0.0)


def effective_share(weights: chex.Array, mask: chex.Array) -> chex.Array:
  """(sum w)^2 / (N sum w^2), [T]: which share of the rollouts the weights leave."""
  count = jnp.maximum(jnp.sum(mask), 1.0)
  squares = jnp.maximum(jnp.sum(weights**2, axis=0), 1e-30)
  return jnp.sum(weights, axis=0) ** 2 / (count * squares)
