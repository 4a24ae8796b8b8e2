"""What tests of tasks share: the numbers that runs are built from, scripts."""

import functools

import mujoco
import numpy as np
import pytest

from armfarm.configs import tasks
from armfarm.envs import jaco


@pytest.fixture(scope='session')
def numbers():
  """Name of a task -> arguments of its `make`."""
  found = {name: make().to_dict() for name, make in tasks.TASKS.items()}
  return {
    name: {k: v for k, v in numbers.items() if k != 'name'}
    for name, numbers in found.items()
  }


@pytest.fixture(scope='session')
def opengl():
  """Skips a test of pictures where there can be none."""
  try:
    mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8).close()
  except Exception as error:  # each of the OpenGL libraries has errors of its own
    pytest.skip(f'no OpenGL, no picture: {error!r}')


class _Lifter:
  """Closes the fingers on the stick, then lifts it by differential inverse kinematics.

  It knows how links carry their joints, but sees what any policy sees: observations
  [I 174].
  """

  _CLOSED = 0.13  # m, the tips' distances from the stick together
  _SQUEEZE = (1.0, 0.5, 0.5)  # two fingers against one

  def __init__(self, task):
    model = task.model
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_kinematics(model, data)
    grip = data.site(jaco.GRIP).xpos
    self._max_velocity = task.control(None, np.ones(task.action_size))[:6]
    self._axes, self._anchors = np.zeros((2, 6, 3))
    for i, (joint, link) in enumerate(zip(jaco.ARM, jaco.LINKS[1:7], strict=True)):
      joint, geom = data.joint(joint), data.geom(link)
      into = geom.xmat.reshape(3, 3).T
      self._axes[i] = into @ joint.xaxis
      self._anchors[i] = into @ (joint.xanchor - geom.xpos)
    self._grip = into @ (grip - geom.xpos)

  def __call__(self, observations):
    """Observations [I 174] -> actions [I 9]."""
    rows = observations.astype(np.float64)
    places = rows[:, :42].reshape(-1, 14, 3)
    turns = rows[:, 42:168].reshape(-1, 14, 3, 3)
    tips, stick = places[:, 10:13], places[:, 13:]
    is_closed = np.linalg.norm(tips - stick, axis=-1).sum(axis=-1) < self._CLOSED
    jacobian = self._jacobian(places[:, 1:7], turns[:, 1:7])
    transposed = jacobian.swapaxes(-1, -2)
    damped = jacobian @ transposed + 0.01**2 * np.eye(6)
    wanted = np.pad(4 * rows[:, 171:], ((0, 0), (0, 3)))[..., None]  # and no turning
    velocity = (transposed @ np.linalg.solve(damped, wanted))[..., 0]
    part = is_closed[:, None] * velocity / self._max_velocity
    part /= np.maximum(1, np.abs(part).max(axis=-1, keepdims=True))
    return np.concatenate([part, np.tile(self._SQUEEZE, (len(part), 1))], axis=-1)

  def _jacobian(self, links, turns):
    """Places [I 6 3] and rotations [I 6 3 3] of the links -> the grip's [I 6 6]."""
    axes = (turns @ self._axes[..., None])[..., 0]
    anchors = links + (turns @ self._anchors[..., None])[..., 0]
    grip = links[:, -1:] + turns[:, -1:] @ self._grip
    columns = np.concatenate([np.cross(axes, grip - anchors), axes], axis=-1)
    return columns.swapaxes(-1, -2)


class _Opener:
  """Opens doors by differential inverse kinematics: over the lever, down, then along.

  It knows the model, but sees what any policy sees: observations [I O].
  """

  _SPOT = 0.08  # m along the lever, where the hook lies
  _UPRIGHT = 0.15  # m; so much does a radian of tilt count

  def __init__(self, task, side):
    self._side = side
    self._model = task.model
    self._data = mujoco.MjData(task.model)
    self._hook = task.model.site('door/hook').id
    self._max_velocity = task.control(None, np.ones(task.action_size))

  def __call__(self, observations):
    return np.stack([self._act(row) for row in observations.astype(np.float64)])

  def _act(self, row):
    """One observation [O] -> one action [A]."""
    goal = self._where_next(row[14:17], row[20:23], *row[23:25])
    position, axes, jacobian = self._kinematics(row[:7])
    level = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # teeth down, stem ahead
    tilt = np.cross(axes, level, axis=0).sum(axis=1) / 2
    error = np.concatenate([goal - position, self._UPRIGHT * tilt])
    damped = jacobian @ jacobian.T + 0.05**2 * np.eye(6)
    velocity = 4 * jacobian.T @ np.linalg.solve(damped, error)
    return np.clip(velocity / self._max_velocity, -1, 1)

  def _where_next(self, hook, hinge, door, handle):
    """Where the hook [3] is to go, given the door's hinge [3] and angles."""
    if handle < 0.3 and abs(door) < 0.02:
      above = self._lever(hinge, 0.0, 0.0, lift=0.05)
      off = np.linalg.norm((hook - above)[:2])
      if off > 0.05:
        return self._lever(hinge, 0.0, 0.0, lift=0.1)
      return above if off > 0.02 else self._lever(hinge, 0.0, 0.5)
    if handle < np.deg2rad(62) and abs(door) < 0.02:
      return self._lever(hinge, door, min(handle + 0.6, 1.4))
    ahead = np.clip(door + 0.25 * self._side, -0.6, 0.6)
    return self._lever(hinge, ahead, np.deg2rad(75))

  def _lever(self, hinge, door, handle, lift=0.027):
    """A spot [3] `lift` over the lever, of a door and a handle at these angles."""
    along = np.array([0, np.cos(handle), -np.sin(handle)])
    over = np.array([0, np.sin(handle), np.cos(handle)])
    spot = np.array([-0.12, -0.44, 0]) + self._SPOT * along + lift * over
    cosine, sine = np.cos(door), np.sin(door)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return hinge + turn @ spot

  def _kinematics(self, angles):
    """The hook's place [3], axes [3 3] and Jacobian [6 7], its tilt in metres."""
    model, data = self._model, self._data
    data.qpos[:7] = angles
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    jacobian = np.zeros((6, model.nv))
    mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._hook)
    jacobian[3:] *= self._UPRIGHT
    axes = data.site_xmat[self._hook].reshape(3, 3)
    return data.site_xpos[self._hook].copy(), axes, jacobian[:, :7]


class _Pusher:
  """Brings the points of the torque-controlled arm to their goal.

  Velocities by damped inverse kinematics, torques from how far these are off. It knows
  the model, but sees what any policy sees: observations [I 41].
  """

  def __init__(self, task, where):
    self._where = where
    self._model = task.model
    self._data = mujoco.MjData(task.model)
    self._sites = [task.model.site(f'point_{i}').id for i in (1, 2, 3)]
    self._max_torque = task.control(None, np.ones(task.action_size))
    self._damping = task.model.dof_damping[:7]

  def __call__(self, observations):
    return np.stack([self._act(row) for row in observations.astype(np.float64)])

  def _act(self, row):
    """One observation [41] -> one action [7]."""
    angles, velocities, pose, goal = row[:7], row[7:14], row[14:23], row[32:]
    jacobian = self._jacobian(angles)
    damped = jacobian @ jacobian.T + 0.02**2 * np.eye(9)
    error = self._where(pose, goal) - pose
    wanted = 2.5 * jacobian.T @ np.linalg.solve(damped, error)
    torque = self._damping * (2 * wanted - velocities)
    return np.clip(torque / self._max_torque, -1, 1)

  def _jacobian(self, angles):
    """Of the points, [9 7]."""
    model, data = self._model, self._data
    data.qpos[:7] = angles
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    jacobian = np.zeros((3, 3, model.nv))
    for rows, site in zip(jacobian, self._sites, strict=True):
      mujoco.mj_jacSite(model, data, rows, None, site)
    return jacobian.reshape(9, -1)


class _Grasper:
  """Goes over an object with room around it, turns across, closes, rises; tries again.

  It sees what any policy sees of `grasp_state`: observations [I O].
  """

  _STEP = 0.06  # m, of an action of one
  _REACH = (0.105, 0.06)  # m, from the bin's middle: an open hand has room there
  _TRIED = 0.05  # m, of height, at which it looks what it has

  def __init__(self, task):
    del task

  def __call__(self, observations):
    """Observations [I O] -> actions [I 8]."""
    rows = observations.astype(np.float64)
    return np.stack([self._act(row[:6], row[6:].reshape(-1, 12)) for row in rows])

  def _act(self, gripper, things):
    things = things[things[:, 9:].any(axis=1)]
    is_closed, height = gripper[4] > 0.5, gripper[5]
    action = np.array([0.0, 0, 0, 0, 1, 0, 0, 0])
    if is_closed and height > 0.14:
      action[7] = 1
    elif is_closed and height > self._TRIED and not self._has(things):
      action[6] = 1
    elif is_closed:
      action[2] = 1
    else:
      self._approach(action, gripper, things)
    return action

  def _has(self, things):
    return (np.linalg.norm(things[:, :3], axis=1) < 0.05).any()

  def _approach(self, action, gripper, things):
    """Fills in an action that comes nearer to a grasp, or closes."""
    off = np.abs(gripper[:2] + things[:, :2]) > self._REACH
    apart = np.linalg.norm(things[:, None, :2] - things[:, :2], axis=-1)
    apart += np.eye(len(things))
    room = np.minimum(apart.min(axis=1), 0.08)  # for the fingers
    far = np.linalg.norm(things[:, :2], axis=1)
    thing = things[(far + off.any(axis=1) - 3 * room).argmin()]
    turn = self._across(thing, np.arctan2(*gripper[2:4]))
    action[3:5] = np.sin(turn), np.cos(turn)
    action[:2] = np.clip(thing[:2] / self._STEP, -1, 1)
    if np.abs(thing[:2]).max() > 0.012 or abs(turn) > 0.3:
      return
    down = max(thing[2] - 0.015, 0.008 - gripper[5])
    action[2] = np.clip(down / self._STEP, -1, 1)
    action[5] = abs(down) < 0.006

  def _across(self, thing, heading):
    """The turn, rad, after which the fingers close where the box is narrowest."""
    first, second = thing[3:9].reshape(3, 2).T
    axes = np.stack([first, second, np.cross(first, second)], axis=1)
    angles = np.linspace(-np.pi / 2, np.pi / 2, 37)
    sides = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    narrow = angles[(np.abs(sides @ axes) @ thing[9:]).argmin()]
    return (narrow - heading) % np.pi - np.pi / 2  # at home they close along y


def _straight(pose, goal):
  del pose
  return goal


def _from_above(pose, goal):
  """Over the hole and upright first, then down into it: poses [9]."""
  apart = np.linalg.norm((pose - goal)[[0, 1, 3, 4]])
  if apart < 0.02 or pose[2] - goal[2] < 0.24:
    return goal
  return goal + np.tile([0, 0, 0.3], 3)


@pytest.fixture(scope='session')
def scripts():
  """Name of a task -> `task -> policy`, where a script solves it from observations."""
  return {
    'door_push': functools.partial(_Opener, side=1),
    'door_pull': functools.partial(_Opener, side=-1),
    'pick_place': _Lifter,
    'reach_torque': functools.partial(_Pusher, where=_straight),
    'peg': functools.partial(_Pusher, where=_from_above),
    'grasp_state': _Grasper,
  }
