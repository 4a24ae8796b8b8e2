"""Logs to learn grasping from: by a script, by a poor policy, by whole runs.

  python -m armfarm.experiments.grasp_logs

Kalashnikov et al. 2018, C.1, ask what off-policy experience has to be like. A script
that grasps now and then does what it always does; a policy that grasps as seldom does
many things: figure 11 shows it by the command along z. Two whole runs are logged beside
these, one of which ends episodes by rule. A log that is complete is not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import math
import os
import pathlib
import shutil
import time
from typing import Any, NamedTuple

from array_record.python import array_record_module
import jax
import numpy as np

from armfarm.configs import qtopt
from armfarm.experiments import grasp_studies
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import policy
from armfarm.replay import log
from armfarm.replay import memory
from armfarm.replay import types
from armfarm.workers.checkpoints import write_json

NAME = 'grasp_logs'
# What is different of them.
RUNS = {'farm': (), 'farm-scripted-end': grasp_studies.SCRIPTED_END}
LOGS = ('scripted', 'explore', *RUNS)
_TRANSITIONS = 100_000  # of a log that one policy makes; Kalashnikov, C.1: 300,000
_EPISODES = 14_000  # of a whole run, some 170,000 transitions
_POOR = 2_550  # episodes that a policy learned from which grasps as often as the script
_HEIGHT = 2  # of an action
_PAPER = {'scripted': 30.0, 'explore': 30.0}  # success, %
_FIGURES = 'figures.json'
_COMMAND = f'python -m armfarm.experiments.{NAME}'


class Figures(NamedTuple):
  """What a log holds.

  Attributes:
    episodes: how many.
    transitions: of all of them.
    success: share of the episodes.
    height: mean of the command along z at every step of an episode, [20].
    deviation: its standard deviation there, [20].
    commit: of the code that made it.
    machine: where it was made.
  """

  episodes: int
  transitions: int
  success: float
  height: list[float]
  deviation: list[float]
  commit: str
  machine: str


def folder(name: str) -> pathlib.Path:
  """Returns where a log is, or is to be."""
  return jobs.runs('grasp_offline') / 'logs' / name


def figures(path: pathlib.Path) -> Figures:
  """Returns what a log holds.

  Raises:
    UserError: it is not complete.
  """
  try:
    return Figures(**json.loads((path / _FIGURES).read_text()))
  except OSError as error:
    raise app.UserError(f'{path} is no complete log: run {_COMMAND}') from error


def episodes(path: pathlib.Path, step: types.Block) -> Iterator[types.Block]:
  """Yields the episodes of a file, each [T]; `step` is one step, zeros."""
  reader = array_record_module.ArrayRecordReader(str(path))
  for record in reader.read_all():
    yield log.decode(record, step)
  reader.close()


def measure(path: pathlib.Path, step: types.Block) -> Figures:
  """Reads a log; `step` is one step of its blocks, zeros."""
  success, heights = [], []
  for file in log.files(path):
    for episode in episodes(file, step):
      success.append(bool(episode.success[-1]))
      heights.append(episode.items.transition.action[:, _HEIGHT])
  longest = max(map(len, heights))
  at = [[x[i] for x in heights if len(x) > i] for i in range(longest)]
  return Figures(
    episodes=len(success),
    transitions=sum(map(len, heights)),
    success=float(np.mean(success)),
    height=[float(np.mean(x)) for x in at],
    deviation=[float(np.std(x)) for x in at],
    commit=rows.commit(),
    machine=rows.machine(),
  )


def part(path: pathlib.Path, transitions: int, step: types.Block) -> pathlib.Path:
  """Returns a log of the first files of another, with at least so many transitions.

  Args:
    path: of the whole.
    transitions: of the part; it is the whole if that has no more.
    step: one step of its blocks, zeros.
  """
  if figures(path).transitions <= transitions:
    return path
  chosen = path.with_name(f'{path.name}-{transitions}')
  if (chosen / _FIGURES).exists():
    return chosen
  shutil.rmtree(chosen, ignore_errors=True)
  chosen.mkdir()
  left = transitions
  for file in log.files(path):
    if left > 0:
      os.link(file, chosen / file.name)
      left -= sum(len(episode.success) for episode in episodes(file, step))
  complete(chosen, step)
  return chosen


def complete(path: pathlib.Path, step: types.Block) -> Figures:
  """Notes what a log holds: nothing more will come."""
  found = measure(path, step)
  write_json(path / _FIGURES, found._asdict())
  return found


def one_step(parts: build.Parts) -> types.Block:
  """Returns one step of a run's blocks, zeros."""
  return jax.tree.map(lambda x: x[0], types.block_template(parts.item, 1))


def collect(
  parts: build.Parts, variables: Any, path: pathlib.Path, transitions: int
) -> Figures:
  """Logs what one collector does with variables that stay as they are.

  Args:
    parts: of the run, whose agent explores.
    variables: of its policy.
    path: of the log, which is there when it is complete.
    transitions: that it is to have at least.
  """
  hidden = path.with_name(f'.{path.name}')
  shutil.rmtree(hidden, ignore_errors=True)
  parts.config.log.record = str(hidden)
  replay = memory.MemoryReplay(max_blocks=1)
  replay.publish(types.Published(1, time.time(), variables))
  collector = build.make_collector(parts, replay, number=0)
  for _ in range(math.ceil(transitions / parts.config.run.block_steps)):
    collector.send()
    replay.take(timeout=0.0)
  collector.close()
  found = complete(hidden, one_step(parts))
  hidden.rename(path)
  return found


def by_script() -> None:
  """Logs the scripted policy."""
  parts = build.make_parts(qtopt.get_config('grasp_state'))
  untrained = build.variables_template(parts)  # none of it is used
  collect(parts, untrained, folder('scripted'), _TRANSITIONS)


def by_poor_policy(learned: pathlib.Path) -> None:
  """Logs the evaluation policy of a run."""
  loaded = policy.load(learned)
  agent = loaded.parts.agent

  def explore(variables: Any, state: Any, observation: Any, key: Any) -> Any:
    return agent.act(variables, observation, key), state

  greedy = loaded.parts._replace(agent=agent._replace(explore=explore))
  collect(greedy, loaded.variables, folder('explore'), _TRANSITIONS)


def make_job(name: str, episodes: int, changes: tuple[str, ...] = ()) -> jobs.Job:
  """Returns a run of QT-Opt that makes so many episodes, and logs them if it is one."""
  changed = [f'--config.{change}' for change in changes]
  if name in LOGS:
    changed.append(f'--config.log.record={folder(name)}')
  arguments = (
    '--config=configs/qtopt.py:grasp_state',
    f'--config.run.max_episodes={episodes}',
    *changed,
    '--runtime=sync',
    '--nopictures',
  )
  workdir = jobs.runs('grasp_offline') / f'run-{name}'
  return jobs.Job(NAME, 'qtopt', name, 0, workdir, arguments)


def log_rows(name: str) -> list[rows.Row]:
  """Returns the rows of a complete log."""
  found = figures(folder(name))
  source = rows.Source(_COMMAND, found.commit, found.machine)
  numbers = [
    ('success', 100.0 * found.success, '%'),
    ('episodes', float(found.episodes), 'episodes'),
    ('env_steps', float(found.transitions), 'steps'),
  ]
  for kind, values in (
    ('z_at_step_', found.height),
    ('z_deviation_at_step_', found.deviation),
  ):
    numbers += [(f'{kind}{i:02d}', x, '') for i, x in enumerate(values, 1)]
  return [
    rows.Row(
      name=NAME,
      task='grasp_state',
      agent='qtopt',
      variant=name,
      seed=0,
      metric=metric,
      value=value,
      unit=unit,
      paper_value=_PAPER.get(name) if metric == 'success' else None,
      **source._asdict(),
    )
    for metric, value, unit in numbers
  ]


def main(argv: list[str]) -> int:
  """Makes the logs that are missing, records what all hold; returns the exit code."""
  jobs.check_flags(argv)
  poor = make_job('poor', _POOR)
  runs = [poor, *(make_job(name, _EPISODES, RUNS[name]) for name in RUNS)]
  code = jobs.run_all(runs, lambda *_: [])
  if code:
    return code
  app.exit_on_interrupt()
  if not folder('scripted').exists():
    by_script()
  if not folder('explore').exists():
    by_poor_policy(poor.workdir)
  for job in runs[1:]:
    if not (folder(job.variant) / _FIGURES).exists():
      complete(folder(job.variant), one_step(policy.load(job.workdir).parts))
  rows.merge(results.folder(), [row for name in LOGS for row in log_rows(name)])
  results.write()
  return 0


if __name__ == '__main__':
  app.run(main)
