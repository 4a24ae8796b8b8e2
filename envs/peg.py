"""Putting a peg into a hole with the 7-DoF arm under torque control.

The task of "End-to-End Training of Deep Visuomotor Policies" by Levine et al.
(https://arxiv.org/abs/1504.00702) and of the code published with it, on our arm: from
one fixed configuration, the peg upright above the block, its tip e is to get to the
middle of the hole's bottom, y. The action u is the joints' torques, as in
`torque_arm.py`:

  r(x, u) = -c1 d(y, e) - c2 u'u,   d(y, e) = huber(|y - e|),

with the Huber loss of `arrays.py`. The hole is 0.25 m deep. Nothing ends the episode
but its time limit.

The block stands at one of a few places, the conditions: their numbers are those of
`task.instance`. A perturbation displaces it at every reset, as when a real one is
handled. The points of the state are the tip, the peg's other end, and 0.1 m to the side
of that; where they are when the peg is in is what an observation ends with. The
published code tells its policy nothing of where the hole is, with which a policy of one
observation could not tell the conditions apart at the start.

Letters as in `task.py`, with G = 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from armfarm.envs import arrays
from armfarm.envs import task
from armfarm.envs import torque_arm

_FLANGE = (0.0, 0.0, 0.045)  # on link_7, m
_LENGTH = 0.29  # of the peg, m
_POINTS = ((0.0, 0.0, _LENGTH), (0.0, 0.0, 0.0), (0.1, 0.0, 0.0))  # in its frame, m
_HEIGHT = 0.02  # of the hole's bottom above the floor, m
# rad: the peg upright, its tip at x = 0.55, y = 0, 0.1 m above the block.
_HOME = (0.0, 0.405, 0.0, -0.968, 0.0, np.pi - 0.405 - 0.968, 0.0)
_CAMERA = (1.6, -1.3, 1.0)  # m
_CAMERA_AXES = (0.7, 0.72, 0.0, -0.2, 0.2, 0.96)  # to the right and up


class Numbers(NamedTuple):
  """The numbers of the task, from `configs/tasks.py`.

  Attributes:
    torque: what an action of one commands, as a part of each joint's torque limit; in
      (0, 1].
    hole_x: where the hole is along x, from the arm's base, m.
    holes_y: the same along y in each condition, [C], m.
    perturbation: how far a reset may displace the hole along x and y, m; not negative.
    distance_weight: c1, reward per m^2; positive.
    control_weight: c2, reward per squared action; not negative.
    huber_delta: where the Huber loss turns from a parabola into a line, m.
    success_distance: of the tip from the hole's bottom at the last step, m.
    episode_steps: control steps of 0.05 s.
  """

  torque: float
  hole_x: float
  holes_y: Sequence[float]
  perturbation: float
  distance_weight: float
  control_weight: float
  huber_delta: float
  success_distance: float
  episode_steps: int


class _Peg(NamedTuple):
  """The task; its methods are the functions of `Task`.

  Attributes:
    numbers: see there.
    arm: see there.
    holes: the middle of the hole's bottom in each condition, [C 3], m.
    inserted: from there to the points of the inserted peg, [9], m.
  """

  numbers: Numbers
  arm: torque_arm.Arm
  holes: np.ndarray
  inserted: np.ndarray

  def reset(self, key: chex.PRNGKey) -> task.Start:
    which, moved = jax.random.split(key)
    condition = jax.random.randint(which, (), 0, len(self.holes))
    return self._begin(condition, moved)

  def instance(self, number: int, key: chex.PRNGKey) -> task.Start:
    if number not in range(len(self.holes)):
      raise ValueError(f'instance is {number}: give 0 to {len(self.holes) - 1}')
    return self._begin(jnp.asarray(number), key)

  def place(self, goal: task.Array) -> task.Array:
    return goal[..., None, :]

  def observe(self, data: task.Data, goal: task.Array) -> task.Array:
    state = self.arm.state(data)
    xp = arrays.namespace(state)
    middle = xp.concatenate((goal,) * 3, axis=-1)
    pose = middle + arrays.aligned(self.inserted, middle)
    return xp.concatenate((state, pose), axis=-1).astype(np.float32)

  def reward(self, data: task.Data, goal: task.Array, action: task.Array) -> task.Array:
    numbers = self.numbers
    weights = numbers.distance_weight, numbers.control_weight
    distance = self._distance(data, goal)
    return arrays.nearing(distance, action, weights, numbers.huber_delta)

  def success(self, data: task.Data, goal: task.Array) -> task.Array:
    return self._distance(data, goal) <= self.numbers.success_distance

  def _begin(self, condition: chex.Array, key: chex.PRNGKey) -> task.Start:
    part = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    offset = jnp.append(self.numbers.perturbation * part, 0.0)
    home = jnp.asarray(self.arm.home)
    goal = jnp.asarray(self.holes)[condition] + offset
    return task.Start(home, jnp.zeros_like(home), goal)

  def _distance(self, data: task.Data, goal: task.Array) -> task.Array:
    return arrays.distance(goal, self.arm.pose(data)[..., :3])


def make(**numbers: Any) -> task.Task:
  """Builds the task; its numbers are in `configs/tasks.py`.

  Args:
    **numbers: those of `Numbers`.

  Returns:
    The task, with O = 41: the state (32, see `torque_arm.Arm.state`, the tip first of
    its points), where the points are once the peg is in (9, m); A = 7.

  Raises:
    TypeError: a number is missing or unknown.
    ValueError: a number is out of its range.
  """
  checked = _checked(Numbers(**numbers))
  model = _load(checked.torque)
  arm = torque_arm.find(model, checked.torque)
  functions = _Peg(checked, arm, _holes(checked), _inserted(arm))
  return task.Task(
    name='peg',
    model=model,
    substeps=torque_arm.SUBSTEPS,
    episode_steps=checked.episode_steps,
    observation_size=torque_arm.STATE_SIZE + 9,
    action_size=model.nu,
    reset=functions.reset,
    control=arm.control,
    observe=functions.observe,
    reward=functions.reward,
    success=functions.success,
    terminated=task.never,
    movable=(model.body('peg/block').id,),
    place=functions.place,
    instance=functions.instance,
  )


def _checked(numbers: Numbers) -> Numbers:
  positive = 'distance_weight', 'huber_delta', 'success_distance', 'episode_steps'
  for name in positive:
    task.require_positive(name, getattr(numbers, name))
  for name in ('control_weight', 'perturbation'):
    task.require_not_negative(name, getattr(numbers, name))
  if not np.isfinite(numbers.hole_x):
    raise ValueError(f'hole_x is {numbers.hole_x}: give a finite number in m')
  y = np.asarray(numbers.holes_y, np.float64)
  if y.ndim != 1 or not len(y) or not np.isfinite(y).all():
    raise ValueError(f'holes_y is {numbers.holes_y}: give one or more numbers in m')
  return numbers


def _holes(numbers: Numbers) -> np.ndarray:
  """The bottoms of the holes, [C 3], m."""
  y = np.asarray(numbers.holes_y, np.float64)
  return np.stack(
    [np.full_like(y, numbers.hole_x), y, np.full_like(y, _HEIGHT)], axis=1
  )


def _inserted(arm: torque_arm.Arm) -> np.ndarray:
  """From the hole's bottom to the points of the inserted peg, upright as at first."""
  pose = np.asarray(arm.forward(jnp.asarray(arm.home)), np.float64)
  return pose - np.tile(pose[:3], 3)


def _load(torque: float) -> mujoco.MjModel:
  """Joins the block to the world of the arm, and the peg to its flange."""
  assets = resources.files('armfarm.envs') / 'assets'
  arm, peg = (
    mujoco.MjSpec.from_string((assets / name).read_text())
    for name in ('arm.xml', 'peg.xml')
  )
  for part in (arm.body('target'), arm.geom('pin'), arm.site('end_effector')):
    arm.delete(part)
  arm.worldbody.add_frame().attach_body(peg.body('block'), 'peg/', '')
  arm.body('link_7').add_frame(pos=_FLANGE).attach_body(peg.body('peg'), 'peg/', '')
  torque_arm.prepare(arm, torque, 'peg/peg', _POINTS)
  camera = arm.camera('over_view')
  camera.pos, camera.alt.xyaxes = _CAMERA, _CAMERA_AXES
  arm.key('home').qpos = _HOME
  return arm.compile()
