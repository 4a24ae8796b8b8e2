"""Cartesian commands for the 7-DoF arm, by differential inverse kinematics.

The arm holds a tool that points straight down. A command moves the tool's tip by a
vector and turns it about the vertical, within bounds; what tilt has crept in is taken
out on the way. With the tool's Jacobian J, the joints are to turn by

  dq = J+ dx + (1 - J+ J) k (q_home - q),   J+ = J' (J J' + damping^2)^-1,

so that the one freedom that is left goes back to where the arm began. It runs on native
MuJoCo, in numpy. Letters as in `task.py`, and [J] = 7 joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from armfarm.envs import task

JOINTS = 7
_LAG = 0.02  # s, in which a servo of `arm.xml` follows its command to 1 - 1/e
_DAMPING = 0.02  # m or rad: what of a direction is left near a singularity
_POSTURE = 0.1  # k, of a control step
_DOWN = np.array([0.0, 0.0, -1.0])


class Bounds(NamedTuple):
  """Where the tool may be.

  Attributes:
    low: least x, y and z of the tip, [3], m.
    high: greatest x, y and z of the tip, [3], m.
    turn: greatest angle from the home position either way, rad.
  """

  low: np.ndarray
  high: np.ndarray
  turn: float


class Mover(NamedTuple):
  """Turns Cartesian commands into joint velocities.

  Attributes:
    bounds: see there.
    period: between two commands, s.
    home: joint angles, [J], rad.
    max_velocity: of the joints, [J], rad/s.
    tip: the tool's row in `site_xpos`.
  """

  bounds: Bounds
  period: float
  home: np.ndarray
  max_velocity: np.ndarray
  tip: int

  def position(self, data: task.Data) -> task.Array:
    """Where the tip is, [B 3], m."""
    return data.site_xpos[..., self.tip, :]

  def heading(self, data: task.Data) -> task.Array:
    """How far the tool is turned from home about the vertical, [B], rad."""
    side = self._matrix(data)[..., :, 1]  # at home along the world's y
    return np.arctan2(-side[..., 0], side[..., 1])

  def velocity(
    self, data: task.Data, motion: task.Array, turn: task.Array
  ) -> task.Array:
    """The joints' velocities that carry out a command in one control step.

    Args:
      data: of the simulation.
      motion: of the tip, [B 3], m.
      turn: about the vertical, [B], rad.

    Returns:
      [B J], rad/s; all slower by one factor where one joint would be too fast.
    """
    here, heading = self.position(data), self.heading(data)
    low, high, most = self.bounds
    ahead = np.clip(here + motion, low, high) - here
    turned = np.clip(heading + turn, -most, most) - heading
    tilt = np.cross(self._matrix(data)[..., :, 2], _DOWN)
    spin = tilt + turned[..., None] * -_DOWN
    change = self._joints(data, np.concatenate([ahead, spin], axis=-1))
    # A servo that starts at the present velocity loses or gains what it lags behind.
    moving = data.qvel[..., :JOINTS]
    velocity = (change - _LAG * moving) / (self.period - _LAG)
    excess = (np.abs(velocity) / self.max_velocity).max(axis=-1, keepdims=True)
    return velocity / np.maximum(excess, 1.0)

  def _matrix(self, data: task.Data) -> task.Array:
    every = data.site_xmat[..., self.tip, :]
    return every.reshape(*every.shape[:-1], 3, 3)

  def _joints(self, data: task.Data, change: task.Array) -> task.Array:
    """dq, [B J], rad, of a change of the tool's pose, [B 6], m and rad."""
    axes = data.xaxis[..., :JOINTS, :]
    arms = self.position(data)[..., None, :] - data.xanchor[..., :JOINTS, :]
    # Always stacked, so that one instance rounds as many do.
    rows = np.concatenate([np.cross(axes, arms), axes], axis=-1).reshape(-1, JOINTS, 6)
    jacobian = rows.swapaxes(-1, -2)
    square = jacobian @ rows + _DAMPING**2 * np.eye(6)
    away = (self.home - data.qpos[..., :JOINTS]).reshape(-1, JOINTS, 1)
    needed = change.reshape(-1, 6, 1) - _POSTURE * (jacobian @ away)
    found = _POSTURE * away + rows @ np.linalg.solve(square, needed)
    return found.reshape(*change.shape[:-1], JOINTS)


def find(model: mujoco.MjModel, bounds: Bounds, site: str, period: float) -> Mover:
  """Looks up in a model what moves its arm."""
  return Mover(
    bounds=bounds,
    period=period,
    home=model.key('home').qpos[:JOINTS].copy(),
    max_velocity=model.actuator_ctrlrange[:JOINTS, 1].copy(),
    tip=model.site(site).id,
  )


def bounds(low: Sequence[float], high: Sequence[float], turn: float) -> Bounds:
  """Returns bounds, checked.

  Raises:
    ValueError: they are not finite, or leave no room.
  """
  lowest, highest = np.asarray(low, np.float64), np.asarray(high, np.float64)
  if lowest.shape != (3,) or highest.shape != (3,) or not (lowest < highest).all():
    raise ValueError(f'the bounds are {low} and {high}: give x, y and z in m, rising')
  if not 0 < turn < np.pi:
    raise ValueError(f'the bound of the heading is {turn}: give one in (0, pi) rad')
  return Bounds(lowest, highest, turn)
