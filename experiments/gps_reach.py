"""Figures 4 and 5 of Yahya et al. 2016: does it pay that nobody waits, and to be many?

  python -m armfarm.experiments.gps_reach --agents=gps,agps

Section V-A: reaching under torque control, BADMM and LQR, eight instances to train on.
GPS takes turns with its one robot; AGPS does not; ADGPS-N has N pairs of workers. All
robots keep the same beat, so that wall clock means what it means on arms. The threshold
is 90 % of the drop of cost of the median run of GPS: run that first. A run that is
finished is not repeated, one that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
import json
import os
import pathlib
import resource
import threading
import time
from typing import NamedTuple

import jax
import numpy as np

from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app
from armfarm.launchers import guided
from armfarm.launchers import pictures
from armfarm.launchers import policy
from armfarm.workers import evaluator
from armfarm.workers import records

NAME = 'gps_reach'
PACE = 1.0  # times real time; all robots, whatever the variant: eight must keep it
_DROP = 0.9  # of the median run of GPS
_VARIANTS = {'gps': ('sync', 1), 'agps': ('async', 1)} | {
  f'adgps-{pairs}': ('async', pairs) for pairs in (4, 8)
}
_METRICS = ('success', 'return', 'episodes', 'updates')
_COST = 'return_after_'  # a curve: minus the cost, by episodes
_POINTS = slice(14, 23)  # of an observation, and where they are to be
_GOAL = slice(32, 41)


class Cost(NamedTuple):
  """A learning curve, [E] evaluations on the test instances.

  Attributes:
    episodes: rollouts of all robots before each.
    seconds: of wall clock before each, evaluation apart.
    cost: negative mean return of each.
  """

  episodes: np.ndarray
  seconds: np.ndarray
  cost: np.ndarray

  def reached(self, threshold: float) -> tuple[float | None, float | None]:
    """Returns episodes and seconds until the cost was at the threshold, or None."""
    below = np.flatnonzero(self.cost <= threshold)
    if not below.size:
      return None, None
    return float(self.episodes[below[0]]), float(self.seconds[below[0]])


def make_job(agent: str, seed: int) -> jobs.Job:
  """Returns the run of a variant of guided policy search from a seed."""
  runtime, pairs = _VARIANTS[agent]
  replay = 'reverb' if runtime == 'async' else 'memory'
  every = 20 if runtime == 'async' else 40  # in lock step, policies live so long
  return jobs.Job(
    name=NAME,
    agent=agent,
    variant=runtime,
    seed=seed,
    workdir=jobs.runs(NAME) / f'{agent}-{seed}',
    arguments=(
      '--config=configs/gps.py:reach_torque',
      f'--config.seed={seed}',
      f'--config.run.collectors={pairs}',
      f'--config.run.pace={PACE}',
      f'--config.run.evaluate_every={every}',
      f'--runtime={runtime}',
      f'--replay={replay}',
      '--nopictures',
    ),
  )


def read_cost(workdir: pathlib.Path) -> Cost:
  """Reads the learning curve of a run."""
  curve = pictures.read_curve(workdir)
  return Cost(curve.episodes, curve.seconds, -curve.evaluation_totals)


def recorded(folder: pathlib.Path) -> dict[int, np.ndarray]:
  """Returns the costs [E] of recorded runs of GPS, by seed, wherever they ran."""
  points: dict[int, dict[int, float]] = {}
  for row in rows.read(folder / f'{NAME}.json'):
    if row.agent == 'gps' and row.point and row.point[0] == _COST:
      points.setdefault(row.seed, {})[row.point[1]] = -float(row.value or 0.0)
  return {
    seed: np.array([run[episodes] for episodes in sorted(run)])
    for seed, run in points.items()
  }


def threshold(costs: Iterable[np.ndarray]) -> float:
  """Returns the cost that counts as learned, given those [E] of all runs of GPS."""
  ordered = sorted(costs, key=lambda run: float(run[-1]))
  median = ordered[len(ordered) // 2]
  return float(median[0] - _DROP * (median[0] - median[-1]))


def final_distance(workdir: pathlib.Path) -> float:
  """Returns the mean distance of the points from their goal, m, on test instances."""
  loaded = policy.load(workdir)
  parts = loaded.parts
  batch = guided.make_batch(parts.config, parts.own_task)
  keys = jax.random.split(jax.random.key(0), batch.size)
  last = evaluator.rollout(parts.agent, batch, loaded.variables, keys).observations
  tested = last[: len(parts.config.instances.test)]
  apart = (tested[:, _POINTS] - tested[:, _GOAL]).reshape(len(tested), -1, 3)
  return float(np.linalg.norm(apart, axis=-1).mean())


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  numbers = jobs.summary_rows(job, source, _METRICS, {})
  first = numbers[0]
  learner = records.read(job.workdir, 'learner')[-1]
  found = {
    'distance': (100 * final_distance(job.workdir), 'cm'),
    'utilization': (100 * learner['utilization'], '%'),
    'late': (100 * learner['late'], '%'),
    'staleness': (learner['staleness'], 'updates'),
    'rollbacks': (learner['rollbacks'], ''),
  }
  if _share_path(job).exists():  # not of a run by hand
    found['cpu'] = (100 * json.loads(_share_path(job).read_text()), '%')
  reference = recorded(results.folder())
  reference.update((run.seed, read_cost(run.workdir).cost) for run in _finished('gps'))
  if reference:
    curve, limit = read_cost(job.workdir), threshold(reference.values())
    episodes, seconds = curve.reached(limit)
    found['threshold'] = (limit, '')
    found['episodes_to_threshold'] = (episodes, 'episodes')
    found['wall_s_to_threshold'] = (seconds, 's')
  extra = [
    first._replace(metric=metric, value=value, unit=unit, paper_value=None)
    for metric, (value, unit) in found.items()
  ]
  curves = jobs.curve_rows(job, source, (_COST, 'return_at_second_'))
  return [*numbers, *extra, *curves]


def measure(job: jobs.Job, over: threading.Event) -> None:
  """Notes beside a job's workdir which share of this machine's processors it takes."""
  spent, began = _spent(), time.monotonic()
  over.wait()
  available = (time.monotonic() - began) * len(os.sched_getaffinity(0))
  rows.write_text(_share_path(job), json.dumps((_spent() - spent) / available))


def main(argv: list[str]) -> int:
  """Runs what is left to run, GPS first; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'agents')
  return jobs.run_all(jobs.queue(make_job, _VARIANTS, _seeds), collect, measure)


def _spent() -> float:
  """Processor time of all that this process started and that has ended, s."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def _share_path(job: jobs.Job) -> pathlib.Path:
  return job.workdir.with_name(f'{job.workdir.name}.cpu.json')


def _seeds(agent: str) -> int:
  return results.seeds(NAME, agent, _VARIANTS[agent][0])


def _finished(agent: str) -> list[jobs.Job]:
  made = [make_job(agent, seed) for seed in range(_seeds(agent))]
  return [job for job in made if job.summary()]


if __name__ == '__main__':
  app.run(main)
