"""The scene of grasping: the 7-DoF arm with a gripper over a bin, and objects in it.

The arm is that of `arm.xml`, under gravity, which it compensates. The bin's bottom is
the floor, at height nought. There are places for K objects, free bodies whose shapes an
episode chooses; see `grasp_objects.py`. Objects of any shapes meet each other, the bin
and the gripper, so that pairs of geometries cannot be listed, as MJX would need it:
this is for native MuJoCo, and what it does better than MJX is used.

Letters as in `task.py`, and [K] places, [P] primitives of one object, [C] cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import mujoco
import numpy as np

from armfarm.envs import camera
from armfarm.envs import grasp_objects as objects

TIP = 'gripper/tip'  # a site between the ends of the fingers
SHOULDER = 'shoulder'  # a camera
CENTER = (0.55, 0.0)  # m, of the bin, under the gripper at home
FRICTION = 0.4  # of the bin and the gripper: of two, MuJoCo takes the larger

_SOLID = 1  # `contype` of what the gripper meets
_FLANGE = (0.0, 0.0, 0.045)  # on link_7, m
_HOME = (
  0.0,
  0.5712,
  0.0,
  -1.5834,
  0.0,
  0.9869,
  0.0,
)  # rad: over the bin, straight down
_OPEN = (0.04, 0.04)  # m, of each finger from the middle
_FINGERS = ('gripper/finger_left', 'gripper/finger_right')
_OVER_AXES = (0.83, 0.55, 0.0, -0.36, 0.55, 0.75)  # to the right and up
_SHOULDER_AXES = (0.758, -0.652, 0.0, 0.422, 0.491, 0.762)
_WALL = 0.01  # m, half of a wall's thickness
_PARKED = -1.0  # m: the height of an object that is not there
# What is held slips out of the contacts of other scenes, in one grasp of four.
_ITERATIONS = (
  50  # of the solver and its line searches, at most: 20 lose half of what is held
)
_STIFFNESS = 100.0  # of friction, of that of contact; an elliptic cone allows for it


class Rows(NamedTuple):
  """Where the parts of the model stand in its arrays and in those of `data`.

  Attributes:
    finger: one of them in `ctrl`.
    force: that closes each of them, N.
    bodies: of the places, [K].
    geoms: [K P].
    dofs: [K 6].
  """

  finger: int
  force: float
  bodies: np.ndarray
  geoms: np.ndarray
  dofs: np.ndarray


class Cells(NamedTuple):
  """Where objects are dropped, one in each cell.

  Attributes:
    middles: [C 3], m.
    half: of their edges along x and y, [2], m.
  """

  middles: np.ndarray
  half: np.ndarray


class Scene(NamedTuple):
  """A scene, without the shapes of its objects.

  Attributes:
    model: at rest in its first keyframe, all objects parked.
    rows: see there.
    library: rows of all objects that can be there, N.
    home: of the arm and the fingers, [9], rad and m.
    parked: poses of objects that are not there, [K 7].
  """

  model: mujoco.MjModel
  rows: Rows
  library: objects.Library
  home: np.ndarray
  parked: np.ndarray


def build(
  bin_size: np.ndarray,
  wall_height: float,
  things: Sequence[objects.Thing],
  places: int,
  quick: bool = False,
) -> Scene:
  """Builds a scene.

  Args:
    bin_size: along x and y, inside, [2], m.
    wall_height: of the bin, m.
    things: that can lie in it, [N].
    places: K, at most N.
    quick: whether to render, see `camera.prepare`.
  """
  parked = np.zeros((places, 7))  # out of sight, and apart
  parked[:, 0], parked[:, 2], parked[:, 3] = np.arange(places), _PARKED, 1.0
  home = np.array((*_HOME, *_OPEN))
  spec = _join()
  if quick:
    camera.prepare(spec)
  _add_walls(spec, bin_size, wall_height)
  for i, thing in enumerate(things[:places]):  # any will do
    objects.add_body(spec, thing, _SOLID, name=f'object_{i}')
  spec.key('home').qpos = (*home, *parked.ravel())
  model = spec.compile()
  rows = _find(model, places)
  model.geom_sameframe[rows.geoms] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
  return Scene(model, rows, objects.compile_things(things, _SOLID), home, parked)


def cells(bin_size: np.ndarray, edge: float, places: int) -> Cells:
  """Divides the room over the bin's bottom into cells, at least one a place.

  Args:
    bin_size: along x and y, inside, [2], m.
    edge: of the cells at least, m.
    places: K.

  Raises:
    ValueError: the bin is narrower than a cell.
  """
  counts = np.floor(bin_size / edge).astype(int)
  if not counts.all():
    raise ValueError(
      f'bin_size is {tuple(bin_size)}: give at least {edge} m, an object'
    )
  half = bin_size / counts / 2
  x, y = (
    middle - length / 2 + own * (1 + 2 * np.arange(count))
    for middle, length, own, count in zip(CENTER, bin_size, half, counts, strict=True)
  )
  z = edge * (0.5 + np.arange(-(-places // counts.prod())))
  return Cells(np.stack(np.meshgrid(x, y, z), axis=-1).reshape(-1, 3), half)


def _join() -> mujoco.MjSpec:
  """Joins the gripper to the arm's flange, and sets what the scene needs."""
  assets = resources.files('armfarm.envs') / 'assets'
  arm, gripper = (
    mujoco.MjSpec.from_string((assets / name).read_text())
    for name in ('arm.xml', 'gripper.xml')
  )
  for part in (arm.body('target'), arm.geom('pin'), arm.site('end_effector')):
    arm.delete(part)
  flange = arm.body('link_7').add_frame(pos=_FLANGE)
  flange.attach_body(gripper.body('gripper'), 'gripper/', '')
  for body in arm.body('base').find_all('body'):
    body.gravcomp = 1
  arm.geom('floor').contype = arm.geom('floor').conaffinity = _SOLID
  arm.compiler.alignfree = True  # as the library's bodies are
  arm.option.gravity = (0, 0, -9.81)
  arm.option.iterations = arm.option.ls_iterations = _ITERATIONS
  arm.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
  arm.option.impratio = _STIFFNESS
  arm.option.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
  # Trees of boxes around a body's geometries are made when a model is compiled.
  arm.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE
  _add_cameras(arm)
  return arm


def _add_cameras(arm: mujoco.MjSpec) -> None:
  """Puts the cameras where they see the bin, one of them over the arm's shoulder."""
  over, shoulder = arm.camera('over_view'), arm.worldbody.add_camera(name=SHOULDER)
  shoulder.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
  over.pos, over.alt.xyaxes, over.fovy = (1.05, -0.75, 0.75), _OVER_AXES, 29.0
  shoulder.pos, shoulder.alt.xyaxes = (0.12, -0.5, 0.62), _SHOULDER_AXES
  shoulder.fovy = 30.0


def _add_walls(scene: mujoco.MjSpec, bin_size: np.ndarray, wall_height: float) -> None:
  """Adds the bin's walls."""
  (x, y), height = bin_size / 2, wall_height / 2
  for sign in (-1, 1):
    for place, size in (
      ((sign * (x + _WALL), 0), (_WALL, y + 2 * _WALL)),
      ((0, sign * (y + _WALL)), (x, _WALL)),
    ):
      scene.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(*np.add(CENTER, place), height),
        size=(*size, height),
        contype=_SOLID,
        conaffinity=_SOLID,
        friction=(FRICTION, 0.005, 0.0001),
        material='joint',
        group=2,
      )


def _find(model: mujoco.MjModel, places: int) -> Rows:
  bodies = np.array([model.body(f'object_{i}').id for i in range(places)])
  finger = model.actuator(_FINGERS[0]).id
  return Rows(
    finger=finger,
    force=float(model.actuator_ctrlrange[finger, 1]),
    bodies=bodies,
    geoms=model.body_geomadr[bodies, None] + np.arange(objects.PRIMITIVES),
    dofs=model.body_dofadr[bodies, None] + np.arange(6),
  )
