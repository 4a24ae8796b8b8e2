"""Three ways to run the same parts on one machine.

sync    collectors and trainer take turns, block by block: reproducible to the bit
async   collectors, trainer and evaluator run freely; the ratio holds them together,
        or, with `run.pace`, each keeps its own rate as in Gu et al. 2016, V-C
fused   environments (MJX), replay and updates are one program on the accelerator
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
import contextlib
import queue
from typing import Any, Protocol

from armfarm.launchers import build
from armfarm.launchers.app import UserError
from armfarm.launchers.build import Parts
from armfarm.launchers.crew import Crew
from armfarm.launchers.crew import Threads
from armfarm.replay import types
from armfarm.workers.collector import Stop
from armfarm.workers.evaluator import Evaluator
from armfarm.workers.evaluator import Trial
from armfarm.workers.pacing import Pacer
from armfarm.workers.supervisor import Request
from armfarm.workers.supervisor import Supervised
from armfarm.workers.supervisor import Supervisor
from armfarm.workers.trainer import Episode

_PATIENCE = 0.5  # s between two looks at whether to stop


class Runtime(Protocol):
  """What a launcher needs of a runtime."""

  @property
  def trainer(self) -> Supervised:
    """Who learns."""

  def submit(self, supervisor: Supervisor, request: Request) -> None:
    """Has a policy tried, now or later."""

  def arrays(self) -> Any:
    """Returns what a checkpoint is to hold."""

  def restore(self, arrays: Any, progress: dict[str, Any]) -> None:
    """Goes on from what `arrays` returned."""

  def run(self, supervisor: Supervisor, stop: Stop) -> None:
    """Runs until the supervisor is done or told to stop."""


class Sync:
  """Collectors and trainer in lock step.

  In every round each collector takes one block of steps, and the trainer makes the
  updates that it pays for. These are dispatched from a thread of their own: on a CPU,
  JAX computes in order what one thread asks for, and actions would wait for updates.
  """

  def __init__(self, parts: Parts, replay: types.Replay):
    self.trainer = build.make_trainer(parts, replay)
    self._replay = replay
    self._dispatcher = futures.ThreadPoolExecutor(1, 'trainer')
    self._evaluator = build.make_evaluator(parts)
    self._collectors = [
      build.make_collector(parts, replay, number)
      for number in range(parts.config.run.collectors)
    ]

  def submit(self, supervisor: Supervisor, request: Request) -> None:
    """See `Runtime`."""
    supervisor.report(request, try_out(self._evaluator, request))

  def arrays(self) -> Any:
    """See `Runtime`."""
    states = [collector.state() for collector in self._collectors]
    return {'trainer': self.trainer.state(), 'collectors': states}

  def restore(self, arrays: Any, progress: dict[str, Any]) -> None:
    """See `Runtime`."""
    self.trainer.restore(arrays['trainer'], progress['trainer'])
    for collector, state in zip(self._collectors, arrays['collectors'], strict=True):
      collector.restore(state)

  def run(self, supervisor: Supervisor, stop: Stop) -> None:
    """See `Runtime`."""
    self.trainer.publish()
    while not (supervisor.done or stop.is_set()):
      supervisor.after(self.round())  # between rounds no block is on its way

  def round(self) -> list[Episode]:
    """Takes one block from every collector; returns the episodes that ended."""
    episodes: list[Episode] = []
    for collector in self._collectors:
      collector.send()
      episodes += self._dispatcher.submit(self.trainer.advance, self._take()).result()
    return episodes

  def _take(self) -> types.Block:
    block = self._replay.take(timeout=30.0)
    if block is None:
      raise UserError('replay lost a block: is its server running? run this again')
    return block


class Async:
  """Collectors and evaluator on their own, the trainer in this thread.

  Args:
    parts: of the run.
    replay: as the trainer sees it.
    crew: runs the collectors.
  """

  def __init__(self, parts: Parts, replay: types.Replay, crew: Crew):
    self.trainer = build.make_trainer(parts, replay)
    self._parts = parts
    self._replay = replay
    self._crew = crew
    self._evaluator = build.make_evaluator(parts)
    self._requests: queue.Queue[tuple[Supervisor, Request]] = queue.Queue()
    self._running = False

  def submit(self, supervisor: Supervisor, request: Request) -> None:
    """See `Runtime`."""
    self._requests.put((supervisor, request))
    if not self._running:
      self._serve_waiting()

  def arrays(self) -> Any:
    """See `Runtime`."""
    return {'trainer': self.trainer.state()}

  def restore(self, arrays: Any, progress: dict[str, Any]) -> None:
    """See `Runtime`."""
    self.trainer.restore(arrays['trainer'], progress['trainer'])

  def run(self, supervisor: Supervisor, stop: Stop) -> None:
    """See `Runtime`."""
    self.trainer.publish()
    with Threads() as threads, self._crew:
      threads.start('evaluator', self._evaluate)
      for number in range(self._parts.config.run.collectors):
        self._crew.hire(number, self.trainer.next_episode(number))
      cycle = self._paced_cycle if self._parts.config.run.pace else self._limited_cycle
      advance = cycle()
      self._running = True
      while not (supervisor.done or stop.is_set()):
        supervisor.after(advance())
        threads.check()
        self._crew.check(self.trainer.next_episode)
    self._running = False
    self._serve_waiting()

  def _limited_cycle(self) -> Callable[[], list[Episode]]:
    """The ratio holds: no block is taken while updates are due."""

    def advance() -> list[Episode]:
      block = self._replay.take(_PATIENCE)
      return self.trainer.advance(block) if block else []

    return advance

  def _paced_cycle(self) -> Callable[[], list[Episode]]:
    """Each keeps its rate: what has arrived is taken, updates follow a clock."""
    hertz = self._parts.config.run.pace * build.TRAINER_HERTZ
    pacer = Pacer(hertz / self.trainer.updates_per_call)

    def advance() -> list[Episode]:
      pacer.wait()
      episodes = []
      while block := self._replay.take(timeout=0.0):
        episodes += self.trainer.ingest(block)
      if self.trainer.warm:
        self.trainer.train_once()
      return episodes

    return advance

  def _evaluate(self, stop: Stop) -> None:
    while not stop.is_set():
      with contextlib.suppress(queue.Empty):
        self._serve(_PATIENCE)

  def _serve(self, timeout: float) -> None:
    supervisor, request = self._requests.get(timeout=timeout)
    supervisor.report(request, try_out(self._evaluator, request))

  def _serve_waiting(self) -> None:
    while not self._requests.empty():
      self._serve(_PATIENCE)


class Fused:
  """Everything on the learner's device; policies are tried on native MuJoCo.

  Args:
    parts: of the run.
  """

  def __init__(self, parts: Parts):
    self.trainer = build.make_fused(parts)
    self._evaluator = build.make_evaluator(parts)

  def submit(self, supervisor: Supervisor, request: Request) -> None:
    """See `Runtime`."""
    supervisor.report(request, try_out(self._evaluator, request))

  def arrays(self) -> Any:
    """See `Runtime`."""
    return {'trainer': self.trainer.state()}

  def restore(self, arrays: Any, progress: dict[str, Any]) -> None:
    """See `Runtime`."""
    self.trainer.restore(arrays['trainer'], progress['trainer'])

  def run(self, supervisor: Supervisor, stop: Stop) -> None:
    """See `Runtime`."""
    while not (supervisor.done or stop.is_set()):
      supervisor.after(self.trainer.advance())


def try_out(evaluator: Evaluator, request: Request) -> Trial:
  """Tries the policy of a request; its fresh episodes are those of its own time."""
  return evaluator.try_out(request.variables, request.counters.episodes)
