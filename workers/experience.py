"""The trainer's memory where experience is logged and on-policy, labelled or raw.

A `Mixture` draws on-policy examples with the share of the ramp, and is all there is
where the trainer labels for itself. `Labelling` keeps what Bellman updaters label in
one, and the experience that they label beside it:

  a block of a collector, or of log replay    -> raw, its part by who sent it
  transitions drawn from raw                  -> updaters' queues, while there is room
  labelled transitions of the queue `train`   -> labelled, the part they were drawn from
  examples drawn from labelled                -> an update

Both stand for a `ring.Ring` in a `trainer.Trainer`. Letters as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from armfarm.replay import types
from armfarm.replay.packing import Packed
from armfarm.replay.packing import unpack
from armfarm.replay.parts import Drawn
from armfarm.replay.parts import Parts
from armfarm.workers.joint import Ramp

ONLINE, OFFLINE = PARTS = ('online', 'offline')
_VERSION = np.int32(0)
_GIVE = 0.005  # s to wait for work to be taken over, at most


class Options(NamedTuple):
  """How experience is mixed.

  Attributes:
    ramp: see there.
    offline_updates: updates before fine-tuning begins, on logged experience alone.
    batch_size: B, examples of an update.
    collectors: numbers of collectors are below; those of log replay are not.
  """

  ramp: Ramp
  offline_updates: int
  batch_size: int
  collectors: int


class Mixture:
  """Examples of two parts, drawn by a share that changes.

  Args:
    parts: `PARTS`, where they are kept.
    options: see `Options`.
  """

  def __init__(self, parts: Parts, options: Options):
    self.parts = parts
    self.item = parts.item
    self._options = options
    self._samples = 0
    self._last: dict[str, float] = {}

  def __len__(self) -> int:
    return len(self.parts)

  @property
  def batch_size(self) -> int:
    """B, examples of an update."""
    return self._options.batch_size

  @property
  def weights(self) -> dict[str, float]:
    """The shares of the parts at the next update."""
    updates = self._samples // self._options.batch_size
    share = self._options.ramp.share(updates - self._options.offline_updates)
    return {ONLINE: share, OFFLINE: 1.0 - share}

  def part_of(self, items: types.Item) -> str:
    """Returns the part that a block of items belongs to."""
    collected = int(items.origin.collector[0]) < self._options.collectors
    return ONLINE if collected else OFFLINE

  def add(self, items: types.Item) -> None:
    """Appends items of one collector, or of one job of log replay, [T]."""
    self.parts.rings[self.part_of(items)].add(items)

  def sample(self, count: int) -> Packed:
    """Draws examples for `count` / B updates; returns them packed, [count F]."""
    return self.parts.rows('transition', self.draw(count))

  def draw(self, count: int) -> Drawn:
    """Draws places of examples for `count` / B updates."""
    weights = self.weights
    drawn = self.parts.draw(count, weights)
    self._samples += count
    share = self.parts.share(ONLINE, drawn)
    self._last = {'on_policy_wanted': weights[ONLINE], 'on_policy': share}
    return drawn

  def metrics(self) -> dict[str, float]:
    """Returns the share of on-policy examples, asked for and drawn the last time."""
    return dict(self._last)

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs."""
    return self.parts.state()

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""
    return {'parts': self.parts.progress(), 'samples': self._samples}

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""
    self.parts.restore(state, progress['parts'])
    self._samples = progress['samples']


class Labelling:
  """Examples that Bellman updaters label, and what they label.

  Args:
    raw: `PARTS` of items.
    labelled: of `types.Labelled`.
    work: the queues to the updaters, to each its own: nobody waits for what another
      one took.
    train: the queue from them.
    batch: transitions that an updater takes at once.
    uses: of a label, in updates, on average and at most.
  """

  def __init__(
    self,
    raw: Parts,
    labelled: Mixture,
    *,
    work: Sequence[types.Replay],
    train: types.Replay,
    batch: int,
    uses: float,
  ):
    self.item = labelled.item
    self._raw = raw
    self._labelled = labelled
    self._writers = [queue.writer() for queue in work]
    self._train = train
    self._batch = batch
    self._uses = uses
    self._labels = self._samples = 0
    self._next: dict[int, int] = {}  # batch of an updater
    self._last: dict[str, float] = {}

  def __len__(self) -> int:
    return len(self._labelled)

  def add(self, items: types.Item) -> None:
    """Appends items of one collector, or of one job of log replay, [T]."""
    self._raw.rings[self._labelled.part_of(items)].add(items)

  def exchange(self, timeout: float) -> None:
    """Gives updaters work while there is room, and takes labels.

    Args:
      timeout: to wait for the first labels, s.
    """
    for writer in self._writers:
      while len(self._raw) and writer.flush(_GIVE):
        writer.insert(self._work())
    work = self._train.take(timeout)
    while work is not None:
      self._store(work)
      work = self._train.take(timeout=0.0)

  def allows(self, count: int) -> bool:
    """Whether so many examples may be drawn, as far as labels go."""
    return len(self) > 0 and self._samples + count <= self._uses * self._labels

  def sample(self, count: int) -> Packed:
    """Draws examples for `count` / B updates; returns them packed, [count F]."""
    drawn = self._labelled.draw(count)
    parts, size = self._labelled.parts, self._labelled.batch_size
    versions = unpack(_VERSION, parts.rows('version', drawn))
    versions = versions.reshape(-1, size)
    self._samples += count
    self._last = {
      'version_spread': float(np.ptp(versions, axis=1).mean()),
      'version_deviation': float(versions.std(axis=1).mean()),
      'version_mean': float(versions.mean()),
    }
    return parts.rows('transition', drawn)

  def next_batch(self, updater: int) -> int:
    """Returns the first batch number that a new updater may use."""
    return self._next.get(updater, 0)

  def transitions(self, part: str) -> int:
    """Returns how many transitions of a part have come."""
    return self._raw.rings[part].added

  def metrics(self) -> dict[str, float]:
    """Returns the shares, and of the labels of an update: how far versions spread."""
    uses = self._samples / self._labels if self._labels else 0.0
    return {**self._labelled.metrics(), **self._last, 'label_uses': uses}

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs."""
    return {'raw': self._raw.state(), 'labelled': self._labelled.state()}

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""
    return {
      'raw': self._raw.progress(),
      'labelled': self._labelled.progress(),
      'counts': [self._labels, self._samples],
      'next': [*self._next.items()],
    }

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""
    self._raw.restore(state['raw'], progress['raw'])
    self._labelled.restore(state['labelled'], progress['labelled'])
    self._labels, self._samples = progress['counts']
    self._next = dict(progress['next'])

  def _work(self) -> types.Work:
    """Draws transitions to be labelled, by the shares that updates have."""
    drawn = self._raw.draw(self._batch, self._labelled.weights)
    transition = self._raw.item.transition
    items = unpack(transition, self._raw.rows('transition', drawn))
    nobody = np.full(self._batch, -1, np.int32)
    return types.Work(drawn.part.astype(np.int32), items, nobody, nobody)

  def _store(self, work: types.Work) -> None:
    self._labels += len(work.part)
    self._next[int(work.updater[0])] = int(work.batch[0]) + 1
    self._labelled.parts.add(work.part, work.items)
