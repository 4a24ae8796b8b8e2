"""Doors: the numbers by hand, the latch, how hard the tasks are, a script for them."""

import types

import jax
import jax.numpy as jnp
import mujoco
from mujoco import batch as mujoco_batch
import numpy as np
import pytest

from armfarm import envs
from armfarm.envs import arrays
from armfarm.envs import host

_SIDES = {'door_push': 1, 'door_pull': -1}
_HANDLE_AT_REST = np.array([-0.12, -0.36, 0.0])  # m from the hinge
_REST = np.array([1.0, 0, 0, 0])
_LIMIT = np.deg2rad(0.01)  # rad; what the latch gives way under 20 Nm is half of it


@pytest.fixture(params=sorted(_SIDES))
def name(request):
  return request.param


@pytest.fixture
def make(name, numbers):
  return lambda **other: envs.TASKS[name](**numbers[name] | other)


@pytest.fixture
def task(make):
  return make()


@pytest.fixture
def model(task):
  return task.model


def _quaternion(door, handle):
  """Of a handle turned on a door, both in degrees: about z, then about its -x."""
  z, x = np.deg2rad([door, -handle]) / 2
  return np.array(
    [np.cos(z) * np.cos(x), np.cos(z) * np.sin(x), np.sin(z) * np.sin(x),
     np.sin(z) * np.cos(x)]
  )  # fmt: skip


def _data(model, xp, *leading, hook=(0, 0, 0), door=0.0, handle=0.0, active=True):
  """A made-up state: joint angles 0.1, 0.2, ..., their velocities the opposite."""
  arm = np.arange(1, 8) / 10
  qpos = np.concatenate([arm, np.deg2rad([door, handle])])
  sites = np.full((model.nsite, 3), np.nan)
  sites[model.site('door/hook').id] = hook
  quaternions = np.full((model.nbody, 4), np.nan)
  quaternions[model.body('door/handle').id] = _quaternion(door, handle)
  fields = {
    'qpos': qpos,
    'qvel': -qpos,
    'site_xpos': sites,
    'xquat': quaternions,
    'eq_active': np.array([active]),
  }
  return types.SimpleNamespace(
    **{
      k: xp.asarray(np.broadcast_to(v, (*leading, *v.shape))) for k, v in fields.items()
    }
  )


def _goal(xp, leading, value):
  return xp.asarray(np.broadcast_to(np.float32(value), (*leading, 3)))


def test_the_paper_s_numbers(task):
  assert task.observation_size == 25
  assert task.action_size == 7
  assert task.episode_steps == 300
  assert task.control_period == pytest.approx(1 / 20)
  assert not task.model.opt.gravity.any()
  for joint in ('door/hinge', 'door/handle'):
    assert task.model.joint(joint).range[1] == pytest.approx(np.pi / 2)
  assert task.model.joint('door/hinge').range[0] == pytest.approx(-np.pi / 2)


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_the_observation_by_hand(task, xp, leading):
  data = _data(task.model, xp, *leading, hook=[1, 2, 3], door=9, handle=45)
  observation = task.observe(data, _goal(xp, leading, [0.8, 0.3, 0.6]))
  angles = np.arange(1, 8) / 10
  hinge = np.array([0.8, 0.3, 0.6])
  ends = (np.deg2rad(9), np.deg2rad(45))
  expected = [*angles, *-angles, 1, 2, 3, *hinge + _HANDLE_AT_REST, *hinge, *ends]
  assert arrays.namespace(observation) is xp
  assert observation.shape == (*leading, 25)
  assert observation.dtype == np.float32
  np.testing.assert_allclose(
    observation, np.broadcast_to(expected, observation.shape), rtol=1e-6, atol=1e-6
  )


def _huber(distance, delta):
  return distance**2 / 2 if distance <= delta else delta * (distance - delta / 2)


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
@pytest.mark.parametrize(
  ('offset', 'door', 'handle'),
  [
    ((0, 0, 0), 0, 0),
    ((0.01, 0, 0), 0, 65),
    ((0, 0.3, -0.4), 20, 60),
    ((0, 0, 0), -90, 90),
  ],
)
def test_the_reward_by_hand(name, make, xp, leading, offset, door, handle):
  task = make(
    distance_weight=10.0, distance_delta=0.02, opening_weight=3.0, opening_delta=0.5,
    turned_angle=70.0, opened_angle=60.0, control_weight=0.1,
  )  # fmt: skip
  hinge = np.array([0.8, 0.3, 0.6])
  hook = hinge + _HANDLE_AT_REST + offset
  data = _data(task.model, xp, *leading, hook=hook, door=door, handle=handle)
  action = np.array([1, -1, 0.5, 0, 0, 0, 0], np.float32)  # u'u = 2.25
  action = xp.asarray(np.broadcast_to(action, (*leading, 7)))
  reward = task.reward(data, _goal(xp, leading, hinge), action)
  opened = _quaternion(60 * _SIDES[name], 70)
  gap = np.linalg.norm(opened - _quaternion(door, handle))
  gained = _huber(np.linalg.norm(opened - _REST), 0.5) - _huber(gap, 0.5)
  expected = -10 * _huber(np.linalg.norm(offset), 0.02) + 3 * gained - 0.1 * 2.25
  assert arrays.namespace(reward) is xp
  assert reward.shape == leading
  assert reward.dtype == np.float32
  np.testing.assert_allclose(reward, expected, rtol=1e-5, atol=1e-6)


def test_the_reward_grows_the_right_way_and_stays_small(name, task):
  def reward(door, handle, hook=_HANDLE_AT_REST):
    data = _data(task.model, np, door=door, handle=handle, hook=hook)
    return task.reward(data, np.zeros(3, np.float32), np.zeros(7))

  side = _SIDES[name]
  assert reward(0, 0) == pytest.approx(0, abs=1e-6)
  turned = [reward(0, handle) for handle in (0, 20, 40, 60, 70)]
  assert (np.diff(turned) > 0).all()
  opened = [reward(side * door, 65) for door in (0, 5, 10, 20, 30)]
  assert (np.diff(opened) > 0).all()
  assert opened[1] > opened[0] > reward(-side * 10, 65)
  far = (reward(-side * 90, 0, np.full(3, 2.0)), reward(side * 60, 70))
  assert (np.abs(far) < 10).all()


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_success_is_ten_degrees_in_the_direction_asked_for(name, task, xp, leading):
  goal = _goal(xp, leading, 0)
  for angle, success in ((10.1, True), (9.9, False), (-10.1, False)):
    data = _data(task.model, xp, *leading, door=angle * _SIDES[name])
    found = task.success(data, goal)
    assert found.shape == leading
    assert (found == success).all()
    terminated = task.terminated(data, goal, xp.zeros((*leading, 7)))
    assert terminated.shape == leading
    assert not terminated.any()


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
@pytest.mark.parametrize(
  ('door', 'handle', 'active', 'latched'),
  [
    (0, 0, True, True),
    (0, 59.9, True, True),
    (0, 60.1, True, False),  # let go
    (5, 0, False, False),  # open, and the handle back
    (-0.9, 0, False, True),  # caught
    (0.9, 61, False, False),
    (-5, 0, True, True),  # whatever it took, it holds
  ],
)
def test_the_latch_s_rule(task, xp, leading, door, handle, active, latched):
  data = _data(task.model, xp, *leading, door=door, handle=handle, active=active)
  found = task.active(data)
  assert found.shape == (*leading, 1)
  assert found.dtype == bool
  assert (found == latched).all()


class _Latch:
  """The door under torques of ours, stepped as every body does it."""

  def __init__(self, task):
    self._task = task
    self._data = mujoco.MjData(task.model)
    mujoco.mj_resetDataKeyframe(task.model, self._data, 0)

  def push(self, door, handle, seconds):
    """Applies Nm; returns largest angle of the door, rad, and the last of both."""
    data = self._data
    data.qfrc_applied[-2:] = door, handle
    widest = 0.0
    for _ in range(round(seconds * 20)):
      mujoco.mj_step(self._task.model, data, self._task.substeps)
      data.eq_active[:] = self._task.active(data)
      widest = max(widest, abs(data.qpos[-2]))
    return widest, *np.rad2deg(data.qpos[-2:])


@pytest.mark.parametrize('sign', [1, -1])
def test_the_latch_holds_lets_go_and_catches(task, sign):
  latch = _Latch(task)
  for torque in (20, -20):
    assert latch.push(door=torque, handle=0, seconds=1)[0] < _LIMIT
  for torque in np.arange(0.01, 0.41, 0.01):  # at last the spring's at 57 degrees
    assert latch.push(door=4 * sign, handle=torque, seconds=0.5)[0] < _LIMIT
  _, door, handle = latch.push(door=4 * sign, handle=0.45, seconds=1)
  assert handle > 60
  assert sign * door > 10
  _, door, handle = latch.push(door=4 * sign, handle=0, seconds=1)
  assert handle < 1
  assert sign * door > 10  # open, it does not need the handle
  _, door, _ = latch.push(door=0, handle=0, seconds=6)  # the spring closes it
  assert abs(door) < 0.01
  for torque in (20, -20):
    assert latch.push(door=torque, handle=0, seconds=1)[0] < _LIMIT


def test_no_torques_open_a_latched_door_in_a_million_steps(numbers):
  task = envs.TASKS['door_pull'](**numbers['door_pull'])
  size, holds = 64, 160
  rng = np.random.default_rng(0)
  batch = mujoco_batch.Batch(task.model, size, 2, persistent=True)
  batch.reset(keyframe=0)
  since = np.zeros(size)  # control steps that the latch has held
  let_go, widest = 0, 0.0
  for _ in range(holds):
    batch.qfrc_applied[:, -2] = rng.uniform(-25, 25, size)
    batch.qfrc_applied[:, -1] = rng.uniform(-0.3, 1, size)
    for _ in range(10):
      batch.step(nstep=task.substeps)
      active = task.active(batch)
      let_go += (~active[:, 0] & (since > 0)).sum()
      batch.eq_active[:] = active
      since = np.where(active[:, 0], since + 1, 0)
      held = np.abs(batch.qpos[since > 20, -2])
      widest = max(widest, held.max(initial=0))
  assert size * holds * 10 * task.substeps >= 1_000_000
  assert let_go > 100
  assert widest < _LIMIT


@pytest.fixture(scope='module')
def goals(numbers):
  task = envs.TASKS['door_push'](**numbers['door_push'])
  keys = jax.random.split(jax.random.key(0), 2000)
  return np.asarray(jax.jit(jax.vmap(task.reset))(keys).goal)


def test_doors_fill_the_rectangle_evenly(numbers, goals):
  part = (goals - numbers['door_push']['hinge_center'])[:, :2] / [0.1, 0.2] + 0.5
  assert np.ptp(goals[:, 2]) == 0
  assert part.min() >= 0
  assert part.max() <= 1
  for axis in part.T:
    counts, _ = np.histogram(axis, bins=10, range=(0, 1))
    assert np.square(counts - 200).sum() / 200 < 27.9  # chi2(9), one in a thousand
  assert np.abs(np.corrcoef(part.T)[0, 1]) < 0.1


def test_every_episode_starts_with_a_shut_door_out_of_reach(task, goals):
  body = host.Host(task)
  first = body.reset(jax.random.key(0))
  other = body.reset(jax.random.key(1))
  moved = np.flatnonzero(first != other)
  assert set(moved) <= {17, 18, 20, 21}  # where the door stands, nothing of the arm
  assert not other[7:14].any()
  assert not other[23:].any()
  handles = goals + _HANDLE_AT_REST
  assert np.linalg.norm(handles - other[14:17], axis=-1).min() >= 0.2


def test_nothing_touches_at_the_start(task, goals):
  model = task.model
  data = mujoco.MjData(model)
  mujoco.mj_resetDataKeyframe(model, data, 0)
  for goal in goals[:100]:
    model.body_pos[list(task.movable)] = task.place(goal)
    mujoco.mj_forward(model, data)
    assert data.ncon == 0


def _last_successes(task, policy, size, seed):
  body = host.HostBatch(task, size, threads=2)
  observation = body.reset(jax.random.split(jax.random.key(seed), size))
  for _ in range(task.episode_steps):
    step = body.step(policy(observation))
    observation = step.observation
  assert step.truncated.all()
  return step.success


@pytest.mark.parametrize('kind', ['nothing', 'anything', 'anything, held'])
def test_doing_nothing_and_doing_anything_fail(task, kind):
  rng = np.random.default_rng(1)
  held = rng.uniform(-1, 1, (20, 7))
  policies = {
    'nothing': lambda observation: np.zeros((20, 7)),
    'anything': lambda observation: rng.uniform(-1, 1, (20, 7)),
    'anything, held': lambda observation: held,
  }
  assert not _last_successes(task, policies[kind], size=20, seed=1).any()


def test_differential_inverse_kinematics_succeeds(name, make, scripts):
  task = make(episode_steps=120)
  policy = scripts[name](task)
  assert _last_successes(task, policy, size=20, seed=2).sum() >= 18


@pytest.mark.parametrize(
  ('name_of', 'value'),
  [
    ('distance_weight', 0),
    ('opening_weight', float('nan')),
    ('control_weight', -0.1),
    ('control_weight', float('inf')),
    ('distance_delta', 0),
    ('opening_delta', -1),
    ('turned_angle', 91),
    ('opened_angle', 0),
    ('release_angle', 90.5),
    ('success_angle', float('nan')),
    ('speed', 1.01),
    ('hinge_center', (0.8, 0.3)),
    ('hinge_range', (0.1, float('inf'))),
    ('hinge_range', (0.1, -0.2)),
    ('episode_steps', 0),
  ],
)
def test_numbers_out_of_range_are_refused(make, name_of, value):
  with pytest.raises(ValueError, match=rf'^{name_of} is .*: give [^\n]+$'):
    make(**{name_of: value})


def test_unknown_numbers_are_refused(make):
  with pytest.raises(TypeError, match='handle_angle'):
    make(handle_angle=60)
