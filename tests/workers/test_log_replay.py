"""Log replay: every episode as often as any other, whatever is damaged."""

import collections
import threading

import jax
import numpy as np
import pytest

pytest.importorskip('array_record')
pytest.importorskip('grain')

from armfarm.agents import types as agent_types
from armfarm.replay import log
from armfarm.replay import memory
from armfarm.replay import types
from armfarm.workers import log_replay

_ITEM = types.item_template(agent_types.Spec(2, 1))
_STEP = jax.tree.map(lambda x: x[0], types.block_template(_ITEM, 1))
_STEPS = 3  # of an episode
_FILES, _EACH = 4, 6  # episodes of a file


def _episode(collector, number):
  block = types.block_template(_ITEM, _STEPS)
  block.items.origin.collector[:] = collector
  block.items.origin.episode[:] = number
  block.items.origin.step[:] = range(_STEPS)
  block.items.transition.discount[:] = [1, 1, 0]
  return block


@pytest.fixture(name='folder')
def _folder(tmp_path):
  """A log of 24 episodes in four files, of two collectors."""
  for collector, file in np.ndindex(2, _FILES // 2):
    writer = log.EpisodeLog(tmp_path, collector)
    for number in range(file * _EACH, (file + 1) * _EACH):
      writer.add(_episode(collector, number))
    writer.commit()
  assert len(log.files(tmp_path)) == _FILES
  return tmp_path


def _jobs(folder, jobs, seed=0):
  return [
    log_replay.Episodes([folder], _STEP, seed=seed, job=job, jobs=jobs)
    for job in range(jobs)
  ]


def _which(episode):
  origin = episode.items.origin
  return int(origin.collector[0]), int(origin.episode[0])


@pytest.mark.parametrize('jobs', [2, 5, 60])
def test_all_jobs_together_visit_each_episode_once_a_pass(folder, jobs):
  count, passes = _FILES * _EACH, 10
  readers = _jobs(folder, jobs)
  rounds = passes * count // jobs
  seen = collections.Counter(
    _which(job.next()) for _ in range(rounds) for job in readers
  )
  assert len(seen) == count
  assert set(seen.values()) == {passes}


def test_each_job_visits_all_episodes_as_often(folder):
  """Whoever is faster than the others replays nothing more often."""
  for job in _jobs(folder, jobs=2):
    seen = collections.Counter(_which(job.next()) for _ in range(480))
    expected = 480 / 24
    chi_square = sum((n - expected) ** 2 / expected for n in seen.values())
    assert len(seen) == 24
    assert chi_square < 49.7  # 99.9 % of fair draws of 24 lie below


def test_every_pass_has_another_order(folder):
  (job,) = _jobs(folder, jobs=1)
  passes = [[_which(job.next()) for _ in range(24)] for _ in range(3)]
  assert len({*map(tuple, passes)}) == 3
  assert len({*map(tuple, map(sorted, passes))}) == 1
  again = _jobs(folder, jobs=1)[0]
  assert [_which(again.next()) for _ in range(24)] == passes[0]


def _damage(path, kind):
  data = bytearray(path.read_bytes())
  if kind == 'flipped':
    data[200] ^= 0xFF  # within the first record
  path.write_bytes(
    {'empty': b'', 'cut': data[: len(data) // 2], 'foreign': b'x' * 200_000}.get(
      kind, bytes(data)
    )
  )


@pytest.mark.parametrize('kind', ['empty', 'cut', 'foreign'])
def test_damaged_files_are_passed_over_and_counted(folder, kind):
  for path in log.files(folder)[:2]:
    _damage(path, kind)
  told = []
  job = log_replay.Episodes([folder], _STEP, seed=0, note=told.append)
  seen = collections.Counter(_which(job.next()) for _ in range(24))
  assert len(seen) == 12
  assert job.skipped == log_replay.Skipped(files=2, episodes=0)
  (line,) = told
  assert line.startswith('2 of 4 files of the log are damaged, and left out')


def test_damaged_episodes_are_passed_over_and_counted(folder):
  _damage(log.files(folder)[0], 'flipped')
  told = []
  job = log_replay.Episodes([folder], _STEP, seed=0, note=told.append)
  seen = collections.Counter(_which(job.next()) for _ in range(60))
  assert 18 <= len(seen) < 24
  (line,) = told  # of the first alone
  assert line.startswith('an episode of the log is left out, as others may be: ')
  assert job.skipped.files == 0
  assert job.skipped.episodes == job.position - 60 > 0


def test_a_log_of_another_task_is_told(folder):
  item = types.item_template(agent_types.Spec(3, 1))
  step = jax.tree.map(lambda x: x[0], types.block_template(item, 1))
  job = log_replay.Episodes([folder], step, seed=0)
  with pytest.raises(log_replay.NothingToReplay, match=r'none of 24 .*\[3, 2\], not'):
    job.next()


def test_a_log_without_episodes_is_told(tmp_path):
  (tmp_path / '0000-00000000-00000000.array_record').write_bytes(b'')
  with pytest.raises(log_replay.NothingToReplay, match='no episode, and 1 damaged'):
    _jobs(tmp_path, jobs=1)


def _worker(folder, replay, block_steps=5, job=0):
  episodes = _jobs(folder, jobs=2)[job]
  return log_replay.LogReplay(episodes, replay, block_steps, number=7 + job)


def test_blocks_have_one_length_and_lose_no_step(folder):
  worker = _worker(folder, memory.MemoryReplay(1))
  blocks = [worker.collect() for _ in range(9)]
  assert {len(block.success) for block in blocks} == {5}
  every = jax.tree.map(lambda *x: np.concatenate(x), *blocks)
  (job, _) = _jobs(folder, jobs=2)
  episodes = [job.next() for _ in range(15)]
  expected = jax.tree.map(lambda *x: np.concatenate(x), *episodes)
  # Told as the visits of this job.
  origin = types.Origin(
    collector=np.full(45, 7, np.int32),
    episode=np.repeat(np.arange(15, dtype=np.int32), _STEPS),
    step=np.tile(np.arange(_STEPS, dtype=np.int32), 15),
  )
  expected = expected._replace(items=expected.items._replace(origin=origin))
  jax.tree.map(np.testing.assert_array_equal, every, expected)


def test_a_successor_goes_on_behind(folder):
  worker = _worker(folder, memory.MemoryReplay(1))
  before = [worker.collect() for _ in range(6)][-3:]  # five visits made half of them
  episodes = log_replay.Episodes([folder], _STEP, seed=0, job=0, jobs=2, first=5)
  after = log_replay.LogReplay(episodes, memory.MemoryReplay(1), 5, number=7)
  found = [after.collect() for _ in range(3)]
  jax.tree.map(np.testing.assert_array_equal, found, before)


@pytest.mark.parametrize('before', [0, 1, 2, 3])
def test_what_is_restored_goes_on_to_the_bit(folder, before):
  worker = _worker(folder, memory.MemoryReplay(1))
  for _ in range(before):
    worker.collect()
  other = _worker(folder, memory.MemoryReplay(1))
  other.restore(jax.tree.map(jax.numpy.asarray, worker.state()))
  for _ in range(4):
    jax.tree.map(np.testing.assert_array_equal, worker.collect(), other.collect())


def test_jobs_feed_a_table_until_they_are_told_to_stop(folder):
  replay, stop = memory.MemoryReplay(2), threading.Event()
  workers = [_worker(folder, replay, job=job) for job in range(2)]
  threads = [threading.Thread(target=worker.run, args=[stop]) for worker in workers]
  for thread in threads:
    thread.start()
  for _ in range(20):
    block = replay.take(30.0)
    assert len(block.success) == 5
  stop.set()
  for thread in threads:
    thread.join(30.0)
    assert not thread.is_alive()
