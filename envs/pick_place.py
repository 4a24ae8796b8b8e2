"""Lifting a hanging stick to a random target with the 6-DoF JACO arm and hand.

"Deep Reinforcement Learning for Robotic Manipulation with Asynchronous
Off-Policy Updates" by Gu et al. (https://arxiv.org/abs/1610.00633), section
V-A.3. A stick hangs from a string between the open fingers of the hand; it is to be
brought to a target y, drawn afresh for every episode from a level square above it. The
action u is the arm's joint velocities and the fingers' torques, as parts of their
limits; with the grip site g, where the fingers meet when closed, the finger tips f_i
and the stick s:

  r(x, u) = -c1 d(s, g) - c2 sum_i d(s, f_i) - c3 d(y, s) - c4 u'u
  d(p, q) = huber(|p - q|), of `arrays.py`.

The paper prints none of the constants, nor where the square is: configs do. It is a
success to have the stick near the target in touch with a finger, where the paper asks
for no touch: a stick that swings by is not lifted. Nothing ends the episode but its
time limit. Letters as in `task.py`, with G = 3, and [P]
geometries that are observed.
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
from armfarm.envs import jaco
from armfarm.envs import task

_SUBSTEPS = 2  # of 0.005 s: 100 Hz, since the paper's 300 steps take 3 s
_OBSERVED = (*jaco.LINKS, 'stick')
# The hand level, its three fingers open around the stick, which it does not touch.
_HOME = (0.1961, 2.7671, 5.2998, -0.0735, 1.1432, 2.6954, 0.45, 0.45, 0.45)  # rad


class _PickPlace(NamedTuple):
  """The numbers of one task; its methods are the functions of `Task`.

  Attributes:
    weights: c1 to c4, [4].
    huber_delta: m.
    success_distance: m.
    square_center: [3], m.
    square_edge: m.
    home: joint positions at the start, [Q].
    max_ctrl: what an action of one commands, [A], rad/s or Nm.
    geoms: the observed geometries' rows in `geom_xpos`, [P].
    stick: its row in `geom_xpos`.
    grip: its row in `site_xpos`.
    tips: theirs, [3].
  """

  weights: np.ndarray
  huber_delta: float
  success_distance: float
  square_center: np.ndarray
  square_edge: float
  home: np.ndarray
  max_ctrl: np.ndarray
  geoms: np.ndarray
  stick: int
  grip: int
  tips: np.ndarray

  def reset(self, key: chex.PRNGKey) -> task.Start:
    half = self.square_edge / 2
    offset = jax.random.uniform(key, (2,), minval=-half, maxval=half)
    goal = self.square_center + jnp.append(offset, 0.0)
    home = jnp.asarray(self.home)
    velocities = jnp.zeros(len(home) - 1)  # the stick's orientation is four numbers
    return task.Start(home, velocities, goal)

  def control(self, data: task.Data, action: task.Array) -> task.Array:
    del data
    return action * arrays.aligned(self.max_ctrl, action)

  def observe(self, data: task.Data, goal: task.Array) -> task.Array:
    xp = arrays.namespace(data.qpos)
    leading = goal.shape[:-1]
    positions = data.geom_xpos[..., self.geoms, :].reshape(*leading, -1)
    # MJX has matrices where MuJoCo has rows of nine.
    every = data.geom_xmat.reshape(*leading, -1, 9)
    rotations = every[..., self.geoms, :].reshape(*leading, -1)
    parts = (positions, rotations, goal, goal - self._stick(data))
    return xp.concatenate(parts, axis=-1).astype(np.float32)

  def reward(self, data: task.Data, goal: task.Array, action: task.Array) -> task.Array:
    stick = self._stick(data)
    grip = self._huber(stick, data.site_xpos[..., self.grip, :])
    fingers = self._huber(stick[..., None, :], data.site_xpos[..., self.tips, :])
    target = self._huber(goal, stick)
    effort = (action * action).sum(axis=-1)
    c1, c2, c3, c4 = self.weights
    reward = -c1 * grip - c2 * fingers.sum(axis=-1) - c3 * target - c4 * effort
    return reward.astype(np.float32)

  def success(self, data: task.Data, goal: task.Array) -> task.Array:
    near = arrays.distance(goal, self._stick(data)) <= self.success_distance
    return near & (data.sensordata > 0).any(axis=-1)

  def _stick(self, data: task.Data) -> task.Array:
    return data.geom_xpos[..., self.stick, :]

  def _huber(self, x: task.Array, y: task.Array) -> task.Array:
    return arrays.huber(arrays.distance(x, y), self.huber_delta)


def make(
  *,
  weights: Sequence[float],
  huber_delta: float,
  speed: float,
  square_center: Sequence[float],
  square_edge: float,
  success_distance: float,
  episode_steps: int,
) -> task.Task:
  """Builds the task; its numbers are in `configs/tasks.py`.

  Args:
    weights: c1, c2 and c3, reward per m^2, and c4, reward per squared action, [4]; none
      is negative.
    huber_delta: where the Huber loss turns from a parabola into a line, m.
    speed: what an action of one commands, as a part of each arm joint's velocity
      limit; in (0, 1]. Of the fingers it commands their whole torque.
    square_center: middle of the square of targets, from the arm's base, [3], m.
    square_edge: edge of that square, m.
    success_distance: of the stick from the target at the last step, a finger touching
      it, m.
    episode_steps: control steps of 0.01 s.

  Returns:
    The task, with O = 12 P + 6 = 174 in the world's axes: positions of the geometries
    (3 P, m), their rotation matrices (9 P, row by row), target (3, m), target minus
    stick (3, m). The P = 14 are `jaco.LINKS` and the stick. A = 9: six joints, three
    fingers.

  Raises:
    ValueError: a number is out of its range.
    ModuleNotFoundError: dm_control, which has the arm, is not installed.
  """
  task.require_positive('huber_delta', huber_delta)
  task.require_positive('square_edge', square_edge)
  task.require_positive('success_distance', success_distance)
  task.require_positive('episode_steps', episode_steps)
  if not 0 < speed <= 1:
    raise ValueError(f'speed is {speed}: give a part of the velocity limits in (0, 1]')
  center = _finite('square_center', square_center, 3)
  factors = _finite('weights', weights, 4)
  if (factors < 0).any():
    raise ValueError(f'weights is {weights}: give none below 0')

  model = _load()
  functions = _PickPlace(
    weights=factors,
    huber_delta=huber_delta,
    success_distance=success_distance,
    square_center=center,
    square_edge=square_edge,
    home=model.key('home').qpos.copy(),
    max_ctrl=_max_ctrl(model, speed),
    geoms=np.array([model.geom(name).id for name in _OBSERVED]),
    stick=model.geom('stick').id,
    grip=model.site(jaco.GRIP).id,
    tips=np.array([model.site(name).id for name in jaco.TIPS]),
  )
  return task.Task(
    name='pick_place',
    model=model,
    substeps=_SUBSTEPS,
    episode_steps=episode_steps,
    observation_size=12 * len(_OBSERVED) + 3 + 3,
    action_size=model.nu,
    reset=functions.reset,
    control=functions.control,
    observe=functions.observe,
    reward=functions.reward,
    success=functions.success,
    terminated=task.never,
  )


def _load() -> mujoco.MjModel:
  asset = resources.files('armfarm.envs') / 'assets' / 'stick.xml'
  scene = mujoco.MjSpec.from_string(asset.read_text())
  hanging = list(scene.key('home').qpos)
  jaco.attach(scene, grasped='stick')  # which empties the keyframe
  scene.key('home').qpos = [*hanging, *_HOME]
  return scene.compile()


def _max_ctrl(model: mujoco.MjModel, speed: float) -> np.ndarray:
  ctrl = model.actuator_ctrlrange[:, 1].copy()
  ctrl[: len(jaco.ARM)] *= speed
  return ctrl


def _finite(name: str, values: Sequence[float], size: int) -> np.ndarray:
  array = np.asarray(values, np.float64)
  if array.shape != (size,) or not np.isfinite(array).all():
    raise ValueError(f'{name} is {values}: give {size} finite numbers')
  return array
