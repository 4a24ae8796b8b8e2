"""Torque control: the state by MuJoCo's own Jacobians, the two tasks by hand."""

import functools
import types

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from armfarm import envs
from armfarm.envs import arrays
from armfarm.envs import host
from armfarm.envs import peg
from armfarm.envs import reach_torque
from armfarm.envs import torque_arm

_TORQUES = np.array([176, 176, 110, 110, 110, 40, 40])  # Nm, the data sheet's
_SPEEDS = np.deg2rad([98, 98, 100, 130, 140, 180, 180])
_SIZE = 8  # instances; two of each hole, about
_INSERTED = np.array([0, 0, 0, 0, 0, 0.29, -0.1, 0, 0.29])  # m from the hole's bottom


@pytest.fixture(scope='module', params=['reach_torque', 'peg'])
def name(request):
  return request.param


@pytest.fixture(scope='module')
def make(name, numbers):
  return lambda **other: envs.TASKS[name](**numbers[name] | other)


@pytest.fixture(scope='module')
def task(make):
  return make()


def _keys(size, seed=0):
  return jax.random.split(jax.random.key(seed), size)


def _points(model, qpos, qvel):
  """Places [9] and velocities [9] of the points, by MuJoCo's Jacobians."""
  data = mujoco.MjData(model)
  data.qpos[:] = qpos
  mujoco.mj_kinematics(model, data)
  mujoco.mj_comPos(model, data)
  jacobian = np.zeros((3, 3, model.nv))
  for i in range(3):
    site = model.site(f'point_{i + 1}').id
    mujoco.mj_jacSite(model, data, jacobian[i], None, site)
  places = [data.site(f'point_{i}').xpos for i in (1, 2, 3)]
  return np.concatenate(places), (jacobian @ qvel).ravel()


def test_the_published_numbers(task):
  assert task.observation_size == 41
  assert torque_arm.STATE_SIZE == 32
  assert task.action_size == 7
  assert task.episode_steps == 100
  assert task.control_period == pytest.approx(1 / 20)
  assert not task.model.opt.gravity.any()


@pytest.mark.parametrize('size', [1, 4])
def test_the_state_is_that_after_the_step(task, size):
  batch = host.HostBatch(task, size, threads=1)
  batch.reset(_keys(size))
  rng = np.random.default_rng(0)
  for actions in rng.uniform(-1, 1, (12, size, 7)):
    for row in batch.step(actions).observation:
      place, velocity = _points(task.model, row[:7], row[7:14])
      np.testing.assert_allclose(row[14:23], place, atol=1e-6)
      np.testing.assert_allclose(row[23:32], velocity, atol=1e-5)
  assert np.abs(velocity).min() > 1e-3


def test_forward_kinematics_is_mujoco_s(task):
  arm = torque_arm.find(task.model, 1.0)
  forward = jax.jit(jax.vmap(arm.forward))
  angles = np.random.default_rng(0).uniform(-2, 2, (10, 7))
  for q, found in zip(angles, forward(jnp.asarray(angles)), strict=True):
    place, _ = _points(task.model, q, np.zeros(7))
    np.testing.assert_allclose(found, place, atol=2e-6)


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_an_action_is_a_part_of_the_torque_limits(make, xp, leading):
  task = make(torque=0.25)
  half = xp.full((*leading, 7), -0.5, np.float32)
  torque = task.control(None, half)
  expected = np.broadcast_to(-0.5 * 0.25 * _TORQUES, torque.shape)
  assert torque.shape == (*leading, 7)
  np.testing.assert_allclose(torque, expected, rtol=1e-6)
  gear = task.model.actuator_gainprm[:, 0]  # of a motor
  np.testing.assert_array_equal(gear, 1.0)


def test_its_torque_drives_a_joint_to_its_speed_limit(task):
  assert np.abs(task.model.actuator_forcerange[:, 1] - _TORQUES).max() == 0
  steady = task.control(None, np.ones(7)) / task.model.dof_damping[:7]
  np.testing.assert_allclose(steady, _SPEEDS, rtol=1e-4)


def _data(task, xp, pose, *leading):
  """A made-up state: angles 0.1, ..., velocities the opposite, points' 1, 2, ..."""
  qpos = np.arange(1, 8) / 10
  sites = np.full((task.model.nsite, 3), np.nan)
  for i, place in enumerate(np.reshape(pose, (3, 3))):
    sites[task.model.site(f'point_{i + 1}').id] = place
  fields = {
    'qpos': qpos,
    'qvel': -qpos,
    'site_xpos': sites,
    'sensordata': np.arange(1.0, 10),
  }
  return types.SimpleNamespace(
    **{
      k: xp.asarray(np.broadcast_to(v, (*leading, *v.shape))) for k, v in fields.items()
    }
  )


def _goal(name, xp, leading):
  """A goal, [G], and the pose that it asks for, [9]."""
  if name == 'peg':
    goal = np.float32([0.5, 0.1, 0.02])
    pose = np.tile(goal, 3) + _INSERTED
  else:
    goal = pose = np.float32([0.4, 0.1, 0.5, 0.5, 0.1, 0.5, 0.4, 0.2, 0.5])
  return xp.asarray(np.broadcast_to(goal, (*leading, *goal.shape))), pose


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_the_observation_by_hand(name, task, xp, leading):
  goal, pose = _goal(name, xp, leading)
  places = np.arange(9) / 8
  observation = task.observe(_data(task, xp, places, *leading), goal)
  angles = np.arange(1, 8) / 10
  expected = np.concatenate([angles, -angles, places, np.arange(1, 10), pose])
  assert arrays.namespace(observation) is xp
  assert observation.dtype == np.float32
  assert observation.shape == (*leading, 41)
  np.testing.assert_allclose(
    observation, np.broadcast_to(expected, observation.shape), rtol=1e-5, atol=1e-6
  )


# How far each point is from its goal, m, and what the task makes of these.
_APART = [
  ([0, 0, 0], {'reach_torque': 0.0, 'peg': 0.0}),
  ([0.03, 0.06, 0.09], {'reach_torque': 0.06, 'peg': 0.03}),
  ([0.3, 0, 0], {'reach_torque': 0.1, 'peg': 0.3}),
]


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
@pytest.mark.parametrize(('apart', 'distance'), _APART)
def test_reward_and_success_by_hand(name, make, xp, leading, apart, distance):
  task = make(
    distance_weight=10.0, control_weight=0.1, huber_delta=0.05, success_distance=0.05
  )
  goal, pose = _goal(name, xp, leading)
  moved = pose.reshape(3, 3) + np.array(apart)[:, None] * [0.6, 0, -0.8]
  data = _data(task, xp, moved, *leading)
  action = np.array([1, -1, 0.5, 0, 0, 0, 0], np.float32)  # u'u = 2.25
  reward = task.reward(data, goal, xp.asarray(np.broadcast_to(action, (*leading, 7))))
  d = distance[name]
  huber = d**2 / 2 if d <= 0.05 else 0.05 * (d - 0.025)
  assert arrays.namespace(reward) is xp
  assert reward.shape == leading
  assert reward.dtype == np.float32
  np.testing.assert_allclose(reward, -10 * huber - 0.225, rtol=1e-4)
  success = task.success(data, goal)
  assert success.shape == leading
  assert (success == (d <= 0.05)).all()
  assert not task.terminated(data, goal, action).any()


def _play(task, policy, seed=1):
  """Plays an episode in each instance of a batch; returns the last step."""
  body = host.HostBatch(task, _SIZE, threads=1)
  observation = body.reset(_keys(_SIZE, seed))
  for _ in range(task.episode_steps):
    step = body.step(policy(observation))
    observation = step.observation
  assert step.truncated.all()
  return step


@pytest.mark.parametrize('kind', ['nothing', 'anything', 'anything, held'])
def test_doing_nothing_and_doing_anything_fail(task, kind):
  rng = np.random.default_rng(1)
  held = rng.uniform(-1, 1, (_SIZE, 7))
  policies = {
    'nothing': lambda observation: np.zeros((_SIZE, 7)),
    'anything': lambda observation: rng.uniform(-1, 1, (_SIZE, 7)),
    'anything, held': lambda observation: held,
  }
  step = _play(task, policies[kind])
  assert not step.success.any()
  assert (step.reward < 0).all()
  assert (step.reward > -10).all()


def test_a_script_succeeds(task, scripts):
  step = _play(task, scripts[task.name](task), seed=2)
  assert step.success.all()
  assert np.abs(step.observation[:, 14:23] - step.observation[:, 32:]).max() < 0.01


def test_goals_are_drawn_around_home(numbers):
  task = reach_torque.make(**numbers['reach_torque'])
  starts = jax.jit(jax.vmap(task.reset))(_keys(500))
  home = task.model.key('home').qpos
  first, _ = _points(task.model, home, np.zeros(7))
  np.testing.assert_allclose(starts.qpos, np.tile(home, (500, 1)), rtol=1e-6)
  goals = np.asarray(starts.goal).reshape(500, 3, 3)
  # Two sides of 0.1 m at a right angle, wherever it is.
  sides = goals[:, 1:] - goals[:, :1]
  np.testing.assert_allclose(np.linalg.norm(sides, axis=-1), 0.1, atol=1e-6)
  np.testing.assert_allclose((sides[:, 0] * sides[:, 1]).sum(-1), 0, atol=1e-6)
  apart = np.linalg.norm(goals - first.reshape(1, 3, 3), axis=-1).mean(axis=-1)
  assert (apart > 0.05).mean() > 0.95  # few goals are met by doing nothing
  assert apart.max() < 1.0


def test_a_peg_starts_upright_above_one_of_four_holes(numbers):
  task = peg.make(**numbers['peg'])
  starts = jax.jit(jax.vmap(task.reset))(_keys(400))
  holes, counts = np.unique(starts.goal, axis=0, return_counts=True)
  np.testing.assert_allclose(
    holes, [[0.55, y, 0.02] for y in (-0.2, -0.1, 0.1, 0.2)], rtol=1e-6
  )
  assert counts.min() > 60  # of 400, five deviations below 100
  place, _ = _points(task.model, starts.qpos[0], np.zeros(7))
  np.testing.assert_allclose(place[:3], [0.55, 0, 0.37], atol=0.01)
  np.testing.assert_allclose(place - np.tile(place[:3], 3), _INSERTED, atol=1e-6)


def test_a_perturbation_displaces_the_hole(numbers):
  task = peg.make(**numbers['peg'] | {'perturbation': 0.03})
  instance = jax.jit(jax.vmap(functools.partial(task.instance, 3)))
  moved = np.asarray(instance(_keys(500)).goal) - [0.55, 0.2, 0.02]
  assert np.abs(moved[:, :2]).max() <= 0.03
  assert np.abs(np.abs(moved[:, :2]).mean(axis=0) - 0.015).max() < 0.002
  np.testing.assert_allclose(moved[:, 2], 0, atol=1e-6)


def test_a_peg_touches_nothing_at_the_start_and_not_when_it_is_in(numbers, scripts):
  task = peg.make(**numbers['peg'])
  data = mujoco.MjData(task.model)
  mujoco.mj_resetDataKeyframe(task.model, data, 0)
  mujoco.mj_forward(task.model, data)
  assert data.ncon == 0
  inside = _play(task, scripts['peg'](task)).observation
  for row in inside:
    data.qpos[:] = row[:7]
    task.model.body_pos[list(task.movable)] = row[32:35]
    mujoco.mj_forward(task.model, data)
    assert data.contact.dist.min(initial=0) > -1e-3


def test_a_peg_beside_the_hole_stays_on_the_block(numbers, scripts):
  task = peg.make(**numbers['peg'])
  push = scripts['peg'](task)

  def down(observation):
    beside = observation.copy()
    beside[:, 33::3] = 0.0  # straight down from where it is
    return push(beside)

  step = _play(task, down)
  assert (step.observation[:, 16] > 0.26).all()  # the block's top is at 0.27
  assert not step.success.any()


_WRONG = [
  ('torque', 0),
  ('torque', 1.01),
  ('distance_weight', float('nan')),
  ('control_weight', -0.1),
  ('huber_delta', 0),
  ('success_distance', -1),
  ('episode_steps', 0),
]
_WRONG_OF = {
  'reach_torque': [('spread', x) for x in (0.4, (0,) * 7, (1.2,) * 7)],
  'peg': [
    ('hole_x', float('nan')),
    ('holes_y', ()),
    ('holes_y', (0.1, float('inf'))),
    ('perturbation', -0.01),
  ],
}


def test_numbers_out_of_range_are_refused(name, make):
  for which, value in _WRONG + _WRONG_OF[name]:
    with pytest.raises(ValueError, match=rf'^{which} is .*: give [^\n]+$'):
      make(**{which: value})
