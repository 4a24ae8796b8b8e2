"""Trees of steps as a few arrays: one for each dtype, so that none is converted.

What travels and what is stored are small arrays by the dozen. Handing over each costs
more than its bytes do. Letters as in `armfarm.replay.types`, and [F] the numbers of one
step that share a dtype.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Packed = dict[str, Any]  # by name of the dtype, [T F]


def pack(steps: Any) -> Packed:
  """Packs a tree of arrays, each [T ...], into one array [T F] for each dtype."""
  columns: dict[np.dtype, list[np.ndarray]] = {}
  for leaf in jax.tree.leaves(steps):
    columns.setdefault(leaf.dtype, []).append(leaf.reshape(len(leaf), -1))
  return {_name(dtype): _join(parts) for dtype, parts in columns.items()}


@functools.cache  # numpy makes it up anew each time, slowly
def _name(dtype: np.dtype) -> str:
  return dtype.name


def _join(columns: list[Any]) -> Any:
  on_host = isinstance(columns[0], np.ndarray)
  return (np if on_host else jnp).concatenate(columns, axis=1)


def pack_one(step: Any) -> Packed:
  """Packs a tree of arrays [...] as a block of one, [1 F]."""
  return pack(jax.tree.map(lambda x: x[None], step))


def unpack_one(step: Any, packed: Packed) -> Any:
  """Returns the tree that `pack_one` was given; `step` is one like it."""
  return jax.tree.map(lambda x: x[0], unpack(step, packed))


def unpack(step: Any, packed: Packed) -> Any:
  """Returns the tree of [T ...] that `pack` was given; `step` is one of it, [...].

  Of `step`, shapes and types are used.
  """
  leaves, structure = jax.tree.flatten(step)
  used = dict.fromkeys(packed, 0)
  fields = []
  for leaf in leaves:
    name, shape = leaf.dtype.name, leaf.shape
    rows, start = packed[name], used[name]
    used[name] += math.prod(shape)
    fields.append(rows[:, start : used[name]].reshape(len(rows), *shape))
  return jax.tree.unflatten(structure, fields)
