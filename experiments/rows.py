"""Results as data: flat rows in `docs/results/<name>.json`.

A row is one number of one run, with all it takes to make it again. Rows that say the
same of the same run replace each other, so running an experiment again updates it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
import fcntl
from importlib import metadata
import json
import math
import os
import pathlib
import platform
import re
import subprocess
from typing import Any, NamedTuple

# What the metrics of a learning curve begin with; a whole number follows.
CURVE = 'success_after_'  # training episodes
CURVES = (
  CURVE,
  'return_after_',
  'success_at_update_',
  'return_at_update_',
  'success_at_second_',
  'return_at_second_',
  'within_10_cm_at_iteration_',
  'within_5_cm_at_iteration_',
  'within_2_cm_at_iteration_',
  'z_at_step_',
  'z_deviation_at_step_',
)

_NAME = re.compile(r'[a-z][a-z0-9_-]*')
_TASK = re.compile(r'[a-zA-Z][\w/:.-]*')  # Gymnasium's ids among them
_COMMIT = re.compile(r'unknown|[0-9a-f]{7,40}\+?')
_GENERATED = (':!docs/results', ':!README.md')  # written from results, not their source


class Row(NamedTuple):
  """One number.

  Attributes:
    name: of the experiment, and of its file.
    task: what was learned.
    agent: who learned it.
    variant: how it was run.
    seed: of the run.
    metric: what was measured.
    value: the number; None where it was never reached.
    unit: of the value, '' for none.
    paper_value: what the paper says, if it does.
    command: makes the number again.
    commit: of the code; a '+' marks changes that were not committed.
    machine: where it ran.
  """

  name: str
  task: str
  agent: str
  variant: str
  seed: int
  metric: str
  value: float | None
  unit: str
  paper_value: float | None
  command: str
  commit: str
  machine: str

  @property
  def key(self) -> tuple[str, str, str, str, int]:
    """What the row is about; the order of the file."""
    return (self.name, self.agent, self.variant, self.metric, self.seed)

  @property
  def curve(self) -> tuple[str, str, str, int] | None:
    """The run whose learning curve the row is a point of, if it is one."""
    run = (self.name, self.agent, self.variant, self.seed)
    return run if self.point else None

  @property
  def point(self) -> tuple[str, int] | None:
    """Which of `CURVES` the row is a point of, and where; None if of none."""
    for kind in CURVES:
      if self.metric.startswith(kind):
        return kind, int(self.metric.removeprefix(kind))
    return None


class Source(NamedTuple):
  """Where numbers come from; see `Row`."""

  command: str
  commit: str
  machine: str


def check(row: Row) -> None:
  """Raises ValueError for a row that no page could show."""
  for field in ('name', 'task', 'agent', 'variant', 'metric'):
    value = getattr(row, field)
    pattern = _TASK if field == 'task' else _NAME
    if not (isinstance(value, str) and pattern.fullmatch(value)):
      raise ValueError(f'{field} is {value!r}: give lower-case letters, digits, _ or -')
  if type(row.seed) is not int or row.seed < 0:
    raise ValueError(f'seed is {row.seed!r}: give a whole number from 0')
  for field in ('value', 'paper_value'):
    _check_number(field, getattr(row, field))
  for field in ('unit', 'command', 'machine'):
    value = getattr(row, field)
    if not isinstance(value, str) or '\n' in value or not (value or field == 'unit'):
      raise ValueError(f'{field} is {value!r}: give one line')
  if not (isinstance(row.commit, str) and _COMMIT.fullmatch(row.commit)):
    raise ValueError(f'commit is {row.commit!r}: give a hash, with + for changes')


def read(path: pathlib.Path) -> list[Row]:
  """Reads the rows of a file; none where there is no file.

  Raises:
    ValueError: a row is not valid, or of another file.
  """
  if not path.exists():
    return []
  try:
    rows = [Row(**fields) for fields in json.loads(path.read_text())]
  except TypeError as error:
    raise ValueError(f'{path} holds no rows: {error}') from error
  for row in rows:
    check(row)
    if row.name != path.stem:
      raise ValueError(f'{path} holds a row of {row.name}')
  return rows


def read_all(folder: pathlib.Path) -> dict[str, list[Row]]:
  """Reads every file of a folder, by name."""
  return {path.stem: read(path) for path in sorted(folder.glob('*.json'))}


def merge(folder: pathlib.Path, rows: Iterable[Row]) -> list[pathlib.Path]:
  """Adds rows to their files, in place of rows with the same key.

  A learning curve replaces the whole of the run's earlier one. Who merges at the same
  time waits.

  Returns:
    The files.

  Raises:
    ValueError: a row is not valid; no file has changed.
  """
  rows = list(rows)
  for row in rows:
    check(row)
  curves = {row.curve for row in rows} - {None}
  files = {folder / f'{row.name}.json': row.name for row in rows}
  with _locked(folder):
    for path, name in files.items():
      content = {old.key: old for old in read(path) if old.curve not in curves}
      content.update((row.key, row) for row in rows if row.name == name)
      _write(path, sorted(content.values(), key=lambda row: row.key))
  return list(files)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other processes from merging into a folder, which is made."""
  folder.mkdir(parents=True, exist_ok=True)
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def machine() -> str:
  """Says what this machine is, without saying whose."""
  cores = len(os.sched_getaffinity(0))
  return f'{_processor()}, {cores} cores, jax {metadata.version("jax")}'


def commit(folder: pathlib.Path | None = None) -> str:
  """Returns the short hash of the commit that is checked out in a folder.

  A '+' is added where sources differ from it, 'unknown' returned without git.
  """
  head = _git(folder, 'rev-parse', '--short', 'HEAD')
  if not head:
    return 'unknown'
  top = _git(folder, 'rev-parse', '--show-toplevel')
  changes = _git(pathlib.Path(top), 'status', '--porcelain', '--', '.', *_GENERATED)
  return f'{head}+' if changes else head


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file in one go: nobody finds half of it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}')
  partial.write_text(text)
  os.replace(partial, path)


def _check_number(field: str, value: Any) -> None:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if value is not None and not (number and math.isfinite(value)):
    raise ValueError(f'{field} is {value!r}: give a finite number or None')


def _write(path: pathlib.Path, rows: list[Row]) -> None:
  """One row a line, so that a changed number is a changed line."""
  lines = ',\n'.join(json.dumps(row._asdict()) for row in rows)
  write_text(path, f'[\n{lines}\n]\n')


def _processor() -> str:
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    text = ''
  found = re.search(r'^model name\s*:\s*(.+)$', text, re.MULTILINE)
  return found.group(1).strip() if found else platform.machine()


def _git(folder: pathlib.Path | None, *arguments: str) -> str:
  command = ['git', *arguments]
  try:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
  except OSError:
    return ''
  return done.stdout.strip() if done.returncode == 0 else ''
