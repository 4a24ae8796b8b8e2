"""The policy of a run, read back from its newest checkpoint: evaluated and filmed."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import NamedTuple

import chex
import jax
from ml_collections import ConfigDict
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.envs.camera import Marks
from armfarm.envs.foreign import Foreign
from armfarm.envs.grasp_scene import TIP
from armfarm.envs.task import Array
from armfarm.envs.task import Task
from armfarm.envs.task import instance
from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import guided
from armfarm.launchers import pictures
from armfarm.launchers import workdir as workdirs
from armfarm.launchers.app import UserError
from armfarm.workers import evaluator
from armfarm.workers.checkpoints import Checkpoints

_LEAST, _MOST = np.array([[0.87, 0.42, 0.13, 0.8]]), np.array([[0.18, 0.75, 0.35, 0.9]])


class Loaded(NamedTuple):
  """A policy and where it comes from.

  Attributes:
    parts: of the run.
    variables: of the policy.
    counters: of the trainer when it was saved.
  """

  parts: build.Parts
  variables: agent_types.Variables
  counters: dict[str, int]


def load(workdir: pathlib.Path) -> Loaded:
  """Reads the newest checkpoint that is whole.

  Raises:
    UserError: the folder holds no run, or no checkpoint that fits it.
  """
  config = ConfigDict(workdirs.read_config(workdir)['config'])
  parts = build.make_parts(config)
  checkpoints = Checkpoints(workdir / 'checkpoints', app.note)
  found = checkpoints.read()
  if found is None:
    if any((workdir / 'checkpoints').iterdir()):
      raise UserError(f'{workdir} has no checkpoint that can be used: restore one')
    raise UserError(f'{workdir} has no checkpoint yet: train for longer')
  path, progress = found
  template = jax.tree.map(np.asarray, build.variables_template(parts))
  try:
    variables = checkpoints.tree(path, 'policy', template)
  except (ValueError, OSError) as error:  # gone, if the run is under way
    raise UserError(f'{path} does not fit {workdir}/config.json: restore it') from error
  return Loaded(parts, variables, progress['trainer']['counters'])


def taught(config: ConfigDict, workdir: pathlib.Path) -> agent_types.Variables | None:
  """Reads the policy that a run is to go on from, once: its checkpoints hold it later.

  Args:
    config: of the run.
    workdir: of the run.

  Returns:
    The policy; None if there is none to go on from, or the run has gone on already.

  Raises:
    UserError: there is none where the config says, or it is another kind of policy.
  """
  teacher = config.agent.get('taught_by')
  if not teacher or any((workdir / 'checkpoints').glob('*/manifest.json')):
    return None
  try:
    loaded = load(pathlib.Path(teacher))
  except UserError as error:
    raise UserError(f'agent.taught_by: {error}') from error
  theirs = loaded.parts.config
  for name in ('task.name', 'agent.name', 'agent.hidden', 'agent.min_deviation'):
    group, key = name.split('.')
    one, other = theirs[group].get(key), config[group][key]
    if workdirs.plain({'': one}) != workdirs.plain({'': other}):
      raise UserError(
        f'{name} is {other}, but {one} in {teacher}, agent.taught_by: give the same'
      )
  app.note(f'Going on from the policy of {teacher}.')
  return loaded.variables


class Outcome(NamedTuple):
  """What a policy did on fresh episodes.

  Attributes:
    success: share of the episodes that succeeded.
    total: mean undiscounted return.
    deviation: its standard deviation over the episodes.
  """

  success: float
  total: float
  deviation: float


def evaluate(loaded: Loaded, episodes: int, seed: int) -> Outcome:
  """Runs episodes that depend on `seed` alone, without exploration noise."""
  parts = loaded.parts
  keys = jax.random.split(jax.random.key(seed), episodes)
  batch = build.make_batch(parts.trial_task, episodes)
  totals, success, _ = evaluator.rollout(parts.agent, batch, loaded.variables, keys)
  return Outcome(float(np.mean(success)), float(np.mean(totals)), float(np.std(totals)))


def record(loaded: Loaded, path: str, seed: int) -> list[pathlib.Path]:
  """Records episodes that depend on `seed` alone, as demonstrations.

  Args:
    loaded: whose policy acts.
    path: of the npz to write: `observation` [T O] before each step, `action` [T A];
      where it has {}, there is one of each instance that the run is taught on, with
      the instance's number in its place.
    seed: decides the episodes.

  Returns:
    The paths.

  Raises:
    UserError: they cannot be written, or the run has no instances.
  """
  task, config = loaded.parts.trial_task, loaded.parts.config
  if guided.EACH not in path:
    return [_record(loaded, task, pathlib.Path(path), seed)]
  if not build.is_guided(config):
    raise UserError(
      f'{path} is for numbered instances, which the run has not: give one without {{}}'
    )
  found = []
  for number in config.instances.train:
    one = pathlib.Path(path.replace(guided.EACH, str(number)))
    found.append(_record(loaded, instance(loaded.parts.own_task, number), one, seed))
  return found


def _record(
  loaded: Loaded, task: Task | Foreign, path: pathlib.Path, seed: int
) -> pathlib.Path:
  """Records one episode of a task."""
  body, key = build.make_environment(task), jax.random.key(seed)
  policy = _policy(loaded, key)
  observation, rows, over = body.reset(jax.random.fold_in(key, 1)), [], False
  while not over:
    action = policy(observation)
    rows.append((observation, action))
    step = body.step(action)
    observation, over = step.observation, step.terminated or step.truncated
  observations, actions = map(np.stack, zip(*rows, strict=True))
  try:
    with path.open('wb') as file:  # of a name numpy would write beside it
      np.savez(file, observation=observations, action=actions)
  except OSError as error:
    raise UserError(f'{path} cannot be written ({error.strerror})') from error
  return path


def film(loaded: Loaded, path: pathlib.Path, episodes: int, seed: int) -> pathlib.Path:
  """Films the policy on several goals.

  Raises:
    pictures.CannotDraw: this machine, or the environment, cannot draw.
  """
  task = loaded.parts.trial_task
  if isinstance(task, Task):
    stage = pictures.stage(task)
  else:
    stage = pictures.foreign_stage(task)
  key = jax.random.key(seed)
  keys = jax.random.split(jax.random.fold_in(key, 1), episodes)
  return pictures.film(stage, _policy(loaded, key), keys, path, _thinks(loaded, key))


def _policy(loaded: Loaded, key: chex.PRNGKey) -> pictures.Policy:
  """The evaluation policy of one robot, compiled; every step has the same key."""
  act = jax.jit(functools.partial(loaded.parts.agent.act, loaded.variables))
  return lambda observation: np.asarray(act(observation, key))


def _thinks(loaded: Loaded, key: chex.PRNGKey) -> pictures.Thinks | None:
  """What a policy that searches sees in its actions, for a task that moves a tip.

  Green is where an action leads that promises most, orange the opposite; the one that
  is taken is larger.
  """
  agent, task = loaded.parts.agent, loaded.parts.config.task
  step_size = task.get('step_size')
  if agent.search is None or step_size is None:
    return None
  search = jax.jit(functools.partial(agent.search, loaded.variables))

  def thinks(observation: Array) -> pictures.Thought:
    found = jax.device_get(search(observation, key))
    low, high = found.values.min(), found.values.max()
    share = (found.values - low)[:, None] / max(high - low, 1e-6)
    colors = (1 - share) * _LEAST + share * _MOST
    radii = np.where((found.actions == found.action).all(axis=1), 0.006, 0.0025)
    marks = Marks(TIP, step_size * found.actions[:, :3], colors, radii)
    return pictures.Thought(f'Q {float(found.value):.2f}', marks)

  return thinks


def draw(workdir: pathlib.Path, episodes: int = 5) -> None:
  """Draws a run's curve and films its policy; says where, or why not.

  Raises:
    UserError: the folder cannot be written, or its metrics not be read.
  """
  try:
    print(f'  curve  {pictures.draw_curve(workdir)}')
    path = film(load(workdir), workdir / 'videos' / 'policy.mp4', episodes, seed=0)
    print(f'  video  {path}')
  except pictures.CannotDraw as error:
    app.note(str(error))
  except OSError as error:
    raise UserError(
      f'no picture can be written to {workdir} ({error.strerror}): take --nopictures'
    ) from error
  except json.JSONDecodeError as error:
    raise UserError(
      f'{workdir}/metrics.jsonl cannot be read ({error}): take --nopictures'
    ) from error
