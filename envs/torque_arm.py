"""The 7-DoF arm under torque control, and three points on what it holds.

"Collective Robot Reinforcement Learning with Distributed Asynchronous Guided Policy
Search" by Yahya et al. (https://arxiv.org/abs/1610.00673), section V: the state x is
joint angles, joint velocities, and the pose of the end effector as three points on it,
with their velocities. The action u is the joints' torques.

The arm is that of `arm.xml`, with the data sheet's torques: its velocity servos become
motors, and it goes on to compensate its own weight. An action of one is a part of a
joint's torque limit, and each joint has a damper at which that torque ends in the
joint's speed limit: no torque drives the arm beyond its data sheet for long.

Letters as in `task.py`, and [P] = 3 points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from armfarm.envs import arrays
from armfarm.envs import task

SUBSTEPS = 10  # of 0.005 s: control at 20 Hz
JOINTS = 7
STATE_SIZE = 2 * JOINTS + 2 * 9
_POINTS = tuple(f'point_{i}' for i in range(1, 4))  # sites


class Arm(NamedTuple):
  """What tasks read of the arm in a model.

  Attributes:
    home: joint angles at the start, [7], rad.
    max_torque: what an action of one commands, [7], Nm.
    rows: of the points in `site_xpos`, [P].
    offsets: from each joint to the next, all at zero, [7 3], m.
    axes: of the joints, [7 3].
    points: from the last joint, [P 3], m.
  """

  home: np.ndarray
  max_torque: np.ndarray
  rows: np.ndarray
  offsets: np.ndarray
  axes: np.ndarray
  points: np.ndarray

  def control(self, data: task.Data, action: task.Array) -> task.Array:
    """The torques of an action, [B 7], Nm."""
    del data
    return action * arrays.aligned(self.max_torque, action)

  def pose(self, data: task.Data) -> task.Array:
    """Where the points are, [B 9], m."""
    places = data.site_xpos[..., self.rows, :]
    return places.reshape(*places.shape[:-2], -1)

  def state(self, data: task.Data) -> task.Array:
    """x: angles (7), their velocities (7), pose (9), its velocity (9), [B 32]."""
    angles, velocities = data.qpos[..., :JOINTS], data.qvel[..., :JOINTS]
    xp = arrays.namespace(angles)
    parts = (angles, velocities, self.pose(data), data.sensordata)
    return xp.concatenate(parts, axis=-1)

  def forward(self, angles: jax.Array) -> jax.Array:
    """Forward kinematics: the pose [9] of joint angles [7]."""

    def link(
      frame: tuple[jax.Array, jax.Array], at: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
      (place, turn), (offset, axis, angle) = frame, at
      return (place + turn @ offset, turn @ _rotation(axis, angle)), None

    chain = (jnp.asarray(self.offsets), jnp.asarray(self.axes), angles)
    base = (jnp.zeros(3, angles.dtype), jnp.eye(3, dtype=angles.dtype))
    (place, turn), _ = jax.lax.scan(link, base, chain)
    return (place[None] + jnp.asarray(self.points) @ turn.T).ravel()


def _rotation(axis: jax.Array, angle: jax.Array) -> jax.Array:
  """By an angle, rad, about a unit axis [3]: Rodrigues' formula, [3 3]."""
  eye = jnp.eye(3, dtype=axis.dtype)
  cross = jnp.cross(eye, axis[None])
  along = axis[:, None] * axis[None]
  return jnp.cos(angle) * (eye - along) + jnp.sin(angle) * cross + along


def prepare(
  arm: mujoco.MjSpec, torque: float, body: str, points: Sequence[Sequence[float]]
) -> None:
  """Turns the servos of `arm.xml` into motors, and adds the points.

  Args:
    arm: is changed. Its sensors become the points' velocities, [9], in m/s.
    torque: what an action of one commands, as a part of each joint's limit; in (0, 1].
    body: that the points belong to.
    points: in its frame, [P 3], m.

  Raises:
    ValueError: the torque is out of its range.
  """
  if not 0 < torque <= 1:
    raise ValueError(f'torque is {torque}: give a part of the limits in (0, 1]')
  for actuator in arm.actuators:
    joint = arm.joint(actuator.target)
    most, fastest = torque * actuator.forcerange[1], actuator.ctrlrange[1]
    joint.damping[0] = most / fastest
    actuator.set_to_motor()
    actuator.name = joint.name.replace('joint', 'torque')
    actuator.ctrlrange = actuator.forcerange
  for name, place in zip(_POINTS, points, strict=True):
    arm.body(body).add_site(arm.default, name=name, pos=place)
    arm.add_sensor(
      name=name,
      type=mujoco.mjtSensor.mjSENS_FRAMELINVEL,
      objtype=mujoco.mjtObj.mjOBJ_SITE,
      objname=name,
    )


def find(model: mujoco.MjModel, torque: float) -> Arm:
  """Looks up in a model what tasks read of the arm; `torque` as in `prepare`."""
  links = [model.body(f'link_{i}').id for i in range(1, JOINTS + 1)]
  joints = [model.joint(f'joint_{i}').id for i in range(1, JOINTS + 1)]
  rows = np.array([model.site(name).id for name in _POINTS])
  data = mujoco.MjData(model)
  mujoco.mj_kinematics(model, data)  # at zero, where every frame is the world's
  return Arm(
    home=model.key('home').qpos[:JOINTS].copy(),
    max_torque=torque * model.actuator_forcerange[:, 1],
    rows=rows,
    offsets=model.body_pos[links].copy(),
    axes=model.jnt_axis[joints].copy(),
    points=data.site_xpos[rows] - data.xpos[links[-1]],
  )
