"""A bin that is emptied, a grasp that is disturbed, and blocks that fit no gripper."""

import jax
import numpy as np
import pytest

from armfarm.configs import tasks
from armfarm.envs import grasp
from armfarm.envs import grasp_attempts
from armfarm.envs import host

_STILL = np.array([0.0, 0, 0, 0, 1, 0, 0, 0])
_CLOSE, _TERMINATE = 5, 7
_OPENING = 0.08  # m, between the open fingers


@pytest.fixture(scope='module')
def make(numbers):
  """Returns `change, ... -> task and its numbers`, as configs change `grasp_state`."""

  def make(change, **other):
    task = tasks.grasp_state()
    change(task)
    chosen = {**numbers['grasp_state'], **task.to_dict(), **other}
    del chosen['name']
    return grasp.make(**chosen), grasp.Numbers(**chosen)

  return make


@pytest.fixture(scope='module')
def full(make):
  return make(tasks.emptying)


def _play(body, policy, first):
  """Plays to the end of an episode; returns its last step, and how many there were."""
  observation = first
  for count in range(1, 21):
    step = body.step(policy(observation[None])[0])
    observation = step.observation
    if step.terminated:
      return step, count
  raise AssertionError('an episode has 20 steps')


def test_a_bin_has_all_its_objects_in_it(full):
  bins = grasp_attempts.Bin(*full)
  for seed in range(2):
    assert bins.fill(jax.random.key(seed)) == bins.count == 28
    observation = bins.begin()
    assert observation.shape == (6 + 12 * 10,)
    assert bins._is_inside().sum() >= 27  # the arm came home, the rest stays


def test_the_nearest_objects_are_observed(full):
  bins = grasp_attempts.Bin(*full)
  bins.fill(jax.random.key(0))
  observation = bins.begin()
  seen = np.linalg.norm(observation[6:].reshape(-1, 12)[:, :3], axis=1)
  task, known = full
  every = grasp.make(**{**known._asdict(), 'observes_objects': 28})
  body = host.Host(every)
  body.begin(bins._body.where())
  body.move(bins._body.where())
  rows = body.observe()[6:].reshape(-1, 12)
  distances = np.linalg.norm(rows[:, :3], axis=1)
  np.testing.assert_allclose(np.sort(seen), np.sort(distances)[:10], atol=1e-6)
  # In the order of their places, which says nothing.
  order = [int(np.argmin(np.abs(distances - x))) for x in seen]
  assert order == sorted(order)
  assert task.observation_size == 126


def test_fewer_objects_than_are_observed_leave_room(make):
  task, _ = make(tasks.disturbed)
  observation = host.Host(task).reset(jax.random.key(0))
  assert observation.shape == (126,)
  rows = observation[6:].reshape(-1, 12)
  assert rows[0, 9:].all()
  assert not rows[1:].any()


def test_what_is_grasped_is_put_aside_and_the_rest_stays(make, scripts):
  task, known = make(tasks.emptying, in_bin=(8, 8))
  bins, policy = grasp_attempts.Bin(task, known), scripts['grasp_state'](task)
  bins.fill(jax.random.key(0))
  before, taken = bins.count, 0
  for _ in range(6):
    first = bins.begin()
    places = bins._poses(bins._body.where().qpos).copy()
    step, _ = _play(bins, policy, first)
    lifted = bins.put_aside() if step.success else 0
    assert (lifted > 0) == step.success
    taken += lifted
    assert bins.count == before - taken
    bins.begin()
    after = bins._poses(bins._body.where().qpos)
    stay = bins._is_there()
    moved = np.linalg.norm(after[:, :3] - places[:, :3], axis=1)[stay]
    assert np.median(moved) < 0.02
  assert taken >= 2


def test_an_attempt_begins_with_an_open_hand_at_home(full):
  bins = grasp_attempts.Bin(*full)
  bins.fill(jax.random.key(0))
  first = bins.begin()
  action = _STILL.copy()
  action[[0, _CLOSE]] = 1
  bins.step(action)
  again = bins.begin()
  np.testing.assert_allclose(again[:6], first[:6], atol=2e-3)


@pytest.fixture(scope='module')
def disturbed(make):
  return make(tasks.disturbed)


@pytest.mark.parametrize('seed', range(3))
def test_the_first_grasp_comes_to_nothing(disturbed, scripts, seed):
  task, known = disturbed
  body, policy = grasp_attempts.Disturbed(task, known), scripts['grasp_state'](task)
  undisturbed = host.Host(task)
  first, other = (
    body.reset(jax.random.key(seed)),
    undisturbed.reset(jax.random.key(seed)),
  )
  np.testing.assert_array_equal(first, other)
  observation, moves = first, []
  for _ in range(20):
    action = policy(observation[None])[0]
    action[_TERMINATE] = 0
    step, plain = body.step(action), None
    if not moves and not body.disturbed:
      plain = undisturbed.step(action)
      np.testing.assert_array_equal(step.observation, plain.observation)
    elif not moves:
      plain = undisturbed.step(action)
      moves.append(np.linalg.norm(step.observation[6:9] - plain.observation[6:9]))
      assert np.linalg.norm(plain.observation[6:8]) < 0.05  # it was between the fingers
      np.testing.assert_array_equal(step.observation[:6], plain.observation[:6])
    observation = step.observation
  assert body.disturbed
  assert moves[0] > 0.06


def test_a_disturbed_episode_can_be_gone_back_to(disturbed, scripts):
  body = grasp_attempts.Disturbed(*disturbed)
  policy, observation = (
    scripts['grasp_state'](disturbed[0]),
    body.reset(jax.random.key(0)),
  )
  while not body.disturbed:
    observation = body.step(policy(observation[None])[0]).observation
  state = body.state()
  steps = [body.step(_STILL) for _ in range(2)]
  body.reset(jax.random.key(1))
  assert not body.disturbed
  body.restore(state)
  assert body.disturbed
  again = [body.step(_STILL) for _ in range(2)]
  jax.tree.map(np.testing.assert_array_equal, again, steps)


@pytest.fixture(scope='module')
def packed(make):
  return make(tasks.singulation)


def test_blocks_lie_side_by_side_anywhere_in_the_bin(packed):
  task, known = packed
  body, headings, middles = host.Host(task), set(), []
  for seed in range(8):
    body.reset(jax.random.key(seed))
    poses = body.where().qpos[9:].reshape(-1, 7)
    assert (np.abs(poses[:, :2] - [0.55, 0.0]) + 0.02 < [0.135, 0.095]).all()
    np.testing.assert_allclose(poses[:, 2], known.block_edge / 2, atol=2e-3)
    apart = np.linalg.norm(poses[:, None, :2] - poses[None, :, :2], axis=2)
    edge, diagonal = known.block_edge, 2**0.5 * known.block_edge
    np.testing.assert_allclose(
      np.sort(apart, axis=1), np.tile([0, edge, edge, diagonal], (4, 1)), atol=2e-3
    )
    headings.add(round(float(poses[0, 6]), 2))
    middles.append(poses[:, :2].mean(axis=0))
  assert len(headings) > 4
  assert np.ptp(middles, axis=0).min() > 0.01


def test_no_block_can_be_grasped_before_it_is_pushed(packed):
  """The puzzle is wider than the hand opens, and has no room for a finger."""
  task, known = packed
  widths = np.multiply(known.blocks, known.block_edge)
  assert widths.min() > _OPENING
  body = host.Host(task)
  for seed in range(4):
    body.reset(jax.random.key(seed))
    start = body.where()
    poses = start.qpos[9:].reshape(-1, 7)
    poses[:, :2] += [0.55, 0.0] - poses[:, :2].mean(axis=0)  # right below the hand
    body.begin(start)
    for z in (-1, -1, -1, -1, 0, 0, 1, 1, 1):
      action = _STILL.copy()
      action[2], action[_CLOSE] = z, z >= 0
      step = body.step(action)
    assert not step.success


@pytest.mark.parametrize(
  ('change', 'error'),
  [
    ({'blocks': (2,)}, 'blocks is .*: give two'),
    ({'blocks': (2, 3)}, r'in_bin is .*: give \(6, 6\), all blocks'),
    ({'block_edge': 0.08}, 'blocks are 0.23 m across: give fewer'),
    ({'observes_objects': 0}, 'observes_objects is 0: give at least 1'),
  ],
)
def test_impossible_numbers_are_refused(make, change, error):
  with pytest.raises(ValueError, match=error):
    make(tasks.singulation, **change)
