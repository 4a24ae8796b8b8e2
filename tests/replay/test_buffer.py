"""The memory of a fused program: what is in it, and how evenly it is drawn from."""

import functools

import flashbax
import jax
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.replay import buffer as buffers
from armfarm.replay import types

_CAPACITY, _BLOCK = 6, 2


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


@functools.cache
def _make():
  """Returns a buffer, and what its memory is after 0, 1, 2 ... blocks."""
  buffer = buffers.make(_ITEM, _CAPACITY, _BLOCK, samples=6)
  return buffer, _filled(buffer.add, buffer.init())


def _filled(add, memory):
  """Returns a memory after 0, 1, 2 ... blocks."""
  add, memories = jax.jit(add), [memory]
  for number in range(8):
    memories.append(add(memories[-1], buffers.pack(_block(number))))
  return memories


@functools.cache
def _drawn(blocks):
  """Returns 6000 items that were drawn when there had been so many blocks."""
  buffer, memories = _make()
  keys = jax.random.split(jax.random.key(0), 1000)
  batches = _draw(buffer, memories[blocks], keys)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)


@functools.partial(jax.jit, static_argnums=0)
def _draw(buffer, memory, keys):
  return jax.vmap(functools.partial(buffer.sample, memory))(keys)


_KEPT = {
  1: [0, 1],
  2: [0, 1, 2, 3],
  3: [0, 1, 2, 3, 4, 5],  # full
  4: [6, 7, 2, 3, 4, 5],  # round it goes
  5: [6, 7, 8, 9, 4, 5],
  7: [12, 13, 8, 9, 10, 11],
}


@pytest.mark.parametrize('blocks', _KEPT)
def test_the_oldest_make_room(blocks):
  buffer, memories = _make()
  kept = buffer.stored(memories[blocks]).origin.step
  np.testing.assert_array_equal(kept, _KEPT[blocks])


@pytest.mark.parametrize('blocks', _KEPT)
def test_what_is_kept_is_drawn_evenly_and_nothing_else(blocks):
  steps, counts = np.unique(_drawn(blocks).origin.step, return_counts=True)
  assert set(steps) == set(_KEPT[blocks])
  expected = 6000 / len(steps)
  chi_square = np.sum((counts - expected) ** 2) / expected
  assert chi_square < 20.5  # 99.9 % of fair draws of 6 lie below, more of fewer


def test_items_stay_whole_and_of_their_types():
  drawn = _drawn(4)
  assert drawn.transition.observation.dtype == np.uint8
  for field, like in zip(jax.tree.leaves(drawn), jax.tree.leaves(_ITEM), strict=True):
    assert (field.dtype, field.shape) == (like.dtype, (6000, *like.shape))
    rows = np.asarray(field, np.int32).reshape(6000, -1)
    steps = np.asarray(drawn.origin.step)[:, None]
    np.testing.assert_array_equal(rows, np.broadcast_to(steps, rows.shape))


def test_adding_in_place_is_adding():
  library = flashbax.make_item_buffer(_CAPACITY, 1, 6, add_sequences=True)
  ours, theirs = _make()[1], _filled(library.add, _make()[0].init())
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_adding_does_not_copy_the_memory():
  buffer = buffers.make(_ITEM, 1000 * _BLOCK, _BLOCK, samples=1)
  memory = jax.eval_shape(buffer.init)
  add = jax.jit(buffer.add, donate_argnums=0)
  compiled = add.lower(memory, buffers.pack(_block(0))).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 1000


@pytest.mark.parametrize(
  ('capacity', 'block_steps', 'use'), [(10, 4, 8), (3, 5, 5), (7, 2, 6)]
)
def test_blocks_that_do_not_divide_the_capacity(capacity, block_steps, use):
  message = f'capacity is {capacity}.*block_steps {block_steps}: use {use}$'
  with pytest.raises(ValueError, match=message):
    buffers.make(_ITEM, capacity, block_steps, samples=1)
  buffers.make(_ITEM, use, block_steps, samples=1)


def test_samples_that_exceed_the_capacity():
  with pytest.raises(ValueError, match='capacity is 6, .* for 7 samples: use a larger'):
    buffers.make(_ITEM, capacity=6, block_steps=2, samples=7)
