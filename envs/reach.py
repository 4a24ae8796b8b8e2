"""Reaching for a random target with the 7-DoF arm.

"Deep Reinforcement Learning for Robotic Manipulation with Asynchronous
Off-Policy Updates" by Gu et al. (https://arxiv.org/abs/1610.00633), section
V-A.1. From one fixed configuration the arm brings its end effector e to a target
y, drawn afresh for every episode from a small cube. The action u is the joint
velocity, as a part of what each joint may do:

  r(x, u) = -c1 d(y, e(x)) - c2 u'u,    d(y, e) = huber(|y - e|),

with the Huber loss of `arrays.py`. The paper prints neither c1, c2 and delta nor the
cube's centre: configs do. Nothing ends the episode but its time limit. Letters as in
`task.py`, with G = 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from armfarm.envs import arrays
from armfarm.envs import task

_SUBSTEPS = 10  # of 0.005 s: the arm is controlled at 20 Hz, section V


class _Reach(NamedTuple):
  """The numbers of one reaching task; its methods are the functions of `Task`.

  Attributes:
    distance_weight: c1.
    control_weight: c2.
    huber_delta: delta, m.
    success_distance: m.
    cube_center: [3], m.
    cube_edge: m.
    home: joint angles at the start, [7], rad.
    max_velocity: what an action of one commands, [7], rad/s.
    site: the end effector's row in `site_xpos`.
  """

  distance_weight: float
  control_weight: float
  huber_delta: float
  success_distance: float
  cube_center: np.ndarray
  cube_edge: float
  home: np.ndarray
  max_velocity: np.ndarray
  site: int

  def reset(self, key: chex.PRNGKey) -> task.Start:
    half = self.cube_edge / 2
    offset = jax.random.uniform(key, (3,), minval=-half, maxval=half)
    home = jnp.asarray(self.home)
    return task.Start(home, jnp.zeros_like(home), self.cube_center + offset)

  def control(self, data: task.Data, action: task.Array) -> task.Array:
    del data
    return action * arrays.aligned(self.max_velocity, action)

  def observe(self, data: task.Data, goal: task.Array) -> task.Array:
    parts = (data.qpos, data.qvel, self._end_effector(data), goal)
    xp = arrays.namespace(data.qpos)
    return xp.concatenate(parts, axis=-1).astype(np.float32)

  def reward(self, data: task.Data, goal: task.Array, action: task.Array) -> task.Array:
    weights = self.distance_weight, self.control_weight
    distance = self._distance(data, goal)
    return arrays.nearing(distance, action, weights, self.huber_delta)

  def success(self, data: task.Data, goal: task.Array) -> task.Array:
    return self._distance(data, goal) <= self.success_distance

  def _end_effector(self, data: task.Data) -> task.Array:
    return data.site_xpos[..., self.site, :]

  def _distance(self, data: task.Data, goal: task.Array) -> task.Array:
    return arrays.distance(goal, self._end_effector(data))


def make(
  *,
  distance_weight: float,
  control_weight: float,
  huber_delta: float,
  speed: float,
  cube_center: Sequence[float],
  cube_edge: float,
  success_distance: float,
  episode_steps: int,
) -> task.Task:
  """Builds the reaching task; its numbers are in `configs/tasks.py`.

  Args:
    distance_weight: c1, reward per m^2; positive.
    control_weight: c2, reward per squared action; not negative.
    huber_delta: where the Huber loss turns from a parabola into a line, m.
    speed: what an action of one commands, as a part of each joint's velocity
      limit; in (0, 1].
    cube_center: middle of the cube of targets in the arm's base frame, [3], m.
    cube_edge: edge of that cube, m.
    success_distance: from the target at the last step, m.
    episode_steps: control steps of 0.05 s.

  Returns:
    The task, with O = 20: joint angles (7, rad), joint velocities (7, rad/s), end
    effector (3, m), target (3, m); A = 7.

  Raises:
    ValueError: a number is out of its range.
  """
  task.require_positive('distance_weight', distance_weight)
  task.require_positive('huber_delta', huber_delta)
  task.require_positive('cube_edge', cube_edge)
  task.require_positive('success_distance', success_distance)
  task.require_positive('episode_steps', episode_steps)
  task.require_not_negative('control_weight', control_weight)
  if not 0 < speed <= 1:
    raise ValueError(f'speed is {speed}: give a part of the velocity limits in (0, 1]')
  center = np.asarray(cube_center, np.float64)
  if center.shape != (3,) or not np.isfinite(center).all():
    raise ValueError(f'cube_center is {cube_center}: give three finite numbers in m')

  model = _load()
  functions = _Reach(
    distance_weight=distance_weight,
    control_weight=control_weight,
    huber_delta=huber_delta,
    success_distance=success_distance,
    cube_center=center,
    cube_edge=cube_edge,
    home=model.key('home').qpos.copy(),
    max_velocity=speed * model.actuator_ctrlrange[:, 1],
    site=model.site('end_effector').id,
  )
  return task.Task(
    name='reach',
    model=model,
    substeps=_SUBSTEPS,
    episode_steps=episode_steps,
    observation_size=model.nq + model.nv + 3 + 3,
    action_size=model.nu,
    reset=functions.reset,
    control=functions.control,
    observe=functions.observe,
    reward=functions.reward,
    success=functions.success,
    terminated=task.never,
  )


def _load() -> mujoco.MjModel:
  asset = resources.files('armfarm.envs') / 'assets' / 'arm.xml'
  return mujoco.MjModel.from_xml_string(asset.read_text())
