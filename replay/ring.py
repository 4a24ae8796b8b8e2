"""The trainer's replay memory: a ring of rows on the host.

Transitions are packed into one array for each dtype, so that a minibatch is a gather or
two and uint8 stays uint8; so is what goes with them, which no update reads. The memory
is on the host because it is written and read once an update: numpy does both in the
time that it takes JAX to dispatch either, and images have more room there than on any
device.

Letters as in `armfarm.replay.types`, [B] a minibatch and [F] the numbers of one item
that share a dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from armfarm.replay import types
from armfarm.replay.packing import Packed
from armfarm.replay.packing import pack
from armfarm.replay.packing import pack_one
from armfarm.replay.packing import unpack


def _empty(part: Any, capacity: int) -> Packed:
  """Returns room for packed items."""
  return {
    name: np.zeros([capacity, row.shape[1]], row.dtype)
    for name, row in pack_one(part).items()
  }


class Ring:
  """Keeps the latest items and draws their transitions uniformly.

  Args:
    item: template of what is stored.
    capacity: items kept; the oldest make room.
    seed: of what is drawn.
  """

  def __init__(
    self,
    item: types.Item | types.Labelled,
    capacity: int,
    seed: int | Sequence[int],
  ):
    self.item = item
    self._capacity = capacity
    parts = item._asdict().items()
    self._rows = {name: _empty(part, capacity) for name, part in parts}
    self._added = 0
    self._generator = np.random.default_rng(seed)

  def __len__(self) -> int:
    return min(self._added, self._capacity)

  @property
  def added(self) -> int:
    """How many items have come, whether they are still here or not."""
    return self._added

  def add(self, items: types.Item | types.Labelled) -> None:
    """Appends items, [T]."""
    count = len(jax.tree.leaves(items)[0])
    start = self._added % self._capacity
    room = self._capacity - start
    for part, stored in self._rows.items():
      for name, rows in pack(getattr(items, part)).items():
        stored[name][start : start + count] = rows[:room]
        stored[name][: max(0, count - room)] = rows[room:]
    self._added += count

  def sample(self, count: int) -> Packed:
    """Draws B = `count` transitions with replacement; returns them packed, [B F]."""
    return self.rows('transition', self.draw(count))

  def draw(self, count: int) -> np.ndarray:
    """Draws places with replacement, [B]."""
    return self._generator.integers(len(self), size=count)

  def rows(self, part: str, places: np.ndarray) -> Packed:
    """Returns one part of the items at some places, packed, [B F]."""
    parts = self._rows[part].items()
    return {name: rows.take(places, axis=0) for name, rows in parts}

  def metrics(self) -> dict[str, float]:
    """See `types.Memory`."""
    return {}

  def stored(self) -> Any:
    """Returns all items, in the order of their places."""
    rows = jax.tree.map(lambda x: x[: len(self)], self._rows)
    parts = self.item._asdict().items()
    return self.item._replace(
      **{name: unpack(part, rows[name]) for name, part in parts}
    )

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs; the rows are those that `add` writes to."""
    return {'rows': self._rows, 'added': np.int64(self._added)}

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""
    return dict(self._generator.bit_generator.state)

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""
    self._rows = jax.tree.map(np.array, state['rows'])
    self._added = int(state['added'])
    self._generator.bit_generator.state = progress
