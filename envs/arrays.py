"""Arithmetic that tasks share: each computes in the arrays that it is given."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def namespace(array: Any) -> Any:
  """The module whose functions suit `array`.

  Args:
    array: a numpy array or scalar, or a JAX array, traced or not.

  Returns:
    `numpy` or `jax.numpy`.
  """
  return np if isinstance(array, np.ndarray | np.generic) else jnp


def aligned(vector: Any, array: Any) -> Any:
  """Returns a vector [N] with the leading axes of an array [... N], each of one.

  JAX is told to refuse to add them by itself.
  """
  return vector[(None,) * (array.ndim - 1)]


def distance(x: Any, y: Any) -> Any:
  """Returns |x - y|, [...], of two arrays [... N] or one of them [N]."""
  error = x - y
  squared = (error * error).sum(axis=-1)
  return namespace(squared).sqrt(squared)


def nearing(
  distance: Any, action: Any, weights: tuple[float, float], delta: float
) -> Any:
  """The reward -c1 huber(distance) - c2 u'u, [...], float32.

  Args:
    distance: from the goal, [...].
    action: u, [... A].
    weights: c1 and c2.
    delta: of the Huber loss.
  """
  effort = (action * action).sum(axis=-1)
  reward = -weights[0] * huber(distance, delta) - weights[1] * effort
  return reward.astype(np.float32)


def huber(distance: Any, delta: float) -> Any:
  """The Huber loss of a distance, which is not negative.

  huber(z) = z^2 / 2               where z <= delta,
             delta (z - delta / 2) elsewhere.
  """
  near = namespace(distance).minimum(distance, delta)
  return near * (distance - near / 2)  # both branches at once
