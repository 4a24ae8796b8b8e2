"""Episodes on disk, as they finish.

A log is a folder of array_record files, each with whole episodes of one collector:

  0003-00000120-00000219.array_record    collector 3, episodes 120 to 219

A file is given its name when it is complete; before, it is hidden. An episode is one
record, all the steps of its blocks as arrays by name, in msgpack: nothing is pickled,
and who reads needs no code of ours. Files keep checksums, so that whatever is damaged
is told from what is not.

Letters as in `armfarm.replay.types`, where [T] here are the steps of an episode.
"""

from __future__ import annotations

from collections.abc import Iterator
import os
import pathlib
import time
from typing import Any

from array_record.python import array_record_module
from flax import serialization
import jax
import numpy as np

from armfarm.replay import types

_SUFFIX = '.array_record'
_OPTIONS = 'group_size:1,zstd:1'  # every episode by itself; of images, fast enough
_EPISODES = 100  # of a file at most: the format pads a file to 128 kB
_SECONDS = 30.0  # that an episode waits for its file to be complete, about


def _names(steps: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by their paths, as in 'items/origin/step'."""
  leaves = jax.tree_util.tree_leaves_with_path(steps)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def encode(steps: Any) -> bytes:
  """Makes a record of a tree of arrays, each [T ...]."""
  rows = {name: np.asarray(leaf) for name, leaf in _names(steps).items()}
  return serialization.msgpack_serialize(rows)


def decode(record: bytes, step: Any) -> Any:
  """Returns the tree of [T ...] that `encode` was given.

  Args:
    record: of `encode`.
    step: one step like those, [...]; shapes and types are used.

  Raises:
    ValueError: the record is damaged, or holds something else.
  """
  try:
    rows = serialization.msgpack_restore(record)
    steps = len(next(iter(rows.values())))
    found = {name: f'{row.dtype}{[*row.shape]}' for name, row in rows.items()}
  except Exception as error:  # of msgpack, or of what it made of it
    raise ValueError(f'it is no episode ({error})') from error
  wanted = {
    name: f'{leaf.dtype}{[steps, *leaf.shape]}' for name, leaf in _names(step).items()
  }
  if found != wanted:
    name = min(x for x in {*found, *wanted} if found.get(x) != wanted.get(x))
    raise ValueError(f'{name} is {found.get(name)}, not {wanted.get(name)}')
  return jax.tree.unflatten(jax.tree.structure(step), [rows[name] for name in wanted])


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the complete files of a log, in order."""
  return sorted(folder.glob(f'[!.]*{_SUFFIX}'))


class EpisodeLog:
  """Writes the episodes of one collector.

  What is on disk is not written again: a run that resumes repeats some episodes. An
  episode whose beginning was lost with the process that saw it is left out.

  Args:
    folder: of the log, made if need be.
    collector: whose episodes they are.
  """

  def __init__(self, folder: pathlib.Path, collector: int):
    folder.mkdir(parents=True, exist_ok=True)
    self._folder = folder
    self._collector = collector
    self._hidden = folder / f'.{collector:04d}{_SUFFIX}'
    self._writer: Any = None
    self._kept: list[int] = []  # numbers of the episodes in the hidden file
    self._opened = 0.0  # when the first of them was written, s
    self._pieces: list[types.Block] = []  # of the episode that is under way
    self._last = max(map(_last_episode, self._own()), default=-1)

  def add(self, block: types.Block) -> None:
    """Takes the next block of the collector; writes the episodes that it ends."""
    for piece, over in _pieces(block):
      self._append(piece)
      if over:
        self._finish()
    late = time.monotonic() - self._opened > _SECONDS
    if len(self._kept) >= _EPISODES or (self._kept and late):
      self.commit()

  def commit(self) -> None:
    """Completes the file, if there is one."""
    if self._writer is None:
      return
    self._writer.close()
    self._writer = None
    with self._hidden.open('rb') as file:
      os.fsync(file.fileno())
    name = f'{self._collector:04d}-{self._kept[0]:08d}-{self._kept[-1]:08d}{_SUFFIX}'
    os.replace(self._hidden, self._folder / name)
    self._kept = []

  def _own(self) -> list[pathlib.Path]:
    paths = files(self._folder)
    return [path for path in paths if path.name.startswith(f'{self._collector:04d}-')]

  def _append(self, piece: types.Block) -> None:
    """Adds a piece to the episode that it goes on with, or that it begins."""
    first = int(piece.items.origin.step[0])
    if sum(len(one.success) for one in self._pieces) != first:
      self._pieces = []
    if self._pieces or first == 0:
      self._pieces.append(piece)

  def _finish(self) -> None:
    pieces, self._pieces = self._pieces, []
    number = int(pieces[0].items.origin.episode[0]) if pieces else self._last
    if number <= self._last:
      return
    if self._writer is None:
      path = str(self._hidden)
      self._writer = array_record_module.ArrayRecordWriter(path, _OPTIONS)
      self._opened = time.monotonic()
    episode = jax.tree.map(lambda *rows: np.concatenate(rows), *pieces)
    self._writer.write(encode(episode))
    self._kept.append(number)
    self._last = number


class LoggedWriter:
  """A collector's way in that logs what passes.

  Args:
    writer: where blocks go.
    log: of the collector.
  """

  def __init__(self, writer: types.Writer, log: EpisodeLog):
    self._writer = writer
    self._log = log

  def insert(self, block: types.Block) -> None:
    """See `types.Writer`."""
    self._log.add(block)
    self._writer.insert(block)

  def flush(self, timeout: float) -> bool:
    """See `types.Writer`."""
    return self._writer.flush(timeout)

  def close(self) -> None:
    """See `types.Writer`; completes the log's file."""
    self._log.commit()
    self._writer.close()


class LoggedReplay:
  """Replay as a collector sees it, whose way in is logged.

  Args:
    replay: see `types.Replay`.
    log: of the collector.
  """

  def __init__(self, replay: types.Replay, log: EpisodeLog):
    self._replay = replay
    self._log = log

  def writer(self) -> LoggedWriter:
    """See `types.Replay`."""
    return LoggedWriter(self._replay.writer(), self._log)

  def take(self, timeout: float) -> Any | None:
    """See `types.Replay`."""
    return self._replay.take(timeout)

  def publish(self, published: types.Published) -> None:
    """See `types.Replay`."""
    self._replay.publish(published)

  def latest(self, timeout: float) -> types.Published | None:
    """See `types.Replay`."""
    return self._replay.latest(timeout)

  def close(self) -> None:
    """See `types.Replay`."""
    self._replay.close()


def _last_episode(path: pathlib.Path) -> int:
  """Returns the number of the last episode in a file, or -1 if its name is foreign."""
  digits = path.name.removesuffix(_SUFFIX).rpartition('-')[2]
  return int(digits) if digits.isdecimal() else -1


def _pieces(block: types.Block) -> Iterator[tuple[types.Block, bool]]:
  """Cuts a block where episodes end; says of each piece whether one ends with it."""
  transition = block.items.transition
  over = (transition.discount == 0) | (transition.truncation == 1)
  edges = [0, *(np.flatnonzero(over) + 1).tolist(), len(over)]
  for start, end in zip(edges[:-1], edges[1:], strict=True):
    if start < end:
      yield jax.tree.map(lambda x, s=start, e=end: x[s:e], block), bool(over[end - 1])
