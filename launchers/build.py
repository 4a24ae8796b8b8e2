"""From a config to the parts of a run; whatever does not fit is a user error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import chex
from flax import traverse_util
import jax
from ml_collections import ConfigDict

from armfarm import agents
from armfarm import envs
from armfarm.agents import types as agent_types
from armfarm.agents.gps import agent as gps
from armfarm.agents.qtopt import networks
from armfarm.envs import camera
from armfarm.envs import foreign
from armfarm.envs import host
from armfarm.envs.foreign import Foreign
from armfarm.envs.serial import Serial
from armfarm.envs.task import Environment
from armfarm.envs.task import Task
from armfarm.launchers import guided
from armfarm.launchers import offpolicy
from armfarm.launchers.app import UserError
from armfarm.replay import buffer as buffers
from armfarm.replay import types
from armfarm.workers import supervisor
from armfarm.workers import trainer
from armfarm.workers.collector import Collector
from armfarm.workers.evaluator import BatchEnvironment
from armfarm.workers.evaluator import Evaluator
from armfarm.workers.pacing import Paced
from armfarm.workers.pacing import Pacer

if TYPE_CHECKING:
  from armfarm.workers.fused import FusedTrainer
  from armfarm.workers.fused import Options as FusedOptions

COLLECTOR_HERTZ = 20.0  # of Gu et al. 2016, V-C, times run.pace
TRAINER_HERTZ = 100.0  # likewise, updates/s
_RANGES = {
  'seed': (0, 2**32 - 1),
  'agent.gamma': (0, 1),
  'agent.tau': (0, 1),
  'agent.learning_rate': (0, math.inf),
  'agent.actor_learning_rate': (0, math.inf),
  'agent.critic_learning_rate': (0, math.inf),
  'agent.decay_updates': (0, math.inf),
  'agent.noise_theta': (0, 1),
  'agent.noise_sigma': (0, math.inf),
  'replay.capacity': (1, math.inf),
  'replay.batch_size': (1, math.inf),
  'replay.max_blocks': (1, math.inf),
  'replay.iterations': (1, math.inf),
  'log.jobs': (1, math.inf),
  'labels.updaters': (0, math.inf),
  'labels.batch': (1, math.inf),
  'labels.period': (0.001, math.inf),
  'labels.uses': (0.001, math.inf),
  'joint.offline_updates': (0, math.inf),
  'run.collectors': (1, math.inf),
  'run.updates_per_iteration': (1, math.inf),
  'run.gradients_per_s': (0.001, math.inf),
  'run.inner_iterations': (1, math.inf),
  'run.environments': (1, math.inf),
  'run.devices': (1, math.inf),
  'run.block_steps': (1, math.inf),
  'run.updates_per_step': (0.001, 1000),
  'run.warmup_steps': (1, math.inf),
  'run.publish_every': (1, math.inf),
  'run.pace': (0, 1000),
  'run.max_episodes': (1, math.inf),
  'run.evaluate_every': (1, math.inf),
  'run.held_out_episodes': (1, math.inf),
  'run.fresh_episodes': (1, math.inf),
  'run.checkpoint_every': (1, math.inf),
}  # least and most


class Keys(NamedTuple):
  """The keys of a run, all of its seed."""

  trainer: chex.PRNGKey
  collectors: chex.PRNGKey
  evaluator: chex.PRNGKey


class Parts(NamedTuple):
  """What every process of a run is made of."""

  config: ConfigDict
  task: Task | Foreign
  agent: Any
  keys: Keys

  @property
  def trial_task(self) -> Task | Foreign:
    """What policies are tried on: the task, unless the config has `trials`."""
    return make_task(self.config, trial=True) if 'trials' in self.config else self.task

  @property
  def own_task(self) -> Task:
    """The task, which is one of ours."""
    assert isinstance(self.task, Task)
    return self.task

  @property
  def item(self) -> types.Item:
    """What is stored of a step, where experience is."""
    spec = agent_types.Spec(self.task.observation_size, self.task.action_size)
    view = self.task.view if isinstance(self.task, Task) else None
    return types.item_template(spec, camera.blank(view, spec.observation_size))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
  """Turns what a config can get wrong into a user error."""
  try:
    yield
  except TypeError as error:
    raise UserError(f'the config has a wrong or missing number: {error}') from error
  except (ValueError, KeyError, ModuleNotFoundError) as error:
    raise UserError(str(error)) from error
  except AttributeError as error:
    if not any(isinstance(x, KeyError) for x in error.args):  # as a ConfigDict's
      raise
    raise UserError(
      f'the config has no {error.name}, as one of another version: start a run anew'
    ) from error


def make_task(config: ConfigDict, trial: bool = False) -> Task | Foreign:
  """Builds the task of a config, or the one that its policies are tried on."""
  numbers = config.task.to_dict()
  if trial and 'trials' in config:
    numbers |= config.trials.to_dict()
  tasks = {**envs.TASKS, 'gym': foreign.make}
  return named('task', numbers.pop('name'), tasks)(**numbers)


def make_agent(
  config: ConfigDict, task: Task | Foreign, axis_name: str | None = None
) -> Any:
  """Builds the agent of a config, whose updates may be mapped over devices."""
  if is_guided(config):
    return guided.make_agent(config, task)
  numbers = config.agent.to_dict()
  entry = named('agent', numbers.pop('name'), agents.AGENTS)
  spec = agent_types.Spec(task.observation_size, task.action_size)
  agent = entry.make(spec, guided.fill(entry.Config, numbers), axis_name)
  return offpolicy.with_script(config, agent, task) if 'scripted' in config else agent


def named(what: str, name: str, table: Mapping[str, Any]) -> Any:
  """Looks up a name; raises ValueError if there is no such thing."""
  if name not in table:
    raise ValueError(f'there is no {what} {name!r}: choose one of {", ".join(table)}')
  return table[name]


def make_parts(config: ConfigDict) -> Parts:
  """Builds what a config asks for.

  Raises:
    UserError: it asks for what does not fit.
  """
  with user_errors():
    check_numbers(config)
    task = make_task(config)
    if not is_guided(config):
      check_experience(config, task)
      offpolicy.check(config)
    keys = Keys(*jax.random.split(jax.random.key(config.seed), 3))
    return Parts(config, task, make_agent(config, task), keys)


def is_guided(config: ConfigDict) -> bool:
  """Whether local controllers teach, so that lessons take the place of experience."""
  return config.agent.name == 'gps'


def check_numbers(config: ConfigDict) -> None:
  """Raises ValueError for a number that makes no sense; tasks check their own."""
  rows = traverse_util.flatten_dict(config.to_dict(), sep='.')
  for name, (least, most) in _RANGES.items():
    if name in rows and not least <= rows[name] <= most:
      limit = f'at least {least}' if most == math.inf else f'{least} to {most}'
      raise ValueError(f'{name} is {rows[name]}: give {limit}')
  if is_guided(config):
    guided.check_numbers(config)
  widths = config.agent.get('critic', config.agent).hidden
  if not all(isinstance(width, int) and width > 0 for width in widths):
    raise ValueError(f"agent.hidden is {widths}: give widths, as in '(100, 100)'")


def check_experience(config: ConfigDict, task: Task | Foreign) -> None:
  """Raises ValueError if experience does not fit the replay memory or the trainer."""
  network = config.agent.get('critic', config.agent).get('network')
  if isinstance(task, Task) and task.view and network not in networks.IMAGE_SIZES:
    raise ValueError(f'{task.name} shows images, which {config.agent.name} cannot see')
  _ = trainer_options(config).updates_per_call  # raises
  capacity, block_steps = config.replay.capacity, config.run.block_steps
  if capacity < block_steps:
    raise ValueError(
      f'replay.capacity is {capacity} and run.block_steps is {block_steps}: use a'
      ' capacity of at least that'
    )


def trainer_options(config: ConfigDict) -> trainer.Options:
  """Returns the trainer's part of a config."""
  run = config.run
  return trainer.Options(
    run.updates_per_step,
    run.warmup_steps,
    run.block_steps,
    run.publish_every,
    config.replay.batch_size,
  )


def supervisor_options(config: ConfigDict) -> supervisor.Options:
  """Returns the supervisor's part of a config."""
  run = config.run
  return supervisor.Options(
    run.max_episodes,
    run.evaluate_every,
    run.checkpoint_every,
    run.stop_when_solved,
    run.get('evaluate_first', False),
  )


def make_trainer(parts: Parts, replay: types.Replay) -> trainer.Trainer:
  """Builds the trainer."""
  config = parts.config
  memory = offpolicy.make_memory(parts)
  options = trainer_options(config)
  return trainer.Trainer(parts.agent, memory, replay, options, parts.keys.trainer)


def make_fused(parts: Parts) -> FusedTrainer:
  """Builds the trainer whose environments are on the learner's devices."""
  from armfarm.envs import mjx  # brax and MJX take seconds to import
  from armfarm.workers import fused

  options, memory = fused_memory(parts)
  assert isinstance(parts.task, Task)  # `fused_memory` has looked
  with user_errors():
    axis_name = fused.AXIS if options.devices > 1 else None
    agent = make_agent(parts.config, parts.task, axis_name)
    environment = mjx.AutoReset(mjx.Mjx(parts.task), parts.task.episode_steps)
    program = fused.Program(agent, environment, memory, options)
    return fused.FusedTrainer(program, parts.keys.trainer)


def fused_memory(parts: Parts) -> tuple[FusedOptions, buffers.Buffer]:
  """Returns how much of everything a fused program has, and one device's memory.

  Raises:
    UserError: the parts cannot be made one program.
  """
  from armfarm.workers import fused

  with user_errors():
    check_devices(parts)
    run, replay = parts.config.run, parts.config.replay
    numbers = (run.block_steps, run.updates_per_step, run.warmup_steps)
    options = fused.Options(run.environments, run.devices, *numbers)
    samples = replay.batch_size // run.devices * options.updates_per_round
    capacity = replay.capacity // run.devices
    item = parts.item.transition
    return options, buffers.make(item, capacity, options.size, samples)


def check_devices(parts: Parts) -> None:
  """Raises ValueError unless a task can be run on devices, in equal parts."""
  if not isinstance(parts.task, Task):
    raise ValueError('--runtime=fused needs a task on MJX: take sync or async')
  config = parts.config
  devices, there = config.run.devices, jax.local_device_count()
  if devices > there:
    raise ValueError(f'run.devices is {devices}: this machine has {there}')
  shared = {
    'run.environments': (config.run.environments, devices),
    'replay.batch_size': (config.replay.batch_size, devices),
    'replay.capacity': (config.replay.capacity, config.run.environments),
  }
  for name, (number, divisor) in shared.items():
    if number % divisor:
      raise ValueError(f'{name} is {number}: give a multiple of {divisor}')


def make_environment(task: Task | Foreign) -> Environment:
  """Makes one instance of a task, for a collector."""
  return host.Host(task) if isinstance(task, Task) else foreign.ForeignHost(task)


def make_batch(task: Task | Foreign, size: int) -> BatchEnvironment:
  """Makes some instances of a task, for an evaluator."""
  if isinstance(task, Task):
    return host.HostBatch(task, size, threads=1)
  return Serial([foreign.ForeignHost(task) for _ in range(size)])


def make_collector(
  parts: Parts, replay: types.Replay, number: int, first_episode: int = 0
) -> Collector:
  """Builds a collector with a robot of its own."""
  environment = make_environment(parts.task)
  if parts.config.run.pace:
    pacer = Pacer(parts.config.run.pace * COLLECTOR_HERTZ)
    environment = Paced(environment, pacer)
  return Collector(
    environment,
    parts.agent,
    offpolicy.logged(parts.config, replay, number),
    number=number,
    block_steps=parts.config.run.block_steps,
    key=parts.keys.collectors,
    first_episode=first_episode,
  )


def make_evaluator(parts: Parts) -> Evaluator:
  """Builds the evaluator with a batch of robots."""
  config = parts.config
  distance = None
  if is_guided(config):
    batch: BatchEnvironment = guided.make_batch(config, parts.own_task)
    held_out, distance = len(config.instances.test), guided.make_distance(config)
  else:
    held_out = config.run.held_out_episodes
    batch = make_batch(parts.trial_task, held_out + config.run.fresh_episodes)
  return Evaluator(parts.agent, batch, held_out, parts.keys.evaluator, distance)


def variables_template(parts: Parts) -> Any:
  """Returns what acting needs, with its shapes and types."""
  learner = jax.jit(parts.agent.init)(jax.random.key(0))
  return parts.agent.variables(learner)


def templates(parts: Parts) -> tuple[dict[str, Any], Any]:
  """Returns what travels, zeros: by queue to the trainer, and from it."""
  if is_guided(parts.config):
    learner = jax.jit(parts.agent.init)(jax.random.key(0))
    return guided.queues(parts.agent), gps.portable(learner)
  block = types.block_template(parts.item, parts.config.run.block_steps)
  queues = {'online': block, **offpolicy.queues(parts, block)}
  return queues, variables_template(parts)
