"""Which library an array belongs to: a task computes in what it is given."""

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
