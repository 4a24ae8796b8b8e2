"""A task as a registered Gymnasium environment, for whoever learns on those.

  import armfarm.envs.gym

  environment = gymnasium.make('armfarm/Reach-v0')

Or in one line: `gymnasium.make('armfarm.envs.gym:armfarm/Reach-v0')`. The task has the
numbers of its config; `make` takes others as keyword arguments, as in `speed=0.25`.
The time limit is the task's own, so that Gymnasium adds no second one.

Letters as in `task.py`.
"""

from __future__ import annotations

from typing import Any

import chex
import gymnasium
import jax
import numpy as np

from armfarm import envs
from armfarm.configs import tasks
from armfarm.envs import camera
from armfarm.envs import host
from armfarm.envs import task

IDS = {name: f'armfarm/{name.title().replace("_", "")}-v0' for name in envs.TASKS}


class TaskEnv(gymnasium.Env[Any, np.ndarray]):
  """One instance of a task on native MuJoCo, with Gymnasium's interface.

  `info` has `is_success`: the task's criterion holds after the step.
  """

  metadata = {'render_modes': ['rgb_array']}  # noqa: RUF012 - Gymnasium's interface

  def __init__(
    self,
    name: str,
    render_mode: str | None = None,
    camera: str = 'over_view',
    width: int = 480,
    height: int = 360,
    **numbers: Any,
  ):
    """Makes the instance.

    Args:
      name: of the task.
      render_mode: 'rgb_array', or None for no pictures.
      camera: name of a camera of the model.
      width: of a picture, pixels.
      height: of a picture, pixels.
      **numbers: in place of the config's.

    Raises:
      ValueError: a number is out of its range, or the render mode unknown.
    """
    if render_mode not in (None, 'rgb_array'):
      raise ValueError(f"render_mode is {render_mode!r}: give 'rgb_array' or None")
    config = tasks.TASKS[name]().to_dict() | numbers
    made = envs.TASKS[config.pop('name')](**config)
    self.observation_space = _observation_space(made)
    self.action_space = gymnasium.spaces.Box(-1, 1, (made.action_size,), np.float32)
    self.metadata = self.metadata | {'render_fps': round(1 / made.control_period)}
    self.render_mode = render_mode
    self._picture = (camera, width, height)
    self._body = host.Host(made)
    self._key: chex.PRNGKey | None = None

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[Any, dict[str, Any]]:
    """Begins an episode; see `gymnasium.Env`.

    Args:
      seed: decides this episode and all that follow; None for the next of them.
      options: none are known.

    Returns:
      The first observation, [O] or a dictionary, and nothing more.
    """
    del options
    super().reset(seed=seed)
    if seed is not None or self._key is None:
      self._key = jax.random.key(int(self.np_random.integers(2**32)))
    self._key, key = jax.random.split(self._key)
    return _plain(self._body.reset(key)), {}

  def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Takes one control step; see `gymnasium.Env`.

    Args:
      action: [A], in [-1, 1].

    Returns:
      Observation [O], reward, terminated, truncated and `is_success`.

    Raises:
      ValueError: the action is not finite, of another shape or outside [-1, 1].
      RuntimeError: the episode has ended, or none was begun.
    """
    step = self._body.step(action)
    info = {'is_success': step.success}
    reward = float(step.reward)
    return _plain(step.observation), reward, step.terminated, step.truncated, info

  def render(self) -> np.ndarray | None:
    """Takes a picture, [height, width, 3], uint8; None without a render mode."""
    return self._body.render(*self._picture) if self.render_mode else None

  def close(self) -> None:
    """Frees the renderer."""
    self._body.close()


def _observation_space(made: task.Task) -> gymnasium.Space[Any]:
  """A vector or, where there is a camera, a dictionary of an image and a vector."""
  limit = task.OBSERVATION_LIMIT
  vector = gymnasium.spaces.Box(-limit, limit, (made.observation_size,), np.float32)
  if made.view is None:
    return vector
  pixels = (made.view.height, made.view.width, 3)
  image = gymnasium.spaces.Box(0, 255, pixels, np.uint8)
  return gymnasium.spaces.Dict({'image': image, 'state': vector})


def _plain(observation: Any) -> Any:
  """Returns an observation as its space has it."""
  named = isinstance(observation, camera.Observation)
  return observation._asdict() if named else observation


for _name, _id in IDS.items():
  gymnasium.register(_id, f'{__name__}:{TaskEnv.__name__}', kwargs={'name': _name})
