"""A replay memory of several parts, drawn from by weight.

Kalashnikov et al. 2018, F.5: on-policy and logged experience are kept apart, each part
a ring, and every example of a minibatch comes from either with a given probability.

Letters as in `armfarm.replay.ring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from armfarm.replay import types
from armfarm.replay.packing import Packed
from armfarm.replay.ring import Ring


class Drawn(NamedTuple):
  """Where examples are.

  Attributes:
    part: number of the part of each, [B].
    place: in that part, [B].
  """

  part: np.ndarray
  place: np.ndarray


class Parts:
  """Rings by name.

  Args:
    item: template of what is stored.
    capacities: name -> items kept there.
    seed: of what is drawn.
  """

  def __init__(
    self,
    item: types.Item | types.Labelled,
    capacities: Mapping[str, int],
    seed: int,
  ):
    self.item = item
    self.rings = {
      name: Ring(item, capacity, (seed, number))
      for number, (name, capacity) in enumerate(capacities.items())
    }
    self._generator = np.random.default_rng(seed)

  def __len__(self) -> int:
    return sum(map(len, self.rings.values()))

  def add(self, part: np.ndarray, items: types.Item | types.Labelled) -> None:
    """Appends items [T] to the parts of these numbers, [T]."""
    for number, ring in enumerate(self.rings.values()):
      its = part == number
      if its.any():
        ring.add(jax.tree.map(lambda x, its=its: x[its], items))

  def draw(self, count: int, weights: Mapping[str, float]) -> Drawn:
    """Draws B = `count` examples with replacement.

    Args:
      count: how many.
      weights: name of a part -> probability that an example is of it; a part that is
        empty, or has no weight, leaves its share to the others. Where only parts
        without a weight hold anything, they are drawn from alike.

    Raises:
      ValueError: no part holds anything.
    """
    rows = self.rings.items()
    filled = np.array([bool(ring) for _, ring in rows], float)
    if not filled.any():
      raise ValueError(f'no part of {[*self.rings]} holds anything')
    shares = filled * [weights.get(name, 0) for name, _ in rows]
    if not shares.any():
      shares = filled
    part = self._generator.choice(len(shares), size=count, p=shares / shares.sum())
    place = np.zeros(count, np.int64)
    for number, ring in enumerate(self.rings.values()):
      its = part == number
      place[its] = ring.draw(its.sum()) if its.any() else 0
    return Drawn(part, place)

  def rows(self, field: str, drawn: Drawn) -> Packed:
    """Returns one field of what was drawn, in its order, packed, [B F]."""
    every: Packed = {}
    for number, ring in enumerate(self.rings.values()):
      its = drawn.part == number
      for name, rows in ring.rows(field, drawn.place[its]).items():
        shape = (len(its), rows.shape[1])
        every.setdefault(name, np.empty(shape, rows.dtype))[its] = rows
    return every

  def share(self, name: str, drawn: Drawn) -> float:
    """Returns how much of what was drawn is of one part."""
    return float(np.mean(drawn.part == [*self.rings].index(name)))

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs."""
    return {name: ring.state() for name, ring in self.rings.items()}

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""
    rings = {name: ring.progress() for name, ring in self.rings.items()}
    return {'rings': rings, 'generator': dict(self._generator.bit_generator.state)}

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""
    for name, ring in self.rings.items():
      ring.restore(state[name], progress['rings'][name])
    self._generator.bit_generator.state = progress['generator']
