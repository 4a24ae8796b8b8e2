"""Figure 4 of Gu et al. 2016, the row of reaching: NAF, DDPG and Linear-NAF.

  python -m armfarm.experiments.reach

Every agent learns from every seed in lock step, one update a step as in the paper. A
run that is finished is not repeated, one that was stopped goes on.
"""

from __future__ import annotations

from armfarm.experiments import jobs
from armfarm.experiments import rows
from armfarm.launchers import app

_CONFIGS = {
  'naf': 'configs/naf.py:reach',
  'ddpg': 'configs/ddpg.py:reach',
  'linear-naf': 'configs/naf.py:reach,linear',
}
_PAPER_EPISODES = {'naf': 3600.0, 'ddpg': 3200.0, 'linear-naf': 8000.0}  # Figure 4
_METRICS = (
  'success',
  'return',
  'episodes_to_100',
  'episodes_to_100_paper',
  'wall_s_to_100',
  'env_steps',
  'updates',
  'updates_per_s',
)

_SEEDS = 5


def make_job(agent: str, seed: int) -> jobs.Job:
  """Returns the run of an agent from a seed."""
  return jobs.Job(
    name='reach',
    agent=agent,
    variant='sync',
    seed=seed,
    workdir=jobs.runs('reach') / f'{agent}-{seed}',
    arguments=(
      f'--config={_CONFIGS[agent]}',
      f'--config.seed={seed}',
      '--runtime=sync',
      '--nopictures',
    ),
  )


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  episodes = _PAPER_EPISODES[job.agent]
  paper = {'episodes_to_100': episodes, 'episodes_to_100_paper': episodes}
  numbers = jobs.summary_rows(job, source, _METRICS, paper)
  curve = jobs.curve_rows(job, source)
  return [*numbers, jobs.best_row(curve, 100.0), *curve]


def main(argv: list[str]) -> int:
  """Runs what is left to run; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'agents')
  seeds = range(jobs.SEEDS.value or _SEEDS)
  agents = jobs.chosen(jobs.AGENTS.value, _CONFIGS)
  queue = [make_job(agent, seed) for seed in seeds for agent in agents]
  return jobs.run_all(queue, collect)


if __name__ == '__main__':
  app.run(main)
