"""The trainer's memory: what is in it, how evenly it is drawn from, how it goes on."""

import json

import jax
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.replay import packing
from armfarm.replay import ring
from armfarm.replay import types

_CAPACITY, _BLOCK = 5, 2


# The observation is a small picture.
_ITEM = types.item_template(agent_types.Spec(2, 1))
_ITEM = _ITEM._replace(
  transition=_ITEM.transition._replace(observation=np.zeros([2, 2], np.uint8))
)


def _block(number):
  """Returns the items of the block of that number; they count steps: 0 1, 2 3 ..."""
  steps = np.arange(_BLOCK) + number * _BLOCK

  def fill(field):
    rows = steps.reshape(-1, *[1] * np.ndim(field))
    return np.broadcast_to(rows, (_BLOCK, *np.shape(field))).astype(field.dtype)

  return jax.tree.map(fill, _ITEM)


def _filled(blocks, seed=0):
  memory = ring.Ring(_ITEM, _CAPACITY, seed)
  for number in range(blocks):
    memory.add(_block(number))
  return memory


def _drawn(memory, count=6000):
  return packing.unpack(_ITEM.transition, memory.sample(count))


_KEPT = {
  1: [0, 1],
  2: [0, 1, 2, 3],
  3: [5, 1, 2, 3, 4],  # round it goes, within a block
  4: [5, 6, 7, 3, 4],
  5: [5, 6, 7, 8, 9],
  8: [15, 11, 12, 13, 14],
}


@pytest.mark.parametrize('blocks', _KEPT)
def test_the_oldest_make_room(blocks):
  memory = _filled(blocks)
  np.testing.assert_array_equal(memory.stored().origin.step, _KEPT[blocks])
  assert len(memory) == len(_KEPT[blocks])


@pytest.mark.parametrize('blocks', _KEPT)
def test_what_is_kept_is_drawn_evenly_and_nothing_else(blocks):
  steps, counts = np.unique(_drawn(_filled(blocks)).reward, return_counts=True)
  assert set(steps) == set(_KEPT[blocks])
  expected = 6000 / len(steps)
  chi_square = np.sum((counts - expected) ** 2) / expected
  assert chi_square < 18.5  # 99.9 % of fair draws of 5 lie below, more of fewer


def test_transitions_stay_whole_and_of_their_types():
  drawn = _drawn(_filled(4))
  assert drawn.observation.dtype == np.uint8
  for field, like in zip(drawn, _ITEM.transition, strict=True):
    assert (field.dtype, field.shape) == (like.dtype, (6000, *like.shape))
    rows = field.astype(np.int32).reshape(6000, -1)
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape))
    np.testing.assert_array_equal(rows[:, 0], drawn.reward)


def test_draws_are_of_the_seed():
  draws = [_drawn(_filled(4, seed), 20).reward.tolist() for seed in (0, 0, 1)]
  assert draws[0] == draws[1] != draws[2]


def test_what_is_restored_goes_on_to_the_bit():
  memory = _filled(3)
  memory.sample(7)
  state = jax.tree.map(np.array, memory.state())
  state['rows'] = dict(sorted(state['rows'].items()))  # as it comes from a file
  progress = json.loads(json.dumps(memory.progress()))
  other = ring.Ring(_ITEM, _CAPACITY, seed=1)
  other.restore(state, progress)
  for one in (memory, other):
    one.add(_block(3))
  for left, right in zip(memory.stored(), other.stored(), strict=True):
    jax.tree.map(np.testing.assert_array_equal, left, right)
  np.testing.assert_array_equal(_drawn(memory).reward, _drawn(other).reward)
  np.testing.assert_array_equal(state['rows']['origin']['int32'][:, 2], [5, 1, 2, 3, 4])
