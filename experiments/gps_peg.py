"""The peg by every algorithm: who gets it in, when, and who fails on the way?

  python -m armfarm.experiments.gps_peg --agents=lqr,mdgps --limit_minutes=60

Four conditions and thirty iterations, in lock step, past the point where the published
code dies. LQR and PI2 improve a controller for each condition, which is judged by the
rollouts that it makes, noise and all; PI2 needs more of them. BADMM and MDGPS teach
one policy, which is judged without noise. A run that is finished is not repeated, one
that was stopped goes on.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app
from armfarm.workers import records

_NAME = 'gps_peg'
_ITERATIONS, _CONDITIONS = 30, 4
_DIVERGED = 10.0  # times the first iteration's cost
_LIMITS = {10: 0.1, 5: 0.05, 2: 0.02}  # m from the bottom of the hole, by cm
_MOMENTS = ((5, 10), (10, 12), (5, -1), (2, -1))  # cm and iteration, -1 for the last


class Algorithm(NamedTuple):
  """What an algorithm's runs are.

  Attributes:
    numbers: of the config, where they are not its own.
    rollouts: of an iteration and condition.
    taught: whether the global policy is judged, or the local controllers.
  """

  numbers: dict[str, Any]
  rollouts: int = 5
  taught: bool = True


# Nobody asks what the controllers of trajectory optimisation taught.
_ALONE = {'agent.local.algorithm': 'trajectory', 'run.updates_per_iteration': 1}
_MDGPS = {'agent.local.algorithm': 'mdgps'}
_PI2 = {
  'agent.local.optimizer': 'pi2',
  'agent.local.rollouts': 30,  # code
  'agent.local.remembered': 30,
  'agent.noise_deviation': 2.0,  # steps; code: no model is fitted
}
_ALGORITHMS = {
  'lqr': Algorithm(_ALONE, taught=False),
  'mdgps': Algorithm(_MDGPS),
  'badmm': Algorithm({'run.inner_iterations': 4}),
  'mdgps-on': Algorithm({**_MDGPS, 'agent.local.on_policy': True}),
  'pi2': Algorithm({**_ALONE, **_PI2}, rollouts=30, taught=False),
}


def make_job(agent: str, seed: int) -> jobs.Job:
  """Returns the run of an algorithm from a seed."""
  algorithm = _ALGORITHMS[agent]
  every = _CONDITIONS * algorithm.rollouts
  numbers = {
    'seed': seed,
    'run.inner_iterations': 1,
    'run.max_episodes': _ITERATIONS * every,
    'run.evaluate_every': every,
    'run.checkpoint_every': every,
    **algorithm.numbers,
  }
  return jobs.Job(
    name=_NAME,
    agent=agent,
    variant='sync',
    seed=seed,
    workdir=jobs.runs(_NAME) / f'{agent}-{seed}',
    arguments=(
      '--config=configs/gps.py:peg',
      *(f'--config.{name}={value}' for name, value in numbers.items()),
      '--runtime=sync',
      '--nopictures',
    ),
  )


def distances(workdir: pathlib.Path, taught: bool) -> list[np.ndarray]:
  """Returns how far from the bottom the peg's tip ended, m, by improvements before.

  Args:
    workdir: of the run.
    taught: whether of the global policy, as it was tried, or of the rollouts.
  """
  if taught:
    return [np.array(row['distances']) for row in records.read(workdir, 'evaluation')]
  found: dict[int, list[float]] = {}
  for row in records.read(workdir, 'episode'):
    found.setdefault(row['iteration'], []).append(row['distance'])
  return [np.array(found[iteration]) for iteration in sorted(found)]


def failures(workdir: pathlib.Path) -> dict[str, int]:
  """Counts what went wrong in a run, or would have, by metric.

  Costs are negative returns, as everywhere.
  """
  rollouts = records.read(workdir, 'episode')
  costs: dict[int, list[float]] = {}
  held: dict[int, int] = {}
  for row in rollouts:
    costs.setdefault(row['iteration'], []).append(-row['total'])
    held[row['instance']] = row['held']
  means = [float(np.mean(costs[iteration])) for iteration in sorted(costs)]
  told = [(row['total'], row['distance']) for row in rollouts]
  return {
    'not_finite': sum(not np.all(np.isfinite(numbers)) for numbers in told),
    'diverged': sum(mean > _DIVERGED * means[0] for mean in means),
    'anchors_kept': sum(held.values()),
    'rollbacks': int(records.read(workdir, 'learner')[-1].get('rollbacks', 0)),
  }


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  first, *others = jobs.summary_rows(job, source, ('episodes', 'updates'), {})
  ended = distances(job.workdir, _ALGORITHMS[job.agent].taught)

  def row(metric: str, value: float, unit: str) -> rows.Row:
    return first._replace(metric=metric, value=value, unit=unit)

  def share(far: int, iteration: int) -> float:
    return 100 * float(np.mean(ended[iteration] <= _LIMITS[far]))

  moments = [
    row(f'within_{far}_cm{"" if at < 0 else f"_at_{at}"}', share(far, at), '%')
    for far, at in _MOMENTS
  ]
  failed = {'exceptions': job.failures(), **failures(job.workdir)}
  counts = [row(metric, count, '') for metric, count in failed.items()]
  curves = [
    row(f'within_{far}_cm_at_iteration_{at:06d}', share(far, at), '%')
    for far in _LIMITS
    for at in range(len(ended))
  ]
  return [first, *others, *moments, *counts, *curves]


def main(argv: list[str]) -> int:
  """Runs what is left to run, algorithm by algorithm; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'agents')
  seeds = functools.partial(results.seeds, _NAME)
  return jobs.run_all(jobs.queue(make_job, _ALGORITHMS, seeds), collect)


if __name__ == '__main__':
  app.run(main)
