"""Which parts of QT-Opt matter, and how many robots it needs.

  python -m armfarm.experiments.grasp_studies --studies=grasp_loss,grasp_targets

Kalashnikov et al. 2018, C, without a camera and at the scale of `grasp_state`: figures
7 to 9 and tables 7 and 8. A variant says what is different of `base`, whose runs all
studies share. More robots are more experience for the same updates. A run that is
finished is not repeated, one that was stopped goes on: with --limit_minutes the queue
is worked off in sittings.
"""

from __future__ import annotations

from typing import NamedTuple

from armfarm.experiments import grasp_state
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app

_EPISODES = 5_000  # of `base`; ours: it has learned most by then
_WARMUP = 20_000  # steps of `base` by the script
_RATIO = 2.0  # updates a step of `base`
_EVALUATIONS = 10  # of a run
_HALF = 'success_at_half'
_METRICS = ('success', 'return', 'episodes', 'env_steps', 'updates')


class Variant(NamedTuple):
  """What is different of `base`.

  Attributes:
    changes: of its config, as flags without "--config.".
    agent: who learns.
    robots: over those of `base`.
    runtime: flags that choose it.
    paper: success at the end in the paper, %; None where it has a curve.
    paper_half: success there earlier, at 300,000 of a million updates, %.
  """

  changes: tuple[str, ...] = ()
  agent: str = 'qtopt'
  robots: float = 1.0
  runtime: tuple[str, ...] = ('--runtime=sync',)
  paper: float | None = None
  paper_half: float | None = None


_BASE = Variant()
_DOUBLE = Variant(('agent.target=double',))
SCRIPTED_END = ('task.learned_termination=false', "agent.commands=('close','open')")
_DISCOUNTED_END = ('agent.gamma=0.9', *SCRIPTED_END)
_FREE = (*_DISCOUNTED_END, 'task.step_reward=0.0')  # of what a step costs
STUDIES: dict[str, dict[str, Variant]] = {
  'grasp_polyak': {  # figure 7a, without clipping as there
    'polyak-0.9': Variant(('agent.target=double', 'agent.polyak=0.9', 'agent.lag=15')),
    'polyak-0.99': Variant(
      ('agent.target=double', 'agent.polyak=0.99', 'agent.lag=150')
    ),
    'polyak-0.998': _DOUBLE,
  },
  'grasp_targets': {  # figures 7b and 9
    'clipped': _BASE,
    'double': _DOUBLE,
    'single': Variant(('agent.target=single',)),
  },
  'grasp_loss': {  # figure 8
    'cross-entropy': _BASE,
    'squared': Variant(('agent.loss=squared',)),
  },
  'grasp_mdp': {  # table 7, and our own discount
    'ours': _BASE,
    'learned-end': Variant(('agent.gamma=0.9',), paper=94.0, paper_half=67.0),
    'scripted-end': Variant(_DISCOUNTED_END, paper=95.0, paper_half=75.0),
    'no-cost': Variant(_FREE, paper=92.0, paper_half=68.0),
    'no-cost-0.7': Variant((*_FREE, 'agent.gamma=0.7'), paper=90.0, paper_half=50.0),
  },
  'grasp_robots': {  # table 8; `base` has 60
    '30-robots': Variant(robots=0.5, paper=88.0),
    '60-robots': _BASE._replace(paper=95.0),
    'supervised-60': Variant((), 'supervised', paper=55.0),
    # Blocks of so many steps that they are worth whole updates.
    'supervised-280': Variant(
      ('run.block_steps=7',), 'supervised', 280 / 60, paper=71.0
    ),
    'supervised-1000': Variant(
      ('run.block_steps=25',), 'supervised', 1000 / 60, paper=85.0
    ),
  },
  'grasp_farm': {  # section 4.3: who collects, labels and learns is a process each
    'lock-step': _BASE,
    'farm': Variant(
      ('run.collectors=2', 'labels.updaters=2', 'joint.balance=(1.9,2.1)'),
      runtime=('--runtime=async', '--replay=reverb'),
    ),
  },
}


def make_job(study: str, name: str, seed: int) -> jobs.Job:
  """Returns the run of a study's variant from a seed.

  Variants of other studies that ask for the same have the same run.
  """
  variant = STUDIES[study][name]
  episodes = round(_EPISODES * variant.robots)
  arguments = (
    f'--config=configs/qtopt.py:{grasp_state.CONFIGS[variant.agent]}',
    f'--config.seed={seed}',
    f'--config.run.max_episodes={episodes}',
    f'--config.run.evaluate_every={episodes // _EVALUATIONS}',
    f'--config.run.warmup_steps={round(_WARMUP * variant.robots)}',
    f'--config.run.updates_per_step={_RATIO / variant.robots:g}',
    *(f'--config.{change}' for change in variant.changes),
    *variant.runtime,
    '--nopictures',
  )
  parts = [variant.agent, f'{variant.robots:g}']
  workdir = jobs.workdir('grasp_studies', parts, variant.changes, seed)
  return jobs.Job(study, variant.agent, name, seed, workdir, arguments)


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  variant = STUDIES[job.name][job.variant]
  paper = {} if variant.paper is None else {'success': variant.paper}
  numbers = jobs.summary_rows(job, source, _METRICS, paper)
  curve = jobs.curve_rows(job, source)
  half = curve[len(curve) // 2 - 1]
  numbers.append(half._replace(metric=_HALF, paper_value=variant.paper_half))
  return [*numbers, *curve]


def main(argv: list[str]) -> int:
  """Runs what is left to run, seed by seed; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'studies')
  studies = jobs.chosen(jobs.STUDIES.value, STUDIES)
  queue = [
    make_job(study, name, seed)
    for study in studies
    for name, variant in STUDIES[study].items()
    for seed in range(jobs.SEEDS.value or results.seeds(study, variant.agent, name))
  ]
  return jobs.run_all(sorted(queue, key=lambda job: job.seed), collect)


if __name__ == '__main__':
  app.run(main)
