"""The local worker: one robot and the controllers that it improves (Algorithm 2).

  for every instance of the task that the robot has
    N times: begin the episode, roll out       local controller or global policy
    fit, improve, label                        `label` of the agent
    swap the instance's lessons in the pair's memory

Each rollout has a key of its own, made of the robot's number and the rollout's: a robot
that starts again goes on with the next one and repeats none. Where the policy acts,
those of an iteration begin alike: a controller is for that beginning, and for no later
one (Yahya et al. 2016, III). Otherwise it is for all beginnings of its instance.

Letters as in `armfarm.agents.types`, [T] steps of a rollout, [N] rollouts of an
iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import time
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.agents.gps import agent as gps
from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import local
from armfarm.envs import task
from armfarm.replay import types
from armfarm.workers import acting
from armfarm.workers.lessons import Memory

READY = -1
Source = Callable[[], types.Published]


class Rollout(NamedTuple):
  """What became of one rollout; or that a robot is ready for its first.

  Attributes:
    collector: number of the robot.
    episode: number of the rollout on that robot, from 0; `READY` before that.
    instance: where it began.
    iteration: improvements of that instance's controller before it.
    steps: T.
    total: undiscounted sum of rewards.
    success: the task's criterion held at the last step.
    distance: from the goal after that step, m.
    held: improvements of that controller so far that kept their anchor.
    version: of the variables that were there.
    age_s: seconds since that version, when the rollout began.
    utilization: share of the robot's time since it started that went into rollouts.
    late: share of its steps that came after their time.
  """

  collector: int
  episode: int
  instance: int
  iteration: int
  steps: int
  total: float
  success: bool
  distance: float
  held: int
  version: int
  age_s: float
  utilization: float
  late: float


def ready(number: int) -> Rollout:
  """Returns what tells that a robot is ready."""
  return Rollout(number, READY, 0, 0, 0, 0.0, False, 0.0, 0, 0, 0.0, 0.0, 0.0)


def to_block(rollout: Rollout) -> Any:
  """As it travels, [1]."""
  return jax.tree.map(lambda x: np.asarray(x)[None], rollout)


def from_block(block: Any) -> Rollout:
  """As it was before it travelled."""
  return Rollout(*(x[0].item() for x in block))


class Clock(Protocol):
  """What keeps a robot's beat, see `pacing.Pacer`."""

  ticks: int
  late: int


class Robot(NamedTuple):
  """What a local worker has to work with.

  Attributes:
    number: from 0; part of every key and every report.
    instances: numbers of the task's instances that are the robot's.
    environments: one for each of these.
    distance: from the goal, m, [], of an observation [O].
    first: number of its first instance in the memory.
    clock: None where the robot keeps no beat.
    controllers: that these begin with, () where all begin with the agent's.
  """

  number: int
  instances: Sequence[int]
  environments: Sequence[task.Environment]
  distance: Callable[[chex.Array], chex.Array]
  first: int = 0
  clock: Clock | None = None
  controllers: Sequence[lg.Controller] = ()


class LocalWorker:
  """Rolls out, improves, teaches.

  Args:
    agent: whose local half this is.
    options: numbers of that half.
    robot: who rolls out.
    memory: where lessons go, a block for every instance of the robot.
    key: of the run, the same for all robots; consumed.
  """

  def __init__(
    self,
    agent: gps.GuidedPolicySearch,
    options: local.Options,
    robot: Robot,
    memory: Memory,
    key: chex.PRNGKey,
  ):
    self._agent = agent
    self._options = options
    self._robot = robot
    self._memory = memory
    key_begin, self._key = jax.random.split(jax.random.fold_in(key, robot.number))
    keys = jax.random.split(key_begin, len(robot.instances))
    self._states = [agent.begin(key) for key in keys]
    if robot.controllers:
      pairs = zip(self._states, robot.controllers, strict=True)
      self._states = [state._replace(controller=first) for state, first in pairs]
    self._episode = 0
    self._began = time.monotonic()
    self._rolling = 0.0  # s in rollouts since then

  def prepare(self, variables: gps.LearnerState) -> None:
    """Compiles everything, and starts the clock of `utilization`."""
    size = self._robot.environments[0].observation_size
    observation = np.zeros(size, np.float32)
    policy, state = self._agent.variables(variables), self._states[0]
    key = jax.random.key_data(self._key)
    acting.explore(self._agent, policy, gps.exploring(state), observation, key)
    nothing = local.Experience(self._nothing(), policy)
    self._agent.label(policy, state, nothing, jax.random.clone(self._key))
    self._began, self._rolling = time.monotonic(), 0.0

  @property
  def number(self) -> int:
    """Of the robot."""
    return self._robot.number

  def skip_to(self, episode: int) -> None:
    """Leaves out the rollouts before this number, if they are yet to come."""
    self._episode = max(self._episode, episode)

  def iterate(
    self, source: Source, report: Callable[[Rollout], None], over: Callable[[], bool]
  ) -> None:
    """Improves the controller of every instance once, unless it is over before.

    Args:
      source: returns the newest variables, a learner without its optimizer; those that
        it returns first act in all rollouts of an instance.
      report: told of every rollout as it ends.
      over: tells whether to end early; what was begun is forgotten.
    """
    for place in range(len(self._states)):
      acting = source()
      first = self._episode
      rollouts: list[local.Rollouts] = []
      while len(rollouts) < self._options.rollouts and not over():
        start = first if self._options.on_policy else self._episode
        rollouts.append(self._roll_out(place, start, acting, report))
      if over():
        return
      self._improve(place, rollouts, acting, source())

  def again(self, source: Source) -> None:
    """Improves every controller once more on the same rollouts (BADMM)."""
    policy = self._agent.variables(source().variables)
    for place, state in enumerate(self._states):
      self._teach(place, *self._agent.relabel(policy, state))

  def state(self) -> dict[str, Any]:
    """All that `restore` needs between two iterations, as a tree of arrays."""
    return {'locals': list(self._states), 'episode': np.int64(self._episode)}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes on from where `state` was taken."""
    self._states = list(state['locals'])
    self._episode = int(state['episode'])

  def _roll_out(
    self,
    place: int,
    start: int,
    published: types.Published,
    report: Callable[[Rollout], None],
  ) -> local.Rollouts:
    """Runs one episode that begins as `start` says; returns it as [T ...]."""
    began, age = time.monotonic(), max(0.0, time.time() - published.time)
    environment = self._robot.environments[place]
    key = jax.random.key_data(jax.random.fold_in(self._key, self._episode))
    observation = environment.reset(jax.random.fold_in(self._key, 2**30 + start))
    policy = jax.device_put(self._agent.variables(published.variables))
    actor, rows, total = gps.exploring(self._states[place]), [], 0.0
    for _ in range(self._options.steps):
      action, actor, key = acting.explore(self._agent, policy, actor, observation, key)
      step = environment.step(np.asarray(action))
      rows.append(local.Rollouts(observation, np.asarray(action)))
      observation, total = step.observation, total + float(step.reward)
    self._rolling += time.monotonic() - began
    clock = self._robot.clock
    report(
      Rollout(
        collector=self._robot.number,
        episode=self._episode,
        instance=self._robot.instances[place],
        iteration=int(self._states[place].iteration),
        steps=self._options.steps,
        total=total,
        success=bool(step.success),
        distance=float(self._robot.distance(observation)),
        held=int(local.held(self._states[place].report)),
        version=published.version,
        age_s=age,
        utilization=self._rolling / max(time.monotonic() - self._began, 1e-9),
        late=clock.late / max(clock.ticks, 1) if clock else 0.0,
      )
    )
    self._episode += 1
    return jax.tree.map(lambda *x: np.stack(x), *rows)

  def _improve(
    self,
    place: int,
    rollouts: list[local.Rollouts],
    acted: types.Published,
    newest: types.Published,
  ) -> None:
    then, now = (self._agent.variables(x.variables) for x in (acted, newest))
    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *rollouts)
    key = jax.random.fold_in(self._key, 2**31 + self._episode)
    state, experience = self._states[place], local.Experience(stacked, then)
    self._teach(place, *self._agent.label(now, state, experience, key))

  def _teach(
    self, place: int, examples: agent_types.Examples, state: local.LocalState
  ) -> None:
    self._states[place] = state
    filled = int(state.replay.count) * self._options.steps
    instance, iteration = self._robot.first + place, int(state.iteration)
    self._memory.replace(instance, iteration, examples, filled)

  def _nothing(self) -> local.Rollouts:
    """Rollouts of zeros, [N T ...]."""
    environment = self._robot.environments[0]
    shape = self._options.rollouts, self._options.steps
    return local.Rollouts(
      jnp.zeros([*shape, environment.observation_size]),
      jnp.zeros([*shape, environment.action_size]),
    )
