"""Native MuJoCo: one instance against a batch, resets of a few, pictures."""

import jax
import mujoco
import numpy as np
import pytest

from armfarm import envs
from armfarm.envs import host
from armfarm.envs import reach
from armfarm.envs.task import never

_STEPS = 20


@pytest.fixture
def task(numbers):
  return reach.make(**{**numbers['reach'], 'episode_steps': _STEPS})


@pytest.fixture(params=sorted(set(envs.TASKS) - {'grasp'}))
def any_task(request, numbers):
  numbers = numbers[request.param] | {'episode_steps': _STEPS}
  # Random actions may terminate an episode: here nothing but its limit does.
  return envs.TASKS[request.param](**numbers)._replace(terminated=never)


def _keys(size, seed=0):
  return jax.random.split(jax.random.key(seed), size)


def _actions(*shape, size=7):
  return np.random.default_rng(0).uniform(-1, 1, (*shape, size)).astype(np.float32)


@pytest.mark.parametrize('threads', [1, 2])
def test_a_batch_computes_what_single_instances_do(any_task, threads):
  task = any_task
  batch = host.HostBatch(task, size=16, threads=threads)
  singles = [host.Host(task) for _ in range(16)]
  first = [single.reset(key) for single, key in zip(singles, _keys(16), strict=True)]
  np.testing.assert_array_equal(batch.reset(_keys(16)), first)
  for actions in _actions(_STEPS, 16, size=task.action_size):
    together = batch.step(actions)
    apart = [single.step(row) for single, row in zip(singles, actions, strict=True)]
    for mine, theirs in zip(together, zip(*apart, strict=True), strict=True):
      np.testing.assert_array_equal(mine, theirs)
  rows = [single.state() for single in singles]
  for name, value in batch.state().items():
    np.testing.assert_array_equal(value, [row[name] for row in rows])


@pytest.mark.parametrize('size', [1, 4])
def test_the_end_effector_is_seen_where_the_joints_put_it(task, size):
  batch = host.HostBatch(task, size, threads=1)
  batch.reset(_keys(size))
  data = mujoco.MjData(task.model)
  for actions in _actions(_STEPS, size):
    for row in batch.step(actions).observation:
      data.qpos[:] = row[:7]
      mujoco.mj_kinematics(task.model, data)
      np.testing.assert_allclose(row[14:17], data.site('end_effector').xpos, atol=1e-6)


def test_some_instances_begin_anew_while_others_go_on(any_task):
  task = any_task
  batch, untouched = (host.HostBatch(task, size=3, threads=1) for _ in range(2))
  alone = host.Host(task)
  batch.reset(_keys(3))
  untouched.reset(_keys(3))
  actions = _actions(_STEPS, 3, size=any_task.action_size)
  for step in range(5):
    batch.step(actions[step])
    untouched.step(actions[step])
  again = batch.reset(_keys(1, seed=9), ids=[1])
  np.testing.assert_array_equal(again, [alone.reset(_keys(1, seed=9)[0])])
  for step in range(5, _STEPS):
    mine, theirs = batch.step(actions[step]), untouched.step(actions[step])
    single = alone.step(actions[step, 1])
    np.testing.assert_array_equal(mine.observation[[0, 2]], theirs.observation[[0, 2]])
    np.testing.assert_array_equal(mine.reward[[0, 2]], theirs.reward[[0, 2]])
    np.testing.assert_array_equal(mine.observation[1], single.observation)
  over = mine.truncated | mine.terminated
  np.testing.assert_array_equal(over, [True, False, True])
  with pytest.raises(RuntimeError, match=r'\[0 2\]'):
    batch.step(actions[0])
  batch.reset(_keys(2), ids=[0, 2])
  batch.step(actions[0])


def test_a_batch_waits_for_all_to_begin(task):
  batch = host.HostBatch(task, size=3, threads=1)
  batch.reset(_keys(2), ids=[0, 2])
  with pytest.raises(RuntimeError, match=r'\[1\]'):
    batch.step(_actions(3))
  batch.reset(_keys(1), ids=[1])
  batch.step(_actions(3))


def test_a_batch_refuses_sizes_that_make_no_sense(task):
  for size, threads in ((0, 1), (1, 0)):
    with pytest.raises(ValueError, match='at least 1'):
      host.HostBatch(task, size, threads)
  batch = host.HostBatch(task, size=3, threads=1)
  for wrong in (_keys(2), jax.random.key(0)):
    with pytest.raises(ValueError, match='one each'):
      batch.reset(wrong)
  with pytest.raises(ValueError, match='one each'):
    batch.reset(_keys(3), ids=[0])


@pytest.fixture
def door(numbers):
  return envs.TASKS['door_pull'](**numbers['door_pull'])


def _open_the_door(door, scripts, body, steps):
  """Lets a script act; returns the last observation."""
  policy = scripts['door_pull'](door)
  observation = body.reset(jax.random.key(5))
  for _ in range(steps):
    observation = body.step(policy(observation[None])[0]).observation
  return observation


def test_a_door_stands_in_one_model_alone(door):
  before = door.model.body_pos.copy()
  first, other = host.Host(door), host.Host(door)
  seen = first.reset(jax.random.key(1))
  assert not np.array_equal(seen, other.reset(jax.random.key(2)))
  np.testing.assert_array_equal(first.step(np.zeros(7)).observation[17:23], seen[17:23])
  np.testing.assert_array_equal(door.model.body_pos, before)


@pytest.mark.parametrize('steps', [30, 60])  # the handle half turned, the door open
def test_an_opening_door_is_restored_bit_for_bit(door, scripts, steps):
  body = host.Host(door)
  observation = _open_the_door(door, scripts, body, steps)
  assert (observation[24] > 0.3, observation[23] < -0.1) == (True, steps == 60)
  state = body.state()
  single, batch = host.Host(door), host.HostBatch(door, size=2, threads=1)
  single.restore(state)
  batch.restore({name: np.stack([value] * 2) for name, value in state.items()})
  policy = scripts['door_pull'](door)
  for _ in range(30):
    action = policy(observation[None])[0]
    step = body.step(action)
    observation = step.observation
    for mine, theirs in zip(step, single.step(action), strict=True):
      np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(step, batch.step(np.stack([action] * 2)), strict=True):
      np.testing.assert_array_equal([mine] * 2, theirs)
  assert observation[23] < -0.1  # opened on


@pytest.fixture
def camera(task, opengl):
  del opengl
  body = host.Host(task)
  yield body
  body.close()


def test_a_picture_shows_the_arm_and_the_goal(camera):
  camera.reset(jax.random.key(0))
  first = camera.render('over_view', 320, 240)
  assert first.shape == (240, 320, 3)
  assert first.dtype == np.uint8
  assert first.std() > 10  # not one colour
  np.testing.assert_array_equal(camera.render('over_view', 320, 240), first)
  camera.reset(jax.random.key(1))  # the same arm, another goal
  other = camera.render('over_view', 320, 240)
  changed = (first != other).any(-1).mean()
  assert 0.001 < changed < 0.1
  for action in _actions(_STEPS):
    camera.step(action)
  assert (camera.render('over_view', 320, 240) != other).any(-1).mean() > 0.01


def test_a_picture_changes_nothing_and_takes_any_size(camera, task):
  unseen = host.Host(task)
  camera.reset(jax.random.key(2))
  unseen.reset(jax.random.key(2))
  for action in _actions(_STEPS):
    assert camera.render('over_view', 64, 48).shape == (48, 64, 3)
    mine, theirs = camera.step(action), unseen.step(action)
    np.testing.assert_array_equal(mine.observation, theirs.observation)
  assert camera.render('over_view', 80, 60).shape == (60, 80, 3)
  camera.close()
  camera.close()  # twice does no harm
  assert camera.render('over_view', 64, 48).shape == (48, 64, 3)


def test_a_picture_shows_the_restored_state(camera):
  camera.reset(jax.random.key(3))
  state = camera.state()
  first = camera.render('over_view', 64, 48)
  camera.reset(jax.random.key(4))
  for action in _actions(_STEPS):
    camera.step(action)
  assert (camera.render('over_view', 64, 48) != first).any()
  camera.restore(state)
  np.testing.assert_array_equal(camera.render('over_view', 64, 48), first)


def test_a_picture_shows_where_the_door_stands(camera, door):
  del camera  # there is OpenGL
  body = host.Host(door)
  body.reset(jax.random.key(0))
  first = body.render('over_view', 320, 240)
  body.reset(jax.random.key(1))  # the same arm, another place
  assert (body.render('over_view', 320, 240) != first).any(-1).mean() > 0.02
  body.close()
