"""What is logged is read again, whole episodes only, and damage is told."""

import jax
import numpy as np
import pytest

pytest.importorskip('array_record')

from array_record.python import array_record_module

from armfarm.agents import types as agent_types
from armfarm.replay import log
from armfarm.replay import types

# The observation is a small picture beside a number.
_ITEM = types.item_template(agent_types.Spec(2, 1))
_OBSERVATION = {
  'image': np.zeros([2, 2, 3], np.uint8),
  'state': np.zeros(1, np.float32),
}
_ITEM = _ITEM._replace(
  transition=_ITEM.transition._replace(
    observation=_OBSERVATION, next_observation=_OBSERVATION
  )
)
_STEP = jax.tree.map(lambda x: x[0], types.block_template(_ITEM, 1))


def _blocks(letters, block_steps=4, episode=0, first=0):
  """Returns blocks of steps 0, 1, 2 ...: . nothing   T end   L limit."""
  ends = np.array([letter in 'TL' for letter in letters])
  before = np.concatenate([[False], ends[:-1]])
  starts = np.maximum.accumulate(np.where(before, np.arange(len(ends)), -first))
  counts = np.arange(len(ends))

  def fill(field):
    return (counts.reshape(-1, *[1] * field.ndim) + np.zeros_like(field)).astype(
      field.dtype
    )

  whole = jax.tree.map(fill, _STEP)
  whole.items.transition.discount[:] = [letter != 'T' for letter in letters]
  whole.items.transition.truncation[:] = [letter == 'L' for letter in letters]
  whole.items.origin.episode[:] = episode + np.cumsum(before)
  whole.items.origin.step[:] = counts - starts
  slices = [slice(i, i + block_steps) for i in range(0, len(letters), block_steps)]
  return [jax.tree.map(lambda x, s=s: x[s], whole) for s in slices]


def _logged(folder):
  """Returns the episodes of a log, as `collector-episode: rewards`."""
  rows = {}
  for path in log.files(folder):
    reader = array_record_module.ArrayRecordReader(str(path))
    for record in reader.read_all():
      episode = log.decode(record, _STEP)
      origin, rewards = episode.items.origin, episode.items.transition.reward
      assert (origin.step == np.arange(len(origin.step))).all()
      rows[int(origin.episode[0])] = ''.join(str(int(x)) for x in rewards)
  return rows


def _write(folder, blocks, collector=0):
  writer = log.EpisodeLog(folder, collector)
  for block in blocks:
    writer.add(block)
  return writer


def test_a_record_is_what_it_was_made_of():
  for block in _blocks('..T.....', 8):
    again = log.decode(log.encode(block), _STEP)
    jax.tree.map(np.testing.assert_array_equal, block, again)
    types_before = [x.dtype for x in jax.tree.leaves(block)]
    assert [x.dtype for x in jax.tree.leaves(again)] == types_before


@pytest.mark.parametrize(
  ('letters', 'expected'),
  [
    ('........', {}),
    ('...T....', {0: '0123'}),
    ('.....L..', {0: '012345'}),
    ('.T.L.T.L', {0: '01', 1: '23', 2: '45', 3: '67'}),
    ('TTTTTTTL', {i: str(i) for i in range(8)}),
    ('..T....T', {0: '012', 1: '34567'}),
  ],
)
def test_whole_episodes_are_logged(tmp_path, letters, expected):
  _write(tmp_path, _blocks(letters)).commit()
  assert _logged(tmp_path) == expected


def test_an_episode_whose_beginning_is_missing_is_left_out(tmp_path):
  writer = _write(tmp_path, _blocks('..T...T.', first=5))
  writer.commit()
  assert _logged(tmp_path) == {1: '3456'}


def test_a_block_that_was_lost_costs_its_episodes_only(tmp_path):
  blocks = _blocks('......T...T...T.')
  _write(tmp_path, [blocks[0], *blocks[2:]]).commit()
  assert _logged(tmp_path) == {2: '11121314'}


def test_what_is_on_disk_is_not_written_again(tmp_path):
  blocks = _blocks('.T.T.T.T.T.T')
  _write(tmp_path, blocks[:2]).commit()
  _write(tmp_path, blocks).commit()
  _write(tmp_path, blocks, collector=1).commit()
  assert [path.name for path in log.files(tmp_path)] == [
    '0000-00000000-00000003.array_record',
    '0000-00000004-00000005.array_record',
    '0001-00000000-00000005.array_record',
  ]


def test_a_file_is_not_there_until_it_is_complete(tmp_path):
  writer = _write(tmp_path, _blocks('.T.T'))
  assert log.files(tmp_path) == []
  assert len([*tmp_path.iterdir()]) == 1
  _write(tmp_path, _blocks('.T.T')).commit()  # another, after this one was killed
  assert len([*tmp_path.iterdir()]) == 1
  assert _logged(tmp_path) == {0: '01', 1: '23'}
  del writer


def test_files_are_completed_by_count_and_by_age(tmp_path, monkeypatch):
  monkeypatch.setattr(log, '_EPISODES', 3)
  writer = _write(tmp_path, _blocks('TTTTT...'))
  assert _logged(tmp_path).keys() == {0, 1, 2, 3}  # a block is not divided
  monkeypatch.setattr(log, '_SECONDS', -1.0)
  writer.add(_blocks('T', episode=6)[0])
  assert _logged(tmp_path).keys() == {0, 1, 2, 3, 4, 6}


class _Sink:
  def __init__(self):
    self.told = []

  def insert(self, block):
    self.told.append(('insert', int(block.items.origin.step[0])))

  def flush(self, timeout):
    self.told.append(('flush', timeout))
    return timeout > 1

  def close(self):
    self.told.append(('close',))


def test_a_logged_writer_passes_everything_on(tmp_path):
  sink = _Sink()
  writer = log.LoggedWriter(sink, log.EpisodeLog(tmp_path, 0))
  for block in _blocks('.....T..'):
    writer.insert(block)
  assert not writer.flush(0.5)
  assert writer.flush(2.0)
  writer.close()
  assert sink.told == [
    *(('insert', 0), ('insert', 4)),
    *(('flush', 0.5), ('flush', 2.0), ('close',)),
  ]
  assert _logged(tmp_path) == {0: '012345'}


_RECORD = log.encode(_blocks('...T')[0])


@pytest.mark.parametrize(
  'record', [b'', b'x', _RECORD[:-3], _RECORD[5:], _RECORD + b'x', b'\x80', b'\xc0']
)
def test_what_is_no_episode_is_told(record):
  with pytest.raises(ValueError, match='it is no episode'):
    log.decode(record, _STEP)


def test_an_episode_of_another_task_is_told():
  transition = _STEP.items.transition._replace(action=np.zeros(2, np.float32))
  step = _STEP._replace(items=_STEP.items._replace(transition=transition))
  message = r'items/transition/action is float32\[4, 1\], not float32\[4, 2\]'
  with pytest.raises(ValueError, match=message):
    log.decode(_RECORD, step)
