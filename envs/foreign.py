"""Any Gymnasium environment with Box spaces, as a task that our agents learn.

Actions in [-1, 1] are stretched to its bounds, observations laid flat. Its own end is
`terminated`, its time limit `truncated`. An episode succeeds as `info['is_success']`
says at its last step or, where the environment does not say, if its return is high
enough. There is no way back to a state of such an environment: see `state` in
`task.Environment`.

Letters as in `task.py`.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple
import warnings

import chex
import jax
import numpy as np

from armfarm.envs.task import Array
from armfarm.envs.task import Step
from armfarm.envs.task import checked_action

_HERTZ = 30.0  # of films, where an environment does not say


class Foreign(NamedTuple):
  """What it takes to make instances of a Gymnasium environment, and their sizes.

  Attributes:
    id: what Gymnasium knows it by.
    observation_size: O.
    action_size: A; actions lie in [-1, 1].
    episode_steps: control steps until the time limit.
    success_return: least return of an episode that succeeds; None for no criterion.
  """

  id: str
  observation_size: int
  action_size: int
  episode_steps: int
  success_return: float | None

  def open(self, render_mode: str | None = None) -> Any:
    """Makes an instance.

    Raises:
      ValueError: it cannot be made; the message says why.
    """
    return _open(self.id, self.episode_steps, render_mode)


def make(*, id: str, episode_steps: int, success_return: float | None) -> Foreign:
  """Looks at an environment.

  Args:
    id: what Gymnasium knows it by; `module:id` imports a module first.
    episode_steps: control steps until the time limit; 0 for the environment's own.
    success_return: see `Foreign`.

  Raises:
    ValueError: Gymnasium or the environment cannot be had, its spaces are not Box or
      its actions not bounded, or nothing limits its episodes.
  """
  if episode_steps < 0:
    raise ValueError(f'episode_steps is {episode_steps}: give 0 for the limit of {id}')
  environment = _open(id, episode_steps)
  try:
    _check_spaces(id, environment)
    steps = episode_steps or environment.spec.max_episode_steps
    if not steps:
      raise ValueError(f'{id} has no time limit: give one by task.episode_steps')
    return Foreign(
      id=id,
      observation_size=int(np.prod(environment.observation_space.shape)),
      action_size=int(np.prod(environment.action_space.shape)),
      episode_steps=steps,
      success_return=success_return,
    )
  finally:
    environment.close()


class ForeignHost:
  """One instance of a Gymnasium environment, a `task.Environment`.

  Attributes:
    observation_size: O.
    action_size: A.
    episode_steps: control steps until the time limit.
    hertz: how many of them to show in a second.
  """

  def __init__(self, task: Foreign, render_mode: str | None = None):
    self.observation_size = task.observation_size
    self.action_size = task.action_size
    self.episode_steps = task.episode_steps
    self._environment = task.open(render_mode)
    space = self._environment.action_space
    self.hertz = float(self._environment.metadata.get('render_fps', _HERTZ))
    self._low, self._high = space.low.astype(float), space.high.astype(float)
    self._dtype = space.dtype
    self._success_return = task.success_return
    self._total = 0.0
    self._running = False

  def reset(self, key: chex.PRNGKey) -> Array:
    """Begins an episode, seeded by the key; see `task.Environment`."""
    seed = int(jax.random.bits(key, dtype=np.uint32))
    observation, _ = self._environment.reset(seed=seed)
    self._total = 0.0
    self._running = True
    return _flat(observation)

  def step(self, action: Array) -> Step:
    """Takes one control step; see `task.Environment`."""
    action = checked_action(action, (self.action_size,))
    if not self._running:
      raise RuntimeError('the episode has ended or was not begun: call reset first')
    observation, reward, terminated, truncated, info = self._environment.step(
      self._stretched(action)
    )
    self._total += float(reward)
    self._running = not (terminated or truncated)
    return Step(
      observation=_flat(observation),
      reward=np.float32(reward),
      terminated=bool(terminated),
      truncated=bool(truncated and not terminated),
      success=self._success(info),
    )

  def state(self) -> dict[str, Array]:
    """Nothing: there is no way back; see `task.Environment`."""
    return {}

  def restore(self, state: dict[str, Array]) -> None:
    """Raises ValueError: there is no way back."""
    raise ValueError('a Gymnasium environment cannot be restored: begin an episode')

  def render(self) -> np.ndarray:
    """Takes a picture, [height, width, 3], uint8; the render mode was 'rgb_array'."""
    return self._environment.render()

  def close(self) -> None:
    """Frees what the environment holds."""
    self._environment.close()

  def _stretched(self, action: np.ndarray) -> np.ndarray:
    """Returns an action [A] from [-1, 1] within the bounds, as the space has it."""
    low, high = self._low, self._high
    part = (action.reshape(low.shape) + 1) / 2
    stretched = np.minimum(np.maximum(low + part * (high - low), low), high)
    return stretched.astype(self._dtype)  # what rounding had put past a bound is back

  def _success(self, info: dict[str, Any]) -> bool:
    if 'is_success' in info:
      return bool(info['is_success'])
    if self._running or self._success_return is None:
      return False
    return self._total >= self._success_return


def _open(id: str, episode_steps: int, render_mode: str | None = None) -> Any:
  try:
    gymnasium = importlib.import_module('gymnasium')
  except ImportError as error:
    message = f"Gymnasium cannot be imported ({error}): pip install 'armfarm[gym]'"
    raise ValueError(message) from error
  try:
    with warnings.catch_warnings(action='ignore'):  # of versions: the user chose one
      return gymnasium.make(
        id,
        render_mode=render_mode,
        max_episode_steps=episode_steps or None,
        disable_env_checker=True,
      )
  except Exception as error:  # whatever the makers of environments raise
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise ValueError(f'Gymnasium cannot make {id}: {reason}') from error


def _check_spaces(id: str, environment: Any) -> None:
  box = importlib.import_module('gymnasium').spaces.Box
  spaces = {
    'observations': environment.observation_space,
    'actions': environment.action_space,
  }
  for name, space in spaces.items():
    if not isinstance(space, box):
      raise ValueError(f'{id} has {name} of {space}: choose one where they are a Box')
  action = environment.action_space
  if not np.issubdtype(action.dtype, np.floating):
    raise ValueError(f'{id} has actions of {action.dtype}: choose one of real numbers')
  if not action.is_bounded():
    raise ValueError(f'{id} has actions without bounds: choose one that bounds them')


def _flat(observation: Any) -> np.ndarray:
  return np.array(observation, np.float32).reshape(-1)  # a copy: it may be used again
