"""Figures 3 and 4 of Gu et al. 2016: three agents on four tasks.

  python -m armfarm.experiments.figure4 --agents=naf --tasks=reach,door_pull

Section V-B: every agent learns from every seed in lock step, with batch normalisation
and one update a step. A run ends when both criteria hold, or after the episodes that
the paper took, its mean and one deviation. A run that is finished is not repeated, one
that was stopped goes on: with --limit_minutes the queue is worked off in sittings.
"""

from __future__ import annotations

from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app

_CONFIGS = {'naf': 'naf.py:{}', 'ddpg': 'ddpg.py:{}', 'linear-naf': 'naf.py:{},linear'}
# Figure 4's table: episodes to 100 % success, mean and deviation. "N/A" is left out.
_PAPER = {
  ('reach', 'naf'): (3600, 1000),
  ('reach', 'ddpg'): (3200, 700),
  ('reach', 'linear-naf'): (8000, 3000),
  ('door_pull', 'naf'): (6000, 3000),
  ('door_pull', 'ddpg'): (10_000, 8000),
  ('door_push', 'naf'): (4200, 1000),
  ('door_push', 'ddpg'): (3100, 1000),
  ('pick_place', 'naf'): (2900, 900),
  ('pick_place', 'ddpg'): (4400, 600),
  ('pick_place', 'linear-naf'): (12_000, 3000),
}
_TASKS = tuple(dict.fromkeys(task for task, _ in _PAPER))
# The same table: maximum success, where it is not 100 %.
_PAPER_SUCCESS = {('door_pull', 'linear-naf'): 5.0, ('door_push', 'linear-naf'): 40.0}
# Transitions. With 200,000, all of what it had learned to avoid was forgotten again.
_CAPACITY = {'pick_place': 1_000_000}  # Lillicrap et al. 2016
_EVALUATE_EVERY = {'reach': 20}  # training episodes; the others have longer ones
_METRICS = (
  'success',
  'return',
  'episodes_to_100',
  'episodes_to_100_paper',
  'wall_s_to_100',
  'episodes',
  'updates',
  'updates_per_s',
)


def max_episodes(task: str, agent: str) -> int:
  """Returns the paper's mean and deviation, those of DDPG where it has none."""
  return sum(_PAPER.get((task, agent), _PAPER[task, 'ddpg']))


def make_job(task: str, agent: str, seed: int) -> jobs.Job:
  """Returns the run of an agent on a task from a seed."""
  return jobs.Job(
    name=f'figure4_{task}',
    agent=agent,
    variant='sync',
    seed=seed,
    workdir=jobs.runs('figure4') / f'{task}-{agent}-{seed}',
    arguments=(
      f'--config=configs/{_CONFIGS[agent].format(task)}',
      f'--config.seed={seed}',
      '--config.agent.normalization=batch',
      f'--config.run.max_episodes={max_episodes(task, agent)}',
      f'--config.run.evaluate_every={_EVALUATE_EVERY.get(task, 50)}',
      f'--config.replay.capacity={_CAPACITY.get(task, 200_000)}',
      '--config.run.checkpoint_every=500',
      '--runtime=sync',
      '--nopictures',
    ),
  )


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  cell = (job.name.removeprefix('figure4_'), job.agent)
  paper = {}
  if cell in _PAPER:
    episodes = float(_PAPER[cell][0])
    paper = {'episodes_to_100': episodes, 'episodes_to_100_paper': episodes}
  numbers = jobs.summary_rows(job, source, _METRICS, paper)
  curve = jobs.curve_rows(job, source)
  return [*numbers, jobs.best_row(curve, _PAPER_SUCCESS.get(cell, 100.0)), *curve]


def main(argv: list[str]) -> int:
  """Runs what is left to run, agent by agent; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'agents', 'tasks')
  queue = [
    make_job(task, agent, seed)
    for agent in jobs.chosen(jobs.AGENTS.value, _CONFIGS)
    for task in jobs.chosen(jobs.TASKS.value, _TASKS)
    for seed in range(jobs.SEEDS.value or results.seeds(f'figure4_{task}', agent))
  ]
  return jobs.run_all(queue, collect)


if __name__ == '__main__':
  app.run(main)
