"""A farm of four with one robot's computer lost and another one ten times too slow.

  python -m armfarm.experiments.gps_faults

ADGPS-4 on `reach_torque`, every robot at a set multiple of real time. When a third of
the rollouts are in, one pair is killed for good measure (SIGKILL; the farm replaces it)
and another one is let run for a tenth of the time only. What is measured is what the
two others lose, and whether the farm learns all the same. A run that is finished is not
repeated; one that was stopped begins anew, since what counts is its clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import threading
import time
from typing import Any

from armfarm.experiments import gps_reach
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app
from armfarm.launchers import pairs
from armfarm.workers import records
from armfarm.workers.checkpoints import write_json

_NAME = 'gps_faults'
_KILLED, _SLOWED, _OTHERS = 0, 1, (2, 3)
_AT = 160  # rollouts
_PERIOD = 1.0  # s; the slowed pair runs for a tenth of each
_METRICS = ('success', 'return', 'episodes', 'updates')


def make_job(seed: int) -> jobs.Job:
  """Returns the run of a seed."""
  job = gps_reach.make_job('adgps-4', seed)
  return job._replace(name=_NAME, workdir=jobs.runs(_NAME) / f'adgps-4-{seed}')


def counts(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns when it is and how many rollouts each robot has made."""
  robots = [row['collector'] for row in records.read(workdir, 'episode')]
  made = [robots.count(number) for number in (_KILLED, _SLOWED, *_OTHERS)]
  return {'seconds': time.monotonic(), 'rollouts': made}


def disturb(job: jobs.Job, over: threading.Event) -> None:
  """Waits for the moment, kills one pair and slows another until the run is over.

  What the robots had made at the start, then and last goes into `faults.json`.
  """
  seen = []
  for goal in (1, _AT):
    if not _made(job, goal, over):
      return
    seen.append(counts(job.workdir))
  _signal(job, _KILLED, signal.SIGKILL)
  while not (over.is_set() or job.summary()):  # to end all takes seconds, too
    _signal(job, _SLOWED, signal.SIGSTOP)
    over.wait(0.9 * _PERIOD)
    _signal(job, _SLOWED, signal.SIGCONT)
    seen[2:] = [counts(job.workdir)]
    write_json(job.workdir / 'faults.json', seen)
    over.wait(0.1 * _PERIOD)


def _made(job: jobs.Job, goal: int, over: threading.Event) -> bool:
  """Waits for so many rollouts; returns whether they came."""
  while len(records.read(job.workdir, 'episode')) < goal:
    if over.wait(0.1 * _PERIOD):
      return False
  return True


def rates(seen: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
  """Returns rollouts a second of each robot, before the faults and after."""

  def rate(first: dict[str, Any], last: dict[str, Any]) -> list[float]:
    seconds = last['seconds'] - first['seconds']
    pairs = zip(first['rollouts'], last['rollouts'], strict=True)
    return [(after - before) / seconds for before, after in pairs]

  return rate(seen[0], seen[1]), rate(seen[1], seen[2])


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  numbers = jobs.summary_rows(job, source, _METRICS, {})
  before, after = rates(json.loads((job.workdir / 'faults.json').read_text()))
  kept = [100 * now / then for then, now in zip(before, after, strict=True)]
  found = {
    'rate_kept': min(kept[2:]),
    'rate_kept_by_killed': kept[0],
    'rate_kept_by_slowed': kept[1],
  }
  extra = [
    numbers[0]._replace(metric=metric, value=value, unit='%')
    for metric, value in found.items()
  ]
  return [*numbers, *extra, *jobs.curve_rows(job, source, ('return_at_second_',))]


def main(argv: list[str]) -> int:
  """Runs what is left to run; returns the exit code."""
  jobs.check_flags(argv, 'seeds')
  seeds = range(jobs.SEEDS.value or results.seeds(_NAME, 'adgps-4', 'async'))
  queue = [make_job(seed) for seed in seeds]
  for job in queue:
    if not job.summary():
      shutil.rmtree(job.workdir, ignore_errors=True)
  return jobs.run_all(queue, collect, disturb)


def _signal(job: jobs.Job, number: int, which: signal.Signals) -> None:
  """Sends a signal to the process of a pair, if there is one now."""
  with contextlib.suppress(OSError, ValueError):
    pid = int(pairs.pid_path(job.workdir, number).read_text())
    # A number may be another process's by now.
    if f'--workdir={job.workdir}' in pathlib.Path(f'/proc/{pid}/cmdline').read_text():
      os.kill(pid, which)


if __name__ == '__main__':
  app.run(main)
