"""Three ways to run the same parts on one machine.

sync    collectors and trainer take turns, block by block: reproducible to the bit
async   collectors, trainer and evaluator run freely; the ratio holds them together,
        or, with `run.pace`, each keeps its own rate as in Gu et al. 2016, V-C
fused   environments (MJX), replay and updates are one program on the accelerator
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
import functools
import queue
import threading
import time
from typing import Any, NamedTuple, Protocol

from armfarm.launchers import build
from armfarm.launchers import guided
from armfarm.launchers import offpolicy
from armfarm.launchers import pairs
from armfarm.launchers.app import UserError
from armfarm.launchers.build import Parts
from armfarm.launchers.crew import Crew
from armfarm.launchers.crew import Threads
from armfarm.replay import types
from armfarm.workers.collector import Stop
from armfarm.workers.evaluator import Evaluator
from armfarm.workers.evaluator import Trial
from armfarm.workers.local_worker import Rollout
from armfarm.workers.local_worker import from_block
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
  updates that it pays for. An agent that acts on the host does so while they compute.
  Jobs of log replay have their turns, too; before fine-tuning, they alone.
  """

  def __init__(self, parts: Parts, replay: types.Replay):
    self.trainer = build.make_trainer(parts, replay)
    self._replay = replay
    self._evaluator = build.make_evaluator(parts)
    who = offpolicy.cast(parts.config)
    self._collectors = [
      build.make_collector(parts, replay, number) for number in range(who.collectors)
    ]
    self._jobs = [
      offpolicy.make_log_replay(parts, replay, number)
      for number in range(who.first_job, who.first_updater)
    ]
    self._workers: list[Any] = [*self._collectors, *self._jobs]
    self._offline_updates = offpolicy.offline_updates(parts.config)
    self.trainer.publish()  # collectors need variables to have a state

  def submit(self, supervisor: Supervisor, request: Request) -> None:
    """See `Runtime`."""
    supervisor.report(request, try_out(self._evaluator, request))

  def arrays(self) -> Any:
    """See `Runtime`."""
    states = [worker.state() for worker in self._workers]
    return {'trainer': self.trainer.state(), 'collectors': states}

  def restore(self, arrays: Any, progress: dict[str, Any]) -> None:
    """See `Runtime`."""
    self.trainer.restore(arrays['trainer'], progress['trainer'])
    for worker, state in zip(self._workers, arrays['collectors'], strict=True):
      worker.restore(state)

  def run(self, supervisor: Supervisor, stop: Stop) -> None:
    """See `Runtime`."""
    self.trainer.publish()
    while not (supervisor.done or stop.is_set()):
      supervisor.after(self.round())  # between rounds no block is on its way
    for worker in self._workers:
      worker.close()

  def round(self) -> list[Episode]:
    """Takes one block from everyone; returns the collectors' episodes that ended."""
    for job in self._jobs:
      job.send()
      self.trainer.advance(self._take())
    episodes: list[Episode] = []
    if self.trainer.counters.updates < self._offline_updates:
      return episodes
    for collector in self._collectors:
      collector.send()
      episodes += self.trainer.advance(self._take())
    return episodes

  def _take(self) -> types.Block:
    block = self._replay.take(timeout=30.0)
    if block is None:
      raise UserError('replay lost a block: is its server running? run this again')
    return block


class Learner(NamedTuple):
  """Who learns in an asynchronous run.

  Attributes:
    trainer: see `Trainer` and `ParameterServer`.
    advance: takes what has arrived and learns; returns the episodes that ended.
    workers: returns the numbers of the workers that there are to be by now.
    ready: returns how many collectors have said that they are; None where it does not
      matter, since the run begins with whoever is first.
  """

  trainer: Any
  advance: Callable[[], list[Any]]
  workers: Callable[[], Sequence[int]]
  ready: Callable[[], int] | None = None


def limited(parts: Parts, replay: types.Replay) -> Learner:
  """A trainer that takes no block while updates are due: the ratio holds."""
  trainer = build.make_trainer(parts, replay)

  def advance() -> list[Episode]:
    block = replay.take(_PATIENCE)
    return trainer.advance(block) if block else []

  return Learner(trainer, advance, _collectors(parts))


def paced(parts: Parts, replay: types.Replay) -> Learner:
  """A trainer that keeps its rate: takes what has arrived, updates by a clock."""
  trainer = build.make_trainer(parts, replay)
  hertz = parts.config.run.pace * build.TRAINER_HERTZ
  pacer = Pacer(hertz / trainer.updates_per_call)

  def advance() -> list[Episode]:
    pacer.wait()
    episodes = []
    while block := replay.take(timeout=0.0):
      episodes += trainer.ingest(block)
    if trainer.ready:
      trainer.train_once()
    return episodes

  return Learner(trainer, advance, _collectors(parts))


def labelled(
  parts: Parts, replay: types.Replay, others: Mapping[str, types.Replay]
) -> Learner:
  """A trainer that learns from labels; collectors come when fine-tuning begins."""
  options = build.trainer_options(parts.config)
  trainer = offpolicy.make_trainer(parts, options, replay, others)
  who = offpolicy.cast(parts.config)

  def workers() -> Sequence[int]:
    return range(0 if trainer.fine_tunes else who.first_job, who.everyone)

  return Learner(trainer, trainer.advance, workers)


def _collectors(parts: Parts) -> Callable[[], Sequence[int]]:
  return functools.partial(range, parts.config.run.collectors)


def served(parts: Parts, replay: types.Replay, gradients: types.Replay) -> Learner:
  """A parameter server that applies gradients as they arrive."""
  server = pairs.make_server(parts, replay)

  def advance() -> list[Rollout]:
    parcel = gradients.take(_PATIENCE / 10)
    while parcel:
      server.receive(parcel)
      parcel = gradients.take(timeout=0.0)
    rollouts = []
    while block := replay.take(timeout=0.0):
      rollouts += server.note(from_block(block))
    return rollouts

  return Learner(server, advance, _collectors(parts), lambda: len(server.ready))


class Async:
  """Collectors and evaluator on their own, the learner in this thread.

  Args:
    parts: of the run.
    learner: who learns.
    crew: runs the collectors.
  """

  def __init__(self, parts: Parts, learner: Learner, crew: Crew):
    self.trainer = learner.trainer
    self._learner = learner
    self._parts = parts
    self._crew = crew
    self._evaluator = build.make_evaluator(parts)
    self._requests: queue.Queue[tuple[Supervisor, Request]] = queue.Queue()
    self._serving = threading.Lock()  # the evaluator has one batch of environments
    self._hired: set[int] = set()
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
    if supervisor.done:
      return
    with Threads() as threads, self._crew:
      threads.start('evaluator', self._evaluate)
      self._begin(threads, supervisor, stop)
      self.trainer.publish()  # nobody has acted before
      self._running = True
      while not (supervisor.done or stop.is_set()):
        supervisor.after(self._advance(threads))
    self._running = False
    self._serve_waiting()
    threads.check()  # what the evaluator died of meanwhile

  def _begin(self, threads: Threads, supervisor: Supervisor, stop: Stop) -> None:
    """Hires whom there are to be, the first one first: it compiles for the others."""
    began = time.monotonic()
    numbers = self._learner.workers()
    for some in (numbers[:1], numbers):
      self._hire(some)
      self._wait(len(some), threads, stop)
    supervisor.stopwatch.skip(time.monotonic() - began)

  def _hire(self, numbers: Sequence[int]) -> None:
    """Hires the workers of some numbers, except those that were hired before."""
    for number in numbers:
      if number not in self._hired:
        self._crew.hire(number, self.trainer.next_episode(number))
        self._hired.add(number)

  def _wait(self, count: int, threads: Threads, stop: Stop) -> None:
    """Waits until so many collectors are ready, where that matters."""
    ready = self._learner.ready
    while ready and ready() < count and not stop.is_set():
      self._advance(threads)

  def _advance(self, threads: Threads) -> list[Any]:
    episodes = self._learner.advance()
    self._hire(self._learner.workers())
    threads.check()
    self._crew.check(self.trainer.next_episode)
    return episodes

  def _evaluate(self, stop: Stop) -> None:
    while not stop.is_set():
      with contextlib.suppress(queue.Empty):
        self._serve(_PATIENCE)

  def _serve(self, timeout: float) -> None:
    with self._serving:
      supervisor, request = self._requests.get(timeout=timeout)
      supervisor.report(request, try_out(self._evaluator, request))

  def _serve_waiting(self) -> None:
    with contextlib.suppress(queue.Empty):
      while True:
        self._serve(timeout=0.0)


class GuidedSync:
  """Guided policy search in lock step.

  In every round each robot rolls out and improves all of its controllers; then the
  global policy learns from all of their lessons. BADMM does the latter half more than
  once, in turn with its controllers. What a stop interrupts is done again.
  """

  def __init__(self, parts: Parts, replay: types.Replay):
    config = parts.config
    self.trainer = pairs.make_server(parts, replay)
    self._updates = config.run.updates_per_iteration
    self._batch_size = config.replay.batch_size
    is_badmm = config.agent.local.algorithm == 'badmm'
    self._inner_iterations = config.run.inner_iterations if is_badmm else 1
    self._replay = replay
    self._evaluator = build.make_evaluator(parts)
    self._memory = guided.make_memory(config, parts.own_task, config.run.collectors)
    self._robots = pairs.make_locals(parts, self._memory)

  def submit(self, supervisor: Supervisor, request: Request) -> None:
    """See `Runtime`."""
    supervisor.report(request, try_out(self._evaluator, request))

  def arrays(self) -> Any:
    """See `Runtime`."""
    return {'trainer': self.trainer.state(), **self._locals()}

  def restore(self, arrays: Any, progress: dict[str, Any]) -> None:
    """See `Runtime`."""
    self.trainer.restore(arrays['trainer'], progress['trainer'])
    self._go_back(arrays)

  def run(self, supervisor: Supervisor, stop: Stop) -> None:
    """See `Runtime`."""
    self.trainer.publish()
    while not (supervisor.done or stop.is_set()):
      supervisor.after(self.round(stop))

  def round(self, stop: Stop) -> list[Rollout]:
    """Improves every controller and the global policy; returns the rollouts.

    Told to stop, it returns nothing and leaves everything as it was.
    """
    before = self._locals()
    rollouts: list[Rollout] = []
    for robot in self._robots:
      robot.iterate(self._newest, rollouts.append, stop.is_set)
    if stop.is_set():
      self._go_back(before)
      return []
    self._learn()
    for _ in range(self._inner_iterations - 1):
      for robot in self._robots:
        robot.again(self._newest)
      self._learn()
    return [row for rollout in rollouts for row in self.trainer.note(rollout)]

  def _learn(self) -> None:
    lessons = self._memory.latest()
    assert lessons is not None
    self.trainer.train(lessons, self._updates, self._batch_size)
    self.trainer.publish()

  def _newest(self) -> types.Published:
    published = self._replay.latest(_PATIENCE)
    assert published is not None
    return published

  def _locals(self) -> dict[str, Any]:
    states = [robot.state() for robot in self._robots]
    return {'robots': states, 'memory': self._memory.state()}

  def _go_back(self, arrays: dict[str, Any]) -> None:
    for robot, state in zip(self._robots, arrays['robots'], strict=True):
      robot.restore(state)
    self._memory.restore(arrays['memory'])


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
