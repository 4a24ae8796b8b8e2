"""What tests of tasks share: the numbers that runs are built from, a scripted arm."""

import mujoco
import numpy as np
import pytest

from armfarm.configs import tasks


@pytest.fixture(scope='session')
def numbers():
  """Name of a task -> arguments of its `make`."""
  found = {name: make().to_dict() for name, make in tasks.TASKS.items()}
  return {
    name: {k: v for k, v in numbers.items() if k != 'name'}
    for name, numbers in found.items()
  }


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


@pytest.fixture(scope='session')
def opener():
  """`(task, side) -> policy`, which opens its doors; side 1 pushes, -1 pulls."""
  return _Opener
