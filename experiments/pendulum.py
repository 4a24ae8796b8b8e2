"""Pendulum-v1 of Gymnasium: do our agents learn what everybody's do?

  python -m armfarm.experiments.pendulum

NAF and DDPG learn from every seed in lock step, one update a step. A run that is
finished is not repeated, one that was stopped goes on.
"""

from __future__ import annotations

from armfarm.experiments import jobs
from armfarm.experiments import rows
from armfarm.launchers import app

_CONFIGS = {
  'naf': 'configs/naf.py:gym/Pendulum-v1',
  'ddpg': 'configs/ddpg.py:gym/Pendulum-v1',
}
_METRICS = ('return', 'success', 'episodes', 'env_steps', 'updates', 'updates_per_s')
_EPISODES = 100
_SIGMA = 0.3  # with the 0.1 of reaching, DDPG never found the upright from one seed
_SEEDS = 3


def make_job(agent: str, seed: int) -> jobs.Job:
  """Returns the run of an agent from a seed."""
  return jobs.Job(
    name='pendulum',
    agent=agent,
    variant='sync',
    seed=seed,
    workdir=jobs.runs('pendulum') / f'{agent}-{seed}',
    arguments=(
      f'--config={_CONFIGS[agent]}',
      f'--config.seed={seed}',
      f'--config.run.max_episodes={_EPISODES}',
      f'--config.agent.noise_sigma={_SIGMA}',
      '--config.run.stop_when_solved=False',
      '--config.run.evaluate_every=10',
      '--runtime=sync',
      '--nopictures',
    ),
  )


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  numbers = jobs.summary_rows(job, source, _METRICS, {})
  return numbers + jobs.curve_rows(job, source)


def main(argv: list[str]) -> int:
  """Runs what is left to run; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'agents')
  seeds = range(jobs.SEEDS.value or _SEEDS)
  agents = jobs.chosen(jobs.AGENTS.value, _CONFIGS)
  queue = [make_job(agent, seed) for seed in seeds for agent in agents]
  return jobs.run_all(queue, collect)


if __name__ == '__main__':
  app.run(main)
