"""What a task is, and what every environment offers.

A `Task` is a MuJoCo model and pure functions of `(data, goal, action)`, written
once with ellipsis indexing, so that the same line serves one instance, a batch
and a traced value. Letters, here and in every file of `envs`:

  [B] instances, absent for a single one    [O] observation    [A] action
  [Q] positions    [V] velocities    [U] actuators    [G] goal
  [E] equality constraints    [M] bodies that an episode moves

`data` is anything with MuJoCo's field names whose arrays end in the model's own
axes: `mujoco.MjData`, `mujoco.batch.Batch`, `mujoco.mjx.Data`.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple, Protocol

import chex
import jax
import mujoco
import numpy as np

from armfarm.envs import arrays
from armfarm.envs import camera

_ACTION_LIMIT = 1 + 1e-6  # lets float32 round past 1
_INSTANCES = 0  # the seed of the instances of tasks that name none
OBSERVATION_LIMIT = 100.0  # rad, rad/s or m; no task of ours is ever beyond

Array = Any  # numpy or JAX: a task computes in the arrays that it is given
Data = Any
Fields = dict[str, tuple[Array, Array]]  # of a model: name -> rows, and what is there


class Start(NamedTuple):
  """Where an episode begins.

  Attributes:
    qpos: joint positions, [Q], rad or m.
    qvel: joint velocities, [V], rad/s or m/s.
    goal: what was drawn for the episode, a target or where a door stands, [G], in the
      task's own units.
  """

  qpos: Array
  qvel: Array
  goal: Array


class Task(NamedTuple):
  """One task, to be run by any body.

  Attributes:
    name: short, as used by configs and records.
    model: the MuJoCo model, at rest in its first keyframe.
    substeps: physics steps in a control step.
    episode_steps: control steps until the time limit.
    observation_size: O, without an image.
    action_size: A; actions lie in [-1, 1].
    reset: `key -> Start`; the key is consumed.
    control: `(data, action [B A]) -> ctrl [B U]`, in the actuators' units.
    observe: `(data, goal [B G]) -> observation [B O]`.
    reward: `(data, goal [B G], action [B A]) -> reward [B]`.
    success: `(data, goal [B G]) -> bool [B]`, read at the last step.
    terminated: `(data, goal [B G], action [B A]) -> bool [B]`, after the step of that
      action: the end of the MDP itself, never the time limit.
    active: `data -> bool [B E]`, which equality constraints hold from now on. It is
      asked after the last physics step of every control step, when positions,
      velocities and `data.eq_active` are the only fields up to date. None: they never
      change.
    movable: bodies that stand elsewhere in every episode, [M], rows of `body_pos`.
      They hang on the world: nothing else in a model follows from where those stand.
    place: `goal [B G] -> [B M 3]`, where these bodies stand, m.
    instance: `(number, key) -> Start`, a numbered instance; the key perturbs it where
      the task does so. It raises ValueError for a number that there is not. None: the
      number decides the key of `reset`.
    final_reward: `(data, goal [B G]) -> reward [B]`, of the last step in place of
      `reward`. With it the time limit is part of the MDP, which ends there: the last
      step terminates. None: a time limit cuts an episode, and pays what any step pays.
    fields: `goal [B G] -> {name of a field of the model: (rows, [B ...])}`, what else
      of the model is the episode's own. None: nothing is.
    settling: physics steps at rest between `Start` and the first observation.
    view: what a camera shows. An observation is then a `camera.Observation`, with what
      `observe` returns as its state. None: there is no camera.
  """

  name: str
  model: mujoco.MjModel
  substeps: int
  episode_steps: int
  observation_size: int
  action_size: int
  reset: Callable[[chex.PRNGKey], Start]
  control: Callable[[Data, Array], Array]
  observe: Callable[[Data, Array], Array]
  reward: Callable[[Data, Array, Array], Array]
  success: Callable[[Data, Array], Array]
  terminated: Callable[[Data, Array, Array], Array]
  active: Callable[[Data], Array] | None = None
  movable: tuple[int, ...] = ()
  place: Callable[[Array], Array] | None = None
  instance: Callable[[int, chex.PRNGKey], Start] | None = None
  final_reward: Callable[[Data, Array], Array] | None = None
  fields: Callable[[Array], Fields] | None = None
  settling: int = 0
  view: camera.View | None = None

  @property
  def control_period(self) -> float:
    """Seconds between two actions."""
    return float(self.model.opt.timestep * self.substeps)


class Step(NamedTuple):
  """What a control step returned.

  Attributes:
    observation: after the step; the true last one where the episode ended, [B O].
    reward: [B].
    terminated: the MDP ended: nothing is to be gained any more, [B].
    truncated: the time limit cut the episode, [B].
    success: the task's criterion holds now, [B].
  """

  observation: Array
  reward: Array
  terminated: Array
  truncated: Array
  success: Array


class Environment(Protocol):
  """What a collector steps: a simulated body, an arm, or a test's toy."""

  observation_size: int
  action_size: int
  episode_steps: int

  def reset(self, key: chex.PRNGKey) -> Array:
    """Begins an episode; returns its first observation, [O]. The key is consumed."""

  def step(self, action: Array) -> Step:
    """Takes one control step.

    Raises:
      ValueError: the action [A] is not finite, of another shape or outside [-1, 1].
      RuntimeError: the episode has ended, or none was begun.
    """

  def state(self) -> dict[str, Array]:
    """All that `restore` needs to go on from here, bit for bit.

    It is empty where there is no way back; whoever resumes begins another episode.
    """

  def restore(self, state: dict[str, Array]) -> None:
    """Goes back to where `state` was taken; never called where that is empty."""


def checked_action(action: Array, shape: tuple[int, ...]) -> np.ndarray:
  """Returns an action, or a batch of them, in double precision.

  Raises:
    ValueError: it is not finite, of another shape or outside [-1, 1].
  """
  action = np.asarray(action, np.float64)
  if action.shape != shape:
    raise ValueError(f'action has the shape {action.shape}: give {shape}')
  if not np.abs(action).max() <= _ACTION_LIMIT:  # true of nan, too
    raise ValueError('action is not finite or outside [-1, 1]: clip it on purpose')
  return action


def never(data: Data, goal: Array, action: Array) -> Array:
  """The `terminated` of tasks that nothing but their time limit ends, bool [B]."""
  del data, action
  return arrays.namespace(goal).zeros(goal.shape[:-1], bool)


def instance(task: Task, number: int) -> Task:
  """Returns the same task, whose `reset` begins in one numbered instance alone.

  Guided policy search teaches and tests instance by instance; a body is made of each.

  Raises:
    ValueError: there is no such number.
  """
  if number < 0:
    raise ValueError(f'instance is {number}: give 0 or more')
  draw = task.instance or functools.partial(_drawn, task.reset)
  reset = functools.partial(draw, number)
  jax.eval_shape(reset, jax.random.key(0))  # refuses a number now, not at a reset
  return task._replace(reset=reset, instance=draw)


def _drawn(
  reset: Callable[[chex.PRNGKey], Start], number: int, key: chex.PRNGKey
) -> Start:
  """The instance of a task that names none: always the same draw."""
  del key
  return reset(jax.random.fold_in(jax.random.key(_INSTANCES), number))


def require_positive(name: str, value: float) -> None:
  """Raises ValueError for a task's number that is not finite and above 0."""
  if not 0 < value < np.inf:
    raise ValueError(f'{name} is {value}: give a finite number above 0')


def require_not_negative(name: str, value: float) -> None:
  """Raises ValueError for a task's number that is not finite and at least 0."""
  if not 0 <= value < np.inf:
    raise ValueError(f'{name} is {value}: give a finite one >= 0')
