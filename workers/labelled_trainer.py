"""The trainer of a farm with Bellman updaters: who waits for whom.

  blocks of log replay      all of them until there is enough to begin with, then one
                            for every call to train, to refresh what is remembered
  blocks of collectors      once fine-tuning has begun, as the balancer welcomes them
  labels                    all that have come
  updates                   as far as labels and, in fine-tuning, the balancer allow

It stands for the `trainer.Trainer` that it has. Kalashnikov et al. 2018, F.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from armfarm.agents import types as agent_types
from armfarm.replay import types
from armfarm.workers.experience import ONLINE
from armfarm.workers.experience import Labelling
from armfarm.workers.joint import Balancer
from armfarm.workers.trainer import Counters
from armfarm.workers.trainer import Episode
from armfarm.workers.trainer import Trainer

_PATIENCE = 0.05  # s to wait for something to do


class Sources(NamedTuple):
  """Where blocks come from.

  Attributes:
    online: the queue of the collectors.
    offline: that of log replay, None where nothing is replayed.
  """

  online: types.Replay
  offline: types.Replay | None


class LabelledTrainer:
  """Learns from what Bellman updaters label.

  Args:
    trainer: whose memory is `memory`.
    memory: see `Labelling`.
    sources: see there.
    balancer: see there.
    offline_updates: before fine-tuning begins.
    free_transitions: on-policy, before the balance counts; to begin with where nothing
      is replayed.
    batch_size: examples of an update.
  """

  def __init__(
    self,
    trainer: Trainer,
    memory: Labelling,
    sources: Sources,
    balancer: Balancer,
    *,
    offline_updates: int,
    free_transitions: int,
    batch_size: int,
  ):
    self._trainer = trainer
    self._memory = memory
    self._sources = sources
    self._balancer = balancer
    self._offline_updates = offline_updates
    self._free = free_transitions
    self._samples = batch_size * trainer.updates_per_call

  @property
  def counters(self) -> Counters:
    """How far it is; log replay's steps and episodes are counted, too."""
    return self._trainer.counters

  @property
  def dropped(self) -> int:
    """Items that had arrived before."""
    return self._trainer.dropped

  @property
  def fine_tunes(self) -> bool:
    """Collectors have their part by now."""
    return self.counters.updates >= self._offline_updates

  def advance(self) -> list[Episode]:
    """Does what there is to do; returns the on-policy episodes that ended."""
    while not self._trainer.warm and self._replay_log():
      pass
    episodes = self._collect() if self.fine_tunes else []
    trains = self._allows() and self._memory.allows(self._samples)
    self._memory.exchange(0.0 if trains else _PATIENCE)
    if trains:
      self._trainer.train_once()
      self._replay_log()
    return episodes

  def _replay_log(self) -> bool:
    """Takes a block of log replay; returns whether there was one."""
    offline = self._sources.offline
    block = offline.take(timeout=0.0) if offline is not None else None
    if block is not None:
      self._trainer.ingest(block)
    return block is not None

  def _collect(self) -> list[Episode]:
    if not self._balancer.takes(*self._balance()):
      return []
    block = self._sources.online.take(timeout=0.0)
    return self._trainer.ingest(block) if block is not None else []

  def _allows(self) -> bool:
    if not self._trainer.warm:
      return False
    return not self.fine_tunes or self._balancer.trains(*self._balance())

  def _balance(self) -> tuple[int, int]:
    """Returns updates and on-policy transitions, both since the balance counts."""
    updates = self.counters.updates - self._offline_updates
    return updates, max(0, self._memory.transitions(ONLINE) - self._free)

  def metrics(self) -> dict[str, float]:
    """Returns the trainer's metrics, and the balance."""
    updates, transitions = self._balance()
    balance = updates / transitions if transitions else 0.0
    return {**self._trainer.metrics(), 'updates_per_transition': balance}

  def publish(self) -> None:
    """See `Trainer`."""
    self._trainer.publish()

  def judge(self, success: float) -> None:
    """See `Trainer`."""
    self._trainer.judge(success)

  def check(self) -> None:
    """See `Trainer`."""
    self._trainer.check()

  def variables(self) -> agent_types.Variables:
    """See `Trainer`."""
    return self._trainer.variables()

  def next_episode(self, worker: int) -> int:
    """Returns the first number that a new worker may use, of what it numbers."""
    batch = self._memory.next_batch(worker)
    return max(batch, self._trainer.next_episode(worker))

  def state(self) -> dict[str, Any]:
    """See `Trainer`."""
    return self._trainer.state()

  def progress(self) -> dict[str, Any]:
    """See `Trainer`."""
    return self._trainer.progress()

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """See `Trainer`."""
    self._trainer.restore(state, progress)
