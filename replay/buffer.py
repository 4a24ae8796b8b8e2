"""The replay memory of a fused program: flashbax's item buffer on the device.

An item is any tree of arrays. Items are packed into one array for each dtype before
they are stored, so that a minibatch is two rows to gather, and uint8 stays uint8.

Letters as in `armfarm.replay.types`, [B] a minibatch and [F] the numbers of one item
that share a dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flashbax
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.replay.packing import Packed
from armfarm.replay.packing import pack
from armfarm.replay.packing import pack_one
from armfarm.replay.packing import unpack

Item = Any  # a tree of arrays
Memory = Any  # flashbax's TrajectoryBufferState, of packed items


class Buffer(NamedTuple):
  """A replay memory as functions; all but `pack` are pure and jittable.

  Attributes:
    init: `() -> memory`, empty.
    pack: `items [T] -> packed`, on the host or, of traced values, on the device.
    add: `(memory, packed) -> memory`; in place if the caller donates the memory.
    sample: `(memory, key) -> items [B]`, uniform with replacement; the key is consumed.
    stored: `memory -> items`, all of them, in the order of their places.
  """

  init: Callable[[], Memory]
  pack: Callable[[Item], Packed]
  add: Callable[[Memory, Packed], Memory]
  sample: Callable[[Memory, chex.PRNGKey], Item]
  stored: Callable[[Memory], Item]


def make(item: Item, capacity: int, block_steps: int, samples: int) -> Buffer:
  """Builds a replay memory.

  Args:
    item: template of what is stored.
    capacity: items kept; the oldest make room.
    block_steps: T, items of one `add`.
    samples: B, items of one `sample`.

  Raises:
    ValueError: the blocks do not divide the capacity, or one sample exceeds it.
  """
  if capacity % block_steps:
    raise ValueError(
      f'replay.capacity is {capacity}, no multiple of run.block_steps {block_steps}:'
      f' use {capacity // block_steps * block_steps or block_steps}'
    )
  if samples > capacity:
    raise ValueError(
      f'replay.capacity is {capacity}, and a block of steps asks for {samples} samples:'
      ' use a larger one, or a smaller replay.batch_size or run.updates_per_step'
    )
  library = flashbax.make_item_buffer(capacity, 1, samples, add_sequences=True)

  def init() -> Memory:
    return library.init(jax.tree.map(lambda x: jnp.asarray(x[0]), pack_one(item)))

  def sample(memory: Memory, key: chex.PRNGKey) -> Item:
    with jax.numpy_rank_promotion('allow'):  # flashbax relies on it
      return unpack(item, library.sample(memory, key).experience)

  def stored(memory: Memory) -> Item:
    count = capacity if memory.is_full else int(memory.current_index)
    rows = jax.tree.map(lambda x: np.asarray(x[0, :count]), memory.experience)
    return unpack(item, rows)

  return Buffer(init, pack, add_in_place, sample, stored)


def add_in_place(memory: Memory, packed: Packed) -> Memory:
  """Appends packed items; T divides the capacity, so that no block wraps round.

  flashbax adds through a scatter along its second axis, for which XLA copies the whole
  memory: 27 ms for 200,000 transitions on a CPU. A slice is updated where it is, as
  long as the caller donates the memory.
  """
  lengths = {len(rows) for rows in packed.values()}
  capacities = {rows.shape[1] for rows in memory.experience.values()}
  (length,), (capacity,) = lengths, capacities

  def write(stored: chex.Array, rows: chex.Array) -> chex.Array:
    return jax.lax.dynamic_update_slice(
      stored, rows[None], (0, memory.current_index, 0)
    )

  end = memory.current_index + length
  return memory.replace(
    experience=jax.tree.map(write, memory.experience, packed),
    current_index=end % capacity,
    is_full=memory.is_full | (end >= capacity),
  )
