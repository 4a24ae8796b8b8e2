"""The divergences D of QT-Opt, Eq. 1 of Kalashnikov et al. 2018.

Letters as in `armfarm.agents.types`.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import optax

LOSSES = ('cross_entropy', 'squared')


def divergence(kind: str, logit: chex.Array, target: chex.Array) -> chex.Array:
  """D(Q(s, a), y), where Q = sigmoid(logit) lies in (0, 1).

  Args:
    kind: 'cross_entropy', for which y is clipped to [0, 1], or 'squared', the
      ablation of Figure 8.
    logit: of Q(s, a), [].
    target: y, as a part of the range of Q, [].

  Returns:
    The divergence, [].
  """
  chex.assert_rank([logit, target], 0)
  chex.assert_type([logit, target], float)
  if kind == 'cross_entropy':
    return optax.sigmoid_binary_cross_entropy(logit, jnp.clip(target, 0.0, 1.0))
  return (jax.nn.sigmoid(logit) - target) ** 2


batch_divergence = jax.vmap(divergence, in_axes=(None, 0, 0))


def outside(target: chex.Array) -> chex.Array:
  """Whether a target lies outside [0, 1], which no Q can reach, any shape."""
  return (target < 0.0) | (target > 1.0)


def part(values: tuple[float, float], y: chex.Array) -> chex.Array:
  """Where a value lies between the least and the greatest, 0 to 1, any shape."""
  low, high = values
  return (y - low) / (high - low)


def q_value(values: tuple[float, float], logit: chex.Array) -> chex.Array:
  """Q(s, a) of its logit, any shape: sigmoid(logit) where values are in [0, 1]."""
  low, high = values
  return low + (high - low) * jax.nn.sigmoid(logit)
