"""Reaching with a farm of four: does NAF learn as well when nobody waits?

  python -m armfarm.experiments.reach_async

Gu et al. 2016, V-C. Four collectors and the trainer go as fast as they can, and replay
holds the ratio of updates to steps, in process and as a server. A run that is finished
is not repeated, one that was stopped goes on.
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
  'episodes',
  'updates_per_step',
  'updates_per_s',
)

_REPLAYS = ('memory', 'reverb')
_COLLECTORS = 4
_SEEDS = 3


def make_job(replay: str, seed: int) -> jobs.Job:
  """Returns the run of NAF through a replay from a seed."""
  variant = f'async-{_COLLECTORS}-{replay}'
  return jobs.Job(
    name='reach_async',
    agent='naf',
    variant=variant,
    seed=seed,
    workdir=jobs.runs('reach_async') / f'{variant}-{seed}',
    arguments=(
      '--config=configs/naf.py:reach',
      f'--config.seed={seed}',
      f'--config.run.collectors={_COLLECTORS}',
      '--runtime=async',
      f'--replay={replay}',
      '--nopictures',
    ),
  )


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run, with the ratio that was asked for."""
  numbers = jobs.summary_rows(job, source, _METRICS, {})
  asked = job.updates_per_step()
  measured = next(row for row in numbers if row.metric == 'updates_per_step')
  return [*numbers, measured._replace(metric='updates_per_step_set', value=asked)]


def main(argv: list[str]) -> int:
  """Runs what is left to run; returns the exit code."""
  jobs.check_flags(argv, 'seeds')
  seeds = range(jobs.SEEDS.value or _SEEDS)
  queue = [make_job(replay, seed) for seed in seeds for replay in _REPLAYS]
  return jobs.run_all(queue, collect)


if __name__ == '__main__':
  app.run(main)
