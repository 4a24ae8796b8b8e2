"""How fast grasping is simulated, and how often the scripted policy grasps.

  python benchmarks/grasp.py

Episodes of the scripted policy, 32 side by side on one thread. Prints control steps a
second of processor time, with and without what it takes to begin episodes, and the part
of the episodes that succeed with its standard error, for the objects to learn with and
for those to test with. Then pictures a second of processor time, of 64 x 64 pixels.
"""

from __future__ import annotations

import functools
import os
import time
from typing import NamedTuple

from absl import app
from absl import flags
import jax
import numpy as np

import armfarm.launchers  # noqa: F401 - chooses OpenGL, before MuJoCo is imported

# isort: split
from armfarm import envs
from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import scripted
from armfarm.configs import qtopt as configs
from armfarm.envs import host
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import guided

_EPISODES = flags.DEFINE_integer('episodes', 640, 'Episodes of each set of objects.')
_SIZE = 32


class Played(NamedTuple):
  """What episodes showed.

  Attributes:
    success: of each, [I].
    steps: control steps in all.
    stepping: seconds of processor time in steps.
    beginning: seconds of processor time in resets.
  """

  success: np.ndarray
  steps: int
  stepping: float
  beginning: float


class Player:
  """Plays the scripted policy on a task."""

  def __init__(self, unseen: bool):
    config = configs.get_config('grasp_state')
    numbers = config.task.to_dict() | {'unseen': unseen}
    task = envs.TASKS[numbers.pop('name')](**numbers)
    layout = actions.layout(
      task.action_size, config.agent.angles, config.agent.commands
    )
    scripted.check(layout)
    options = guided.fill(scripted.Options, config.scripted.to_dict())
    explore = functools.partial(scripted.explore, layout, options, (), observation=())
    self._begin = jax.jit(jax.vmap(functools.partial(scripted.begin, options)))
    self._explore = jax.jit(jax.vmap(lambda plan, key: explore(plan=plan, key=key)))
    self._body = host.HostBatch(task, _SIZE, threads=1)

  def play(self, key: jax.Array) -> Played:
    """Plays an episode in every instance; the key is consumed."""
    key_start, key_plan, key_steps = jax.random.split(key, 3)
    began = time.process_time()
    self._body.reset(jax.random.split(key_start, _SIZE))
    beginning = time.process_time() - began
    plan = self._begin(jax.random.split(key_plan, _SIZE))
    success, running = np.zeros(_SIZE, bool), np.arange(_SIZE)
    steps, stepping = 0, 0.0
    while len(running):
      key_steps, key = jax.random.split(key_steps)
      action, plan = self._explore(plan, jax.random.split(key, _SIZE))
      chosen = np.asarray(action)[running]
      began = time.process_time()
      step = self._body.step(chosen, running)
      stepping += time.process_time() - began
      steps += len(running)
      success[running] = step.success
      running = running[~step.terminated]
    return Played(success, steps, stepping, beginning)


def measure(unseen: bool, episodes: int) -> dict[str, tuple[float, str]]:
  """Returns name -> value and unit, over at least so many episodes."""
  player = Player(unseen)
  keys = jax.random.split(jax.random.key(int(unseen)), -(-episodes // _SIZE) + 1)
  played = [player.play(key) for key in keys][1:]  # the first compiles
  success = np.concatenate([each.success for each in played])
  steps = sum(each.steps for each in played)
  stepping = sum(each.stepping for each in played)
  whole = stepping + sum(each.beginning for each in played)
  part = success.mean()
  return {
    'episodes': (len(success), ''),
    'success': (part, ''),
    'standard_error': (np.sqrt(part * (1 - part) / len(success)), ''),
    'step_rate': (steps / stepping, 'steps/s'),
    'step_rate_with_resets': (steps / whole, 'steps/s'),
    'episode_steps': (steps / len(success), 'steps'),
  }


def pictures(count: int = 2000) -> dict[str, tuple[float, str]]:
  """Returns the rate at which a camera takes pictures of a bin, while nothing moves."""
  numbers = configs.get_config('grasp').task.to_dict() | {'image_size': (64, 64)}
  body = host.Host(envs.TASKS[numbers.pop('name')](**numbers))
  body.reset(jax.random.key(0))
  began = time.process_time()
  for _ in range(count):
    body.observe()
  return {'frame_rate': (count / (time.process_time() - began), 'frames/s')}


def main(argv: list[str]) -> None:
  """Prints a line for each number, and records them."""
  del argv
  source = rows.Source('python benchmarks/grasp.py', rows.commit(), rows.machine())
  for variant, run in (
    ('train', lambda: measure(False, _EPISODES.value)),
    ('test', lambda: measure(True, _EPISODES.value)),
    ('camera', pictures),
  ):
    found = run()
    found['load'] = os.getloadavg()[0], 'processes'
    for name, (value, unit) in found.items():
      print(variant, name, f'{value:,.3f}', unit, flush=True)
      number = name, round(float(value), 3), unit, None
      key = 'grasp', 'grasp_state', 'scripted', variant, 0
      rows.merge(results.folder(), [rows.Row(*key, *number, *source)])


if __name__ == '__main__':
  app.run(main)
