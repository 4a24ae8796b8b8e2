"""Rules for every MJCF: what each engine computes alike, and the arm's own numbers."""

from importlib import resources
import xml.etree.ElementTree as ET

import jax
import mujoco
from mujoco import mjx
import numpy as np
import pytest

from armfarm import envs

_ASSETS = sorted(
  path.name
  for path in (resources.files('armfarm.envs') / 'assets').iterdir()
  if path.name.endswith('.xml')
)
_PRIMITIVES = {
  mujoco.mjtGeom.mjGEOM_PLANE,
  mujoco.mjtGeom.mjGEOM_SPHERE,
  mujoco.mjtGeom.mjGEOM_CAPSULE,
  mujoco.mjtGeom.mjGEOM_BOX,
}
# MJX takes these without a word and leaves them out, or refuses the model.
_UNSUPPORTED_TAGS = {'flex', 'flexcomp', 'adhesion', 'pid', 'dcmotor', 'plugin'}
_UNSUPPORTED_ATTRIBUTES = {
  'adhesion',
  'delay',
  'nsample',
  'noslip_iterations',
  'noslip_tolerance',
  'sleep',
  'sleep_tolerance',
  'surfacevel',
}


def _text(name):
  return (resources.files('armfarm.envs') / 'assets' / name).read_text()


@pytest.fixture(params=_ASSETS)
def xml(request):
  return _text(request.param)


@pytest.fixture(scope='module', params=sorted(envs.TASKS))
def model(request, numbers):
  return envs.TASKS[request.param](**numbers[request.param]).model


@pytest.fixture(
  scope='module', params=sorted(set(envs.TASKS) - {'grasp_state', 'grasp'})
)
def mjx_model(request, numbers):
  """Of a task that runs on MJX, too."""
  return envs.TASKS[request.param](**numbers[request.param]).model


@pytest.fixture
def arm():
  return mujoco.MjModel.from_xml_string(_text('arm.xml'))


def test_there_are_models():
  assert 'arm.xml' in _ASSETS


def test_the_options_are_the_measured_ones(mjx_model):
  option = mjx_model.opt
  assert option.timestep == 0.005
  assert option.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
  assert option.solver == mujoco.mjtSolver.mjSOL_NEWTON
  assert option.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
  assert option.jacobian == mujoco.mjtJacobian.mjJAC_DENSE
  assert (option.iterations, option.ls_iterations) == (4, 6)
  assert option.disableflags == mujoco.mjtDisableBit.mjDSBL_EULERDAMP
  assert option.enableflags == 0


def test_nothing_is_silently_ignored(xml):
  for element in ET.fromstring(xml).iter():
    assert element.tag not in _UNSUPPORTED_TAGS
    assert not _UNSUPPORTED_ATTRIBUTES & set(element.attrib), element.attrib


def test_primitives_collide_in_listed_pairs_alone(mjx_model):
  colliding = np.concatenate([mjx_model.pair_geom1, mjx_model.pair_geom2])
  assert set(mjx_model.geom_type[colliding]) <= {int(kind) for kind in _PRIMITIVES}
  assert not mjx_model.geom_contype.any()
  assert not mjx_model.geom_conaffinity.any()
  assert set(mjx_model.pair_dim) <= {3, 4}
  assert _contact_slots(mjx_model) <= 30


def _contact_slots(model):
  """How many contacts MJX makes room for."""
  with jax.numpy_rank_promotion('allow'):
    return mjx.make_data(model, impl='jax')._impl.contact.dist.size


def test_joints_are_driven_by_bounded_velocities_or_torques(model):
  is_servo = model.actuator_biastype == mujoco.mjtBias.mjBIAS_AFFINE
  gain, bias = model.actuator_gainprm, model.actuator_biasprm
  # force = kv (ctrl - qvel)
  np.testing.assert_array_equal(bias[:, 2], np.where(is_servo, -gain[:, 0], 0))
  assert not bias[:, :2].any()
  assert model.actuator_ctrllimited.all()
  assert model.actuator_forcelimited.all()
  dofs = model.jnt_dofadr[model.actuator_trnid[:, 0]]
  is_arm = model.dof_armature[dofs] >= 0.1
  assert is_arm[is_servo].all()
  assert is_arm.sum() >= 6
  is_driven = is_servo | (model.dof_damping[dofs] > 0)  # no arm joint runs away
  assert is_driven[is_arm].all()


def test_home_is_at_rest_and_off_the_limits(model):
  assert model.key(0).name == 'home'
  assert not model.key(0).qvel.any()
  assert not model.key(0).ctrl.any()
  driven = model.actuator_trnid[:, 0]
  turns = model.jnt_type[driven] == mujoco.mjtJoint.mjJNT_HINGE
  margin = np.zeros(model.njnt)  # 15 degrees for what is driven and turns
  margin[driven[turns]] = np.deg2rad(15)
  home = model.key(0).qpos[model.jnt_qposadr]
  limited = model.jnt_limited.astype(bool)
  assert (home > model.jnt_range[:, 0] + margin)[limited].all()
  assert (home < model.jnt_range[:, 1] - margin)[limited].all()


def test_it_can_be_looked_at(model):
  assert model.camera('over_view').id >= 0
  assert model.nmat > 0  # without a material mjx.ray fails
  assert model.vis.global_.offwidth >= 640
  assert model.vis.global_.offheight >= 480


def test_reach_shows_its_target(arm):
  assert arm.body('target').mocapid[0] >= 0


def test_the_arm_has_the_published_numbers(arm):
  np.testing.assert_allclose(arm.body_subtreemass[0], 23.9)
  limits = np.deg2rad([170, 120, 170, 120, 170, 120, 175])
  np.testing.assert_allclose(arm.jnt_range, np.stack([-limits, limits], 1))
  speeds = np.deg2rad([98, 98, 100, 130, 140, 180, 180])
  np.testing.assert_allclose(arm.actuator_ctrlrange[:, 1], speeds, atol=1e-4)
  torques = [176, 176, 110, 110, 110, 40, 40]
  np.testing.assert_allclose(arm.actuator_forcerange[:, 1], torques)
  for both in (arm.actuator_ctrlrange, arm.actuator_forcerange):
    np.testing.assert_array_equal(both[:, 0], -both[:, 1])
  assert not arm.opt.gravity.any()


def test_the_arm_has_the_published_lengths_and_axes(arm):
  data = mujoco.MjData(arm)  # at zero it stands upright
  mujoco.mj_kinematics(arm, data)
  shoulder, elbow, wrist = (data.joint(f'joint_{i}').xanchor for i in (2, 4, 6))
  flange = data.site('end_effector').xpos
  points = np.stack([np.zeros(3), shoulder, elbow, wrist, flange])
  heights = [0.340, 0.400, 0.400, 0.126]
  np.testing.assert_allclose(np.diff(points, axis=0)[:, 2], heights, atol=1e-9)
  np.testing.assert_allclose(points[:, :2], 0, atol=1e-9)
  z, y = [0, 0, 1], [0, 1, 0]
  np.testing.assert_allclose(np.abs(data.xaxis), [z, y, z, y, z, y, z], atol=1e-9)


def test_the_arm_is_far_from_singular_at_home(arm):
  data = mujoco.MjData(arm)
  mujoco.mj_resetDataKeyframe(arm, data, 0)
  mujoco.mj_forward(arm, data)
  jacobian = np.zeros((6, 7))
  site = arm.site('end_effector').id
  mujoco.mj_jacSite(arm, data, jacobian[:3], jacobian[3:], site)
  assert np.linalg.svd(jacobian[:3], compute_uv=False).min() > 0.2
  assert np.linalg.svd(jacobian, compute_uv=False).min() > 0.05


@pytest.mark.parametrize('sign', [-1, 1])
@pytest.mark.parametrize('joint', range(7))
def test_the_arm_reaches_a_velocity_in_about_one_control_step(arm, joint, sign):
  data = mujoco.MjData(arm)
  mujoco.mj_resetDataKeyframe(arm, data, 0)
  data.ctrl[joint] = sign * arm.actuator_ctrlrange[joint, 1]
  part = []
  for _ in range(30):
    mujoco.mj_step(arm, data)
    part.append(data.qvel[joint] / data.ctrl[joint])
  assert part[9] > 0.9
  assert max(part) < 1.01  # no overshoot, no oscillation
  assert (np.diff(part) > -0.01).all()
  assert part[-1] > 0.99


def test_the_arm_stops_at_its_limits(arm):
  rng = np.random.default_rng(0)
  data = mujoco.MjData(arm)
  mujoco.mj_resetDataKeyframe(arm, data, 0)
  for _ in range(100):
    data.ctrl[:] = rng.choice([-1, 1], 7) * arm.actuator_ctrlrange[:, 1]
    mujoco.mj_step(arm, data, 100)
    assert (np.abs(data.qpos) < arm.jnt_range[:, 1] + 0.06).all()
