"""Grasping by poses: does QT-Opt learn to take any thing out of a bin?

  python -m armfarm.experiments.grasp_state --agents=qtopt

Section 6 of Kalashnikov et al. 2018 without a camera, `grasp_state`: a scripted policy
that succeeds one time in four, then the noisy one, in one process; evaluations are 100
bins of objects that nobody learned with. The baseline learns in supervision, of its
own grasps, from as many. A run that is finished is not repeated, one that was stopped
goes on.
"""

from __future__ import annotations

import functools
import pathlib

from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app
from armfarm.workers import records

NAME = 'grasp_state'
CONFIGS = {'qtopt': 'grasp_state', 'supervised': 'grasp_state,supervised'}
_GOAL = 0.95  # success on unseen objects
_EPISODES = 23_000  # some 280,000 steps
_METRICS = ('success', 'return', 'episodes', 'env_steps', 'updates', 'updates_per_s')


def make_job(agent: str, seed: int) -> jobs.Job:
  """Returns the run of an agent from a seed."""
  return jobs.Job(
    name=NAME,
    agent=agent,
    variant='sync',
    seed=seed,
    workdir=jobs.runs(NAME) / f'{agent}-{seed}',
    arguments=(
      f'--config=configs/qtopt.py:{CONFIGS[agent]}',
      f'--config.seed={seed}',
      f'--config.run.max_episodes={_EPISODES}',
      '--runtime=sync',
      '--nopictures',
    ),
  )


def steps_to_goal(workdir: pathlib.Path) -> float | None:
  """Returns the transitions before the first evaluation at the goal, None for none."""
  for row in records.read(workdir, 'evaluation'):
    if row['success'] >= _GOAL:
      return float(row['env_steps'])
  return None


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  numbers = jobs.summary_rows(job, source, _METRICS, {})
  goal = numbers[0]._replace(
    metric='env_steps_to_95', value=steps_to_goal(job.workdir), unit='steps'
  )
  return [*numbers, goal, *jobs.curve_rows(job, source)]


def queue() -> list[jobs.Job]:
  """Returns the runs that flags choose."""
  return jobs.queue(make_job, CONFIGS, functools.partial(results.seeds, NAME))


def main(argv: list[str]) -> int:
  """Runs what is left to run; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'agents')
  return jobs.run_all(queue(), collect)


if __name__ == '__main__':
  app.run(main)
