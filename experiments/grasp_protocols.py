"""The protocols of QT-Opt's comparison, on the policies of runs.

  python -m armfarm.experiments.grasp_protocols

Kalashnikov et al. 2018, 6.1 and A, on objects that nobody learned with: attempts with
replacement, emptying a bin, a grasp that is disturbed, blocks that are to be broken up
first. Each policy is that of a run's newest checkpoint; each sees as it has learned.
Those of `grasp_state` are tried that are finished, or those in --workdirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import functools
import pathlib
import shlex
import sys
from typing import Any, NamedTuple

from absl import flags
import chex
import jax
from ml_collections import ConfigDict
import numpy as np

from armfarm.configs import tasks
from armfarm.envs import grasp
from armfarm.envs import grasp_attempts
from armfarm.envs.task import Environment
from armfarm.envs.task import Task
from armfarm.experiments import grasp_state
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import policy

_NAME = 'grasp_protocols'
_PAPER = {
  'qtopt': {
    **{'replacement_success': 96.0, 'first_10': 88.0, 'first_20': 88.0},
    **{'first_30': 76.0, 'emptied': 2.0},
    **{'disturbed_success': 74.0, 'singulation_success': 79.0},
  },
  'supervised': {
    **{'replacement_success': 78.0, 'first_10': 76.0, 'first_20': 72.0},
    **{'first_30': 72.0, 'emptied': 1.0},
    **{'disturbed_success': 16.0, 'singulation_success': 54.0},
  },
}  # table 1, 6.1 and A

_WORKDIRS = flags.DEFINE_list(
  'workdirs', [], 'Folders of runs, with commas; none: those of grasp_state.'
)
_CHOSEN = flags.DEFINE_list('protocols', [], 'Which, with commas; none: all.')
_SEED = flags.DEFINE_integer('seed', 0, 'Decides the bins.')

Policy = Callable[[Any, chex.PRNGKey], np.ndarray]
Numbers = dict[str, tuple[float, str]]  # metric -> value and unit


class Variant(NamedTuple):
  """A run's task as a protocol has it."""

  task: Task
  numbers: grasp.Numbers


def variant(config: ConfigDict, change: Callable[[ConfigDict], None]) -> Variant:
  """Returns the task of a run, changed for a protocol.

  Raises:
    UserError: it is no grasping, or the change does not fit it.
  """
  changed = ConfigDict(config.to_dict())
  if not changed.task.name.startswith('grasp'):
    raise app.UserError(
      f'{changed.task.name} is no grasping: give runs that learned it'
    )
  change(changed.task)
  with build.user_errors():
    task = build.make_task(changed)
    numbers = changed.task.to_dict()
    del numbers['name']
    assert isinstance(task, Task)
    return Variant(task, grasp.Numbers(**numbers))


def make_policy(loaded: policy.Loaded) -> Policy:
  """Returns the evaluation policy of one robot, compiled."""
  act = jax.jit(functools.partial(loaded.parts.agent.act, loaded.variables))
  return lambda observation, key: np.asarray(act(observation, key))


def attempt(body: Any, observation: Any, act: Policy, key: chex.PRNGKey) -> bool:
  """Plays to the end of an attempt; returns whether it succeeded.

  Args:
    body: that takes steps.
    observation: its first one.
    act: who plays.
    key: consumed.
  """
  while True:
    key, key_act = jax.random.split(key)
    step = body.step(act(observation, key_act))
    observation = step.observation
    if step.terminated or step.truncated:
      return bool(step.success)


def attempts(
  body: Environment, act: Policy, count: int, key: chex.PRNGKey
) -> Iterator[bool]:
  """Makes attempts, each at another bin; yields whether each succeeded."""
  for key_one in jax.random.split(key, count):
    key_reset, key_act = jax.random.split(key_one)
    yield attempt(body, body.reset(key_reset), act, key_act)


def empty(
  bin: grasp_attempts.Bin, act: Policy, most: int, key: chex.PRNGKey
) -> tuple[list[bool], int]:
  """Empties a bin.

  Args:
    bin: to be filled first.
    act: who plays.
    most: attempts.
    key: consumed.

  Returns:
    Whether each attempt succeeded, and how many objects are left.
  """
  key, key_fill = jax.random.split(key)
  bin.fill(key_fill)
  outcomes: list[bool] = []
  while bin.count and len(outcomes) < most:
    key, key_act = jax.random.split(key)
    outcomes.append(attempt(bin, bin.begin(), act, key_act))
    if outcomes[-1]:
      bin.put_aside()
  return outcomes, bin.count


def replacement(config: ConfigDict, act: Policy, key: chex.PRNGKey) -> Numbers:
  """Attempts at unseen objects, which are there again at the next one."""
  body = build.make_environment(variant(config, tasks.unseen).task)
  count = tasks.protocols().replacement
  return {'replacement_success': _percent(list(attempts(body, act, count, key)))}


def emptying(config: ConfigDict, act: Policy, key: chex.PRNGKey) -> Numbers:
  """Attempts at a full bin, from which what was grasped is taken."""
  numbers = tasks.protocols()
  bin = grasp_attempts.Bin(*variant(config, tasks.emptying))
  keys = jax.random.split(key, numbers.emptying)
  found = [empty(bin, act, numbers.attempts, key) for key in keys]
  firsts = {
    f'first_{count}': _percent([x for outcomes, _ in found for x in outcomes[:count]])
    for count in numbers.counted
  }
  emptied = sum(not left for _, left in found)
  return {**firsts, 'emptied': (float(emptied), f'of {len(found)} bins')}


def disturbed(config: ConfigDict, act: Policy, key: chex.PRNGKey) -> Numbers:
  """Attempts at one object, which is moved away from between the fingers once."""
  body = grasp_attempts.Disturbed(*variant(config, tasks.disturbed))
  outcomes, moved = [], []
  for success in attempts(body, act, tasks.protocols().disturbed, key):
    outcomes.append(success)
    moved.append(body.disturbed)
  return {'disturbed_success': _percent(outcomes), 'disturbed': _percent(moved)}


def singulation(config: ConfigDict, act: Policy, key: chex.PRNGKey) -> Numbers:
  """Attempts at blocks side by side."""
  body = build.make_environment(variant(config, tasks.singulation).task)
  count = tasks.protocols().singulation
  return {'singulation_success': _percent(list(attempts(body, act, count, key)))}


_PROTOCOLS = {
  'replacement': replacement,
  'emptying': emptying,
  'disturbed': disturbed,
  'singulation': singulation,
}


def try_out(workdir: pathlib.Path, names: Sequence[str], seed: int) -> list[rows.Row]:
  """Returns the rows of a run's policy.

  Args:
    workdir: of the run.
    names: of the protocols.
    seed: decides the bins.

  Raises:
    UserError: there is no policy, or it has learned something else.
  """
  loaded = policy.load(workdir)
  config, act = loaded.parts.config, make_policy(loaded)
  agent = config.agent.name
  command = shlex.join(['python', '-m', f'armfarm.experiments.{_NAME}', *sys.argv[1:]])
  found: Numbers = {}
  for name in names:
    key = jax.random.fold_in(jax.random.key(seed), [*_PROTOCOLS].index(name))
    found |= _PROTOCOLS[name](config, act, key)
  return [
    rows.Row(
      name=_NAME,
      task=config.task.name,
      agent=agent,
      variant=config.task.name,
      seed=config.seed,
      metric=metric,
      value=value,
      unit=unit,
      paper_value=_PAPER.get(agent, {}).get(metric),
      command=command,
      commit=rows.commit(),
      machine=rows.machine(),
    )
    for metric, (value, unit) in found.items()
  ]


def workdirs() -> list[pathlib.Path]:
  """Returns the folders of the runs to try.

  Raises:
    UserError: none was given, and no run of `grasp_state` is finished.
  """
  given = [pathlib.Path(folder) for folder in _WORKDIRS.value]
  found = given or [job.workdir for job in grasp_state.queue() if job.summary()]
  if not found:
    raise app.UserError(
      'no run of grasp_state is finished: run armfarm.experiments.grasp_state, or give'
      ' the folders of others in --workdirs'
    )
  return found


def main(argv: list[str]) -> int:
  """Tries the policies and records what they did; returns the exit code."""
  jobs.check_flags(argv, 'seeds', 'agents')
  app.exit_on_interrupt()
  unknown = [name for name in _CHOSEN.value if name not in _PROTOCOLS]
  if unknown:
    raise app.UserError(
      f'there is no protocol {unknown[0]!r}: choose from {", ".join(_PROTOCOLS)}'
    )
  names = _CHOSEN.value or [*_PROTOCOLS]
  for workdir in workdirs():
    found = try_out(workdir, names, _SEED.value)
    print(workdir)
    for row in found:
      print(f'  {row.metric:20}  {row.value:6.1f} {row.unit}')
    rows.merge(results.folder(), found)
  results.write()
  return 0


def _percent(outcomes: Sequence[bool]) -> tuple[float, str]:
  return 100.0 * float(np.mean(outcomes)), '%'


if __name__ == '__main__':
  app.run(main)
