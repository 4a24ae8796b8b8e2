"""Grasping: the arm's commands, physical grasps, and the MDP of the paper."""

import jax
import mujoco
import numpy as np
import pytest

from armfarm import envs
from armfarm.configs import tasks
from armfarm.envs import grasp
from armfarm.envs import host
from armfarm.envs.task import never

_STILL = np.array([0.0, 0, 0, 0, 1, 0, 0, 0])  # moves and commands nothing
_CLOSE, _OPEN, _TERMINATE = 5, 6, 7
_MANY = 32
_GRASPED = 5  # an episode in which the script grasps


def _keys(size, seed=0):
  return jax.random.split(jax.random.key(seed), size)


def _action(**parts):
  action = _STILL.copy()
  for name, value in parts.items():
    index = {'x': 0, 'y': 1, 'z': 2, 'close': 5, 'open': 6, 'terminate': 7}[name]
    action[index] = value
  return action


def _turn(angle):
  action = _STILL.copy()
  action[3:5] = np.sin(angle), np.cos(angle)
  return action


@pytest.fixture(scope='module')
def make(numbers):
  return lambda **other: grasp.make(**numbers['grasp_state'] | other)


@pytest.fixture(scope='module')
def task(make):
  return make()


@pytest.fixture
def body(task):
  body = host.Host(task)
  body.reset(jax.random.key(0))
  return body


def _tip(observation):
  """Where the tips of the fingers are, from the bin's middle and bottom, [3], m."""
  return np.append(observation[:2], observation[5]).astype(float)


def _heading(observation):
  return np.arctan2(observation[2], observation[3])


@pytest.mark.parametrize('axis', range(3))
@pytest.mark.parametrize('sign', [-1, 1])
def test_an_action_moves_the_gripper_along_an_axis(body, axis, sign):
  action = _STILL.copy()
  before = _tip(body.step(_action(z=-1)).observation)
  action[axis] = 0.5 * sign
  after = _tip(body.step(action).observation)
  np.testing.assert_allclose(after - before, 0.03 * sign * np.eye(3)[axis], atol=0.008)


@pytest.mark.parametrize('angle', [-0.4, 0.3])
def test_an_action_turns_the_gripper(body, angle):
  before = body.step(_STILL).observation
  after = body.step(_turn(angle)).observation
  assert _heading(after) - _heading(before) == pytest.approx(angle, abs=0.08)
  np.testing.assert_allclose(_tip(after), _tip(before), atol=0.004)
  again = body.step(0.75 * _turn(angle)).observation  # the pair's length is nothing
  assert _heading(again) - _heading(after) == pytest.approx(angle, abs=0.08)


def test_a_turn_is_as_far_as_a_step_allows(body):
  body.step(_STILL)
  far = body.step(_turn(3.0)).observation
  assert _heading(far) == pytest.approx(0.5, abs=0.1)


def test_no_action_leaves_the_bounds_or_tilts_the_gripper(make):
  task = make(episode_steps=60, floor=0.1)  # over all that it could run into
  batch = host.HostBatch(task._replace(terminated=never), _MANY, threads=1)
  batch.reset(_keys(_MANY))
  rng = np.random.default_rng(0)
  site = task.model.site('gripper/tip').id
  for _ in range(15):
    actions = rng.choice([-1, 1], (_MANY, 8))
    for _ in range(4):  # on and on, to the edge
      seen = batch.step(actions).observation
      assert (np.abs(seen[:, :2]) < [0.11 + 0.02, 0.065 + 0.02]).all()
      assert (np.abs(seen[:, 5] - 0.16) < 0.06 + 0.02).all()
      assert (np.abs(_heading(seen.T)) < np.deg2rad(100) + 0.1).all()
      down = batch._batch.site_xmat[:, site].reshape(-1, 3, 3)[:, :, 2]
      assert (down[:, 2] < -np.cos(0.1)).all()


def test_the_gripper_remembers_its_last_command(body):
  def status(action):
    body.step(action)
    observation = body.step(_STILL).observation
    return observation[4], body._data.joint('gripper/finger_left').qpos[0]

  is_closed, place = status(_STILL)
  assert is_closed == 0
  assert place > 0.038
  is_closed, place = status(_action(close=1))
  assert is_closed == 1
  assert place < 0.002
  assert status(_action(close=0.4, open=0.4))[0] == 1  # neither is given
  is_closed, place = status(_action(open=1))
  assert is_closed == 0
  assert place > 0.038
  assert status(_action(open=0.9, close=0.8))[0] == 0  # the larger one
  assert status(_action(open=0.8, close=0.9))[0] == 1


def test_both_fingers_move_alike(body):
  for action in (_action(close=1), _action(open=1)):
    body.step(action)
    left, right = body._data.qpos[7:9]
    assert left == pytest.approx(right, abs=5e-4)


def test_objects_have_come_to_rest_in_the_bin(task):
  batch = host.HostBatch(task, _MANY, threads=1)
  seen = batch.reset(_keys(_MANY))
  things, there = _things(seen)
  places = (things[..., :3] + np.concatenate([seen[:, :2], seen[:, 5:6]], 1)[:, None])[
    there
  ]
  inside = (np.abs(places[:, :2]) < [0.135, 0.095]).all(axis=1)
  assert inside.mean() > 0.98
  assert (places[inside, 2] > 0).all()
  speeds = np.linalg.norm(
    batch._batch.qvel[:, 9:].reshape(_MANY, -1, 6)[..., :3], axis=2
  )
  assert np.quantile(speeds[there], 0.95) < 0.05


def _things(observations):
  """What is seen of each place, [I K 12], and whether something is there, [I K]."""
  rows = observations[:, 6:].reshape(len(observations), -1, 12)
  return rows, rows[..., 9:].any(axis=-1)


def test_boxes_are_around_the_objects(body, task):
  things, there = _things(body.step(_STILL).observation[None])
  model, data = body._model, body._data
  tip = data.site('gripper/tip').xpos
  for place, thing in enumerate(things[0][there[0]].astype(float)):
    first, second = thing[3:9].reshape(3, 2).T
    axes = np.stack([first, second, np.cross(first, second)], axis=1)
    geoms = model.body(f'object_{place}').geomadr[0] + np.arange(5)
    geoms = geoms[model.geom_contype[geoms] > 0]
    # The farthest that any primitive reaches along an axis, by its own shape.
    reach = np.stack([_reach(model, data, geom, axes) for geom in geoms])
    own = (data.geom_xpos[geoms] - tip - thing[:3]) @ axes
    np.testing.assert_allclose((own + reach).max(axis=0), thing[9:], atol=2e-6)
    np.testing.assert_allclose((own - reach).min(axis=0), -thing[9:], atol=2e-6)
  assert not things[0][~there[0]].any()


def _reach(model, data, geom, axes):
  """How far a primitive reaches from its middle along each axis, [3], m."""
  size, matrix = model.geom_size[geom], data.geom_xmat[geom].reshape(3, 3)
  if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
    return np.abs(axes.T @ matrix) @ size
  return size[0] + size[1] * np.abs(axes.T @ matrix[:, 2])


def test_objects_come_in_no_order(task):
  goals = np.stack([np.asarray(task.reset(key).goal) for key in _keys(64)])
  assert set((goals >= 0).sum(axis=1)) == set(range(4, 11))
  assert len(set(goals[:, 0])) > 40  # any object may be the first
  assert np.diff(goals[:, :4], axis=1).min() < 0 < np.diff(goals[:, :4], axis=1).max()
  assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in goals)


def _play(task, policy, size, seed):
  """Plays episodes; returns their successes, returns and lengths, [I] each."""
  batch = host.HostBatch(task, size, threads=1)
  seen = batch.reset(_keys(size, seed))
  success, total, steps = np.zeros(size, bool), np.zeros(size), np.zeros(size, int)
  running = np.arange(size)
  while len(running):
    step = batch.step(policy(seen[running]), running)
    seen[running], success[running] = step.observation, step.success
    total[running] += step.reward
    steps[running] += 1
    assert not step.truncated.any()
    running = running[~step.terminated]
  return success, total, steps


def test_a_script_grasps_unseen_objects(make, scripts):
  task = make(unseen=True)
  success, total, steps = _play(task, scripts['grasp_state'](task), 48, seed=1)
  assert success.mean() > 0.6  # it never looks what is beside
  assert steps.max() <= 20
  np.testing.assert_allclose(total, success - 0.05 * (steps - 1), atol=1e-5)


def test_nothing_is_grasped_without_friction(make, scripts):
  task = make(in_bin=(4, 4))
  task.model.geom_friction[:] = 0

  def fields(goal):
    found = dict(task.fields(goal))
    rows, values = found['geom_friction']
    return found | {'geom_friction': (rows, 0 * values)}

  slippery = task._replace(fields=fields)
  success, _, _ = _play(slippery, scripts['grasp_state'](task), 8, seed=1)
  assert not success.any()


def test_the_last_step_alone_pays(body):
  for _ in range(18):
    step = body.step(_STILL)
    assert step.reward == np.float32(-0.05)
    assert not step.terminated
  assert body.step(_STILL).reward == np.float32(-0.05)
  last = body.step(_STILL)
  assert last.reward == 0.0
  assert last.terminated
  assert not last.truncated


@pytest.mark.parametrize('close', [0, 1])
def test_an_empty_gripper_does_not_succeed_high_up(body, close):
  assert body.step(_action(close=close)).observation[5] > 0.13
  last = body.step(_action(terminate=1))
  assert last.terminated
  assert last.reward == 0.0
  assert not last.success


def test_a_grasp_counts_above_the_height_alone(make, scripts):
  task = make()
  body, policy = host.Host(task), scripts['grasp_state'](task)
  seen = body.reset(jax.random.key(_GRASPED))
  found = {}
  for _ in range(20):
    action = policy(seen[None])[0]
    action[_TERMINATE] = 0
    step = body.step(action)
    seen = step.observation
    touches = (body._data.sensordata > 0).all()
    found[bool(touches), bool(seen[5] > 0.13)] = step.success
  assert found[True, False] is False
  assert found[True, True] is True


def test_scripted_termination(make):
  body = host.Host(make(learned_termination=False))
  assert body.action_size == 7
  body.reset(jax.random.key(0))
  up, close = _action(z=0.1)[:7], _action(close=1)[:7]
  assert not body.step(up).terminated  # high and rising, but open
  assert not body.step(close).terminated  # closed and high, but not rising
  assert body.step(up).terminated
  body.reset(jax.random.key(0))
  for action in (*[_action(z=-1)[:7]] * 3, close, _action(z=1)[:7]):
    assert not body.step(action).terminated  # low
  rising = body.step(_action(z=1)[:7])
  assert rising.terminated
  assert rising.observation[5] > 0.13


def test_the_gripper_is_not_observed_where_it_shall_not_be(make):
  seen = host.Host(make()).reset(jax.random.key(3))
  without = host.Host(make(observes_gripper=False)).reset(jax.random.key(3))
  np.testing.assert_array_equal(without, np.delete(seen, [4, 5]))


def test_a_curriculum_has_fewer(numbers):
  few = tasks.grasp_few().to_dict()
  task = envs.TASKS[few.pop('name')](**few)
  goals = np.stack([np.asarray(task.reset(key).goal) for key in _keys(32)])
  assert set((goals >= 0).sum(axis=1)) == {1, 2, 3}
  assert few | {'in_bin': (4, 10)} == numbers['grasp_state']


@pytest.mark.parametrize(
  ('change', 'error'),
  [
    ({'bin_size': (0.27,)}, 'bin_size is .*: give two finite numbers above 0'),
    ({'bin_size': (0.27, 0.05)}, 'bin_size is .*: give at least 0.09 m, an object'),
    ({'margin': 0.2}, 'the bounds are .*: give x, y and z in m, rising'),
    ({'mass': (0.2, 0.1)}, 'mass is .*: give the lower one first'),
    ({'friction': (0.1, 1.0)}, 'friction is .*: give at least 0.4'),
    ({'in_bin': (4, 300)}, 'in_bin is .*: give at most 240, all'),
    ({'in_bin': (4, 100), 'unseen': True}, 'in_bin is .*: give at most 60, all'),
    ({'lift_height': 0.03}, 'give finite ones, rising'),
    ({'step_reward': 0.1}, 'minus step_reward is -0.1: give a finite one >= 0'),
    ({'step_size': 0.0}, 'step_size is 0.0: give a finite number above 0'),
    ({'radius': (0.03, np.nan)}, 'radius is .*: give two finite numbers above 0'),
  ],
)
def test_impossible_numbers_are_refused(make, change, error):
  with pytest.raises(ValueError, match=error):
    make(**change)
