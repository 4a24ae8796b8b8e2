"""Double precision for one function, in a process that works in single precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
from jax import experimental
import jax.numpy as jnp


def _cast(tree: Any, narrow: Any, wide: Any) -> Any:
  """Converts the arrays of one floating type to another; keys and numbers stay."""

  def convert(x: chex.Array) -> chex.Array:
    return x.astype(wide) if x.dtype == narrow else x

  return jax.tree.map(convert, tree)


def double(function: Callable[..., Any]) -> Callable[..., Any]:
  """Compiles a function of float32 arrays so that it computes in float64.

  Arrays of float32 come in and go out; only between, where the function is compiled
  with 64 bits, are they float64. For calls from outside of any other compiled function.

  Args:
    function: pure, of pytrees of arrays and typed keys.
  """
  compiled = jax.jit(lambda *args: function(*_cast(args, jnp.float32, jnp.float64)))
  narrowed = jax.jit(lambda tree: _cast(tree, jnp.float64, jnp.float32))

  def call(*args: Any) -> Any:
    with enable_x64(True):
      return narrowed(compiled(*args))

  return call


# JAX 0.8 moved it.
enable_x64 = jax.enable_x64 if hasattr(jax, 'enable_x64') else experimental.enable_x64
