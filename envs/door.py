"""Opening a door by its handle, pushing or pulling, with the 7-DoF arm.

"Deep Reinforcement Learning for Robotic Manipulation with Asynchronous
Off-Policy Updates" by Gu et al. (https://arxiv.org/abs/1610.00633), section
V-A.2. A spring closes the door, and a latch lets it go only while its handle is turned
far enough. The arm brings its end effector e, a hook, to where the handle is at rest,
h, and the handle's quaternion q to q_o, which it has turned and opened; q_i is q at
rest. The action u is the joint velocity, as a part of what each joint may do:

  r(x, u) = -c1 d(h, e(x)) + c2 (-d(q_o, q(x)) + d_i) - c3 u'u,    d_i = d(q_o, q_i)
  d(y, z) = huber(|y - z|), as in `reach.py`.

The door stands elsewhere in every episode, which is the goal g of `task.py`. Nothing
ends the episode but its time limit. Letters as there, with G = 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from armfarm.envs import arrays
from armfarm.envs import task

_SUBSTEPS = 10  # of 0.005 s: the arm is controlled at 20 Hz, section V
_FLANGE = (0.0, 0.0, 0.045)  # on link_7, m
_HOME = (0.0, -0.26, 0.0, -1.57, 0.0, 0.26, 0.0)  # rad: the hook above the lever, level
_CATCH = np.deg2rad(1.0)  # rad from shut: where the latch catches the door
_LINKS = ('link_5', 'wrist', 'link_7')  # of the arm, which may meet
_PARTS = ('panel', 'lever')  # of the door
_CONTACT = (0.01, 1.0)  # `solref`, and
_FRICTION = (0.6, 0.6, 0.005, 0.0001, 0.0001)  # as of the pairs in door.xml
_CAMERA = (-0.75, -1.45, 1.35)  # m
_CAMERA_AXES = (0.77, -0.64, 0.0, 0.25, 0.29, 0.92)  # to the right and up
_SIDES = {'door_push': 1.0, 'door_pull': -1.0}  # the sign of the door's angle


class Numbers(NamedTuple):
  """The numbers of a door task, from `configs/tasks.py`.

  Attributes:
    distance_weight: c1, reward per m^2; positive.
    opening_weight: c2, reward per squared distance of quaternions; positive.
    control_weight: c3, reward per squared action; not negative.
    distance_delta: where the Huber loss of distances becomes a line, m.
    opening_delta: the same for quaternions.
    turned_angle: of the handle in q_o, degrees; in (0, 90].
    opened_angle: of the door in q_o, degrees in the direction asked for; in (0, 90].
    release_angle: of the handle, past which the latch lets go, degrees; in (0, 90].
    success_angle: of the door at the last step, degrees in the direction asked for;
      in (0, 90].
    speed: what an action of one commands, as a part of each joint's velocity limit;
      in (0, 1].
    hinge_center: middle of where the door's hinge may stand, [3], m.
    hinge_range: size of the rectangle around it, along x and y, [2], m.
    episode_steps: control steps of 0.05 s.
  """

  distance_weight: float
  opening_weight: float
  control_weight: float
  distance_delta: float
  opening_delta: float
  turned_angle: float
  opened_angle: float
  release_angle: float
  success_angle: float
  speed: float
  hinge_center: Sequence[float]
  hinge_range: Sequence[float]
  episode_steps: int


class _Rows(NamedTuple):
  """Where the parts of the model stand in the arrays of `data`."""

  hinge: int
  handle: int
  handle_body: int
  hook: int


class _Door(NamedTuple):
  """One door task; its methods are the functions of `Task`.

  Attributes:
    numbers: see there.
    side: 1 to push, -1 to pull.
    rows: see there.
    max_velocity: what an action of one commands, [7], rad/s.
    handle_at_rest: from the hinge to h, [3], m.
    opened: q_o, [4].
    offset: d_i.
  """

  numbers: Numbers
  side: float
  rows: _Rows
  max_velocity: np.ndarray
  handle_at_rest: np.ndarray
  opened: np.ndarray
  offset: float

  def reset(self, key: chex.PRNGKey) -> task.Start:
    part = jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)
    offset = jnp.append(part * jnp.asarray(self.numbers.hinge_range), 0.0)
    home = jnp.asarray((*_HOME, 0.0, 0.0))
    return task.Start(home, jnp.zeros_like(home), self._center + offset)

  def place(self, goal: task.Array) -> task.Array:
    return goal[..., None, :]

  def latched(self, data: task.Data) -> task.Array:
    """Whether the latch holds: it is let go by the handle, and caught by the door."""
    release = np.deg2rad(self.numbers.release_angle)
    turned = data.qpos[..., self.rows.handle, None] >= release
    closed = abs(data.qpos[..., self.rows.hinge, None]) < _CATCH
    return ~turned & (closed | (data.eq_active > 0.5))

  def control(self, data: task.Data, action: task.Array) -> task.Array:
    del data
    return action * arrays.aligned(self.max_velocity, action)

  def observe(self, data: task.Data, goal: task.Array) -> task.Array:
    arm = len(_HOME)
    xp = arrays.namespace(data.qpos)
    parts = (
      data.qpos[..., :arm],
      data.qvel[..., :arm],
      self._end_effector(data),
      self._handle_at_rest(goal),
      goal,
      data.qpos[..., self.rows.hinge, None],
      data.qpos[..., self.rows.handle, None],
    )
    return xp.concatenate(parts, axis=-1).astype(np.float32)

  def reward(self, data: task.Data, goal: task.Array, action: task.Array) -> task.Array:
    numbers = self.numbers
    reach = arrays.distance(self._handle_at_rest(goal), self._end_effector(data))
    quaternion = data.xquat[..., self.rows.handle_body, :]
    opening = arrays.distance(arrays.aligned(self.opened, action), quaternion)
    gained = self.offset - arrays.huber(opening, numbers.opening_delta)
    reward = (
      -numbers.distance_weight * arrays.huber(reach, numbers.distance_delta)
      + numbers.opening_weight * gained
      - numbers.control_weight * (action * action).sum(axis=-1)
    )
    return reward.astype(np.float32)

  def success(self, data: task.Data, goal: task.Array) -> task.Array:
    del goal
    angle = self.side * data.qpos[..., self.rows.hinge]
    return angle >= np.deg2rad(self.numbers.success_angle)

  @property
  def _center(self) -> np.ndarray:
    return np.asarray(self.numbers.hinge_center, np.float32)

  def _end_effector(self, data: task.Data) -> task.Array:
    return data.site_xpos[..., self.rows.hook, :]

  def _handle_at_rest(self, goal: task.Array) -> task.Array:
    return goal + arrays.aligned(self.handle_at_rest, goal)


def make(name: str, **numbers: Any) -> task.Task:
  """Builds a door task; its numbers are in `configs/tasks.py`.

  Args:
    name: `door_push` or `door_pull`.
    **numbers: those of `Numbers`.

  Returns:
    The task, with O = 25: joint angles (7, rad), joint velocities (7, rad/s), end
    effector (3, m), handle at rest (3, m), door frame (3, m), door (rad), handle
    (rad); A = 7.

  Raises:
    TypeError: a number is missing or unknown.
    ValueError: a number is out of its range.
  """
  checked = _checked(Numbers(**numbers))
  model = _load()
  functions = _functions(model, checked, _SIDES[name])
  return task.Task(
    name=name,
    model=model,
    substeps=_SUBSTEPS,
    episode_steps=checked.episode_steps,
    observation_size=2 * len(_HOME) + 3 + 3 + 3 + 2,
    action_size=model.nu,
    reset=functions.reset,
    control=functions.control,
    observe=functions.observe,
    reward=functions.reward,
    success=functions.success,
    terminated=task.never,
    active=functions.latched,
    movable=(model.body('door/frame').id,),
    place=functions.place,
  )


def _functions(model: mujoco.MjModel, numbers: Numbers, side: float) -> _Door:
  """Looks up what the task reads in the model, and computes q_o and d_i."""
  data = mujoco.MjData(model)
  mujoco.mj_kinematics(model, data)  # the door is shut
  rows = _Rows(
    hinge=model.joint('door/hinge').qposadr[0],
    handle=model.joint('door/handle').qposadr[0],
    handle_body=model.body('door/handle').id,
    hook=model.site('door/hook').id,
  )
  handle = data.site('door/handle').xpos - data.body('door/frame').xpos
  rest = data.xquat[rows.handle_body].copy()
  data.qpos[rows.hinge] = side * np.deg2rad(numbers.opened_angle)
  data.qpos[rows.handle] = np.deg2rad(numbers.turned_angle)
  mujoco.mj_kinematics(model, data)
  opened = data.xquat[rows.handle_body].copy()
  return _Door(
    numbers=numbers,
    side=side,
    rows=rows,
    max_velocity=numbers.speed * model.actuator_ctrlrange[:, 1],
    handle_at_rest=handle,
    opened=opened,
    offset=float(arrays.huber(arrays.distance(opened, rest), numbers.opening_delta)),
  )


def _load() -> mujoco.MjModel:
  """Joins the door to the world of the arm, and the hook to its flange."""
  assets = resources.files('armfarm.envs') / 'assets'
  arm, door = (
    mujoco.MjSpec.from_string((assets / name).read_text())
    for name in ('arm.xml', 'door.xml')
  )
  for part in (arm.body('target'), arm.geom('pin'), arm.site('end_effector')):
    arm.delete(part)
  arm.worldbody.add_frame().attach_body(door.body('frame'), 'door/', '')
  flange = arm.body('link_7').add_frame(pos=_FLANGE)
  flange.attach_body(door.body('hook'), 'door/', '')
  for link, part in itertools.product(_LINKS, _PARTS):
    pair = arm.add_pair(geomname1=link, geomname2=f'door/{part}', condim=3)
    pair.solref[:], pair.friction[:] = _CONTACT, _FRICTION
  camera = arm.camera('over_view')
  camera.pos, camera.alt.xyaxes = _CAMERA, _CAMERA_AXES
  arm.key('home').qpos = (*_HOME, 0.0, 0.0)
  return arm.compile()


def _checked(numbers: Numbers) -> Numbers:
  for name in ('distance_weight', 'opening_weight', 'distance_delta', 'opening_delta'):
    task.require_positive(name, getattr(numbers, name))
  task.require_positive('episode_steps', numbers.episode_steps)
  task.require_not_negative('control_weight', numbers.control_weight)
  if not 0 < numbers.speed <= 1:
    raise ValueError(f'speed is {numbers.speed}: give a part of the limits in (0, 1]')
  for name in ('turned_angle', 'opened_angle', 'release_angle', 'success_angle'):
    if not 0 < getattr(numbers, name) <= 90:
      raise ValueError(f'{name} is {getattr(numbers, name)}: give degrees in (0, 90]')
  for name, size, least in (('hinge_center', 3, -np.inf), ('hinge_range', 2, 0)):
    value = np.asarray(getattr(numbers, name), np.float64)
    if value.shape != (size,) or not (np.isfinite(value) & (value >= least)).all():
      raise ValueError(f'{name} is {getattr(numbers, name)}: give {size} lengths in m')
  return numbers
