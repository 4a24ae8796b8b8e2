"""What goes in at one end of a seam comes out at the other: the same for both seams."""

import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.envs import task
from armfarm.replay import types
from armfarm.workers import collector

_PATIENCE = 30.0  # s for what comes at once if nobody else wants the machine


class _Script:
  """A robot that follows a script, letter by letter.

  It observes (episode, step) and is paid 0, 1, 2 ... so that nothing looks alike.
  """

  observation_size, action_size = 2, 1

  def __init__(self, letters):
    self.episode_steps = len(letters)
    self._letters = enumerate(letters)
    self._episode, self._step = -1, 0

  def reset(self, key):
    del key
    self._episode, self._step = self._episode + 1, 0
    return self._observe()

  def step(self, action):
    del action
    reward, letter = next(self._letters)
    self._step += 1
    return task.Step(
      self._observe(),
      reward,
      terminated=letter in 'TS',
      truncated=letter == 'L',
      success=letter in 'Ss',
    )

  def _observe(self):
    return np.float32([self._episode, self._step])


def _explore(variables, actor_state, observation, key):
  del key
  return variables['gain'] * observation[1:], actor_state


# Acts in proportion to the step. What a collector has no use for is not there.
_AGENT = agent_types.Agent(
  init=None,
  variables=None,
  begin=lambda key: jnp.zeros([]),
  explore=_explore,
  act=None,
  label=None,
  update=None,
)


def _collector(replay, script, number=0):
  return collector.Collector(
    _Script(script),
    _AGENT,
    replay,
    number=number,
    block_steps=3,
    key=jax.random.key(0),
  )


class _Items(NamedTuple):
  """What is to come out, a digit a step."""

  episode: str
  step: str
  discount: str
  truncation: str
  success: str


# The letters of a script: . nothing   s success   T end   S end and success   L limit
_CASES = {
  '......': _Items('000000', '012345', '111111', '000000', '000000'),
  '.s.s..': _Items('000000', '012345', '111111', '000000', '010100'),
  '.T....': _Items('001111', '010123', '101111', '000000', '000000'),
  '..T..S': _Items('000111', '012012', '110110', '000000', '000001'),
  '.L....': _Items('001111', '010123', '111111', '010000', '000000'),
  '..L..L': _Items('000111', '012012', '111111', '001001', '000000'),
  'TL....': _Items('012222', '000123', '011111', '010000', '000000'),
  '..T.L.': _Items('000112', '012010', '110111', '000010', '000000'),
  '.S.L.T': _Items('001122', '010101', '101110', '000100', '010000'),
  'TSLTSL': _Items('012345', '000000', '001001', '001001', '010010'),
  '...T..': _Items('000011', '012301', '111011', '000000', '000000'),
}


def _digits(text, dtype):
  return np.array([int(digit) for digit in text], dtype)


def _expected(items, number=0, version=2):
  """Returns the block that the items of a collector make, as one."""
  episode, step = _digits(items.episode, np.int32), _digits(items.step, np.int32)
  observation = np.stack([episode, step], axis=1).astype(np.float32)
  transition = agent_types.Transition(
    observation=observation,
    action=np.float32(version) * observation[:, 1:],
    reward=np.arange(len(step), dtype=np.float32),
    discount=_digits(items.discount, np.float32),
    truncation=_digits(items.truncation, np.float32),
    next_observation=observation + np.float32([0, 1]),
  )
  return types.Block(
    types.Item(transition, types.Origin(np.full_like(step, number), episode, step)),
    version=np.full_like(step, version),
    age=np.zeros(len(step), np.float32),
    success=_digits(items.success, bool),
  )


def _joined(blocks):
  return jax.tree.map(lambda *parts: np.concatenate(parts), *blocks)


def _assert_same(actual, expected):
  """Structure, types, shapes and values are the same."""
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  paths = jax.tree_util.tree_leaves_with_path(expected)
  for value, (path, like) in zip(jax.tree.leaves(actual), paths, strict=True):
    name = jax.tree_util.keystr(path)
    assert np.asarray(value).dtype == like.dtype, name
    np.testing.assert_array_equal(value, like, err_msg=name)


@pytest.mark.parametrize('script', _CASES)
def test_steps_in_items_out(open_replay, published, script):
  replay = open_replay()
  replay.publish(published(2, time=time.time() + 60))  # of no age: from the future
  robot = _collector(replay, script)
  for _ in range(2):
    robot.send()
  blocks = [replay.take(_PATIENCE) for _ in range(2)]
  _assert_same(_joined(blocks), _expected(_CASES[script]))


def test_collectors_share_the_way_and_each_keeps_its_order(open_replay, published):
  replay = open_replay()
  replay.publish(published(2, time=time.time() + 60))
  robots = [_collector(replay, script, i) for i, script in enumerate(_CASES)]
  blocks = {number: [] for number in range(len(robots))}
  for _ in range(2):
    for robot in robots:
      robot.send()
      block = replay.take(_PATIENCE)
      blocks[int(block.items.origin.collector[0])].append(block)
  for number, items in enumerate(_CASES.values()):
    _assert_same(_joined(blocks[number]), _expected(items, number))


def test_types_and_shapes_survive(open_replay, block):
  random = np.random.default_rng(0)
  image = np.zeros([4, 4, 3], np.uint8)
  item = types.item_template(agent_types.Spec(2, 1))
  item = item._replace(transition=item.transition._replace(observation=image))
  sent = jax.tree.map(
    lambda x: random.integers(0, 256, x.shape).astype(x.dtype), block(0, item)
  )
  replay = open_replay(item=item)
  writer = replay.writer()
  writer.insert(sent)
  assert writer.flush(_PATIENCE)
  received = replay.take(_PATIENCE)
  assert received.items.transition.observation.dtype == np.uint8
  _assert_same(received, sent)
  writer.close()


def _drained(replay):
  return list(iter(lambda: replay.take(timeout=0.3), None))


def test_a_full_seam_makes_writers_wait_and_loses_nothing(open_replay, block):
  replay, count = open_replay(max_blocks=2), 20
  writer, taken = replay.writer(), []
  for number in range(count):
    writer.insert(block(number))
    while not writer.flush(timeout=0.02):
      taken.append(replay.take(_PATIENCE))
  assert len(taken) >= count - 10  # two fit in, and a few on the way over Reverb
  taken += _drained(replay)
  assert [int(block.version[0]) for block in taken] == list(range(count))
  writer.close()


@pytest.mark.parametrize('timeout', [0.0, 0.2])
@pytest.mark.parametrize('what', ['take', 'latest'])
def test_nothing_comes_of_an_empty_seam_and_in_time(open_replay, what, timeout):
  read = getattr(open_replay(), what)
  read(0.0)  # the first call sets things up
  began = time.monotonic()
  assert read(timeout) is None
  assert timeout <= time.monotonic() - began < timeout + 5.0


def test_what_comes_while_one_waits_is_taken(open_replay, block, published):
  replay = open_replay()

  def later():
    time.sleep(0.1)
    replay.publish(published(7))
    writer = replay.writer()
    writer.insert(block(7))
    assert writer.flush(_PATIENCE)
    writer.close()

  thread = threading.Thread(target=later)
  began = time.monotonic()
  thread.start()
  assert replay.latest(_PATIENCE).version == 7
  assert replay.take(_PATIENCE).version[0] == 7
  assert time.monotonic() - began < _PATIENCE
  thread.join()


def test_the_newest_variables_are_on_offer_at_once(open_replay, published):
  replay = open_replay()
  for version in range(1, 51):
    replay.publish(published(version, time=version / 3))
    for _ in range(2):  # reading takes nothing away
      latest = replay.latest(0.0)
      assert latest[:2] == (version, version / 3)
      assert latest.variables['gain'] == version


def test_variables_keep_their_structure_and_types(open_replay):
  origin = types.Origin(np.float32([1, 2]), np.int32(3), np.full([2, 2], 4, np.uint8))
  variables = {'b': [origin, {}], 'a': (np.bool_(True), np.float64(0.1))}
  zeros = jax.tree.map(np.zeros_like, variables)
  replay = open_replay(variables=zeros)
  replay.publish(types.Published(1, 0.0, variables))
  _assert_same(replay.latest(0.0).variables, variables)
