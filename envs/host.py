"""A task on native MuJoCo: one instance, or a batch of them on threads.

The fastest way to step on a CPU, and what a collector uses. Both bodies compute
bit for bit the same, and both hold to six rules:

  - What a step returns is read from the state after it. `mj_step` leaves positions,
    sensors and the like one physics step behind, so they are brought up to date.
  - An episode starts from the model's first keyframe, under the task's own `Start`.
  - Tasks are given double precision alone: numpy rounds products of float32 scalars
    and of float32 arrays differently, and one instance would not equal many.
  - Equality constraints follow `Task.active` at the end of a control step, before what
    follows from positions is brought up to date.
  - A mocap body named `target` stands where the first three numbers of the goal say,
    for pictures alone.
  - Where a time limit is part of the MDP, the last step terminates the episode.

Letters as in `task.py`, and [N] numbers of `mjSTATE_INTEGRATION`, [I] instances
picked from the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
import copy

import chex
import jax
import mujoco
from mujoco import batch as mujoco_batch
import numpy as np

from armfarm.envs import camera
from armfarm.envs.camera import Marks
from armfarm.envs.camera import mark
from armfarm.envs.task import Array
from armfarm.envs.task import Data
from armfarm.envs.task import Fields
from armfarm.envs.task import Start
from armfarm.envs.task import Step
from armfarm.envs.task import Task
from armfarm.envs.task import checked_action

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_UP_TO_VELOCITY = int(mujoco.mjtStage.mjSTAGE_VEL)  # the stages of `mj_step1`
_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)
_HOME = 0  # the first keyframe


class Host:
  """One instance on native MuJoCo, a `task.Environment` that can be looked at.

  Attributes:
    observation_size: O.
    action_size: A.
    episode_steps: control steps until the time limit.
  """

  def __init__(self, task: Task):
    self.observation_size = task.observation_size
    self.action_size = task.action_size
    self.episode_steps = task.episode_steps
    self._task = task
    self._start = jax.jit(task.reset)
    self._model = copy.copy(task.model)  # an episode may move bodies in it
    self._data = mujoco.MjData(self._model)
    self._target = _target(task.model)
    self._goal = np.zeros(_goal_shape(task))
    self._steps = 0
    self._running = False
    self._renderer: mujoco.Renderer | None = None
    self._film = camera.Film(self._model, task.view) if task.view else None

  def reset(self, key: chex.PRNGKey) -> Array:
    """Begins an episode.

    Args:
      key: decides the episode; consumed.

    Returns:
      The first observation, [O].
    """
    return self.begin(self._start(key))

  def begin(self, start: Start) -> Array:
    """Begins an episode from a start of one's own; returns its first observation."""
    model, data = self._model, self._data
    mujoco.mj_resetDataKeyframe(model, data, _HOME)
    data.qpos[:] = start.qpos
    data.qvel[:] = start.qvel
    self._goal = np.asarray(start.goal, np.float64)
    self._set_model()
    if self._target is not None:
      data.mocap_pos[self._target] = self._goal[:3]
    if self._task.settling:
      mujoco.mj_step(model, data, self._task.settling)
    mujoco.mj_step1(model, data)
    self._steps = 0
    self._running = True
    return self.observe()

  @property
  def data(self) -> mujoco.MjData:
    """The simulation's, to be read."""
    return self._data

  def where(self) -> Start:
    """Returns where everything is now, as `begin` and `move` take it."""
    data = self._data
    return Start(data.qpos.copy(), data.qvel.copy(), self._goal.copy())

  def move(self, start: Start) -> Array:
    """Puts everything elsewhere within an episode; returns what is observed then."""
    self._data.qpos[:] = start.qpos
    self._data.qvel[:] = start.qvel
    self._goal = np.asarray(start.goal, np.float64)
    self._set_model()
    mujoco.mj_step1(self._model, self._data)
    return self.observe()

  def observe(self) -> Array:
    """What is observed now: after the last step, or what `reset` has returned."""
    state = self._task.observe(self._data, self._goal)
    if self._film is None:
      return state
    return camera.Observation(self._film.take(self._data), state)

  def step(self, action: Array) -> Step:
    """Takes one control step; see `task.Environment`.

    Args:
      action: [A], in [-1, 1].

    Returns:
      The step; where it ends the episode, with the true last observation.

    Raises:
      ValueError: the action is not finite, of another shape or outside [-1, 1].
      RuntimeError: the episode has ended, or none was begun.
    """
    action = checked_action(action, (self.action_size,))
    if not self._running:
      raise RuntimeError('the episode has ended or was not begun: call reset first')
    task, data, goal = self._task, self._data, self._goal
    data.ctrl[:] = task.control(data, action)
    mujoco.mj_step(self._model, data, task.substeps)
    if task.active is not None:
      data.eq_active[:] = task.active(data)
    mujoco.mj_step1(self._model, data)
    self._steps += 1
    late = np.bool_(self._steps >= self.episode_steps)
    reward, terminated, truncated = _outcome(task, data, goal, action, late)
    self._running = not (terminated or truncated)
    return Step(
      observation=self.observe(),
      reward=reward,
      terminated=bool(terminated),
      truncated=bool(truncated),
      success=bool(task.success(data, goal)),
    )

  def state(self) -> dict[str, Array]:
    """What `restore` needs: physics [N], goal [G], steps [] and running []."""
    physics = np.empty(mujoco.mj_stateSize(self._model, _STATE))
    mujoco.mj_getState(self._model, self._data, physics, _STATE)
    return _as_state(physics, self._goal, self._steps, self._running)

  def restore(self, state: dict[str, Array]) -> None:
    """Goes back to where `state` was taken, bit for bit.

    Raises:
      ValueError: the state is another task's, or a batch's.
    """
    _check_state(state, like=self.state())
    self._goal = state['goal'].copy()
    self._set_model()
    mujoco.mj_setState(self._model, self._data, state['physics'], _STATE)
    mujoco.mj_step1(self._model, self._data)
    self._steps = int(state['steps'])
    self._running = bool(state['running'])

  def render(
    self, camera: str, width: int, height: int, marks: Marks | None = None
  ) -> np.ndarray:
    """Takes a picture of the present state, which it leaves alone.

    Args:
      camera: name of a camera of the model.
      width: pixels.
      height: pixels.
      marks: to draw in it.

    Returns:
      Red, green and blue, [height, width, 3], uint8.
    """
    renderer = self._renderer
    if renderer is None or (renderer.width, renderer.height) != (width, height):
      self.close()
      renderer = mujoco.Renderer(self._model, height, width)
      self._renderer = renderer
    renderer.update_scene(self._data, camera)
    if marks is not None:
      mark(renderer.scene, self._data, marks)
    return renderer.render()

  def close(self) -> None:
    """Frees what renders, if there is such; who asks for a picture makes another."""
    if self._renderer is not None:
      self._renderer.close()
      self._renderer = None
    if self._film is not None:
      self._film.close()

  def _set_model(self) -> None:
    for name, (rows, values) in _fields(self._task, self._goal).items():
      getattr(self._model, name)[rows] = values


class HostBatch:
  """B instances on native MuJoCo, stepped together, begun together or one by one.

  Attributes:
    size: B.
    observation_size: O.
    action_size: A.
    episode_steps: control steps until the time limit.
  """

  def __init__(self, task: Task, size: int, threads: int):
    """Makes the instances.

    Args:
      task: what they all do.
      size: B.
      threads: how many to step on, the caller's included.

    Raises:
      ValueError: size or threads is below 1.
    """
    if size < 1 or threads < 1:
      raise ValueError(f'size is {size}, threads is {threads}: give at least 1 of each')
    self.size = size
    self.observation_size = task.observation_size
    self.action_size = task.action_size
    self.episode_steps = task.episode_steps
    self._task = task
    self._start = jax.jit(task.reset)
    # Persistent: a step goes on from the stages that the last one brought up to date.
    self._batch = mujoco_batch.Batch(task.model, size, threads, persistent=True)
    self._target = _target(task.model)
    self._goal = np.zeros((size, *_goal_shape(task)))
    self._steps = np.zeros(size, np.int64)
    self._running = np.zeros(size, bool)
    # Asked in vain: a field that is first read between two calls is zero till the next.
    task.control(self._batch, np.zeros((size, task.action_size)))
    self._film = None
    if task.view is not None:
      self._pictured = copy.copy(task.model), mujoco.MjData(task.model)
      self._film = camera.Film(self._pictured[0], task.view)

  def reset(self, keys: chex.PRNGKey, ids: Sequence[int] | None = None) -> Array:
    """Begins an episode in some instances, in all by default.

    Args:
      keys: one for each instance of the call, [I]; consumed.
      ids: the instances, [I]; None for all, in order.

    Returns:
      The first observations, [I O].

    Raises:
      ValueError: there is not one key for each instance.
    """
    rows = np.arange(self.size) if ids is None else np.asarray(ids)
    if keys.shape != rows.shape:
      raise ValueError(f'{keys.shape} keys for {rows.shape} instances: give one each')
    # One by one, since a vmap would be compiled anew for every number of instances.
    starts = [self._start(key) for key in keys]
    qpos, qvel, goal = (np.stack(field) for field in Start(*zip(*starts, strict=True)))
    self._batch.reset(rows, _HOME, stage=_NO_STAGE)
    self._batch.qpos[rows] = qpos
    self._batch.qvel[rows] = qvel
    if self._target is not None:
      self._batch.mocap_pos[rows, self._target] = goal[:, :3]
    self._goal[rows] = goal
    self._set_model()
    if self._task.settling:
      self._batch.step(rows, nstep=self._task.settling, stage=_UP_TO_VELOCITY)
    else:
      self._batch.forward(rows, stage=_UP_TO_VELOCITY)
    self._steps[rows] = 0
    self._running[rows] = True
    return self._observe(rows)

  def step(self, actions: Array, ids: Array | None = None) -> Step:
    """Takes one control step in some instances, in all by default.

    Args:
      actions: one for each instance of the call, [I A], in [-1, 1].
      ids: the instances, [I]; None for all, in order.

    Returns:
      The step of these; where it ends an episode, with its true last observation.

    Raises:
      ValueError: an action is not finite, of another shape or outside [-1, 1].
      RuntimeError: an episode has ended, or was not begun.
    """
    rows = slice(None) if ids is None else np.asarray(ids)
    every = np.zeros((self.size, self.action_size))
    every[rows] = checked_action(actions, every[rows].shape)
    if not self._running[rows].all():
      over = np.arange(self.size)[rows][~self._running[rows]]
      raise RuntimeError(f'episodes {over} have ended or were not begun: reset them')
    task, batch, goal = self._task, self._batch, self._goal
    batch.ctrl[rows] = task.control(batch, every)[rows]
    if task.active is None:
      batch.step(ids, nstep=task.substeps, stage=_UP_TO_VELOCITY)
    else:
      batch.step(ids, nstep=task.substeps, stage=_NO_STAGE)
      batch.eq_active[rows] = task.active(batch)[rows]
      batch.forward(ids, stage=_UP_TO_VELOCITY)
    self._steps[rows] += 1
    late = self._steps >= self.episode_steps
    reward, terminated, truncated = _outcome(task, batch, goal, every, late)
    self._running[rows] = ~(terminated | truncated)[rows]
    return Step(
      observation=self._observe(rows),
      reward=reward[rows],
      terminated=terminated[rows],
      truncated=truncated[rows],
      success=np.asarray(task.success(batch, goal))[rows],
    )

  def state(self) -> dict[str, Array]:
    """What `restore` needs: physics [B N], goal [B G], steps [B], running [B]."""
    return _as_state(self._batch.state, self._goal, self._steps, self._running)

  def restore(self, state: dict[str, Array]) -> None:
    """Goes back to where `state` was taken, bit for bit.

    Raises:
      ValueError: the state is another task's, or of another number of instances.
    """
    _check_state(state, like=self.state())
    self._batch.state[:] = state['physics']
    self._goal = state['goal'].copy()
    self._set_model()
    self._batch.forward(stage=_UP_TO_VELOCITY)  # a task may act on what follows from it
    self._steps = state['steps'].copy()
    self._running = state['running'].copy()

  def close(self) -> None:
    """Frees what renders, if there is such; the next step makes another."""
    if self._film is not None:
      self._film.close()

  def _observe(self, rows: Array | slice) -> Array:
    state = self._task.observe(self._batch, self._goal)[rows]
    if self._film is None:
      return state
    model, data = self._pictured
    images = []
    for row in np.arange(self.size)[rows]:
      self._batch.get_model(int(row), model)
      self._batch.get_data(int(row), data)
      images.append(self._film.take(data))
    return camera.Observation(np.stack(images), state)

  def _set_model(self) -> None:
    for name, (rows, values) in _fields(self._task, self._goal).items():
      self._batch.expand(name)[:, rows] = values  # the same array in every call


def _outcome(
  task: Task, data: Data, goal: Array, action: Array, late: Array
) -> tuple[Array, Array, Array]:
  """Reward, and whether episodes terminated or are truncated, [B] each.

  Args:
    task: what is done.
    data: after the step.
    goal: [B G].
    action: of the step, [B A].
    late: whether it was the last one that the time limit allows, [B].
  """
  reward = task.reward(data, goal, action)
  terminated = np.asarray(task.terminated(data, goal, action))
  if task.final_reward is None:
    return reward, terminated, late & ~terminated
  terminated = terminated | late
  reward = np.where(terminated, task.final_reward(data, goal), reward)
  return reward, terminated, np.zeros_like(terminated)


def _fields(task: Task, goal: Array) -> Fields:
  """What of the model is the episode's own; see `Task.place` and `Task.fields`."""
  fields = dict(task.fields(goal)) if task.fields is not None else {}
  if task.place is not None:
    fields['body_pos'] = np.array(task.movable), task.place(goal)
  return fields


def _goal_shape(task: Task) -> tuple[int, ...]:
  return jax.eval_shape(task.reset, jax.random.key(0)).goal.shape


def _target(model: mujoco.MjModel) -> int | None:
  """The row of the mocap body `target` in `mocap_pos`, None where there is none."""
  body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, 'target')
  row = int(model.body_mocapid[body]) if body >= 0 else -1
  return row if row >= 0 else None


def _as_state(
  physics: Array, goal: Array, steps: Array, running: Array
) -> dict[str, Array]:
  return {
    'physics': np.array(physics),
    'goal': np.array(goal),
    'steps': np.array(steps, np.int64),
    'running': np.array(running, bool),
  }


def _check_state(state: dict[str, Array], like: dict[str, Array]) -> None:
  shapes = {name: np.shape(value) for name, value in state.items()}
  expected = {name: value.shape for name, value in like.items()}
  if shapes != expected:
    raise ValueError(f'state has {shapes}: give one with {expected}')
