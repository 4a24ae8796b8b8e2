"""A farm of four with one robot's computer lost and another one ten times too slow.

  python -m armfarm.experiments.gps_faults

ADGPS-4 on `reach_torque`, every robot at a set multiple of real time. When a third of
the rollouts are in, one pair is killed for good measure (SIGKILL; the farm replaces it)
and another one is let run for a tenth of the time only. What is measured is what the
two others lose, and whether the farm learns all the same. A run that is finished is not
repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
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


def disturb(job: jobs.Job) -> None:
  """Waits for the moment, kills one pair and slows another until the run is over.

  What the robots had made at the start, then and last goes into `faults.json`.
  """
  seen = []
  for goal in (1, _AT):
    while len(records.read(job.workdir, 'episode')) < goal:
      time.sleep(0.1 * _PERIOD)
    seen.append(counts(job.workdir))
  _signal(job, _KILLED, signal.SIGKILL)
  while not job.summary():
    _signal(job, _SLOWED, signal.SIGSTOP)
    time.sleep(0.9 * _PERIOD)
    _signal(job, _SLOWED, signal.SIGCONT)
    seen[2:] = [counts(job.workdir)]
    write_json(job.workdir / 'faults.json', seen)
    time.sleep(0.1 * _PERIOD)


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
  app.no_arguments(argv)
  code = 0
  for seed in range(jobs.SEEDS.value or results.seeds(_NAME, 'adgps-4', 'async')):
    job = make_job(seed)
    if not job.summary():
      threading.Thread(target=disturb, args=[job], daemon=True).start()
    code = max(code, jobs.run_all([job], collect))
  return code


def _signal(job: jobs.Job, number: int, which: signal.Signals) -> None:
  """Sends a signal to the process of a pair, if there is one now."""
  with contextlib.suppress(OSError, ValueError):
    os.kill(int(pairs.pid_path(job.workdir, number).read_text()), which)


if __name__ == '__main__':
  app.run(main)
