"""What holds within one process alone."""

import pytest

from armfarm.replay import memory


def test_a_block_that_waits_is_not_overwritten(block):
  replay = memory.MemoryReplay(max_blocks=1)
  writer = replay.writer()
  writer.insert(block(0))
  with pytest.raises(RuntimeError, match='flush until True'):
    writer.insert(block(1))
  assert writer.flush(0.0)
  writer.insert(block(1))


def test_an_undelivered_block_is_dropped_by_close(block):
  replay = memory.MemoryReplay(max_blocks=1)
  writer = replay.writer()
  writer.insert(block(0))
  writer.close()
  assert writer.flush(0.0)
  assert replay.take(0.0) is None
