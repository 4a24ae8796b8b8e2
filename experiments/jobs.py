"""Runs of an experiment, one after the other; those that are finished stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import json
import math
import pathlib
import re
import shlex
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

from absl import flags

from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.experiments.rows import Row
from armfarm.experiments.rows import Source
from armfarm.launchers import app
from armfarm.launchers import pictures
from armfarm.launchers import workdir as workdirs

# Metrics of a summary: its key, the unit, what makes the unit of the value.
_METRICS = {
  'success': ('%', 100.0),
  'return': ('', 1.0),
  'episodes_to_100': ('episodes', 1.0),
  'episodes_to_100_paper': ('episodes', 1.0),
  'wall_s_to_100': ('s', 1.0),
  'episodes': ('episodes', 1.0),
  'env_steps': ('steps', 1.0),
  'updates': ('updates', 1.0),
  'updates_per_s': ('updates/s', 1.0),
  'updates_per_step': ('updates/step', 1.0),
  'env_steps_per_s': ('steps/s', 1.0),
  'traces': ('', 1.0),
}
# Learning curves: fields of `pictures.Curve` for both axes, then as above.
_CURVES = {
  rows.CURVE: ('episodes', 'success', ('%', 100.0)),
  'return_after_': ('episodes', 'evaluation_totals', ('', 1.0)),
  'success_at_update_': ('updates', 'success', ('%', 100.0)),
  'return_at_update_': ('updates', 'evaluation_totals', ('', 1.0)),
  'success_at_second_': ('seconds', 'success', ('%', 100.0)),
  'return_at_second_': ('seconds', 'evaluation_totals', ('', 1.0)),
}

SEEDS = flags.DEFINE_integer('seeds', 0, 'Seeds, from 0; 0: as many as are shown.')
AGENTS = flags.DEFINE_list('agents', [], 'Who learns, with commas; none: all.')
TASKS = flags.DEFINE_list('tasks', [], 'What is learned, with commas; none: all.')
STUDIES = flags.DEFINE_list('studies', [], 'Which ones, with commas; none: all.')
_LIMIT = flags.DEFINE_float('limit_minutes', math.inf, 'No run is started later.')
_RUNS = flags.DEFINE_string('runs', 'runs/experiments', 'Folder of the runs.')


class Job(NamedTuple):
  """One run.

  Attributes:
    name: of the experiment.
    agent: as the rows call it.
    variant: as the rows call it.
    seed: of the run.
    workdir: where it goes.
    arguments: of `armfarm.launchers.local`, the workdir apart.
  """

  name: str
  agent: str
  variant: str
  seed: int
  workdir: pathlib.Path
  arguments: tuple[str, ...]

  @property
  def command(self) -> list[str]:
    """What runs it, after the interpreter."""
    workdir = f'--workdir={self.workdir}'
    return ['-m', 'armfarm.launchers.local', *self.arguments, workdir]

  def summary(self) -> dict[str, Any]:
    """Returns what the run left, {} where it is not finished."""
    path = self.workdir / 'summary.json'
    summary = json.loads(path.read_text()) if path.exists() else {}
    return summary if summary.get('finished') else {}

  def failures(self) -> int:
    """Returns how often what ran it ended with an error; each was resumed."""
    path = _failures_path(self)
    return len(path.read_text().splitlines()) if path.exists() else 0

  def updates_per_step(self) -> float:
    """Returns the ratio that the run was asked to hold."""
    return workdirs.read_config(self.workdir)['config']['run']['updates_per_step']


Collect = Callable[[Job, Source], Iterable[Row]]
Meanwhile = Callable[[Job, threading.Event], None]

_LOOK = 0.1  # s between two looks at whether to stop


def runs(name: str) -> pathlib.Path:
  """Returns the folder for the runs of an experiment."""
  return pathlib.Path(_RUNS.value) / name


def workdir(
  name: str, parts: Iterable[str], changes: Iterable[str], seed: int
) -> pathlib.Path:
  """Returns a folder that says what is different of a run.

  Args:
    name: of the experiment.
    parts: what it says first.
    changes: of the config, as flags without "--config.".
    seed: of the run.
  """
  every = [*parts, *(change.partition('.')[2] for change in changes)]
  return runs(name) / f'{re.sub(r"[^a-z0-9.=_-]+", "", "-".join(every))}-{seed}'


def check_flags(argv: list[str], *used: str) -> None:
  """Refuses arguments, and flags for choosing that an experiment does not use.

  Args:
    argv: what is left of the command line.
    used: names of those that it does use.

  Raises:
    UserError: there is one.
  """
  app.no_arguments(argv)
  for holder in (SEEDS, AGENTS, TASKS, STUDIES):
    if holder.value and holder.name not in used:
      raise app.UserError(
        f'--{holder.name} is for other experiments: here is nothing to choose by it'
      )


def chosen(names: Sequence[str], every: Iterable[str]) -> list[str]:
  """Returns the names that a flag chose, all where it chose none.

  Raises:
    UserError: there is no such name.
  """
  every = list(every)
  for name in names:
    if name not in every:
      raise app.UserError(f'there is no {name!r} here: choose from {", ".join(every)}')
  return list(names) or every


def queue(
  make_job: Callable[[str, int], Job],
  agents: Iterable[str],
  seeds: Callable[[str], int],
) -> list[Job]:
  """Returns the jobs of the agents and seeds that flags choose, agent by agent.

  Args:
    make_job: of an agent from a seed.
    agents: all that there are.
    seeds: how many an agent has, where no flag says so.

  Raises:
    UserError: a flag chooses an agent that is not there.
  """
  return [
    make_job(agent, seed)
    for agent in chosen(AGENTS.value, agents)
    for seed in range(SEEDS.value or seeds(agent))
  ]


def run_all(
  jobs: Sequence[Job], collect: Collect, meanwhile: Meanwhile | None = None
) -> int:
  """Runs the jobs that are not finished and records the numbers of all that are.

  Args:
    jobs: what to run.
    collect: returns the rows of a finished job.
    meanwhile: runs beside each job, until its event says that the job has ended.

  Returns:
    The exit code: 0 if every job is finished.

  Raises:
    UserError: the pages cannot be written; the numbers are.
  """
  deadline = time.monotonic() + 60 * _LIMIT.value
  stop = app.stop_on_signals()
  missing = []
  for number, job in enumerate(jobs, 1):
    over = stop.is_set() or time.monotonic() >= deadline
    if not (job.summary() or over):
      print(f'[{number}/{len(jobs)}] {job.workdir}', flush=True)
      _run(job, stop, meanwhile)
    if job.summary():
      rows.merge(results.folder(), collect(job, _source(job)))
    else:
      missing.append(job)
  results.write()
  for job in missing:
    print(f'not finished: {job.workdir}', file=sys.stderr)
  return app.INTERRUPTED if stop.is_set() else int(bool(missing))


def summary_rows(
  job: Job, source: Source, metrics: Sequence[str], paper: dict[str, float]
) -> list[Row]:
  """Returns a row for each of some metrics of a finished job."""
  summary = job.summary()
  found = []
  for metric in metrics:
    unit, scale = _METRICS[metric]
    value = summary[metric]
    value = None if value is None else scale * value
    found.append(_row(job, source, summary['task'], (metric, value, unit), paper))
  return found


def curve_rows(
  job: Job, source: Source, kinds: Sequence[str] = (rows.CURVE,)
) -> list[Row]:
  """Returns the rows of a finished job's learning curves, one for each evaluation.

  Args:
    job: finished.
    source: of its numbers.
    kinds: which curves, of `rows.CURVES`.
  """
  task = job.summary()['task']
  curve = pictures.read_curve(job.workdir)
  found = []
  for kind in kinds:
    places, values, (unit, scale) = _CURVES[kind]
    for x, y in zip(getattr(curve, places), getattr(curve, values), strict=True):
      number = (f'{kind}{int(x):06d}', scale * float(y), unit)
      found.append(_row(job, source, task, number, {}))
  return found


def best_row(curve: Sequence[Row], paper: float) -> Row:
  """Returns the largest success of a learning curve, beside what a paper says.

  Args:
    curve: rows of `rows.CURVE`, of one run, at least one.
    paper: its maximum, %.
  """
  best = max(curve, key=lambda row: row.value or 0.0)
  return best._replace(metric='max_success', paper_value=paper)


def updates_to_100(job: Job) -> float | None:
  """Returns the updates of a finished job until 100 %, None where it had none."""
  curve = pictures.read_curve(job.workdir)
  return None if curve.solved is None else float(curve.updates[curve.solved])


def _row(
  job: Job,
  source: Source,
  task: str,
  number: tuple[str, float | None, str],
  paper: dict[str, float],
) -> Row:
  metric, value, unit = number
  return Row(
    name=job.name,
    task=task,
    agent=job.agent,
    variant=job.variant,
    seed=job.seed,
    metric=metric,
    value=value,
    unit=unit,
    paper_value=paper.get(metric),
    **source._asdict(),
  )


def _run(job: Job, stop: threading.Event, meanwhile: Meanwhile | None) -> None:
  """Runs a job to its end, and notes beside its workdir what ran it last."""
  command = shlex.join(['python', *job.command])
  source = Source(command, rows.commit(), rows.machine())
  rows.write_text(_source_path(job), json.dumps(source._asdict()) + '\n')
  with _beside(job, meanwhile):
    code = call([sys.executable, *job.command], stop)
  if code:
    print(f'{job.workdir}: ended with code {code}', file=sys.stderr)
  if code == app.INTERRUPTED:  # Ctrl-C was for all of us
    stop.set()
  elif code > 0:  # by itself: a signal's is negative
    with _failures_path(job).open('a') as file:
      print(code, file=file)


@contextlib.contextmanager
def _beside(job: Job, meanwhile: Meanwhile | None) -> Iterator[None]:
  """Has something done while a job runs."""
  if meanwhile is None:
    yield
    return
  over = threading.Event()
  thread = threading.Thread(target=meanwhile, args=(job, over), daemon=True)
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join()


def call(command: Sequence[str], stop: threading.Event) -> int:
  """Runs a command, and asks it to end when told to stop; returns its exit code."""
  process, asked = subprocess.Popen(command), False
  while (code := process.poll()) is None:
    if stop.is_set() and not asked:  # by Ctrl-C, it has been asked already
      process.terminate()
      asked = True
    time.sleep(_LOOK)
  return code


def _source(job: Job) -> Source:
  path = _source_path(job)
  if not path.exists():  # the run was made by hand
    return Source(shlex.join(['python', *job.command]), 'unknown', 'unknown')
  return Source(**json.loads(path.read_text()))


def _failures_path(job: Job) -> pathlib.Path:
  return job.workdir.with_name(f'{job.workdir.name}.failures.txt')


def _source_path(job: Job) -> pathlib.Path:
  return job.workdir.with_name(f'{job.workdir.name}.source.json')
