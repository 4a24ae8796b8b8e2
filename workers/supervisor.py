"""The supervisor: what happens around training, the same in every runtime.

After every block it records the episodes that ended, asks for an evaluation when one is
due, keeps the criteria, saves checkpoints and knows when the run is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import threading
import time
from typing import Any, NamedTuple, Protocol

from armfarm.agents import types as agent_types
from armfarm.workers.checkpoints import Checkpoints
from armfarm.workers.evaluator import Trial
from armfarm.workers.records import Progress
from armfarm.workers.records import Records
from armfarm.workers.trainer import Counters

_COUNTED = ('updates_per_step', 'traces')  # metrics that a summary has


class Options(NamedTuple):
  """When things happen, in training episodes.

  Attributes:
    max_episodes: the run ends after so many.
    evaluate_every: episodes between two trials of the policy.
    checkpoint_every: episodes between two checkpoints.
    stop_when_solved: end once both criteria were met, with the policy that met them.
    evaluate_first: try the policy before any training, too.
  """

  max_episodes: int
  evaluate_every: int
  checkpoint_every: int
  stop_when_solved: bool
  evaluate_first: bool = False


class Request(NamedTuple):
  """A policy to be tried, and when it was made.

  Attributes:
    counters: of the trainer then.
    seconds: of training until then.
    variables: of the policy.
  """

  counters: Counters
  seconds: float
  variables: agent_types.Variables


class Criteria(NamedTuple):
  """When the task counted as learned; None while it does not.

  Attributes:
    streak: trials in a row with every held-out episode a success.
    episodes_to_100: training episodes at the first of two such trials in a row.
    wall_s_to_100: seconds of training until then, evaluation apart.
    episodes_to_100_paper: at the first trial with every fresh episode a success.
    success: share of the held-out episodes in the last trial.
    total: their mean return.
  """

  streak: int = 0
  episodes_to_100: int | None = None
  wall_s_to_100: float | None = None
  episodes_to_100_paper: int | None = None
  success: float | None = None
  total: float | None = None

  def after(self, request: Request, trial: Trial, previous: Request) -> Criteria:
    """Returns the criteria after one more trial; `previous` was the one before."""
    changes: dict[str, Any] = {'success': trial.success, 'total': trial.total}
    changes['streak'] = self.streak + 1 if trial.success == 1.0 else 0
    if changes['streak'] == 2 and self.episodes_to_100 is None:
      changes['episodes_to_100'] = previous.counters.episodes
      changes['wall_s_to_100'] = previous.seconds
    if trial.fresh_success == 1.0 and self.episodes_to_100_paper is None:
      changes['episodes_to_100_paper'] = request.counters.episodes
    return self._replace(**changes)

  @property
  def met(self) -> bool:
    """Both criteria were met, at one time or another."""
    return None not in (self.episodes_to_100, self.episodes_to_100_paper)


class Stopwatch:
  """Seconds of training: it stands still while paused."""

  def __init__(self, seconds: float = 0.0):
    self._since = time.monotonic() - seconds

  def read(self) -> float:
    """Returns the seconds."""
    return time.monotonic() - self._since

  def skip(self, seconds: float) -> None:
    """Takes back seconds that were not training."""
    self._since += seconds


class Ended(Protocol):
  """An episode that is over, to be recorded: a `trainer.Episode` or like it."""

  @property
  def total(self) -> float: ...

  def _asdict(self) -> dict[str, Any]: ...


class Supervised(Protocol):
  """What is watched: a `trainer.Trainer`, or whoever learns in its place."""

  counters: Counters
  dropped: int

  def publish(self) -> None:
    """Puts the present variables on offer."""

  def judge(self, success: float) -> None:
    """Is told how a policy of its did, from whatever thread."""

  def check(self) -> None:
    """Raises Diverged if what was learned is not finite."""

  def variables(self) -> agent_types.Variables:
    """Returns the present variables on the host."""

  def metrics(self) -> dict[str, float]:
    """Returns the newest metrics, `updates_per_step` among them."""

  def progress(self) -> dict[str, Any]:
    """Returns the numbers that a checkpoint needs, ready for JSON."""


def next_multiple(count: int, step: int) -> int:
  """Returns the first multiple of `step` above `count`."""
  return (count // step + 1) * step


class Supervisor:
  """Watches over one trainer.

  Args:
    trainer: who is watched.
    options: see `Options`.
    submit: takes a `Request` and sees to it that `report` is called with its trial, at
      once or later, from this thread or another.
    arrays: returns what a checkpoint is to hold, a tree of arrays.
    checkpoints: where to save.
    records: where to write.
    progress: where to show.
  """

  def __init__(
    self,
    trainer: Supervised,
    options: Options,
    *,
    submit: Callable[[Supervisor, Request], None],
    arrays: Callable[[], Any],
    checkpoints: Checkpoints,
    records: Records,
    progress: Progress,
  ):
    self._trainer = trainer
    self._options = options
    self._submit = submit
    self._arrays = arrays
    self._checkpoints = checkpoints
    self._records = records
    self._progress = progress
    self._lock = threading.Lock()
    self._tried = Request(Counters(), 0.0, None)
    self._passed: agent_types.Variables | None = None  # the policy the run ends with
    self._episode: Ended | None = None
    self._next_evaluation = options.evaluate_every
    self._next_checkpoint = options.checkpoint_every
    self._waiting: list[int] = []  # episodes of trials that were not reported yet
    self._began = (time.monotonic(), Counters())
    self.criteria = Criteria()
    self.stopwatch = Stopwatch()

  @property
  def done(self) -> bool:
    """The run is over, as far as its options go."""
    episodes = self._trainer.counters.episodes
    return self._passed is not None or episodes >= self._options.max_episodes

  def after(self, episodes: Sequence[Ended]) -> None:
    """Does what is due after a block in which these episodes ended."""
    counters = self._trainer.counters
    for episode in episodes:
      self._episode = episode
      self._records.write('episode', counters.env_steps, episode._asdict())
    if counters.episodes >= self._next_evaluation:
      self._next_evaluation = next_multiple(
        counters.episodes, self._options.evaluate_every
      )
      self.evaluate()
    if counters.episodes >= self._next_checkpoint:
      self._next_checkpoint = next_multiple(
        counters.episodes, self._options.checkpoint_every
      )
      if not self.done:  # `finish` saves the last
        self.save()
    self._progress.show(self._line())

  def evaluate(self) -> None:
    """Has the present policy tried.

    Raises:
      Diverged: what it learned is not finite.
    """
    trainer = self._trainer
    trainer.check()
    row = {'updates': trainer.counters.updates, **trainer.metrics()}
    self._records.write('learner', trainer.counters.env_steps, row)
    variables = trainer.variables()
    request = Request(trainer.counters, self.stopwatch.read(), variables)
    began = time.monotonic()
    self._waiting.append(trainer.counters.episodes)
    self._submit(self, request)
    self.stopwatch.skip(time.monotonic() - began)

  def begin(self) -> None:
    """Does what is due before a run's first episode."""
    fresh = not self._trainer.counters.episodes and self.criteria.success is None
    if self._options.evaluate_first and fresh:
      self.evaluate()

  def finish(self) -> None:
    """Ends the run: sees to it that its policy was tried; saves the last checkpoint."""
    tried = self._tried.counters == self._trainer.counters
    if self.done and self._passed is None and not tried:
      self.evaluate()
    self.save()

  def report(self, request: Request, trial: Trial) -> None:
    """Takes the outcome of the oldest request; may be called from another thread.

    Once a policy has passed, the run ends with it: later ones, of a trainer that went
    on meanwhile, change nothing.
    """
    told = {name: x for name, x in trial._asdict().items() if x is not None}
    row = {**request.counters._asdict(), 'seconds': request.seconds, **told}
    self._trainer.judge(trial.success)
    with self._lock:
      if self._passed is None:
        self._judge(request, trial)
      self._waiting.pop(0)
      self._records.write('evaluation', request.counters.env_steps, row)

  def _judge(self, request: Request, trial: Trial) -> None:
    self.criteria = self.criteria.after(request, trial, self._tried)
    self._tried = request._replace(variables=None)
    solved = self.criteria.met and trial.success == 1.0
    if solved and self._options.stop_when_solved:
      self._passed = request.variables

  def save(self) -> None:
    """Saves a checkpoint.

    The present variables are published first: a run that resumes has only these to
    offer, and so both go on alike.

    Raises:
      Diverged: the loss is not finite; nothing is saved.
    """
    self._trainer.publish()
    with self._lock:  # criteria and rows belong together
      criteria, tried, passed = self.criteria, self._tried, self._passed
      evaluation = min([self._next_evaluation, *self._waiting])
      position = self._records.position()
    progress = {
      'trainer': self._trainer.progress(),
      'criteria': criteria._asdict(),
      'tried': [tried.counters, tried.seconds],
      'passed': passed is not None,
      'seconds': self.stopwatch.read(),
      'next': [evaluation, self._next_checkpoint],
      'metrics_bytes': position,
    }
    env_steps = self._trainer.counters.env_steps
    policy = self._trainer.variables() if passed is None else passed
    trees = {'run': self._arrays(), 'policy': policy}
    self._checkpoints.save(env_steps, trees, progress)

  def restore(self, progress: dict[str, Any], policy: agent_types.Variables) -> None:
    """Goes on from a checkpoint's progress and policy, its trainer being restored."""
    self.criteria = Criteria(**progress['criteria'])
    counters, seconds = progress['tried']
    self._tried = Request(Counters(*counters), seconds, None)
    if progress['passed'] and self._options.stop_when_solved:
      self._passed = policy
    self.stopwatch = Stopwatch(progress['seconds'])
    self._next_evaluation, checkpoint = progress['next']
    every, episodes = self._options.checkpoint_every, self._trainer.counters.episodes
    self._next_checkpoint = min(checkpoint, next_multiple(episodes, every))
    self._began = (time.monotonic(), self._trainer.counters)

  def summary(self) -> dict[str, Any]:
    """Returns the numbers of the run so far, as `summary.json` has them."""
    counters, metrics = self._trainer.counters, self._trainer.metrics()
    seconds = max(self.stopwatch.read(), 1e-9)
    return {
      **counters._asdict(),
      'episodes_to_100': self.criteria.episodes_to_100,
      'wall_s_to_100': self.criteria.wall_s_to_100,
      'episodes_to_100_paper': self.criteria.episodes_to_100_paper,
      'success': self.criteria.success,
      'return': self.criteria.total,
      'seconds': seconds,
      'updates_per_s': counters.updates / seconds,
      'env_steps_per_s': counters.env_steps / seconds,
      **{name: x for name, x in metrics.items() if name in _COUNTED},
      'dropped': self._trainer.dropped,
    }

  def _line(self) -> str:
    counters = self._trainer.counters
    began, before = self._began
    seconds = max(time.monotonic() - began, 1e-9)
    total = f'{self._episode.total:8.2f}' if self._episode else '     ---'
    success = self.criteria.success
    tried = f'{100 * success:3.0f} %' if success is not None else '  ---'
    return (
      f'episode {counters.episodes:5d}  return {total}  success {tried}'
      f'  {(counters.env_steps - before.env_steps) / seconds:6.0f} steps/s'
      f'  {(counters.updates - before.updates) / seconds:6.0f} updates/s'
      f'  {self.stopwatch.read():6.1f} s'
    )
