"""Figure 5 of Gu et al. 2016: what more workers are worth.

  python -m armfarm.experiments.figure5 --tasks=reach

Section V-C: N workers, each of which takes a step in the time of five updates, and
layer normalisation. In lock step (`sync-N`) the ratio is exact, and what counts are
updates; the same once more with threads that run freely and the limiter of replay in
place of the lock (`async-N`), where seconds count. All runs of a task make about as
many updates.
"""

from __future__ import annotations

from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app

_VARIANTS = [f'{runtime}-{n}' for runtime in ('sync', 'async') for n in (1, 2, 4, 8)]
_UPDATES = 5  # in the time of a worker's step: 100 updates/s to 20 Hz
_EPISODES = {'reach': 200, 'door_push': 400}  # of a worker; ours: until all is learned
_EVALUATIONS = 20  # of a run
_METRICS = (
  'success',
  'return',
  'episodes_to_100',
  'wall_s_to_100',
  'env_steps',
  'updates',
  'updates_per_step',
)
_CURVES = {
  'sync': ('success_at_update_', 'return_at_update_'),
  'async': ('success_at_second_',),
}


def make_job(task: str, variant: str, seed: int) -> jobs.Job:
  """Returns the run of NAF on a task, as `sync-4` or `async-4`, from a seed."""
  runtime, count = variant.split('-')
  workers = int(count)
  episodes = _EPISODES[task] * workers
  return jobs.Job(
    name=f'figure5_{task}',
    agent='naf',
    variant=variant,
    seed=seed,
    workdir=jobs.runs('figure5') / f'{task}-{variant}-{seed}',
    arguments=(
      f'--config=configs/naf.py:{task}',
      f'--config.seed={seed}',
      '--config.agent.normalization=layer',
      f'--config.run.collectors={workers}',
      f'--config.run.updates_per_step={_UPDATES / workers}',
      '--config.run.block_steps=8',  # that all ratios are whole updates a block
      f'--config.run.max_episodes={episodes}',
      '--config.run.stop_when_solved=false',
      f'--config.run.evaluate_every={episodes // _EVALUATIONS}',
      f'--runtime={runtime}',
      '--nopictures',
    ),
  )


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run, with the ratio that was asked for."""
  numbers = jobs.summary_rows(job, source, _METRICS, {})
  measured = next(row for row in numbers if row.metric == 'updates_per_step')
  asked = job.updates_per_step()
  numbers.append(measured._replace(metric='updates_per_step_set', value=asked))
  updates = jobs.updates_to_100(job)
  numbers.append(
    measured._replace(metric='updates_to_100', value=updates, unit='updates')
  )
  kinds = _CURVES[job.variant.split('-')[0]]
  return numbers + jobs.curve_rows(job, source, kinds)


def main(argv: list[str]) -> int:
  """Runs what is left to run; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'tasks')
  queue = [
    make_job(task, variant, seed)
    for task in jobs.chosen(jobs.TASKS.value, _EPISODES)
    for variant in _VARIANTS
    for seed in range(
      jobs.SEEDS.value or results.seeds(f'figure5_{task}', 'naf', variant)
    )
  ]
  return jobs.run_all(queue, collect)


if __name__ == '__main__':
  app.run(main)
