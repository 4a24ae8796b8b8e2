"""A pair of workers: one robot's local and global worker, and their memory.

  local    rolls out and improves, one iteration after the other     this thread
  global   samples the memory and sends gradients                    another

The two share nothing but the memory, and wait for nobody. After every iteration the
pair saves itself: one that starts again goes on with its controllers and its lessons.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
import functools
import threading
from typing import Any, NamedTuple

from armfarm.agents.gps import agent as gps
from armfarm.replay import types
from armfarm.workers.collector import Stop
from armfarm.workers.global_worker import GlobalWorker
from armfarm.workers.lessons import Memory
from armfarm.workers.local_worker import LocalWorker
from armfarm.workers.local_worker import Rollout
from armfarm.workers.local_worker import ready
from armfarm.workers.local_worker import to_block
from armfarm.workers.pacing import Pacer

_PATIENCE = 0.5  # s between two looks at whether to stop


class Seams(NamedTuple):
  """Where a pair's messages go and come from.

  Attributes:
    reports: takes rollouts, has the variables.
    gradients: takes parcels.
  """

  reports: types.Replay
  gradients: types.Replay


class Newest:
  """The newest variables, looked up each time.

  What is kept for a while is late by the updates of all robots meanwhile: gradients for
  parameters of 80 updates ago teach nothing.
  """

  def __init__(self, replay: types.Replay):
    self._replay = replay
    self._published: types.Published | None = None

  def wait(self, stop: Stop) -> bool:
    """Waits for the first ones, until told to stop; returns whether they are here."""
    while self._published is None and not stop.is_set():
      self._published = self._replay.latest(_PATIENCE)
    return self._published is not None

  def __call__(self) -> types.Published:
    """Returns them; `wait` has returned True."""
    self._published = self._replay.latest(_PATIENCE) or self._published
    assert self._published is not None
    return self._published


class Pair:
  """Runs the two workers of a robot.

  Args:
    local: rolls out and improves.
    teacher: makes gradients.
    memory: of both.
    seams: see there.
    gradients_per_s: at most.
    save: called after every iteration with `state()`.
  """

  def __init__(
    self,
    local: LocalWorker,
    teacher: GlobalWorker,
    memory: Memory,
    seams: Seams,
    gradients_per_s: float,
    save: Callable[[dict[str, Any]], None],
  ):
    self._local = local
    self._teacher = teacher
    self._memory = memory
    self._seams = seams
    self._gradients_per_s = gradients_per_s
    self._save = save
    self._writer = seams.reports.writer()

  def prepare(self, learner: gps.LearnerState) -> None:
    """Compiles everything for a learner without its optimizer, whatever it holds."""
    self._local.prepare(learner)
    self._teacher.prepare(learner)

  def run(self, stop: Stop) -> None:
    """Works until told to stop."""
    self._report(stop.is_set, ready(self._local.number))
    newest = Newest(self._seams.reports)
    if not newest.wait(stop):
      return
    over = threading.Event()
    with futures.ThreadPoolExecutor(1, 'global worker') as pool:
      teaching = pool.submit(self._teach, over)
      try:
        self._improve(newest, lambda: stop.is_set() or teaching.done())
      finally:
        over.set()
      teaching.result()  # raises what it died of

  def state(self) -> dict[str, Any]:
    """All that `restore` needs between two iterations, as a tree of arrays."""
    return {'local': self._local.state(), 'memory': self._memory.state()}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes on from where `state` was taken."""
    self._local.restore(state['local'])
    self._memory.restore(state['memory'])

  def skip_to(self, episode: int) -> None:
    """Leaves out the rollouts before this number, if they are yet to come."""
    self._local.skip_to(episode)

  def _improve(self, newest: Newest, over: Callable[[], bool]) -> None:
    report = functools.partial(self._report, over)
    while not over():
      self._local.iterate(newest, report, over)
      if not over():
        self._save(self.state())

  def _report(self, over: Callable[[], bool], rollout: Rollout) -> None:
    self._writer.insert(to_block(rollout))
    while not self._writer.flush(_PATIENCE) and not over():
      pass

  def _teach(self, stop: Stop) -> None:
    newest = Newest(self._seams.reports)
    newest.wait(stop)
    writer = self._seams.gradients.writer()
    pacer = Pacer(self._gradients_per_s)
    while not stop.is_set():
      pacer.wait()
      parcel = self._teacher.parcel(newest())
      if parcel is None:
        continue
      writer.insert(parcel)
      while not stop.is_set() and not writer.flush(_PATIENCE):
        pass
    writer.close()
