"""What QT-Opt learns from a log alone, and what it adds of its own.

  python -m armfarm.experiments.grasp_offline --studies=grasp_offline_mix

Kalashnikov et al. 2018, tables 4, 5, 6 and 9, without a camera, from the logs of
`grasp_logs`: how an episode ends, clipped targets, less of a log, and what logs are
like. `joint` goes on for as many updates again, with a share of its own experience
that grows to one half. A run that is finished is not repeated, one that was stopped
goes on: with --limit_minutes the queue is worked off in sittings.
"""

from __future__ import annotations

import functools
import pathlib
from typing import NamedTuple

from armfarm.configs import qtopt
from armfarm.experiments import grasp_logs
from armfarm.experiments import grasp_studies
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.replay import types

_UPDATES = 150_000  # on a log; ours: Kalashnikov, F.3: 5 to 15 million
_RATIO = 2.0  # updates a step that is replayed, or taken
_RAMP = 0.5  # of the updates of fine-tuning, until half of the examples are on-policy
_EVALUATIONS = 10  # of a run
_METRICS = ('success', 'return', 'updates')


class Variant(NamedTuple):
  """What a run learns from, and how.

  Attributes:
    logs: name of each -> transitions of it that are taken; 0: all.
    paper: success there, %.
    changes: of the config, as flags without "--config.".
    joint: whether it is fine-tuned.
  """

  logs: dict[str, int]
  paper: float
  changes: tuple[str, ...] = ()
  joint: bool = False


_END = grasp_studies.SCRIPTED_END
_FARM, _FARM_END = {'farm': 0}, {'farm-scripted-end': 0}
STUDIES: dict[str, dict[str, Variant]] = {
  'grasp_offline_end': {  # table 4
    'automatic': Variant(_FARM_END, 81.0, _END),
    'learned': Variant(_FARM, 87.0),
    'automatic-joint': Variant(_FARM_END, 95.0, _END, joint=True),
    'learned-joint': Variant(_FARM, 96.0, joint=True),
  },
  'grasp_offline_targets': {  # table 5
    'double': Variant(_FARM_END, 63.0, (*_END, 'agent.target=double')),
    'clipped': Variant(_FARM_END, 81.0, _END),
  },
  'grasp_offline_size': {  # table 6: of 580,000 grasps, 320,000
    'all': Variant(_FARM, 87.0),
    '55-percent': Variant({'farm': 96_000}, 78.0),
  },
  'grasp_offline_mix': {  # table 9: a third of its transitions
    'scripted': Variant({'scripted': 100_000}, 20.0),
    'explore': Variant({'explore': 100_000}, 37.0),
    'both': Variant({'scripted': 50_000, 'explore': 50_000}, 86.0),
    'more-of-both': Variant({'scripted': 67_000, 'explore': 87_000}, 94.0),
  },
}


@functools.cache
def _step() -> types.Block:
  """One step of a block, zeros."""
  return grasp_logs.one_step(build.make_parts(qtopt.get_config('grasp_state')))


def logs(variant: Variant) -> list[pathlib.Path]:
  """Returns the folders of what a variant learns from.

  Raises:
    UserError: one of the logs is not complete.
  """
  wholes = {grasp_logs.folder(name): count for name, count in variant.logs.items()}
  return [
    grasp_logs.part(path, count, _step()) if count else path
    for path, count in wholes.items()
  ]


def make_job(study: str, name: str, seed: int) -> jobs.Job:
  """Returns the run of a study's variant from a seed.

  Variants of other studies that ask for the same have the same run.

  Raises:
    UserError: a log that it needs is not complete.
  """
  variant = STUDIES[study][name]
  folders = logs(variant)
  found = [grasp_logs.figures(path) for path in folders]
  transitions = sum(x.transitions for x in found)
  updates = _UPDATES * (1 + variant.joint)
  # Log replay counts as experience, and its first pass fills the memory.
  passes = 1 + updates / _RATIO / transitions
  episodes = round(passes * sum(x.episodes for x in found))
  arguments = (
    '--config=configs/qtopt.py:grasp_state',
    f'--config.seed={seed}',
    f'--config.log.replay={",".join(map(str, folders))}',
    f'--config.joint.offline_updates={_UPDATES if variant.joint else 2 * _UPDATES}',
    f'--config.joint.updates={round(_RAMP * _UPDATES)}',
    f'--config.agent.decay_updates={updates}',
    f'--config.run.warmup_steps={transitions}',
    f'--config.run.updates_per_step={_RATIO:g}',
    f'--config.run.max_episodes={episodes}',
    f'--config.run.evaluate_every={episodes // _EVALUATIONS}',
    *(f'--config.{change}' for change in variant.changes),
    '--runtime=sync',
    '--nopictures',
  )
  parts = [f'{name}-{count or "all"}' for name, count in variant.logs.items()]
  parts += ['joint'] * variant.joint
  workdir = jobs.workdir('grasp_offline', parts, variant.changes, seed)
  return jobs.Job(study, 'qtopt', name, seed, workdir, arguments)


def collect(job: jobs.Job, source: rows.Source) -> list[rows.Row]:
  """Returns the rows of a finished run."""
  variant = STUDIES[job.name][job.variant]
  numbers = jobs.summary_rows(job, source, _METRICS, {'success': variant.paper})
  held = sum(grasp_logs.figures(path).transitions for path in logs(variant))
  size = numbers[0]._replace(
    metric='logged', value=float(held), unit='steps', paper_value=None
  )
  return [*numbers, size]


def main(argv: list[str]) -> int:
  """Runs what is left to run, seed by seed; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'studies')
  queue = [
    make_job(study, name, seed)
    for study in jobs.chosen(jobs.STUDIES.value, STUDIES)
    for name in STUDIES[study]
    for seed in range(jobs.SEEDS.value or results.seeds(study, 'qtopt', name))
  ]
  return jobs.run_all(sorted(queue, key=lambda job: job.seed), collect)


if __name__ == '__main__':
  app.run(main)
