"""Guided policy search, from a config to its parts.

A config's `agent` nests as the agent's own numbers do; its `cost` and its `initial`
controller name what `armfarm.agents.gps` has. Robots share the training instances of
a task among them, every robot as many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
import typing
from typing import Any

import chex
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.agents.gps import agent as gps
from armfarm.agents.gps import initial
from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import local
from armfarm.agents.gps import reaching
from armfarm.envs import host
from armfarm.envs.foreign import Foreign
from armfarm.envs.serial import Serial
from armfarm.envs.task import Environment
from armfarm.envs.task import Task
from armfarm.envs.task import instance
from armfarm.workers.global_worker import parcel_template
from armfarm.workers.lessons import Memory
from armfarm.workers.local_worker import Robot
from armfarm.workers.local_worker import ready
from armfarm.workers.local_worker import to_block
from armfarm.workers.pacing import Paced
from armfarm.workers.pacing import Pacer

GRADIENTS = 'gradients'  # the queue where they travel
EACH = '{}'  # in a demonstration's path: the number of its instance


def fill(kind: Any, numbers: Mapping[str, Any]) -> Any:
  """Makes a NamedTuple of numbers that nest as its fields do.

  Raises:
    TypeError: a number is missing, or is not one of its.
  """
  hints = typing.get_type_hints(kind)

  def field(name: str, value: Any) -> Any:
    kinds = hints.get(name), *typing.get_args(hints.get(name))  # also X of X | None
    inner = next((kind for kind in kinds if hasattr(kind, '_fields')), None)
    if isinstance(value, Mapping) and inner is not None:
      return fill(inner, value)
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples

  return kind(**{name: field(name, value) for name, value in numbers.items()})


def make_agent(config: ConfigDict, task: Task | Foreign) -> gps.GuidedPolicySearch:
  """Builds the agent of a config.

  Raises:
    TypeError: a number is missing, or is none of its.
    ValueError: the numbers do not fit each other or the task.
  """
  if not isinstance(task, Task):
    raise ValueError('guided policy search needs a task of ours, not one of Gymnasium')
  numbers = config.agent.to_dict()
  cost = cost_options(config)
  reaching.check(cost)
  for name in ('name', 'cost', 'initial', 'taught_by'):
    numbers.pop(name, None)
  spec = agent_types.Spec(task.observation_size, task.action_size)
  options = fill(gps.Config, numbers)._replace(local=local_options(config))
  _check_places(config, options.local)
  if options.local.steps != task.episode_steps:
    raise ValueError(
      f'agent.local.steps is {options.local.steps}, but an episode has'
      f' {task.episode_steps}: give the same'
    )
  controllers = make_controllers(config, task, config.instances.train)
  cost_of = functools.partial(reaching.cost, cost)
  return gps.make(spec, options, cost_of, controllers[0])


def _check_places(config: ConfigDict, options: local.Options) -> None:
  """Raises ValueError if rollouts would be labelled for where they were not made."""
  moves = options.on_policy and config.task.get('perturbation', 0.0) > 0.0
  if moves and options.remembered != options.rollouts:
    raise ValueError(
      'task.perturbation has every iteration elsewhere: set agent.local.remembered to'
      f' {options.rollouts}, the rollouts of one, not {options.remembered}'
    )


def make_controllers(
  config: ConfigDict, task: Task, instances: Sequence[int]
) -> list[lg.Controller]:
  """Builds what instances begin with: one for each where each was shown its own."""
  numbers, options = config.agent.initial.to_dict(), local_options(config)
  return [
    make_controller(numbers, task, options, number)
    for number in (instances if each_was_shown(config) else instances[:1])
  ]


def each_was_shown(config: ConfigDict) -> bool:
  """Whether each instance has a demonstration of its own."""
  return EACH in config.agent.initial.get('path', '')


def make_controller(
  numbers: dict[str, Any], task: Task, options: local.Options, number: int = 0
) -> lg.Controller:
  """Builds the controller that an instance begins with.

  Args:
    numbers: `kind`, and what that kind in `_INITIAL` asks for.
    task: whose instance says where the arm starts.
    options: of the local half.
    number: of the instance.
  """
  numbers = dict(numbers)
  kind = numbers.pop('kind')
  if kind not in _INITIAL:
    raise ValueError(
      f'there is no initial controller {kind!r}: choose one of {", ".join(_INITIAL)}'
    )
  if 'path' in numbers:
    numbers['path'] = numbers['path'].replace(EACH, str(number))
  observation = host.Host(instance(task, number)).reset(jax.random.key(0))
  state = jnp.asarray(observation[: options.state_size])
  return _INITIAL[kind](numbers, state, options.steps, task.action_size)


def _pd(
  numbers: dict[str, Any], state: chex.Array, steps: int, action: int
) -> lg.Controller:
  return initial.pd(fill(initial.PD, numbers), state, steps, action)


def _guessed(
  numbers: dict[str, Any], state: chex.Array, steps: int, action: int
) -> lg.Controller:
  if len(numbers['gains']) != action:
    raise ValueError(f'agent.initial.gains is {numbers["gains"]}: give {action} gains')
  options = fill(initial.Guess, numbers)
  return jax.jit(initial.guessed, static_argnums=(0, 2))(options, state, steps)


def _demonstrated(
  numbers: dict[str, Any], state: chex.Array, steps: int, action: int
) -> lg.Controller:
  path = numbers.pop('path')
  try:
    with np.load(path) as file:
      observations, actions = file['observation'], file['action']
  except (OSError, ValueError, KeyError) as error:
    raise ValueError(
      f'agent.initial.path is {path!r}, which holds no demonstration ({error}): record'
      ' one by evaluate --record'
    ) from error
  if observations.shape[:1] != (steps,) or actions.shape != (steps, action):
    raise ValueError(
      f'{path} demonstrates {len(actions)} steps of {actions.shape[-1]} actions: give'
      f' one of {steps} steps and {action} actions'
    )
  states = jnp.asarray(observations[:, : len(state)])
  return initial.demonstrated(fill(initial.PD, numbers), states, jnp.asarray(actions))


_INITIAL = {'guessed': _guessed, 'pd': _pd, 'demonstration': _demonstrated}


def local_options(config: ConfigDict) -> local.Options:
  """Returns the numbers of the local half."""
  numbers = fill(local.Options, config.agent.local.to_dict())
  return numbers._replace(taught=bool(config.agent.taught_by))


def cost_options(config: ConfigDict) -> reaching.Options:
  """Returns the numbers of the cost."""
  return fill(reaching.Options, config.agent.cost.to_dict())


def make_distance(config: ConfigDict) -> Callable[[chex.Array], chex.Array]:
  """Returns what tells of observations how far from the goal they are, m."""
  return functools.partial(reaching.distance, cost_options(config))


def check_numbers(config: ConfigDict) -> None:
  """Raises ValueError unless instances and robots fit each other."""
  robots, instances = config.run.collectors, config.instances
  for name, numbers in instances.items():
    if not numbers or len(set(numbers)) < len(numbers):
      raise ValueError(f'instances.{name} is {numbers}: give some, each once')
  if len(instances.train) % robots:
    raise ValueError(
      f'run.collectors is {robots}, but there are {len(instances.train)} instances to'
      ' train on: give a divisor'
    )


def make_memory(config: ConfigDict, task: Task, robots: int) -> Memory:
  """Builds the memory of so many robots that share it."""
  spec = agent_types.Spec(task.observation_size, task.action_size)
  block = gps.no_examples(local_options(config), spec)
  return Memory(robots * share_of(config), block, config.replay.iterations)


def make_robot(config: ConfigDict, task: Task, number: int, first: int = 0) -> Robot:
  """Builds a robot, once for each of its instances.

  Args:
    config: of the run.
    task: what all robots do.
    number: of the robot.
    first: number of its first instance in the memory.
  """
  share = share_of(config)
  instances = tuple(config.instances.train)[number * share :][:share]
  bodies: list[Environment] = [host.Host(instance(task, i)) for i in instances]
  distance = make_distance(config)
  robot = Robot(number, instances, bodies, distance, first)
  if each_was_shown(config):
    robot = robot._replace(controllers=make_controllers(config, task, instances))
  if not config.run.pace:
    return robot
  clock = Pacer(config.run.pace / task.control_period)
  paced = [Paced(body, clock) for body in bodies]
  return robot._replace(environments=paced, clock=clock)


def make_batch(config: ConfigDict, task: Task) -> Serial:
  """Builds the instances of an evaluation: those of test, then those of validation."""
  numbers = (*config.instances.test, *config.instances.validate)
  return Serial([host.Host(instance(task, number)) for number in numbers])


def queues(agent: gps.GuidedPolicySearch) -> dict[str, Any]:
  """Returns what travels to the server, by queue, zeros, [1 ...]."""
  return {'online': to_block(ready(0)), GRADIENTS: parcel_template(agent)}


def share_of(config: ConfigDict) -> int:
  """Returns how many instances are one robot's."""
  return len(config.instances.train) // config.run.collectors
