"""What a run leaves behind: rows, and a line that says how it is doing."""

import io
import json

import pytest

from armfarm.workers import records


@pytest.fixture
def opened(tmp_path):
  """Returns `... -> Records`, closed after the test."""
  found = []

  def make(*numbers):
    found.append(records.Records(tmp_path, *numbers))
    return found[-1]

  yield make
  for record in found:
    record.close()


def _rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_rows_are_lines_to_be_read_at_once(opened, tmp_path):
  record = opened()
  record.write('episode', 3, {'total': 0.5, 'success': True})
  record.write('learner', 4, {'loss': 0.1})
  assert _rows(tmp_path) == [
    {'kind': 'episode', 'env_steps': 3, 'total': 0.5, 'success': True},
    {'kind': 'learner', 'env_steps': 4, 'loss': 0.1},
  ]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_a_run_that_resumes_writes_on_from_the_checkpoint(opened, tmp_path):
  killed = opened()
  killed.write('episode', 1, {'name': 'ä'})  # positions are bytes
  killed.write('episode', 2, {})
  position = killed.position()
  killed.write('episode', 3, {})
  killed.close()
  resumed = opened(position, 2)
  assert resumed.position() == position
  resumed.write('episode', 4, {})
  assert resumed.position() > position
  assert [row['env_steps'] for row in _rows(tmp_path)] == [1, 2, 4]


def test_a_file_that_is_shorter_than_told_stays_as_it_is(opened, tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"env_steps": 1}\n')
  opened(1000, 2).close()
  assert _rows(tmp_path) == [{'env_steps': 1}]


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def _shown(stream, clock):
  """Shows something every 0.15 s, and leaves a note; returns what was written."""
  progress = records.ProgressLine(stream)
  time = clock(records)
  for text in ('first', 'second', 'third'):
    progress.show(text)
    time.now += 0.15
  progress.note('hm')
  progress.show('fourth')
  time.now += 10
  progress.show('fifth')
  return stream.getvalue()


def test_a_terminal_has_one_line_that_changes(clock):
  written = _shown(_Terminal(), clock)
  assert written == '\rfirst\rthird\rhm   \n\rfifth'


def test_a_file_has_few_lines(clock):
  assert _shown(io.StringIO(), clock) == 'first\nhm\nfifth\n'
