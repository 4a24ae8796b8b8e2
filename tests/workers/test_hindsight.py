"""What is told of an episode, when it is over, and of whose."""

import json

import jax
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.replay import ring
from armfarm.replay import types
from armfarm.workers import hindsight

_ITEM = types.item_template(agent_types.Spec(2, 1))


def _tell(episode):
  """Counts the steps to the end, and keeps all but the last."""
  left = np.arange(len(episode.reward), dtype=np.float32)[::-1]
  return episode._replace(reward=left), left > 0


def _memory(collectors=3):
  return hindsight.Hindsight(
    ring.Ring(_ITEM, 50, seed=0),
    _tell,
    _ITEM,
    collectors=collectors,
    episode_steps=6,
  )


def _stored(memory):
  rows = memory._memory.stored()
  return [
    ''.join(
      str(int(reward))
      for reward, collector in zip(
        rows.transition.reward, rows.origin.collector, strict=True
      )
      if collector == number
    )
    for number in range(3)
  ]


@pytest.mark.parametrize('block_steps', [1, 3, 12])
def test_episodes_are_told_when_they_are_over(script, block_steps):
  memory = _memory()
  for block in script('..T...LTT...', block_steps):
    memory.add(block.items)
  assert _stored(memory)[0] == '21321'
  assert len(memory) == 5


def test_collectors_are_told_apart(script):
  memory = _memory()
  a, b = script('..T...', 2), script('.T...T', 2, collector=1)
  for block in (a[0], b[0], a[1], b[1], b[2], a[2]):
    memory.add(block.items)
  assert _stored(memory) == ['21', '1321', '']


def test_an_episode_that_lost_its_beginning_is_left_out(script):
  memory = _memory()
  for block in (script('...T.T', 2)[1], script('...T.T', 2)[2]):
    memory.add(block.items)
  assert _stored(memory)[0] == '1'
  blocks = script('.....T', 2, episode=5)
  memory.add(blocks[0].items)
  memory.add(blocks[2].items)  # one is missing
  assert _stored(memory)[0] == '1'


def test_what_is_restored_goes_on_to_the_bit(script):
  blocks = script('..T.....T...T.T.', 2)
  memory, other = _memory(), _memory()
  for block in blocks[:3]:
    memory.add(block.items)
  other.restore(
    jax.tree.map(jax.numpy.asarray, jax.tree.map(np.array, memory.state())),
    json.loads(json.dumps(memory.progress())),
  )
  for block in blocks[3:]:
    for one in (memory, other):
      one.add(block.items)
  rows, expected = other.sample(20), memory.sample(20)
  jax.tree.map(np.testing.assert_array_equal, rows, expected)
  assert _stored(other) == _stored(memory) != ['', '', '']
