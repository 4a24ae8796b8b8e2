"""The farm's trainer: who waits for whom, by scripted blocks and labels."""

import json

import jax
import numpy as np
import pytest

from armfarm.replay import memory
from armfarm.replay import types
from armfarm.replay.parts import Parts
from armfarm.workers import bellman_updater
from armfarm.workers import experience
from armfarm.workers import labelled_trainer
from armfarm.workers import trainer as trainers
from armfarm.workers.joint import Balancer
from armfarm.workers.joint import Ramp

_BATCH, _BLOCK, _WORK, _WARMUP = 4, 5, 8, 10
_BALANCER = Balancer(least=2.0, most=4.0)
_JOB, _UPDATER = 1, 2  # numbers behind that of the one collector


class _Farm:
  """A trainer with all its queues; an updater labels when told to."""

  def __init__(self, toy, spec, *, offline_updates=0, log=True, uses=100.0):
    item = types.item_template(spec)
    self.queues = {name: memory.MemoryReplay(1000) for name in ('online', 'offline')}
    self.work, self.train = memory.MemoryReplay(2), memory.MemoryReplay(4)
    capacities = dict.fromkeys(experience.PARTS, 500)
    options = experience.Options(Ramp(0.25, 0.5, 100), offline_updates, _BATCH, _JOB)
    labelled = types.Labelled(item.transition, np.int32(0))
    self.memory = experience.Labelling(
      Parts(item, capacities, seed=0),
      experience.Mixture(Parts(labelled, capacities, seed=1), options),
      work=[self.work],
      train=self.train,
      batch=_WORK,
      uses=uses,
    )
    inner = trainers.Trainer(
      toy.agent,
      self.memory,
      self.queues['online'],
      trainers.Options(1.0, _WARMUP, _BLOCK, 1000, _BATCH),
      jax.random.key(0),
    )
    self.trainer = labelled_trainer.LabelledTrainer(
      inner,
      self.memory,
      labelled_trainer.Sources(
        self.queues['online'], self.queues['offline'] if log else None
      ),
      _BALANCER,
      offline_updates=offline_updates,
      free_transitions=0 if log else _WARMUP,
      batch_size=_BATCH,
    )
    self.trainer.publish()
    seams = bellman_updater.Seams(self.queues['online'], self.work, self.train)
    self.updater = bellman_updater.BellmanUpdater(
      toy.agent,
      seams,
      bellman_updater.staggered(1.0, 0, 1),
      number=_UPDATER,
      key=jax.random.key(1),
    )

  def send(self, name, blocks):
    writer = self.queues[name].writer()
    for block in blocks:
      writer.insert(block)
      assert writer.flush(1.0)

  def waiting(self, name):
    return self.queues[name]._blocks.qsize()

  def advance(self):
    """The trainer's turn, and then the updater's."""
    episodes = self.trainer.advance()
    work = self.work.take(0.0)
    if work is not None and self.updater.load(1.0):
      self.updater._writer.insert(self.updater.label(work))
      self.updater._writer.flush(0.0)
    return episodes


@pytest.fixture
def make(toy, spec, monkeypatch):
  monkeypatch.setattr(labelled_trainer, '_PATIENCE', 0.0)
  return lambda **options: _Farm(toy, spec, **options)


def _blocks(script, collector, count=20):
  return script('....T' * count, _BLOCK, collector=collector)


def test_a_log_alone_trains_until_fine_tuning_begins(make, script):
  farm = make(offline_updates=50)
  farm.send('offline', _blocks(script, _JOB))
  farm.send('online', _blocks(script, 0))
  while not farm.trainer.fine_tunes:
    assert farm.advance() == []
    assert farm.waiting('online') == 20
  assert farm.trainer.counters.updates == 50
  assert farm.memory.transitions('online') == 0
  assert farm.trainer.metrics()['on_policy'] == 0.0
  while not farm.advance():
    pass
  assert farm.memory.transitions('online') == _BLOCK


def test_a_log_is_taken_to_begin_with_and_then_block_by_block(make, script):
  farm = make(offline_updates=50)
  farm.send('offline', _blocks(script, _JOB))
  farm.advance()
  left = 20 - _WARMUP // _BLOCK
  assert farm.waiting('offline') == left
  for _ in range(5):
    farm.advance()
    calls = farm.trainer.counters.updates // _BLOCK
    assert farm.waiting('offline') == left - calls
  assert calls > 0


def test_the_balance_is_kept_between_its_bounds(make, script):
  farm, blocks = make(log=False), _blocks(script, 0, count=60)

  def check():
    updates = farm.trainer.counters.updates
    transitions = farm.memory.transitions('online') - _WARMUP
    assert updates < _BALANCER.most * max(0, transitions) + _BLOCK
    assert updates >= _BALANCER.least * (transitions - _BLOCK)

  for block in blocks:  # collectors are faster
    farm.send('online', [block])
    farm.advance()
    check()
  assert farm.waiting('online') > 10
  found = farm.trainer.metrics()['updates_per_transition']
  assert found == pytest.approx(_BALANCER.least, rel=0.2)
  while farm.waiting('online'):
    farm.advance()
    check()
  for _ in range(300):  # nobody collects any more
    farm.advance()
    check()
  found = farm.trainer.metrics()['updates_per_transition']
  assert found == pytest.approx(_BALANCER.most, rel=0.02)


def test_nothing_is_learned_without_labels(make, script):
  farm = make(log=False, uses=2.0)
  farm.send('online', _blocks(script, 0))
  for _ in range(30):
    farm.trainer.advance()  # and no updater works
  assert farm.trainer.counters.updates == 0
  for _ in range(30):
    farm.advance()
  assert 0 < farm.trainer.counters.updates
  assert farm.trainer.metrics()['label_uses'] <= 2.0


def test_episodes_of_a_log_are_counted_but_not_told(make, script):
  farm = make(offline_updates=0)
  farm.send('offline', _blocks(script, _JOB, count=4))
  farm.send('online', _blocks(script, 0, count=2))
  told = [episode for _ in range(40) for episode in farm.advance()]
  assert [episode.collector for episode in told] == [0, 0]
  assert farm.trainer.counters.episodes == 6
  assert farm.trainer.next_episode(_JOB) == 4


def test_what_is_restored_goes_on_to_the_bit(make, script):
  farm, other = make(offline_updates=10), make(offline_updates=10)
  for one in (farm, other):
    one.send('offline', _blocks(script, _JOB))
    one.send('online', _blocks(script, 0))
  for _ in range(30):
    farm.advance()
  other.trainer.restore(
    jax.tree.map(jax.numpy.asarray, jax.tree.map(np.array, farm.trainer.state())),
    json.loads(json.dumps(farm.trainer.progress())),
  )
  assert other.trainer.counters == farm.trainer.counters
  assert other.trainer.next_episode(_UPDATER) == farm.trainer.next_episode(_UPDATER) > 0
  for one in (farm, other):  # what is in the queues is lost, and given out anew
    one.work.take(0.0), one.train.take(0.0)
    one.trainer._trainer.train_once()
  jax.tree.map(
    np.testing.assert_array_equal, farm.trainer.state(), other.trainer.state()
  )
