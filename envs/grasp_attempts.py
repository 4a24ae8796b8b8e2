"""Grasping one attempt after the other, and grasping what is moved away.

What the protocols of Kalashnikov et al. 2018 ask of the bin beyond an episode:

  Bin         what was grasped is put aside, and the next attempt finds the rest where
              it lies (6.1)
  Disturbed   the first thing that gets between the open fingers is moved away (A)

Both are for native MuJoCo and for one instance. Letters as in `task.py`, and [K] places
for objects.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import numpy as np

from armfarm.envs import grasp
from armfarm.envs import grasp_objects as objects
from armfarm.envs import grasp_scene
from armfarm.envs import host
from armfarm.envs import task as tasks

_ARM = 9  # numbers of `qpos` before the objects': arm and fingers
_POSE = 7  # numbers of an object
_TRIES = 20  # to drop again what fell beside the bin
_HEIGHT = 0.12  # m: from where, under the open hand and over what lies there
_ACROSS, _ALONG = 0.02, 0.03  # m from the tips: what is between the fingers


class Bin:
  """A bin that is emptied, attempt by attempt.

  Args:
    task: of grasping.
    numbers: of that task.
  """

  def __init__(self, task: tasks.Task, numbers: grasp.Numbers):
    self._reset = jax.jit(task.reset)
    self._body = host.Host(task)
    self._numbers = numbers
    self._first = task.model.key_qpos[0].copy()  # arm at home, nothing there
    size = np.asarray(numbers.bin_size, np.float64)
    self._half = size / 2
    self._cells = grasp_scene.cells(size, 2 * numbers.radius[1], 1).middles

  @property
  def count(self) -> int:
    """How many objects are there, beside the bin or in it."""
    return int((self._body.where().goal != objects.NONE).sum())

  def fill(self, key: chex.PRNGKey) -> int:
    """Drops objects into the bin, and those beside it again; the key is consumed.

    Returns:
      How many lie in the bin at last.
    """
    self._body.begin(self._reset(key))
    for _ in range(_TRIES):
      missing = np.flatnonzero(self._is_there() & ~self._is_inside())
      if not missing.size:
        break
      self._drop(missing[: len(self._cells)])
    return int(self._is_inside().sum())

  def begin(self) -> Any:
    """Begins an attempt, the arm at home; returns the first observation."""
    start = self._body.where()
    qpos = np.concatenate([self._first[:_ARM], start.qpos[_ARM:]])
    return self._body.begin(tasks.Start(qpos, 0 * start.qvel, start.goal))

  def step(self, action: tasks.Array) -> tasks.Step:
    """Takes one control step of an attempt; see `task.Environment`."""
    return self._body.step(action)

  def put_aside(self) -> int:
    """Takes away what the gripper has lifted; returns how many objects."""
    start = self._body.where()
    high = self._numbers.lift_height - self._numbers.radius[1]
    lifted = self._is_there() & (self._poses(start.qpos)[:, 2] > high)
    self._poses(start.qpos)[lifted] = self._poses(self._first)[lifted]
    goal = np.where(lifted, objects.NONE, start.goal)
    self._body.move(tasks.Start(start.qpos, 0 * start.qvel, goal))
    return int(lifted.sum())

  def _drop(self, places: np.ndarray) -> None:
    """Drops some objects again, each from over a cell of its own."""
    start = self._body.where()
    start.qpos[:_ARM] = self._first[:_ARM]
    poses = self._poses(start.qpos)[places]
    poses[:, :2], poses[:, 2] = self._cells[: len(places), :2], _HEIGHT
    self._poses(start.qpos)[places] = poses
    self._body.begin(tasks.Start(start.qpos, 0 * start.qvel, start.goal))

  def _is_there(self) -> np.ndarray:
    return self._body.where().goal != objects.NONE

  def _is_inside(self) -> np.ndarray:
    """Which objects lie in the bin, not on the hand or on an edge, [K]."""
    poses = self._poses(self._body.where().qpos)
    aside = np.abs(poses[:, :2] - grasp_scene.CENTER)
    return (aside < self._half).all(axis=1) & (np.abs(poses[:, 2]) < _HEIGHT)

  @staticmethod
  def _poses(qpos: np.ndarray) -> np.ndarray:
    """The objects' part of `qpos`, a view of it, [K 7]."""
    return qpos[_ARM:].reshape(-1, _POSE)


class Disturbed:
  """A `task.Environment` of grasping where the first grasp comes to nothing.

  Args:
    task: of grasping.
    numbers: of that task.
  """

  def __init__(self, task: tasks.Task, numbers: grasp.Numbers):
    self.observation_size = task.observation_size
    self.action_size = task.action_size
    self.episode_steps = task.episode_steps
    self.disturbed = False  # in this episode
    self._body = host.Host(task)
    self._tip = task.model.site(grasp_scene.TIP).id
    self._first = task.model.body('object_0').id
    size = np.asarray(numbers.bin_size, np.float64)
    self._cells = grasp_scene.cells(size, 2 * numbers.radius[1], 1).middles

  def reset(self, key: chex.PRNGKey) -> Any:
    """See `task.Environment`."""
    self.disturbed = False
    return self._body.reset(key)

  def step(self, action: tasks.Array) -> tasks.Step:
    """See `task.Environment`; what is between the fingers at first is moved away."""
    step = self._body.step(action)
    if self.disturbed or step.terminated or step.truncated:
      return step
    caught = np.flatnonzero(self._is_between())
    if not caught.size:
      return step
    self.disturbed = True
    return step._replace(observation=self._move(caught))

  def state(self) -> dict[str, tasks.Array]:
    """See `task.Environment`."""
    return {**self._body.state(), 'disturbed': np.array(self.disturbed)}

  def restore(self, state: dict[str, tasks.Array]) -> None:
    """See `task.Environment`."""
    state = dict(state)
    self.disturbed = bool(state.pop('disturbed'))
    self._body.restore(state)

  def close(self) -> None:
    """Frees what renders, if there is such."""
    self._body.close()

  def _is_between(self) -> np.ndarray:
    """Which objects have their middle between the fingers, [K]."""
    data, there = self._body.data, self._body.where().goal != objects.NONE
    middles = data.xpos[self._first :][: len(there)]
    ways = (middles - data.site_xpos[self._tip]) @ data.site_xmat[self._tip].reshape(
      3, 3
    )
    apart = data.qpos[_ARM - 2 : _ARM].min()
    return there & (np.abs(ways) < [_ACROSS, apart, _ALONG]).all(axis=1)

  def _move(self, places: np.ndarray) -> Any:
    """Puts objects where the hand is not; returns what is observed then."""
    start = self._body.where()
    tip = self._body.data.site_xpos[self._tip]
    away = np.linalg.norm(self._cells[:, :2] - tip[:2], axis=1)
    poses = start.qpos[_ARM:].reshape(-1, _POSE)
    for place, cell in zip(places, np.argsort(-away), strict=False):
      poses[place, :2] = self._cells[cell, :2]
    speeds = start.qvel[_ARM:].reshape(-1, _POSE - 1)
    speeds[places] = 0.0
    return self._body.move(start)
