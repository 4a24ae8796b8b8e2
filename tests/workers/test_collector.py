"""The collector: when it acts, with what, and how it goes on."""

import threading
import time

import chex
import jax
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.envs import camera
from armfarm.envs import host
from armfarm.envs import task
from armfarm.replay import memory
from armfarm.replay import ring
from armfarm.replay import types
from armfarm.workers import collector as collectors
from armfarm.workers.checkpoints import Checkpoints

_PATIENCE = 30.0  # s for what comes at once if nobody else wants the machine


@pytest.fixture
def replay():
  return memory.MemoryReplay(max_blocks=1)


@pytest.fixture
def make(toy, robot, replay):
  """Returns `... -> Collector`, alone with the robot unless it is given another."""

  def collector(environment=robot, agent=toy.agent, *, seed=0, number=0, **changes):
    numbers = dict(number=number, block_steps=4, key=jax.random.key(seed)) | changes
    return collectors.Collector(environment, agent, replay, **numbers)

  return collector


@pytest.fixture
def running(make):
  """Returns `-> stop, thread` of a collector that runs; stopped after the test."""
  stops = []

  def start(**numbers):
    stop = threading.Event()
    thread = threading.Thread(target=make(**numbers).run, args=[stop], daemon=True)
    thread.start()
    stops.append((stop, thread))
    return stop, thread

  yield start
  for stop, thread in stops:
    stop.set()
    thread.join(_PATIENCE)


def _assert_same(block, other):
  jax.tree.map(np.testing.assert_array_equal, block, other)


def _differ(block, other):
  return not np.array_equal(
    block.items.transition.observation, other.items.transition.observation
  )


def test_nobody_acts_before_the_first_version(running, robot, replay, published):
  running()
  time.sleep(0.1)
  assert robot.steps_taken == 0
  replay.publish(published(1))
  assert replay.take(_PATIENCE).version[0] == 1


def test_stops_without_variables(running):
  stop, thread = running()
  stop.set()
  thread.join(_PATIENCE)
  assert not thread.is_alive()


def test_waits_for_room_and_stops_without(running, replay, published, robot):
  replay.publish(published(1))
  stop, thread = running()
  deadline = time.monotonic() + _PATIENCE
  while robot.steps_taken < 8 and time.monotonic() < deadline:
    time.sleep(0.01)
  time.sleep(0.1)
  stop.set()
  thread.join(_PATIENCE)
  assert not thread.is_alive()
  assert robot.steps_taken == 8  # one block is in replay, one waits


def test_variables_come_at_the_start_of_an_episode(make, replay, published):
  now = time.time()
  collector = make(block_steps=1)
  replay.publish(published(1, now - 100))
  blocks = [collector.collect()]
  while blocks[-1].items.origin.episode[0] < 20:
    # New ones after every step, and each is seen where an episode begins.
    replay.publish(published(len(blocks) + 1, now - 100 * (len(blocks) + 1)))
    blocks.append(collector.collect())
  block = jax.tree.map(lambda *rows: np.concatenate(rows), *blocks)
  steps = block.items.origin.step
  begins = np.arange(len(steps)) - steps  # of the episode that each step is in
  assert steps.max() > 1
  np.testing.assert_array_equal(block.version, begins + 1)
  np.testing.assert_allclose(block.age, 100 * (begins + 1), atol=20)


def test_variables_from_the_future_have_no_age(make, replay, published):
  replay.publish(published(1, time.time() + 60))
  np.testing.assert_array_equal(make().collect().age, 0)


def test_the_key_and_the_number_decide(make, replay, published):
  replay.publish(published(1))
  block, same, other_key, other_number = (
    collector.collect() for collector in (make(), make(), make(seed=1), make(number=1))
  )
  _assert_same(block, same._replace(age=block.age))
  assert _differ(block, other_key)
  assert _differ(block, other_number)
  np.testing.assert_array_equal(other_number.items.origin.collector, 1)


def test_a_later_start_continues_and_repeats_nothing(make, replay, published):
  replay.publish(published(1))
  whole, late = (
    make(block_steps=40, first_episode=first).collect().items for first in (0, 3)
  )
  np.testing.assert_array_equal(np.unique(late.origin.episode)[:3], [3, 4, 5])
  begin = np.argmax(whole.origin.episode == 3)
  rest = jax.tree.map(lambda x: x[begin:], whole)
  _assert_same(rest, jax.tree.map(lambda x: x[: 40 - begin], late))
  starts = whole.transition.observation[whole.origin.step == 0, 0]
  assert len(set(starts)) == len(starts)


def test_actions_are_recorded_as_executed(make, replay, published):
  replay.publish(published(1))
  before, action, *_, after = make(block_steps=40).collect().items.transition
  positions = before[:, :1] + np.float32(0.5) * action
  np.testing.assert_allclose(after[:, :1], positions, rtol=1e-6)


def test_noise_lasts_for_an_episode(make, replay, published):
  replay.publish(published(0))  # the noise alone acts
  (_, action, *_), origin = make(block_steps=40).collect().items
  growth, begins = np.diff(action[:, 0]), origin.step[1:] == 0
  assert np.all(growth[~begins] > 0)
  assert np.all(growth[begins] < 0)


@pytest.fixture
def numerical(toy):
  """The toy, exploring in numpy: what it draws, a thousandth of it, is what it does."""

  def explore(prepared, actor_state, observation, draw):
    return np.float32(1e-3) * draw + prepared, actor_state

  host = agent_types.Host(lambda variables: 1e-6 * variables['weight'], explore)
  return toy.agent._replace(host=host, explore=None)


def test_an_agent_on_the_host_draws_anew_at_every_step(
  make, numerical, robot, replay, published
):
  replay.publish(published(0))
  robot.episode_steps = 150
  (_, action, *_), origin = make(agent=numerical, block_steps=300).collect().items
  assert origin.episode.tolist() == [0] * 150 + [1] * 150
  assert len(np.unique(action)) == 300
  np.testing.assert_allclose(action.std(), 1e-3, rtol=0.2)
  np.testing.assert_allclose(action.mean(), 0, atol=2e-4)
  (_, same, *_), _ = make(agent=numerical, block_steps=300).collect().items
  np.testing.assert_array_equal(action, same)


@pytest.fixture(params=['point', 'numerical', 'reach'])
def make_robot(request, robot, toy, numerical, reach_task):
  """Returns `-> robot, agent`, each robot a new one."""
  if request.param != 'reach':
    agent = toy.agent if request.param == 'point' else numerical
    return lambda: (type(robot)(), agent)
  explore = toy.agent.explore

  def seven(variables, actor_state, observation, key):
    action, actor_state = explore(variables, actor_state, observation, key)
    return action.repeat(7), actor_state

  agent = toy.agent._replace(explore=seven)
  return lambda: (host.Host(reach_task), agent)


@pytest.mark.parametrize('blocks', [0, 1, 3, 5])
def test_what_is_restored_goes_on_to_the_bit(
  make, make_robot, replay, published, tmp_path, blocks
):
  replay.publish(published(1))
  collector, other = make(*make_robot()), make(*make_robot())
  for _ in range(blocks):  # the fifth ends where the fourth episode of reach does
    collector.collect()
  replay.publish(published(2, time=1.0))
  checkpoints = Checkpoints(tmp_path, warn=pytest.fail)
  checkpoints.save(1, {'run': collector.state()}, {})
  state = checkpoints.tree(checkpoints.read()[0], 'run', other.state())
  other.restore(state)
  for version in range(3, 7):
    block, restored = collector.collect(), other.collect()
    assert version > 3 or block.age[0] == restored.age[0]  # later ones begin later
    _assert_same(block._replace(age=0), restored._replace(age=0))
    replay.publish(published(version))


class _Nowhere:
  """A seam that leads nowhere: no room, no variables."""

  def __init__(self, published):
    self._published = published

  def writer(self):
    return self

  def insert(self, block):
    assert isinstance(block, types.Block)

  def flush(self, timeout):
    return False

  def latest(self, timeout):
    return self._published


@pytest.mark.parametrize(
  ('there', 'message'), [(True, 'took no block'), (False, 'no variables came')]
)
def test_a_seam_that_leads_nowhere_is_an_error(toy, robot, published, there, message):
  seam = _Nowhere(published(1) if there else None)
  collector = collectors.Collector(
    robot, toy.agent, seam, number=0, block_steps=2, key=jax.random.key(0)
  )
  with pytest.raises(ConnectionError, match=message):
    collector.send()


def test_images_come_in_blocks_and_stay_bytes(toy, make, replay, published):
  blank = camera.blank(camera.View('', 4, 5), 2)

  class Robot:
    action_size = 1

    def reset(self, key):
      del key
      self.steps = 0
      return self.see()

    def step(self, action):
      del action
      self.steps += 1
      return task.Step(self.see(), 0.0, False, self.steps == 3, False)

    def see(self):
      return jax.tree.map(lambda x: x + x.dtype.type(self.steps), blank)

  def explore(variables, state, observation, key):
    del variables, key
    return observation.state[:1], state

  agent = toy.agent._replace(explore=explore, host=None)
  replay.publish(published(1))
  block = make(Robot(), agent).collect()
  item = types.item_template(agent_types.Spec(2, 1), blank)
  like = types.block_template(item, 4).items.transition
  found = block.items.transition
  chex.assert_trees_all_equal_shapes_and_dtypes(like, found)
  before, after = found.observation, found.next_observation
  assert before.image[:, 0, 0, 0].tolist() == [0, 1, 2, 0]
  assert after.image[:, 3, 4, 2].tolist() == [1, 2, 3, 1]
  kept = ring.Ring(item, 8, seed=0)
  kept.add(block.items)
  jax.tree.map(np.testing.assert_array_equal, kept.stored().transition, found)
