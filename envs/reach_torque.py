"""Reaching for a random pose with the 7-DoF arm under torque control.

"Collective Robot Reinforcement Learning with Distributed Asynchronous Guided Policy
Search" by Yahya et al. (https://arxiv.org/abs/1610.00673), section V-A: the simulated
comparison of their figures 4 and 5. From one fixed configuration the arm brings three
points on its end effector, p, to where they are to be, g, which only the global policy
is told. A goal is the pose of joint angles drawn around the first ones, so that it can
be reached. The action u is the joints' torques, as in `torque_arm.py`:

  r(x, u) = -c1 d(p, g) - c2 u'u,   d(p, g) = huber(mean over points |p_i - g_i|),

with the Huber loss of `arrays.py`. The paper prints no constants: configs do. Nothing
ends the episode but its time limit.

The paper has 8 instances to train on, 4 to validate and 4 to test: numbers 0 to 7, 8 to
11 and 12 to 15 of `task.instance`. Letters as in `task.py`, with G = 9.
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
from armfarm.envs import torque_arm

# In the frame of the last link, m: the end effector, and 0.1 m to two sides of it.
_POINTS = ((0.0, 0.0, 0.045), (0.1, 0.0, 0.045), (0.0, 0.1, 0.045))


class _Reach(NamedTuple):
  """The numbers of the task; its methods are the functions of `Task`.

  Attributes:
    arm: see there.
    spread: of a goal's joint angles around the first ones, [7], rad.
    distance_weight: c1.
    control_weight: c2.
    huber_delta: m.
    success_distance: m.
  """

  arm: torque_arm.Arm
  spread: np.ndarray
  distance_weight: float
  control_weight: float
  huber_delta: float
  success_distance: float

  def reset(self, key: chex.PRNGKey) -> task.Start:
    home = jnp.asarray(self.arm.home)
    offset = jax.random.uniform(key, home.shape, minval=-1.0, maxval=1.0)
    goal = self.arm.forward(home + self.spread * offset)
    return task.Start(home, jnp.zeros_like(home), goal)

  def observe(self, data: task.Data, goal: task.Array) -> task.Array:
    state = self.arm.state(data)
    xp = arrays.namespace(state)
    return xp.concatenate((state, goal), axis=-1).astype(np.float32)

  def reward(self, data: task.Data, goal: task.Array, action: task.Array) -> task.Array:
    weights = self.distance_weight, self.control_weight
    distance = self._distance(data, goal)
    return arrays.nearing(distance, action, weights, self.huber_delta)

  def success(self, data: task.Data, goal: task.Array) -> task.Array:
    return self._distance(data, goal) <= self.success_distance

  def _distance(self, data: task.Data, goal: task.Array) -> task.Array:
    return arrays.distance(
      *(x.reshape(*x.shape[:-1], 3, 3) for x in (self.arm.pose(data), goal))
    ).mean(axis=-1)


def make(
  *,
  torque: float,
  spread: Sequence[float],
  distance_weight: float,
  control_weight: float,
  huber_delta: float,
  success_distance: float,
  episode_steps: int,
) -> task.Task:
  """Builds the task; its numbers are in `configs/tasks.py`.

  Args:
    torque: what an action of one commands, as a part of each joint's torque limit; in
      (0, 1].
    spread: how far a goal's joint angles may be from the first ones, [7], rad; not
      negative, and not all nought.
    distance_weight: c1, reward per m^2; positive.
    control_weight: c2, reward per squared action; not negative.
    huber_delta: where the Huber loss turns from a parabola into a line, m.
    success_distance: of the points from their goal, their mean at the last step, m.
    episode_steps: control steps of 0.05 s.

  Returns:
    The task, with O = 41: the state (32, see `torque_arm.Arm.state`), the goal of the
    points (9, m); A = 7.

  Raises:
    ValueError: a number is out of its range.
  """
  task.require_positive('distance_weight', distance_weight)
  task.require_positive('huber_delta', huber_delta)
  task.require_positive('success_distance', success_distance)
  task.require_positive('episode_steps', episode_steps)
  task.require_not_negative('control_weight', control_weight)
  model = _load(torque)
  arm = torque_arm.find(model, torque)
  widest = model.jnt_range[:, 1] - np.abs(arm.home)
  angles = np.asarray(spread, np.float64)
  fits = angles.shape == widest.shape and ((angles >= 0) & (angles < widest)).all()
  if not (fits and angles.any()):
    limits = ', '.join(f'{limit:.2f}' for limit in widest)
    raise ValueError(f'spread is {spread}: give 7 in rad, one above 0, below {limits}')
  functions = _Reach(
    arm=arm,
    spread=angles,
    distance_weight=distance_weight,
    control_weight=control_weight,
    huber_delta=huber_delta,
    success_distance=success_distance,
  )
  return task.Task(
    name='reach_torque',
    model=model,
    substeps=torque_arm.SUBSTEPS,
    episode_steps=episode_steps,
    observation_size=torque_arm.STATE_SIZE + 9,
    action_size=model.nu,
    reset=functions.reset,
    control=arm.control,
    observe=functions.observe,
    reward=functions.reward,
    success=functions.success,
    terminated=task.never,
  )


def _load(torque: float) -> mujoco.MjModel:
  asset = resources.files('armfarm.envs') / 'assets' / 'arm.xml'
  arm = mujoco.MjSpec.from_string(asset.read_text())
  torque_arm.prepare(arm, torque, 'link_7', _POINTS)
  return arm.compile()
