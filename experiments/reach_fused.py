"""Reaching with everything in one program: does it learn as well as in lock step?

  python -m armfarm.experiments.reach_fused

Instances of the arm on MJX, replay and updates are compiled together, for one device
and for four that share every minibatch. On a CPU the four are virtual: they show that
the learning is the same, not that it is faster. A run that is finished is not repeated,
one that was stopped goes on.
"""

from __future__ import annotations

from armfarm.experiments import jobs
from armfarm.experiments import rows
from armfarm.launchers import app

_METRICS = (
  'success',
  'episodes_to_100',
  'episodes_to_100_paper',
  'wall_s_to_100',
  'updates_per_step',
  'traces',
)

# Agent, its config, devices, seeds.
_RUNS = (
  ('naf', 'naf.py:reach', 1, 3),
  ('naf', 'naf.py:reach', 4, 3),
  ('ddpg', 'ddpg.py:reach', 1, 3),
  ('linear-naf', 'naf.py:reach,linear', 1, 3),
)


def make_job(agent: str, config: str, devices: int, seed: int) -> jobs.Job:
  """Returns the run of an agent on some devices from a seed."""
  variant = f'fused-{devices}'
  return jobs.Job(
    name='reach_fused',
    agent=agent,
    variant=variant,
    seed=seed,
    workdir=jobs.runs('reach_fused') / f'{agent}-{variant}-{seed}',
    arguments=(
      f'--config=configs/{config}',
      f'--config.seed={seed}',
      f'--config.run.devices={devices}',
      '--runtime=fused',
      '--nopictures',
    ),
  )


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  return jobs.summary_rows(job, source, _METRICS, {})


def main(argv: list[str]) -> int:
  """Runs what is left to run; returns the exit code."""
  jobs.check_flags(argv, 'seeds')
  queue = [
    make_job(agent, config, devices, seed)
    for agent, config, devices, seeds in _RUNS
    for seed in range(jobs.SEEDS.value or seeds)
  ]
  return jobs.run_all(queue, collect)


if __name__ == '__main__':
  app.run(main)
