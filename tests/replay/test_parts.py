"""A memory of parts: who is drawn, how often, and in what order."""

import json

import jax
import numpy as np
import pytest

from armfarm.replay import packing
from armfarm.replay import parts
from armfarm.replay import types

_ITEM = types.Labelled(np.zeros(2, np.float32), np.int32(0))


def _items(first, count):
  """Returns items that are numbered on; their versions are a thousand times that."""
  numbers = np.arange(first, first + count)
  return types.Labelled(
    np.stack([numbers, -numbers], axis=1).astype(np.float32),
    np.int32(1000 * numbers),
  )


def _filled(online=5, offline=10):
  memory = parts.Parts(_ITEM, {'online': 4, 'offline': 20}, seed=0)
  if online:
    memory.rings['online'].add(_items(0, min(4, online)))
  if offline:
    memory.rings['offline'].add(_items(100, offline))
  return memory


def _numbers(memory, drawn):
  rows = packing.unpack(_ITEM.transition, memory.rows('transition', drawn))
  np.testing.assert_array_equal(rows[:, 0], -rows[:, 1])
  return rows[:, 0].astype(int)


@pytest.mark.parametrize('share', [0.0, 0.01, 0.25, 0.5, 1.0])
def test_parts_are_drawn_by_weight_and_evenly_within(share):
  memory, count = _filled(), 20_000
  drawn = memory.draw(count, {'online': share, 'offline': 1 - share})
  numbers = _numbers(memory, drawn)
  online = numbers < 100
  deviation = np.sqrt(share * (1 - share) / count)
  assert abs(online.mean() - share) <= 4 * deviation
  assert memory.share('online', drawn) == online.mean()
  for chosen, expected in ((numbers[online], 4), (numbers[~online], 10)):
    found, counts = np.unique(chosen, return_counts=True)
    if not len(chosen):
      continue
    assert len(found) == expected
    mean = len(chosen) / expected
    assert np.sum((counts - mean) ** 2) / mean < 27.9  # 99.9 % of 9 degrees of freedom


def test_minibatches_are_mixed():
  """What is drawn at once for many updates is not sorted by part."""
  memory = _filled()
  drawn = memory.draw(100 * 32, {'online': 0.5, 'offline': 0.5})
  shares = (_numbers(memory, drawn) < 100).reshape(100, 32).mean(axis=1)
  assert abs(shares - 0.5).max() < 0.5
  assert shares.std() == pytest.approx(np.sqrt(0.25 / 32), rel=0.3)


def test_fields_of_what_is_drawn_belong_together():
  memory = _filled()
  drawn = memory.draw(50, {'online': 0.3, 'offline': 0.7})
  version = packing.unpack(_ITEM.version, memory.rows('version', drawn))
  np.testing.assert_array_equal(version, 1000 * _numbers(memory, drawn))


def test_an_empty_part_leaves_its_share_to_the_others():
  memory = _filled(offline=0)
  drawn = memory.draw(50, {'online': 0.1, 'offline': 0.9})
  assert memory.share('online', drawn) == 1.0
  # And to those without a weight, where nobody with one holds anything.
  drawn = memory.draw(50, {'online': 0.0, 'offline': 1.0})
  assert memory.share('online', drawn) == 1.0
  with pytest.raises(ValueError, match='holds anything'):
    _filled(online=0, offline=0).draw(1, {'offline': 1.0})


def test_what_is_restored_goes_on_to_the_bit():
  memory, weights = _filled(), {'online': 0.5, 'offline': 0.5}
  memory.draw(7, weights)
  state = jax.tree.map(np.array, memory.state())
  progress = json.loads(json.dumps(memory.progress()))
  other = parts.Parts(_ITEM, {'online': 4, 'offline': 20}, seed=1)
  other.restore(state, progress)
  for _ in range(3):
    expected = _numbers(memory, memory.draw(20, weights))
    np.testing.assert_array_equal(_numbers(other, other.draw(20, weights)), expected)
    for one in (memory, other):
      one.rings['online'].add(_items(50, 1))
