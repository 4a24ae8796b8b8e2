"""Log replay: feeds what was logged to a run, over and over (appendix F.2).

Kalashnikov et al. 2018 keep more episodes on disk than fit into replay, and visit each
as often as any other by having many jobs read them again and again:

  shuffle all episodes anew for every pass
  job j of J takes episodes j, j + J, j + 2 J ... of these passes, one after the other
  every `block_steps` steps, send a block, as if a collector had seen it

All jobs together visit every episode once in a pass. What cannot be read is passed over
and counted. A job numbers its visits as a collector does its episodes, so that nothing
is stored twice, and a successor goes on behind. Letters as in `armfarm.replay.types`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import pathlib
from typing import Any, NamedTuple

from array_record.python import array_record_module
import grain
import jax
import numpy as np

from armfarm.replay import log
from armfarm.replay import types
from armfarm.workers.collector import Stop

_PATIENCE = 0.5  # s between two looks at whether to stop


class NothingToReplay(Exception):
  """A log has no episode that can be read."""


class Skipped(NamedTuple):
  """What could not be read.

  Attributes:
    files: that are no whole files.
    episodes: in others, as often as they would have been visited.
  """

  files: int
  episodes: int


class Episodes:
  """The endless passes over the episodes of some logs, as one job sees them.

  Args:
    folders: of the logs.
    step: one step of a block, zeros, [...].
    seed: of the order of all jobs.
    job: number of this one.
    jobs: how many there are.
    first: visits that this job leaves out.
    note: tells the user something in one line.

  Raises:
    NothingToReplay: no file can be read.
  """

  def __init__(
    self,
    folders: Sequence[pathlib.Path],
    step: Any,
    *,
    seed: int,
    job: int = 0,
    jobs: int = 1,
    first: int = 0,
    note: Callable[[str], None] = lambda text: None,
  ):
    paths = [path for folder in folders for path in log.files(folder)]
    whole = [str(path) for path in paths if _is_whole(path)]
    if not whole:
      names = ', '.join(map(str, folders))
      raise NothingToReplay(f'{names}: no episode, and {len(paths)} damaged files')
    source = grain.sources.ArrayRecordDataSource(whole)
    self._once = len(source)
    # Sliced behind the repetition: before it, every pass of a job would be the same.
    passes = grain.MapDataset.source(source).shuffle(seed=seed).repeat()
    self._records = passes[job::jobs]
    self._step = step
    self.position = first  # records that were visited
    self.skipped = Skipped(len(paths) - len(whole), 0)
    self._note = note
    if self.skipped.files and job == 0:
      damaged = f'{self.skipped.files} of {len(paths)} files of the log are damaged'
      note(f'{damaged}, and left out: restore them, or go on without')

  def next(self) -> types.Block:
    """Returns the steps of the next episode, [T].

    Raises:
      NothingToReplay: none of all episodes can be read.
    """
    for _ in range(self._once):
      self.position += 1
      try:
        return log.decode(self._records[self.position - 1], self._step)
      except (ValueError, RuntimeError, IndexError) as error:
        reason = error
      if not self.skipped.episodes:
        self._note(f'an episode of the log is left out, as others may be: {reason}')
      self.skipped = self.skipped._replace(episodes=self.skipped.episodes + 1)
    raise NothingToReplay(f'none of {self._once} episodes can be read: {reason}')


class LogReplay:
  """One job.

  Args:
    episodes: that it replays.
    replay: the queue that it feeds.
    block_steps: T.
    number: of this job, in place of a collector's.
  """

  def __init__(
    self, episodes: Episodes, replay: types.Replay, block_steps: int, number: int
  ):
    self._episodes = episodes
    self._number = number
    self._writer = replay.writer()
    self._block_steps = block_steps
    self._rest: types.Block | None = None  # of the last episode, steps not sent

  @property
  def skipped(self) -> Skipped:
    """What could not be read so far."""
    return self._episodes.skipped

  def run(self, stop: Stop) -> None:
    """Replays until told to stop; waits for room in replay."""
    while not stop.is_set():
      self._writer.insert(self.collect())
      while not stop.is_set() and not self._writer.flush(_PATIENCE):
        pass
    self.close()

  def send(self) -> None:
    """Delivers one block: a job's share of a lock step.

    Raises:
      ConnectionError: there is no room, so nobody takes the blocks.
    """
    self._writer.insert(self.collect())
    if not self._writer.flush(timeout=30.0):
      raise ConnectionError('replay took no block in 30 s: is its trainer running?')

  def close(self) -> None:
    """Lets go of replay."""
    self._writer.close()

  def collect(self) -> types.Block:
    """Returns the next T steps, of as many episodes as they touch."""
    rows = [] if self._rest is None else [self._rest]
    while sum(len(row.success) for row in rows) < self._block_steps:
      rows.append(self._next())
    every = jax.tree.map(lambda *x: np.concatenate(x), *rows)
    self._rest = jax.tree.map(lambda x: x[self._block_steps :], every)
    return jax.tree.map(lambda x: x[: self._block_steps], every)

  def state(self) -> dict[str, Any]:
    """All that `restore` needs to go on with the same step, as a tree of arrays."""
    left = 0 if self._rest is None else len(self._rest.success)
    position = self._episodes.position
    return {'position': np.int64(position), 'left': np.int64(left)}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes on from where `state` was taken."""
    left = int(state['left'])  # of the episode that was read last
    self._episodes.position = int(state['position']) - bool(left)
    self._rest = None
    if left:
      self._rest = jax.tree.map(lambda x: x[-left:], self._next())

  def _next(self) -> types.Block:
    """Returns the next episode, told as a visit of this job."""
    episode = self._episodes.next()
    origin = episode.items.origin
    visit = self._episodes.position - 1
    own = origin._replace(
      collector=np.full_like(origin.collector, self._number),
      episode=np.full_like(origin.episode, visit),
    )
    return episode._replace(items=episode.items._replace(origin=own))


def _is_whole(path: pathlib.Path) -> bool:
  """Whether a file can be opened, and has records."""
  with contextlib.suppress(RuntimeError, ValueError, OSError):
    reader = array_record_module.ArrayRecordReader(str(path))
    count = reader.num_records()
    reader.close()
    return count > 0
  return False
