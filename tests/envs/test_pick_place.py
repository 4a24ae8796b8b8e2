"""Lifting a stick with the JACO: numbers by hand, the model, how hard the task is."""

import types

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from armfarm.envs import arrays
from armfarm.envs import host
from armfarm.envs import jaco
from armfarm.envs import pick_place

_OBSERVED = [
  *('arm/base', 'arm/link_1', 'arm/link_2', 'arm/link_3', 'arm/link_4', 'arm/link_5'),
  'hand/link_6_main',
  *('hand/finger_knuckle_1', 'hand/finger_knuckle_2', 'hand/finger_knuckle_3'),
  *('hand/finger_tip_1', 'hand/finger_tip_2', 'hand/finger_tip_3'),
  'stick',
]
_CAPSULES = {f'{part}_{i}' for part in ('knuckle', 'tip') for i in (1, 2, 3)}
_SPEEDS = np.deg2rad([36, 36, 36, 48, 48, 48])
_CENTER = np.array([0.55, 0.0, 0.57])


@pytest.fixture(scope='module')
def task(numbers):
  return pick_place.make(**numbers['pick_place'])


@pytest.fixture(scope='module')
def goals(task):
  keys = jax.random.split(jax.random.key(0), 2000)
  return np.asarray(jax.jit(jax.vmap(task.reset))(keys).goal)


@pytest.fixture
def home(task):
  """The model's data at the start of an episode."""
  data = mujoco.MjData(task.model)
  mujoco.mj_resetDataKeyframe(task.model, data, 0)
  mujoco.mj_forward(task.model, data)
  return data


def _data(task, xp, leading=(), stick=(0, 0, 0), grip=None, tips=None, touches=()):
  """A made-up state: geometry i at (i, i, i), its matrix from 100 i to 100 i + 8."""
  model = task.model
  rows = np.arange(model.ngeom, dtype=float)
  places = np.repeat(rows[:, None], 3, axis=1)
  places[model.geom('stick').id] = stick
  matrices = 100 * rows[:, None] + np.arange(9)
  if xp is jnp:  # as MJX has them
    matrices = matrices.reshape(-1, 3, 3)
  sites = np.full((model.nsite, 3), np.nan)
  if grip is not None:
    sites[model.site(jaco.GRIP).id] = grip
  if tips is not None:
    sites[[model.site(name).id for name in jaco.TIPS]] = tips
  sensors = np.zeros(model.nsensordata)
  sensors[list(touches)] = 1
  fields = {
    'qpos': np.zeros(model.nq),
    'geom_xpos': places,
    'geom_xmat': matrices,
    'site_xpos': sites,
    'sensordata': sensors,
  }
  return types.SimpleNamespace(
    **{
      name: xp.asarray(np.broadcast_to(a, (*leading, *a.shape)))
      for name, a in fields.items()
    }
  )


def test_the_paper_s_numbers(task):
  assert task.action_size == 9
  assert task.episode_steps == 300
  assert task.control_period == pytest.approx(1 / 100)
  assert task.model.opt.gravity[2] == -9.81


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_the_observation_by_hand(task, xp, leading):
  data = _data(task, xp, leading, stick=(1.0, 2.0, 3.0))
  goal = xp.full((*leading, 3), 9.0, np.float32)
  observation = task.observe(data, goal)
  rows = [task.model.geom(name).id for name in _OBSERVED]
  positions = [[row] * 3 for row in rows[:-1]] + [[1, 2, 3]]
  matrices = [[100 * row + i for i in range(9)] for row in rows]
  expected = np.concatenate([*positions, *matrices, [9, 9, 9], [8, 7, 6]])
  assert arrays.namespace(observation) is xp
  assert observation.shape == (*leading, task.observation_size) == (*leading, 174)
  assert observation.dtype == np.float32
  np.testing.assert_allclose(
    observation, np.broadcast_to(expected, observation.shape), rtol=1e-6
  )


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_the_reward_by_hand(numbers, xp, leading):
  weights = {'weights': (1.0, 2.0, 4.0, 0.001), 'huber_delta': 0.1}
  task = pick_place.make(**numbers['pick_place'] | weights)
  stick = np.array([0.5, 0.2, 0.6])
  tips = stick + np.array([[0, 0.1, 0], [0, 0, 0.3], [0, 0, 0]])
  data = _data(task, xp, leading, stick, stick + np.array([0.06, 0, 0]), tips)
  goal = stick + np.array([0.3, 0, -0.4])
  goal = xp.broadcast_to(xp.asarray(goal), (*leading, 3))
  action = np.array([1, -1, 0.5, 0, 0, 0, 0, 0, 0], np.float32)  # u'u = 2.25
  reward = task.reward(data, goal, xp.broadcast_to(xp.asarray(action), (*leading, 9)))
  grip = 0.06**2 / 2
  fingers = 0.1**2 / 2 + 0.1 * (0.3 - 0.05) + 0
  target = 0.1 * (0.5 - 0.05)
  expected = -grip - 2 * fingers - 4 * target - 0.001 * 2.25
  assert arrays.namespace(reward) is xp
  assert reward.shape == leading
  assert reward.dtype == np.float32
  np.testing.assert_allclose(reward, expected, rtol=1e-5)


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_success_is_within_five_centimetres_and_held(task, xp, leading):
  goal = xp.zeros((*leading, 3))
  for distance, touches, success in (
    (0.0499, (0,), True),
    (0.0499, (2, 5), True),
    (0.0499, (), False),
    (0.0501, (0, 1, 2), False),
  ):
    data = _data(task, xp, leading, stick=(0, 0, distance), touches=touches)
    found = task.success(data, goal)
    assert found.shape == leading
    assert (found == success).all()
    terminated = task.terminated(data, goal, xp.zeros((*leading, 9)))
    assert terminated.shape == leading
    assert not terminated.any()


@pytest.mark.parametrize('xp', [np, jnp])
@pytest.mark.parametrize('leading', [(), (4,)])
def test_an_action_is_a_part_of_the_limits(numbers, xp, leading):
  task = pick_place.make(**numbers['pick_place'] | {'speed': 0.5})
  ctrl = task.control(None, xp.full((*leading, 9), -0.5, np.float32))
  expected = np.array([*(-0.25 * _SPEEDS), -0.5, -0.5, -0.5])  # rad/s, then Nm
  assert ctrl.shape == (*leading, 9)
  np.testing.assert_allclose(ctrl, np.broadcast_to(expected, ctrl.shape), rtol=1e-6)


def test_the_functions_can_be_traced(task):
  tips = np.full((3, 3), 0.3)
  data = _data(task, jnp, (), (0.5, 0.2, 0.6), tips[0], tips, touches=(1,))
  goal, action = jnp.array([0.5, 0.25, 0.6]), jnp.full(9, 0.5)

  @jax.jit
  def traced(fields):
    seen = types.SimpleNamespace(**fields)
    reward = task.reward(seen, goal, action)
    return task.observe(seen, goal), reward, task.success(seen, goal)

  observation, reward, success = traced(vars(data))
  np.testing.assert_allclose(observation, task.observe(data, goal), rtol=1e-6)
  np.testing.assert_allclose(reward, task.reward(data, goal, action), rtol=1e-6)
  assert success == task.success(data, goal)


def test_targets_fill_the_square_evenly(goals):
  np.testing.assert_allclose(goals[:, 2], _CENTER[2], rtol=1e-6)
  part = (goals - _CENTER)[:, :2] / 0.24 + 0.5  # of the edge
  assert part.min() >= 0
  assert part.max() <= 1
  for axis in part.T:
    counts, _ = np.histogram(axis, bins=10, range=(0, 1))
    assert np.square(counts - 200).sum() / 200 < 27.9  # chi2(9), one in a thousand
  assert abs(np.corrcoef(part.T)[0, 1]) < 0.1


def test_every_episode_starts_the_same_near_the_stick_and_off_it(task, home):
  starts = [task.reset(jax.random.key(seed)) for seed in range(3)]
  for start in starts:
    np.testing.assert_allclose(start.qpos, home.qpos, rtol=1e-6)
    assert not start.qvel.any()
    assert start.qvel.shape == (task.model.nv,)
  assert home.ncon == 0
  stick = home.geom('stick').xpos
  assert 0.01 < np.linalg.norm(home.site(jaco.GRIP).xpos - stick) < 0.03
  for capsule in _CAPSULES:
    ids = (task.model.geom(capsule).id, task.model.geom('stick').id)
    assert mujoco.mj_geomDistance(task.model, home, *ids, 1.0, None) > 0.015


def test_the_stick_hangs_still_and_below_every_target(task, home, goals):
  rest = home.geom('stick').xpos.copy()
  for _ in range(1000):
    mujoco.mj_step(task.model, home)
  np.testing.assert_allclose(home.geom('stick').xpos, rest, atol=1e-3)
  assert (goals[:, 2] - rest[2]).min() > 0.05 + 0.05  # the criterion, and a margin


def test_the_string_is_slack_at_every_target(task, home, goals):
  hook = home.site('hook').xpos
  knots = goals + home.site('knot').xpos - home.geom('stick').xpos
  length = np.linalg.norm(knots - hook, axis=1).max()
  assert length < task.model.tendon_range[0, 1] - 0.02


def test_the_model_is_fit_for_mjx(task):
  model = task.model
  option = model.opt
  assert option.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
  assert (option.timestep, option.iterations, option.ls_iterations) == (0.005, 4, 6)
  assert option.disableflags == mujoco.mjtDisableBit.mjDSBL_EULERDAMP  # none of dm's
  assert not model.geom_contype.any()
  assert not model.geom_conaffinity.any()
  assert not model.dof_frictionloss.any()
  pairs = {
    frozenset((model.geom(a).name, model.geom(b).name))
    for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)
  }
  assert pairs == {frozenset((name, 'stick')) for name in {*_CAPSULES, 'palm'}}
  colliding = [model.geom(name).id for name in {*_CAPSULES, 'palm', 'stick'}]
  assert set(model.geom_type[colliding]) == {int(mujoco.mjtGeom.mjGEOM_CAPSULE)}
  assert set(model.sensor_type) == {int(mujoco.mjtSensor.mjSENS_CONTACT)}
  assert set(model.sensor_needstage) == {int(mujoco.mjtStage.mjSTAGE_POS)}
  touching = {model.geom(i).name for i in model.sensor_objid}
  assert touching == _CAPSULES  # the palm is no finger


def test_the_arm_is_jaco_s(task):
  model = task.model
  joints = [model.actuator(i).trnid[0] for i in range(model.nu)]
  assert [model.joint(i).name for i in joints] == [*jaco.ARM, *jaco.FINGERS]
  limits = [*_SPEEDS, 1, 1, 1]
  np.testing.assert_allclose(model.actuator_ctrlrange[:, 1], limits)
  torques = [30.5, 30.5, 30.5, 6.8, 6.8, 6.8, 1, 1, 1]
  np.testing.assert_allclose(model.actuator_forcerange[:, 1], torques)
  for both in (model.actuator_ctrlrange, model.actuator_forcerange):
    np.testing.assert_array_equal(both[:, 0], -both[:, 1])
  # As in dm_control's files: the capsules weigh nothing.
  mass = model.body_subtreemass[model.body('arm/b_base').id]
  np.testing.assert_allclose(mass, 4.310516, rtol=1e-6)


def test_home_is_off_the_limits_and_far_from_singular(task, home):
  model = task.model
  limited = model.jnt_limited.astype(bool)
  angles = home.qpos[model.jnt_qposadr][limited]
  margin = np.deg2rad(15)
  assert (angles > model.jnt_range[limited, 0] + margin).all()
  assert (angles < model.jnt_range[limited, 1] - margin).all()
  jacobian = np.zeros((6, model.nv))
  site = model.site(jaco.GRIP).id
  mujoco.mj_jacSite(model, home, jacobian[:3], jacobian[3:], site)
  assert np.linalg.svd(jacobian[:, 6:12], compute_uv=False).min() > 0.1


def test_the_arm_holds_still_against_gravity(task, home):
  before = home.qpos[7:13].copy()
  for _ in range(600):
    mujoco.mj_step(task.model, home)
  np.testing.assert_allclose(home.qpos[7:13], before, atol=1e-6)


@pytest.mark.parametrize('sign', [-1, 1])
@pytest.mark.parametrize('joint', range(6))
def test_the_arm_reaches_a_velocity_in_a_tenth_of_a_second(task, home, joint, sign):
  limit = task.model.actuator_ctrlrange[joint, 1]
  home.ctrl[joint] = sign * limit
  part = []
  for _ in range(60):
    mujoco.mj_step(task.model, home)
    part.append(home.qvel[6 + joint] / home.ctrl[joint])
  assert part[19] > 0.97
  assert max(part) < 1.02


def _last_step(task, policy, size=20, seed=1):
  body = host.HostBatch(task, size, threads=2)
  observation = body.reset(jax.random.split(jax.random.key(seed), size))
  for _ in range(task.episode_steps):
    step = body.step(policy(observation))
    observation = step.observation
  assert step.truncated.all()
  return step


def _open(observation):
  actions = np.zeros((len(observation), 9))
  actions[:, 6:] = -1
  return actions


def _closed_only(observation):
  return -_open(observation)


def test_without_a_lift_nothing_succeeds(task):
  rng = np.random.default_rng(0)

  def still(observation):
    return np.zeros((len(observation), 9))

  def random(observation):
    return rng.uniform(-1, 1, (len(observation), 9))

  for policy in (still, random, _open, _closed_only):
    assert not _last_step(task, policy).success.any()


def test_a_hand_held_open_lifts_nothing(task, scripts):
  lift = scripts['pick_place'](task)

  def open_handed(observation):
    # The script moves the arm once it believes the stick to be in the hand.
    believed = observation.copy()
    believed[:, 30:39] = np.tile(observation[:, 39:42], 3)  # every tip at the stick
    actions = lift(believed)
    actions[:, 6:] = -1
    return actions

  assert not _last_step(task, open_handed).success.any()


def test_the_script_succeeds(task, scripts):
  assert _last_step(task, scripts['pick_place'](task)).success.sum() >= 18


def test_an_arm_that_is_not_installed_is_said_to_be(numbers, monkeypatch):
  monkeypatch.setattr(jaco.util, 'find_spec', lambda name: None)
  with pytest.raises(ModuleNotFoundError, match=r'^dm_control has .*: pip install dm-'):
    pick_place.make(**numbers['pick_place'])


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('weights', (1.0, 1.0, 1.0)),
    ('weights', (1.0, 1.0, 1.0, float('nan'))),
    ('weights', (1.0, 1.0, -1.0, 0.0)),
    ('huber_delta', 0),
    ('speed', 0),
    ('speed', 1.01),
    ('square_center', (0.5, 0.2)),
    ('square_edge', 0),
    ('success_distance', -1),
    ('episode_steps', 0),
  ],
)
def test_numbers_out_of_range_are_refused(numbers, name, value):
  with pytest.raises(ValueError, match=rf'^{name} is .*: give [^\n]+$'):
    pick_place.make(**numbers['pick_place'] | {name: value})
