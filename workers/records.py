"""What a run leaves behind for people: metrics, TensorBoard, a progress line."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import threading
import time
from typing import Any, Protocol, TextIO

import tensorboardX

_PLAIN_PERIOD = 10.0  # s between progress lines where they cannot be overwritten


class Records:
  """Appends rows to `metrics.jsonl` and to TensorBoard's events.

  Args:
    workdir: of the run.
    position: where to go on in `metrics.jsonl`; what lies behind it is cut off, since
      a resumed run writes it again.
    env_steps: where to go on in TensorBoard.
  """

  def __init__(self, workdir: pathlib.Path, position: int = 0, env_steps: int = 0):
    path = workdir / 'metrics.jsonl'
    path.touch()
    os.truncate(path, min(position, path.stat().st_size))
    self._file = path.open('a', buffering=1)  # a line at once, for who watches
    self._lock = threading.Lock()
    self._board = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=env_steps + 1 if env_steps else None
    )

  def write(self, kind: str, env_steps: int, row: dict[str, Any]) -> None:
    """Records one row.

    Args:
      kind: 'episode', 'evaluation' or 'learner'.
      env_steps: when, in environment steps.
      row: names and values.
    """
    with self._lock:
      line = {'kind': kind, 'env_steps': env_steps, **row}
      self._file.write(json.dumps(line) + '\n')
      numbers = {name: x for name, x in row.items() if isinstance(x, int | float)}
      for name, number in numbers.items():
        self._board.add_scalar(f'{kind}/{name}', number, env_steps)

  def position(self) -> int:
    """Returns where `metrics.jsonl` ends, in bytes."""
    with self._lock:
      return self._file.tell()

  def close(self) -> None:
    """Flushes and closes everything."""
    with self._lock:
      self._file.close()
      self._board.close()


def read(workdir: pathlib.Path, kind: str) -> list[dict[str, Any]]:
  """Returns the rows of one kind in `metrics.jsonl`, the oldest first.

  A last line that was cut short is left out; there are no rows where there is no file.
  """
  path = workdir / 'metrics.jsonl'
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  rows = [json.loads(line) for line in lines if line.endswith('\n')]
  return [row for row in rows if row['kind'] == kind]


class Progress(Protocol):
  """Where a run tells people how it is doing."""

  def show(self, text: str) -> None:
    """Shows the latest state; may be called often, and need not show it every time."""

  def note(self, text: str) -> None:
    """Tells something that stays."""


class ProgressLine:
  """One line that says how a run is doing, written over itself on a terminal."""

  def __init__(self, stream: TextIO = sys.stderr):
    self._stream = stream
    self._overwrites = stream.isatty()
    self._period = 0.2 if self._overwrites else _PLAIN_PERIOD
    self._shown = -self._period
    self._width = 0

  def show(self, text: str) -> None:
    """Shows a text, unless the last one was shown just now."""
    now = time.monotonic()
    if now - self._shown < self._period:
      return
    self._shown = now
    end = '' if self._overwrites else '\n'
    start = '\r' if self._overwrites else ''
    self._stream.write(start + text.ljust(self._width) + end)
    self._stream.flush()
    self._width = len(text) if self._overwrites else 0

  def note(self, text: str) -> None:
    """Writes a line that stays."""
    start = '\r' if self._overwrites else ''
    self._stream.write(start + text.ljust(self._width) + '\n')
    self._stream.flush()
    self._width = 0
