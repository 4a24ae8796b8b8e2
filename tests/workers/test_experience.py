"""The mixed memory, and the one in which Bellman updaters label: what goes where."""

import collections
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.replay import memory
from armfarm.replay import packing
from armfarm.replay import types
from armfarm.replay.parts import Parts
from armfarm.workers import bellman_updater
from armfarm.workers import experience
from armfarm.workers.joint import Ramp

_SPEC = agent_types.Spec(observation_size=2, action_size=1)
_ITEM = types.item_template(_SPEC)
_EXAMPLE = {'episode': np.float32(0), 'y': np.float32(0)}
_OPTIONS = experience.Options(
  Ramp(start=0.25, end=0.75, updates=100),
  offline_updates=40,
  batch_size=8,
  collectors=2,
)
_CAPACITIES = dict.fromkeys(experience.PARTS, 50)
_BATCH = 10  # of an updater


def _label(variables, actor_state, transitions, key):
  del key
  y = transitions.reward + variables['gain']
  return {'episode': transitions.observation[:, 0], 'y': y}, actor_state


# Labels a transition with its reward and the gain of the variables.
_AGENT = agent_types.Agent(
  init=None,
  variables=None,
  begin=None,
  explore=None,
  act=None,
  label=_label,
  update=None,
)


def _mixture(item=_ITEM, options=_OPTIONS):
  return experience.Mixture(Parts(item, _CAPACITIES, seed=0), options)


class _Farm:
  """A memory, the queues around it, and updaters that nobody has started."""

  def __init__(self, updaters=1, uses=2.0):
    self.work = [memory.MemoryReplay(3) for _ in range(updaters)]
    self.train = memory.MemoryReplay(3)
    self.variables = memory.MemoryReplay(1)
    labelled = types.Labelled(_EXAMPLE, np.int32(0))
    self.memory = experience.Labelling(
      Parts(_ITEM, _CAPACITIES, seed=1),
      _mixture(labelled),
      work=self.work,
      train=self.train,
      batch=_BATCH,
      uses=uses,
    )
    self.updaters = [self.hire(number, updaters) for number in range(updaters)]

  def hire(self, number, updaters=1, agent=_AGENT, first=0):
    return bellman_updater.BellmanUpdater(
      agent,
      bellman_updater.Seams(self.variables, self.work[number], self.train),
      bellman_updater.staggered(8.0, number, updaters),
      number=number,
      key=jax.random.key(0),
      first=first,
    )

  def publish(self, version):
    gain = {'gain': np.float32(1000 * version)}
    self.variables.publish(types.Published(version, 0.0, gain))

  def round(self):
    """Every updater labels one batch."""
    self.memory.exchange(timeout=0.0)
    for updater, work in zip(self.updaters, self.work, strict=True):
      assert updater.load(1.0)
      updater._writer.insert(updater.label(work.take(1.0)))
      assert updater._writer.flush(1.0)
    self.memory.exchange(timeout=0.0)


def _sample(mixed, count):
  return packing.unpack(mixed.item.transition, mixed.sample(count))


def _fill(mixed, script, collectors=3, steps=20):
  """Adds steps of collectors; the last of them is a job of log replay."""
  for collector in range(collectors):
    for block in script('.' * steps, 5, collector=collector, episode=100 * collector):
      mixed.add(block.items)


def test_parts_are_told_by_who_sent_them(script):
  mixed = _mixture()
  _fill(mixed, script)
  stored = {name: ring.stored() for name, ring in mixed.parts.rings.items()}
  assert set(stored['online'].origin.collector) == {0, 1}
  assert set(stored['offline'].origin.collector) == {2}
  assert [len(rows.origin.step) for rows in stored.values()] == [40, 20]


@pytest.mark.parametrize(
  ('updates', 'share'), [(0, 0.25), (40, 0.25), (90, 0.5), (140, 0.75), (900, 0.75)]
)
def test_the_share_follows_the_updates(script, updates, share):
  mixed = _mixture()
  _fill(mixed, script)
  for _ in range(updates):
    mixed.sample(8)
  assert mixed.weights == pytest.approx({'online': share, 'offline': 1 - share})
  rows = _sample(mixed, 4000)
  online = (rows.observation[:, 0] < 200).mean()
  assert online == pytest.approx(share, abs=0.03)
  assert mixed.metrics() == {'on_policy_wanted': share, 'on_policy': online}


def test_raw_experience_is_labelled_and_comes_back_to_its_part(script):
  farm = _Farm()
  farm.publish(3)
  _fill(farm.memory, script)
  assert not farm.memory.allows(1)
  for _ in range(6):
    farm.round()
  labelled = farm.memory._labelled.parts.rings
  kept = {name: ring.stored() for name, ring in labelled.items()}
  assert sum(len(rows.version) for rows in kept.values()) == 6 * _BATCH
  assert set(kept['online'].transition['episode']) == {0, 100}
  assert set(kept['offline'].transition['episode']) == {200}
  for rows in kept.values():
    assert set(rows.version) == {3}
    assert set(rows.transition['y'] - 3000) <= set(range(1, 21))
  assert farm.memory.next_batch(0) == 6
  assert farm.memory.transitions('online') == 40


def test_every_transition_is_labelled_before_long(script):
  farm = _Farm(updaters=2)
  farm.publish(1)
  _fill(farm.memory, script)
  seen = set()
  for _ in range(30):
    farm.round()
    for ring in farm.memory._labelled.parts.rings.values():
      seen |= set(zip(*ring.stored().transition.values(), strict=True))
  assert len(seen) == 60


def test_labels_are_not_used_more_often_than_allowed(script):
  farm = _Farm(uses=2.0)
  farm.publish(1)
  _fill(farm.memory, script)
  used = 0
  for number in range(1, 5):
    farm.round()
    while farm.memory.allows(8):
      farm.memory.sample(8)
      used += 8
    assert used == 2 * _BATCH * number // 8 * 8
    assert farm.memory.metrics()['label_uses'] == used / (_BATCH * number)


def test_the_spread_of_versions_by_hand():
  farm = _Farm()
  labelled = farm.memory._labelled
  rows = types.Labelled(
    {'episode': np.arange(4.0, dtype=np.float32), 'y': np.zeros(4, np.float32)},
    np.int32([10, 20, 40, 40]),
  )
  labelled.parts.rings['online'].add(rows)
  episodes = _sample(farm.memory, 800)['episode'].astype(int)
  versions = rows.version[episodes].reshape(100, 8)
  metrics = farm.memory.metrics()
  spread = (versions.max(axis=1) - versions.min(axis=1)).mean()
  assert metrics['version_spread'] == spread
  assert metrics['version_deviation'] == pytest.approx(versions.std(axis=1).mean())
  assert metrics['version_mean'] == pytest.approx(versions.mean())


def test_targets_are_loaded_at_times_of_ones_own(clock):
  now = clock(bellman_updater)
  farm = _Farm(updaters=4)
  versions = {number: [] for number in range(4)}
  for version in range(1, 33):
    farm.publish(version)
    for number, updater in enumerate(farm.updaters):
      assert updater.load(0.0)
      versions[number].append(updater._version)
    now.sleep(1.0)
  # All begin with 1; then each loads every 8 s, 2 s after the one before it.
  for number, found in versions.items():
    loads = [1, *range(3 + 2 * number, 33, 8)]
    expected = [max(x for x in loads if x <= version) for version in range(1, 33)]
    assert found == expected


def test_nobody_labels_before_there_are_variables():
  farm = _Farm()
  assert not farm.updaters[0].load(0.0)
  farm.publish(1)
  assert farm.updaters[0].load(0.0)


class _Killed(BaseException):
  """What ends an updater in the middle of its work."""


def test_an_updater_that_is_killed_loses_nothing(script):
  """Two work, one dies with a batch in hand, and then another with its labels."""

  def die(*_):
    raise _Killed

  farm, stop = _Farm(uses=1e9, updaters=3), threading.Event()
  farm.publish(1)
  _fill(farm.memory, script)
  before = jax.tree.map(np.array, farm.memory._raw.state())
  farm.memory.exchange(timeout=0.0)
  dying = farm.hire(1, agent=_AGENT._replace(label=die))
  with pytest.raises(_Killed):
    dying.run(stop)
  last = farm.hire(2)
  last.load(0.0)
  labelled = last.label(farm.work[2].take(1.0))
  last._writer.insert(labelled)  # and is gone before the flush
  threads = [
    threading.Thread(target=updater.run, args=[stop], daemon=True)
    for updater in farm.updaters
  ]
  threads[0].start()
  seen = collections.Counter()
  while len(seen) < 60:
    farm.memory.exchange(timeout=30.0)
    rows = _sample(farm.memory, 80)
    seen.update(zip(rows['episode'].tolist(), rows['y'].tolist(), strict=True))
  stop.set()
  threads[0].join(30.0)
  jax.tree.map(np.testing.assert_array_equal, farm.memory._raw.state(), before)
  assert [farm.memory.next_batch(number) > 0 for number in range(3)] == [
    True,
    False,
    False,
  ]


def test_updaters_of_one_number_draw_other_keys(script):
  def label(variables, actor_state, transitions, key):
    count = transitions.reward.shape[0]
    noise = jax.random.normal(key, [count])
    return {'episode': noise, 'y': noise + variables['gain']}, actor_state

  farm, agent = _Farm(updaters=2), _AGENT._replace(label=label)
  farm.publish(1)
  _fill(farm.memory, script)
  farm.memory.exchange(timeout=0.0)
  work, drawn = farm.work[0].take(1.0), set()
  for number, first in ((0, 0), (0, 1), (1, 0)):
    updater = farm.hire(number, agent=agent, first=first)
    updater.load(0.0)
    for _ in range(2):
      drawn |= set(updater.label(work).items.transition['episode'].tolist())
  assert len(drawn) == 6 * _BATCH


@pytest.mark.parametrize('kind', ['mixture', 'labelling'])
def test_what_is_restored_goes_on_to_the_bit(script, kind):
  def make():
    return _mixture() if kind == 'mixture' else _Farm().memory

  mixed, other = make(), make()
  if kind == 'labelling':
    farm = _Farm()
    mixed = farm.memory
    farm.publish(1)
  _fill(mixed, script)
  if kind == 'labelling':
    farm.round()
  mixed.sample(80)
  other.restore(
    jax.tree.map(jnp.asarray, jax.tree.map(np.array, mixed.state())),
    json.loads(json.dumps(mixed.progress())),
  )
  for _ in range(3):
    rows, expected = _sample(other, 16), _sample(mixed, 16)
    jax.tree.map(np.testing.assert_array_equal, rows, expected)
  assert other.metrics() == mixed.metrics()
  assert other.progress() == mixed.progress()
