"""Kinova's 6-DoF JACO arm with its three-finger hand, from dm_control's model.

dm_control (https://github.com/google-deepmind/dm_control, pip install dm-control) has
its bodies, masses and meshes; they are read from the installed package and nothing of
it is copied here. What is ours makes it fit for MJX and for velocity control:

  - The meshes collide with nothing. Capsules in their place, two a finger, do, and only
    with the geoms that the caller names.
  - The arm compensates its own weight, as the real one does.
  - The arm's joints have a tenth of dm_control's armature, so that they are controlled
    by velocity: within 0.04 s they have the one that was commanded, not within 0.25 s.
  - Joints have no dry friction. Servos and dampers outdo it, and whether a joint sticks
    is where solvers of few iterations part: MJX was 1e-3 from native within 0.5 s.
  - A finger's action is its torque. dm_control's is a velocity, under a limit of 1 Nm,
    with which the hand closes in 1.2 s and grips with 25 N, as Kinova's does.
"""

from __future__ import annotations

from importlib import util
import pathlib

import mujoco
import numpy as np

ARM = tuple(f'arm/joint_{i}' for i in range(1, 7))
FINGERS = tuple(f'hand/finger_{i}' for i in range(1, 4))
LINKS = (
  *('arm/base', *(f'arm/link_{i}' for i in range(1, 6)), 'hand/link_6_main'),
  *(f'hand/finger_knuckle_{i}' for i in range(1, 4)),
  *(f'hand/finger_tip_{i}' for i in range(1, 4)),
)  # its meshes, from the base to the tips
TIPS = tuple(f'tip_{i}' for i in range(1, 4))  # sites
GRIP = 'hand/gripsite'  # where the fingers meet when closed

_FOLDER = pathlib.Path('third_party', 'kinova')
# Kinova's limits of its KA-75+ and KA-58 actuators, as in dm_control.
_SPEEDS = np.deg2rad([36, 36, 36, 48, 48, 48])
_TORQUES = (30.5, 30.5, 30.5, 6.8, 6.8, 6.8)  # Nm
_FINGER_TORQUE = 1.0  # Nm; dm_control
_TIMESTEP = 0.005  # s, for which the gains are
_ARMATURES = (0.4, 0.4, 0.4, 0.2, 0.2, 0.2)  # kg m^2; ours, see above


def attach(scene: mujoco.MjSpec, grasped: str) -> None:
  """Puts the arm at the scene's origin, upright, with what drives and touches it.

  Args:
    scene: is changed. It gets the joints `ARM` and `FINGERS`, with an actuator of the
      same name each, in that order, the geoms `LINKS`, the sites `TIPS` and `GRIP`, and
      a sensor for each of the
      fingers' capsules: how many contacts it has.
    grasped: name of the geom that the fingers and the palm collide with.

  Raises:
    ModuleNotFoundError: dm_control is not installed.
  """
  folder = _folder()
  arm = mujoco.MjSpec.from_file(str(folder / 'jaco_arm.xml'))
  hand = mujoco.MjSpec.from_file(str(folder / 'jaco_hand.xml'))
  for part in (arm, hand):
    _simplify(part)
  scene.attach(arm, prefix='arm/', frame=scene.worldbody.add_frame())
  scene.attach(hand, prefix='hand/', site=scene.site('arm/wristsite'))
  for body in scene.body('arm/b_base').find_all('body'):
    body.gravcomp = 1
  for capsule in _add_capsules(scene):
    _add_contact(scene, capsule, grasped)
  _add_actuators(scene)


def _folder() -> pathlib.Path:
  found = util.find_spec('dm_control')  # found, not imported: that would take a second
  if found is None or found.origin is None:
    raise ModuleNotFoundError(
      'dm_control has the model of the JACO arm: pip install dm-control'
    )
  return pathlib.Path(found.origin).parent / _FOLDER


def _simplify(part: mujoco.MjSpec) -> None:
  for geom in part.geoms:
    geom.contype = geom.conaffinity = 0
    geom.group = 2
  for joint in part.joints:
    joint.frictionloss = 0


def _add_capsules(scene: mujoco.MjSpec) -> list[str]:
  """Adds the shapes that collide and the tips' sites; returns the capsules' names."""
  shapes: dict[str, tuple[str, tuple[float, ...], float]] = {}
  shapes['palm'] = ('hand/hand', (0, 0, -0.06, 0, 0, -0.09), 0.035)
  for i in range(1, 4):
    knuckle, tip = f'hand/b_finger_{i}', f'hand/b_finger_tip_{i}'
    shapes[f'knuckle_{i}'] = (knuckle, (0.002, -0.008, 0, 0.040, -0.008, 0), 0.011)
    shapes[f'tip_{i}'] = (tip, (0, -0.004, 0, 0.035, -0.004, 0), 0.009)
    scene.body(tip).add_site(scene.default, name=f'tip_{i}', pos=(0.035, -0.004, 0))
  for name, (body, ends, radius) in shapes.items():
    # Of the scene's default class: the hand's says that geoms are meshes.
    scene.body(body).add_geom(
      scene.default,
      name=name,
      type=mujoco.mjtGeom.mjGEOM_CAPSULE,
      fromto=ends,
      size=(radius, 0, 0),
      mass=0,
      group=3,
    )
  return list(shapes)


def _add_contact(scene: mujoco.MjSpec, capsule: str, grasped: str) -> None:
  """Lets a capsule collide with what is grasped; tells whether a finger's does."""
  tip = capsule.startswith('tip')
  scene.add_pair(
    geomname1=capsule,
    geomname2=grasped,
    condim=4 if tip else 3,
    friction=(1.0, 1.0, 0.01, 0.0001, 0.0001),
  )
  if capsule == 'palm':
    return
  scene.add_sensor(
    name=f'touch_{capsule}',
    type=mujoco.mjtSensor.mjSENS_CONTACT,
    objtype=mujoco.mjtObj.mjOBJ_GEOM,
    objname=capsule,
    reftype=mujoco.mjtObj.mjOBJ_GEOM,
    refname=grasped,
    intprm=(1 << int(mujoco.mjtConDataField.mjCONDATA_FOUND), 1, 1),
  )


def _add_actuators(scene: mujoco.MjSpec) -> None:
  """Adds velocity servos to the arm's joints and torques to the fingers'."""
  for joint, speed, torque, armature in zip(
    ARM, _SPEEDS, _TORQUES, _ARMATURES, strict=True
  ):
    scene.joint(joint).armature = armature
    servo = _add_actuator(scene, joint, speed, torque)
    servo.set_to_velocity(kv=armature / _TIMESTEP)
  for joint in FINGERS:
    motor = _add_actuator(scene, joint, _FINGER_TORQUE, _FINGER_TORQUE)
    motor.set_to_motor()


def _add_actuator(
  scene: mujoco.MjSpec, joint: str, ctrl: float, force: float
) -> mujoco.MjsActuator:
  return scene.add_actuator(
    name=joint,
    target=joint,
    trntype=mujoco.mjtTrn.mjTRN_JOINT,
    ctrllimited=True,
    ctrlrange=(-ctrl, ctrl),
    forcelimited=True,
    forcerange=(-force, force),
  )
