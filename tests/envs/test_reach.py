"""Reaching: the numbers by hand, the reachable cube, how hard the task is."""

import types

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from armfarm.envs import arrays
from armfarm.envs import host
from armfarm.envs import reach

_HOME = [-0.5, 0.3, 0.3, -1.6, 0.2, 1.0, 0.0]  # rad
_SPEEDS = np.deg2rad([98, 98, 100, 130, 140, 180, 180])


@pytest.fixture(scope='module')
def task(numbers):
  return reach.make(**numbers['reach'])


@pytest.fixture(scope='module')
def goals(task):
  keys = jax.random.split(jax.random.key(0), 2000)
  return np.asarray(jax.jit(jax.vmap(task.reset))(keys).goal)


def _data(task, xp, site, *leading):
  """A made-up state: angles 0.1, 0.2, ..., velocities -0.1, -0.2, ..."""
  qpos = np.broadcast_to(np.arange(1, 8) / 10, (*leading, 7))
  sites = np.full((*leading, task.model.nsite, 3), np.nan)
  sites[..., task.model.site('end_effector').id, :] = site
  fields = {'qpos': qpos, 'qvel': -qpos, 'site_xpos': sites}
  return types.SimpleNamespace(**{name: xp.asarray(a) for name, a in fields.items()})


def test_the_paper_s_numbers(task):
  assert task.observation_size == 20
  assert task.action_size == 7
  assert task.episode_steps == 150
  assert task.control_period == pytest.approx(1 / 20)


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_the_observation_by_hand(task, xp, leading):
  data = _data(task, xp, [1.0, 2.0, 3.0], *leading)
  goal = xp.full((*leading, 3), 9.0, np.float32)
  observation = task.observe(data, goal)
  angles = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
  velocities = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7]
  expected = [*angles, *velocities, 1, 2, 3, 9, 9, 9]
  assert arrays.namespace(observation) is xp
  assert observation.shape == (*leading, 20)
  assert observation.dtype == np.float32
  np.testing.assert_allclose(
    observation, np.broadcast_to(expected, observation.shape), rtol=1e-6
  )


@pytest.mark.parametrize(
  ('offset', 'huber'),
  [
    ([0, 0, 0], 0.0),
    ([0.06, 0, 0], 0.06**2 / 2),
    ([0, 0.1, 0], 0.1**2 / 2),  # both branches meet here
    ([0.3, 0, -0.4], 0.1 * (0.5 - 0.05)),
  ],
)
@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_the_reward_by_hand(numbers, xp, leading, offset, huber):
  weights = {'distance_weight': 10.0, 'control_weight': 0.001, 'huber_delta': 0.1}
  task = reach.make(**{**numbers['reach'], **weights})
  data = _data(task, xp, np.array([0.5, 0.2, 0.6]), *leading)
  goal = xp.broadcast_to(
    xp.asarray(offset) + xp.asarray([0.5, 0.2, 0.6]), (*leading, 3)
  )
  action = np.array([1, -1, 0.5, 0, 0, 0, 0], np.float32)  # u'u = 2.25
  action = xp.broadcast_to(xp.asarray(action), (*leading, 7))
  reward = task.reward(data, goal, action)
  assert arrays.namespace(reward) is xp
  assert reward.shape == leading
  assert reward.dtype == np.float32
  np.testing.assert_allclose(reward, -10 * huber - 0.001 * 2.25, rtol=1e-5)


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_success_is_within_five_centimetres(task, xp, leading):
  data = _data(task, xp, np.zeros(3), *leading)
  for distance, success in ((0.0499, True), (0.0501, False)):
    goal = xp.broadcast_to(xp.asarray([0, -distance, 0]), (*leading, 3))
    found = task.success(data, goal)
    assert found.shape == leading
    assert (found == success).all()
    terminated = task.terminated(data, goal, xp.zeros((*leading, 7)))
    assert terminated.shape == leading
    assert not terminated.any()


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_an_action_is_a_part_of_the_velocity_limits(task, xp, leading):
  data = _data(task, xp, np.zeros(3), *leading)
  half = xp.full((*leading, 7), -0.5, np.float32)
  ctrl = task.control(data, half)
  assert ctrl.shape == (*leading, 7)
  expected = np.broadcast_to(-0.5 * 0.5 * _SPEEDS, ctrl.shape)  # speed = 0.5
  np.testing.assert_allclose(ctrl, expected, rtol=1e-4)


def test_the_functions_can_be_traced(task):
  data = _data(task, jnp, [0.5, 0.2, 0.6])
  goal = jnp.array([0.5, 0.3, 0.6])
  action = jnp.full(7, 0.5)

  @jax.jit
  def traced(fields):
    seen = types.SimpleNamespace(**fields)
    return task.observe(seen, goal), task.reward(seen, goal, action)

  observation, reward = traced(vars(data))
  np.testing.assert_allclose(observation, task.observe(data, goal), rtol=1e-6)
  np.testing.assert_allclose(reward, task.reward(data, goal, action), rtol=1e-6)


def test_targets_fill_the_cube_evenly(goals):
  center = np.array([0.5, 0.25, 0.65])
  part = (goals - center) / 0.2 + 0.5  # of the edge
  assert part.min() >= 0
  assert part.max() <= 1
  for axis in part.T:
    counts, _ = np.histogram(axis, bins=10, range=(0, 1))
    assert np.square(counts - 200).sum() / 200 < 27.9  # chi2(9), one in a thousand
  assert (np.abs(np.corrcoef(part.T) - np.eye(3)) < 0.1).all()


def test_every_episode_starts_at_home_well_away_from_the_cube(task, goals):
  starts = [task.reset(jax.random.key(seed)) for seed in range(3)]
  data = mujoco.MjData(task.model)
  for start in starts:
    np.testing.assert_allclose(start.qpos, _HOME, rtol=1e-6)
    assert not start.qvel.any()
  data.qpos[:] = _HOME
  mujoco.mj_kinematics(task.model, data)
  end_effector = data.site('end_effector').xpos
  assert np.linalg.norm(end_effector - [0.5, 0.25, 0.65]) >= 0.25
  assert np.linalg.norm(goals - end_effector, axis=-1).min() >= 0.15


def _jacobian(model, data, qpos):
  """Puts the arm at qpos; returns the end effector [3] and its Jacobian [3 7]."""
  data.qpos[:] = qpos
  mujoco.mj_kinematics(model, data)
  mujoco.mj_comPos(model, data)
  jacobian = np.zeros((3, model.nv))
  site = model.site('end_effector').id
  mujoco.mj_jacSite(model, data, jacobian, None, site)
  return data.site_xpos[site].copy(), jacobian


def _damped_step(error, jacobian, damping=0.05):
  """The least-squares joint motion [7] towards error [3]."""
  return jacobian.T @ np.linalg.solve(
    jacobian @ jacobian.T + damping**2 * np.eye(3), error
  )


@pytest.mark.parametrize('corner', list(np.ndindex(2, 2, 2)))
def test_inverse_kinematics_reaches_every_corner_within_the_limits(task, corner):
  model = task.model
  data = mujoco.MjData(model)
  target = np.array([0.5, 0.25, 0.65]) + 0.2 * (np.array(corner) - 0.5)
  margin = np.deg2rad(5)
  qpos = np.array(_HOME)
  for _ in range(200):
    position, jacobian = _jacobian(model, data, qpos)
    qpos += 0.2 * _damped_step(target - position, jacobian)
    qpos = np.clip(qpos, model.jnt_range[:, 0] + margin, model.jnt_range[:, 1] - margin)
  position, _ = _jacobian(model, data, qpos)
  assert np.linalg.norm(target - position) < 0.01


def _last_successes(task, policy, size, seed):
  body = host.HostBatch(task, size, threads=2)
  observation = body.reset(jax.random.split(jax.random.key(seed), size))
  for _ in range(task.episode_steps):
    step = body.step(policy(observation))
    observation = step.observation
  assert step.truncated.all()
  return step.success


def test_doing_nothing_and_doing_anything_fail(task):
  rng = np.random.default_rng(0)
  policies = (
    lambda observation: np.zeros((len(observation), 7)),
    lambda observation: rng.uniform(-1, 1, (len(observation), 7)),
  )
  for policy in policies:
    assert _last_successes(task, policy, size=200, seed=1).mean() <= 0.05


def test_differential_inverse_kinematics_succeeds(task):
  data = mujoco.MjData(task.model)

  def servo(observation):
    velocity = []
    for row in observation.astype(np.float64):
      position, jacobian = _jacobian(task.model, data, row[:7])
      velocity.append(4 * _damped_step(row[17:] - position, jacobian))
    return np.clip(velocity / (0.5 * _SPEEDS), -1, 1)

  assert _last_successes(task, servo, size=20, seed=2).all()


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('distance_weight', 0),
    ('distance_weight', float('nan')),
    ('control_weight', -0.1),
    ('control_weight', float('inf')),
    ('huber_delta', 0),
    ('speed', 0),
    ('speed', 1.01),
    ('cube_center', (0.5, 0.2)),
    ('cube_center', (0.5, 0.2, float('nan'))),
    ('cube_edge', 0),
    ('success_distance', -1),
    ('episode_steps', 0),
  ],
)
def test_numbers_out_of_range_are_refused(numbers, name, value):
  with pytest.raises(ValueError, match=rf'^{name} is .*: give [^\n]+$'):
    reach.make(**numbers['reach'] | {name: value})
