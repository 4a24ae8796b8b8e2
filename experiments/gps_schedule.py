"""The peg by the schedule of Yahya et al. 2016, V-B: BADMM, then mirror descent.

  python -m armfarm.experiments.gps_schedule

Four robots, each with its place of the hole and a demonstration of its own, begin with
four iterations of BADMM by PI2, the block where it was when they were shown. Sixteen
iterations of mirror descent by PI2 follow, the block elsewhere at the start of each, in
which the policy itself acts. All of it is asynchronous. Policies are tried with the
block where it was, and displaced. A run that is finished is not repeated, one that was
stopped goes on.
"""

from __future__ import annotations

import pathlib
from typing import Any

from ml_collections import ConfigDict

from armfarm.experiments import gps_peg
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import policy

NAME = 'gps_schedule'
_ROBOTS, _ROLLOUTS = 4, 30
_PERTURBATION = 0.05  # m; half of the way to the next robot's hole
_TRIALS = 100  # episodes
_SHOWN = 'docs/demonstrations/peg_{}.npz'
_FIRST, _SECOND = 'badmm-pi2', 'mdgps-pi2'
_ITERATIONS = {_FIRST: 4, _SECOND: 16}  # Yahya, V-B
_NUMBERS: dict[str, Any] = {
  'agent.local.optimizer': 'pi2',
  'agent.local.rollouts': _ROLLOUTS,
  'agent.local.remembered': _ROLLOUTS,
  'agent.noise_deviation': 2.0,  # steps, as by PI2 in `gps_peg`
  # The hole has not moved along x yet when it begins to: it counts in this unit, m.
  'agent.min_deviation': 0.05,
  'run.collectors': _ROBOTS,
  # Times real time: as fast as they can, robots were through after 38 updates a second
  # for 62 s, and the policy had been taught a seventh of what it is in lock step.
  'run.pace': 2.0,
  'run.gradients_per_s': 5.0,  # so that three seeds ran at once on two cores
  'run.inner_iterations': 1,
  'run.evaluate_every': _ROBOTS * _ROLLOUTS,
  'run.checkpoint_every': _ROBOTS * _ROLLOUTS,
}
_DIFFERENT: dict[str, dict[str, Any]] = {
  _FIRST: {
    'agent.local.algorithm': 'badmm',
    'agent.initial.path': _SHOWN,
    # Of an action: 36 % of the first rollouts get it in; with 0.1, 4 %.
    'agent.initial.variance': 0.02,
    'agent.learning_rate': 3e-4,  # with 1e-3, one seed of three ended at 0 of 4
  },
  _SECOND: {
    'agent.local.algorithm': 'mdgps',
    'agent.local.on_policy': True,
    'task.perturbation': _PERTURBATION,
    # All: who is taught the latest four places alone forgets the others.
    'replay.iterations': _ITERATIONS[_SECOND],
    # Robots act by the policy of the moment when new lessons come: at 1e-3, it was at
    # 0 % after 25 updates on the first of them.
    'agent.learning_rate': 1e-4,
  },
}


def make_job(agent: str, seed: int) -> jobs.Job:
  """Returns a phase of the schedule from a seed."""
  numbers = {**_NUMBERS, **_DIFFERENT[agent], 'seed': seed}
  numbers['run.max_episodes'] = _ITERATIONS[agent] * _ROBOTS * _ROLLOUTS
  if agent == _SECOND:
    numbers['agent.taught_by'] = make_job(_FIRST, seed).workdir
  which = ',demonstration' if agent == _FIRST else ''
  return jobs.Job(
    name=NAME,
    agent=agent,
    variant='async',
    seed=seed,
    workdir=jobs.runs(NAME) / f'{agent}-{seed}',
    arguments=(
      f'--config=configs/gps.py:peg{which}',
      *(f'--config.{name}={value}' for name, value in numbers.items()),
      '--runtime=async',
      '--replay=reverb',
      '--nopictures',
    ),
  )


def displaced(loaded: policy.Loaded, perturbation: float) -> policy.Loaded:
  """The same policy, to be tried with the block displaced by up to so much, m."""
  config = ConfigDict(loaded.parts.config.to_dict())
  config.task.perturbation = perturbation
  return loaded._replace(parts=build.make_parts(config))


def tried(workdir: pathlib.Path) -> dict[str, float]:
  """Returns the successes of a run's policy, by metric, %."""
  loaded = policy.load(workdir)
  places = {'success_in_place': 0.0, 'success_displaced': _PERTURBATION}
  return {
    metric: 100 * policy.evaluate(displaced(loaded, most), _TRIALS, seed=1).success
    for metric, most in places.items()
  }


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished phase."""
  metrics = 'success', 'episodes', 'updates'
  first, *others = jobs.summary_rows(job, source, metrics, {})
  failed = {'exceptions': job.failures(), **gps_peg.failures(job.workdir)}
  found = [(metric, value, '%') for metric, value in tried(job.workdir).items()]
  found += [(metric, float(count), '') for metric, count in failed.items()]
  extra = [
    first._replace(metric=metric, value=value, unit=unit)
    for metric, value, unit in found
  ]
  return [first, *others, *extra, *jobs.curve_rows(job, source)]


def main(argv: list[str]) -> int:
  """Runs what is left to run, first phases first; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'agents')
  seeds = range(jobs.SEEDS.value or results.seeds(NAME, _SECOND, 'async'))
  phases = jobs.chosen(jobs.AGENTS.value, _ITERATIONS)
  for agent in (x for x in _ITERATIONS if x in phases):
    # Nobody goes on from what is not finished.
    if code := jobs.run_all([make_job(agent, seed) for seed in seeds], collect):
      return code
  return 0


if __name__ == '__main__':
  app.run(main)
