"""What tests of tasks share: the numbers that runs are built from, scripts."""

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


@pytest.fixture(scope='session')
def scripts():
  """Name of a task -> `task -> policy`, where a script solves it from observations."""
  return {'pick_place': _Lifter}
