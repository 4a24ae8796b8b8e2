"""A run's folder: what it was started with, and whether it may go on here.

config.json    the whole config and how it was launched
metrics.jsonl  one line an episode, evaluation and learner record
tensorboard/   the same for TensorBoard
checkpoints/   see `armfarm.workers.checkpoints`
pairs/         likewise, of each pair of guided policy search
compiled/      what one pair has compiled, for the others
summary.json   the outcome
curve.png, videos/
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from armfarm.launchers.app import UserError
from armfarm.workers.checkpoints import write_json

_CONFIG = 'config.json'
_LOCK = '.lock'
_OURS = (_LOCK, f'{_CONFIG}.tmp')  # what a start that was cut short leaves
# What may change when a run goes on: when it ends and what it writes, not what it is.
_FREE = ('run.max_episodes', 'run.stop_when_solved', 'run.checkpoint_every')


def plain(config: Any) -> Any:
  """Returns a config as JSON has it."""
  return json.loads(
    json.dumps(config.to_dict() if hasattr(config, 'to_dict') else config)
  )


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns what a run was started with: 'config' and 'launch'.

  Raises:
    UserError: the folder holds no run, or one that cannot be read.
  """
  path = workdir / _CONFIG
  if not path.exists():
    raise UserError(f'{workdir} holds no run: give the --workdir of one')
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read ({error}): restore it') from error
  if not isinstance(content, dict) or not {'config', 'launch'} <= content.keys():
    raise UserError(f'{path} is not of a run: choose another --workdir')
  return content


@contextlib.contextmanager
def opened(
  workdir: pathlib.Path, config: ConfigDict, launch: dict[str, Any]
) -> Iterator[None]:
  """Makes the folder of a new run, or goes on in that of an old one, alone.

  Args:
    workdir: the folder.
    config: of the run.
    launch: how it is launched; a run goes on the same way.

  Raises:
    UserError: the folder cannot be written, holds something else or is in use.
  """
  content = {'config': plain(config), 'launch': launch}
  with _written(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    _check(workdir, content)
  with locked(workdir):
    with _written(workdir):
      _check(workdir, content)  # somebody may have begun meanwhile
      write_json(workdir / _CONFIG, content)
    yield


def _check(workdir: pathlib.Path, content: dict[str, Any]) -> None:
  """Raises UserError unless a folder is empty, or holds the same run."""
  if (workdir / _CONFIG).exists():
    _check_same(workdir, read_config(workdir), content)
  elif any(path.name not in _OURS for path in workdir.iterdir()):
    raise UserError(
      f'{workdir} is not empty and holds no run: choose another --workdir'
    )


@contextlib.contextmanager
def _written(workdir: pathlib.Path) -> Iterator[None]:
  """Raises UserError where a folder cannot be written."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{workdir} cannot be written ({error.strerror}): choose another --workdir'
    ) from error


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other processes from running in a folder.

  Raises:
    UserError: one does.
  """
  with _written(workdir):
    lock = (workdir / _LOCK).open('w')
  with lock as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(f'{workdir} is in use by another process: let it end') from error
    yield


def _check_same(
  workdir: pathlib.Path, before: dict[str, Any], now: dict[str, Any]
) -> None:
  old = {**flat(before['config']), **flat(before['launch'])}
  new = {**flat(now['config']), **flat(now['launch'])}
  names = sorted(old.keys() | new.keys(), key=lambda x: (not x.endswith('.name'), x))
  for name in names:
    if name not in _FREE and old.get(name) != new.get(name):
      raise UserError(
        f'{workdir} holds a run with {name}={old.get(name)}, not {new.get(name)}:'
        ' choose another --workdir, or the same config to go on'
      )


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns a nested dict as one level of dotted names."""
  rows: dict[str, Any] = {}
  for name, value in tree.items():
    below = flat(value, f'{prefix}{name}.') if isinstance(value, dict) else None
    rows.update({f'{prefix}{name}': value} if below is None else below)
  return rows
