"""The seam within one process, without Reverb, for threads and for notebooks."""

from __future__ import annotations

import queue
import threading
from typing import Any

from armfarm.replay import types


class MemoryWriter:
  """A writer into the queue of `MemoryReplay`."""

  def __init__(self, blocks: queue.Queue[Any]):
    self._blocks = blocks
    self._pending: Any | None = None

  def insert(self, block: Any) -> None:
    """See `types.Writer`."""
    if self._pending is not None:
      raise RuntimeError('the last block is not delivered yet: flush until True')
    self._pending = block

  def flush(self, timeout: float) -> bool:
    """See `types.Writer`."""
    if self._pending is None:
      return True
    try:
      self._blocks.put(self._pending, timeout=timeout)
    except queue.Full:
      return False
    self._pending = None
    return True

  def close(self) -> None:
    """See `types.Writer`."""
    self._pending = None


class MemoryReplay:
  """A bounded queue of blocks and a slot for variables.

  Args:
    max_blocks: blocks that may wait for the trainer before writers do.
  """

  def __init__(self, max_blocks: int):
    self._blocks: queue.Queue[Any] = queue.Queue(max_blocks)
    self._changed = threading.Condition()
    self._published: types.Published | None = None

  def writer(self) -> MemoryWriter:
    """See `types.Replay`."""
    return MemoryWriter(self._blocks)

  def take(self, timeout: float) -> Any | None:
    """See `types.Replay`."""
    try:
      return self._blocks.get(timeout=timeout) if timeout else self._blocks.get_nowait()
    except queue.Empty:
      return None

  def publish(self, published: types.Published) -> None:
    """See `types.Replay`."""
    with self._changed:
      self._published = published
      self._changed.notify_all()

  def latest(self, timeout: float) -> types.Published | None:
    """See `types.Replay`."""
    with self._changed:
      self._changed.wait_for(lambda: self._published is not None, timeout)
      return self._published

  def close(self) -> None:
    """See `types.Replay`."""
