"""Pusher-v5 of Gymnasium, 50,000 steps: does our DDPG reach the return of SBX's?

  make sbx && python -m armfarm.experiments.pusher

Both have two layers of 100 units, minibatches of 64, one update a step, the same rates
and the same noise; the return is the mean of 20 episodes without noise. A run that is
finished is not repeated; one of ours that was stopped goes on.
"""

from __future__ import annotations

import json
import pathlib
import subprocess

from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app

_ID, _STEPS, _EPISODES, _WARMUP = 'Pusher-v5', 50_000, 20, 1_500
_EPISODE_STEPS = 100  # of Pusher-v5
_SEEDS = 3
_METRICS = ('return', 'env_steps', 'updates', 'env_steps_per_s')
_SBX = (pathlib.Path('.venv-sbx/bin/python'), pathlib.Path('benchmarks/_sbx.py'))


def make_job(seed: int) -> jobs.Job:
  """Returns the run of ours from a seed."""
  return jobs.Job(
    name='pusher',
    agent='ddpg',
    variant='armfarm',
    seed=seed,
    workdir=jobs.runs('pusher') / f'ddpg-{seed}',
    arguments=(
      f'--config=configs/ddpg.py:gym/{_ID}',
      f'--config.seed={seed}',
      f'--config.run.warmup_steps={_WARMUP}',
      f'--config.run.max_episodes={_STEPS // _EPISODE_STEPS}',
      f'--config.run.held_out_episodes={_EPISODES}',
      '--config.run.evaluate_every=100',
      '--runtime=sync',
      '--nopictures',
    ),
  )


def run_sbx(seed: int) -> list[rows.Row]:
  """Returns the row of SBX's run from a seed, which is made if there is none."""
  path = jobs.runs('pusher') / f'sbx-{seed}.json'
  command = [str(part) for part in (*_SBX, _ID, seed, _WARMUP)]
  asked = f'{_STEPS}\\nevaluate {_EPISODES}\\n'  # as printf takes it
  source = rows.Source(
    f"printf '{asked}' | {' '.join(command)}", rows.commit(), rows.machine()
  )
  if not path.exists():
    print(path, flush=True)
    request = asked.replace('\\n', '\n')
    done = subprocess.run(command, input=request, capture_output=True, text=True)
    if done.returncode:
      raise app.UserError(
        f'SBX ended with code {done.returncode}: {done.stderr[-200:]}'
      )
    found = {'return': float(done.stdout.split()[-1]), **source._asdict()}
    rows.write_text(path, json.dumps(found) + '\n')
  found = json.loads(path.read_text())
  total = found.pop('return')
  source = rows.Source(**found)
  return [
    rows.Row('pusher', _ID, 'ddpg', 'sbx', seed, 'return', total, '', None, *source)
  ]


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  return jobs.summary_rows(job, source, _METRICS, {})


def main(argv: list[str]) -> int:
  """Runs what is left to run; returns the exit code."""
  jobs.check_flags(argv, 'seeds')
  seeds = range(jobs.SEEDS.value or _SEEDS)
  if not _SBX[0].exists():
    app.note('SBX is not installed, and left out: make sbx installs it')
  for seed in seeds if _SBX[0].exists() else ():
    rows.merge(results.folder(), run_sbx(seed))
  return jobs.run_all([make_job(seed) for seed in seeds], collect)


if __name__ == '__main__':
  app.run(main)
