"""A memory that learns of an episode when it is over.

For agents whose examples depend on how an episode came out: what arrives waits for the
end of its episode, is told in hindsight, and goes on to the memory proper. It stands
for a `ring.Ring` in a `trainer.Trainer`. Letters as there, and [C] collectors, [S]
steps of an episode at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.replay import types
from armfarm.replay.packing import Packed

Tell = Callable[
  [agent_types.Transition], tuple[agent_types.Transition, Any]
]  # an episode -> what is told of it, and which steps to keep


class Hindsight:
  """Keeps what is under way, and passes on what is told of what is over.

  Args:
    memory: where that goes.
    tell: what is told of an episode.
    item: template of what arrives.
    collectors: C, log replay's among them.
    episode_steps: S.
  """

  def __init__(
    self,
    memory: types.Memory,
    tell: Tell,
    item: types.Item,
    *,
    collectors: int,
    episode_steps: int,
  ):
    self.item = memory.item
    self._memory = memory
    self._tell = tell
    room = (collectors, episode_steps)
    self._waiting = jax.tree.map(lambda x: np.zeros((*room, *x.shape), x.dtype), item)
    self._counts = np.zeros(collectors, np.int64)  # of steps that wait

  def __len__(self) -> int:
    return len(self._memory)

  def add(self, items: types.Item) -> None:
    """Takes items of one collector, [T]; passes on the episodes that they end."""
    collector = int(items.origin.collector[0])
    over = (items.transition.discount == 0) | (items.transition.truncation == 1)
    for t in range(len(over)):
      self._append(collector, jax.tree.map(lambda x, t=t: x[t], items))
      if over[t]:
        self._finish(collector)

  def sample(self, count: int) -> Packed:
    """See `ring.Ring`."""
    return self._memory.sample(count)

  def metrics(self) -> dict[str, float]:
    """See `types.Memory`."""
    return self._memory.metrics()

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs."""
    waiting = {'items': self._waiting, 'counts': self._counts}
    return {'memory': self._memory.state(), 'waiting': waiting}

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""
    return self._memory.progress()

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""
    self._memory.restore(state['memory'], progress)
    waiting = jax.tree.map(np.array, state['waiting'])
    self._waiting, self._counts = waiting['items'], waiting['counts']

  def _append(self, collector: int, item: types.Item) -> None:
    """Adds a step to those that it goes on with, or begins anew."""
    step = int(item.origin.step)
    if step == 0 or step != self._counts[collector]:
      self._counts[collector] = 0
    if step != self._counts[collector]:  # something before it is lost
      return

    def write(stored: np.ndarray, value: Any) -> None:
      stored[collector, step] = value

    jax.tree.map(write, self._waiting, item)
    self._counts[collector] += 1

  def _finish(self, collector: int) -> None:
    count = self._counts[collector]
    if not count:
      return
    transition, origin = jax.tree.map(lambda x: x[collector, :count], self._waiting)
    self._counts[collector] = 0
    told, keep = self._tell(transition)
    kept = np.flatnonzero(np.asarray(keep))
    if kept.size:
      item = types.Item(told, origin)
      self._memory.add(jax.tree.map(lambda x: np.asarray(x)[kept], item))
