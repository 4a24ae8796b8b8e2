"""The collector: one robot that explores and sends what it saw (Algorithm 1).

  for every episode
    take the latest variables                 nobody acts before version 1
    begin the noise and the environment
    for every step
      u ~ explore(variables, x), execute, record the transition and its origin
  every `block_steps` steps, send a block

Blocks have one length, whatever the episodes do, so that nothing compiles twice. Each
episode has a key of its own, made of the collector's number and the episode's: a
collector that starts again goes on with the next episode and repeats none.

Letters as in `armfarm.agents.types`, and [T] steps of a block.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple, Protocol

import chex
import jax
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.envs import task
from armfarm.replay import types

_PATIENCE = 0.5  # s between two looks at whether to stop


class Stop(Protocol):
  """What tells a worker to end: a `threading.Event`, or anything like it."""

  def is_set(self) -> bool: ...


class Actor(NamedTuple):
  """What a collector carries from step to step.

  Attributes:
    published: the variables that act in this episode.
    age: of those variables when the episode began, s.
    noise: the agent's actor state.
    observation: before the next action, [O].
    key: of this episode, its data.
  """

  published: types.Published
  age: float
  noise: agent_types.ActorState
  observation: Any
  key: chex.Array


# Keys pass in and out as their data: what takes or returns a typed key is dispatched by
# JAX in Python, several times more slowly.
@functools.partial(jax.jit, static_argnums=0)
def _begin(
  agent: agent_types.Agent, key_data: chex.Array
) -> tuple[agent_types.ActorState, chex.Array]:
  key, key_noise = jax.random.split(jax.random.wrap_key_data(key_data))
  return agent.begin(key_noise), jax.random.key_data(key)


@functools.partial(jax.jit, static_argnums=0)
def _explore(
  agent: agent_types.Agent,
  variables: agent_types.Variables,
  noise: agent_types.ActorState,
  observation: chex.Array,
  key_data: chex.Array,
) -> tuple[chex.Array, agent_types.ActorState, chex.Array]:
  key, key_explore = jax.random.split(jax.random.wrap_key_data(key_data))
  action, noise = agent.explore(variables, noise, observation, key_explore)
  return action, noise, jax.random.key_data(key)


def _transition(before: Any, action: Any, step: task.Step) -> agent_types.Transition:
  return agent_types.Transition(
    observation=before,
    action=action,
    reward=np.float32(step.reward),
    discount=np.float32(not step.terminated),
    truncation=np.float32(step.truncated),
    next_observation=step.observation,
  )


class Collector:
  """Runs an agent's exploration in one environment.

  Args:
    environment: the robot.
    agent: who explores.
    replay: where variables come from and blocks go.
    number: of this collector, from 0; part of every origin.
    block_steps: T.
    key: of the run, the same for all collectors; consumed.
    first_episode: number of the first episode to begin.
  """

  def __init__(
    self,
    environment: task.Environment,
    agent: agent_types.Agent,
    replay: types.Replay,
    *,
    number: int,
    block_steps: int,
    key: chex.PRNGKey,
    first_episode: int = 0,
  ):
    self._environment = environment
    self._agent = agent
    self._replay = replay
    self._writer = replay.writer()
    self._number = number
    self._block_steps = block_steps
    self._key = jax.random.fold_in(key, number)
    self._episode = first_episode
    self._step = 0
    self._actor: Actor | None = None

  def run(self, stop: Stop) -> None:
    """Collects until told to stop; waits for variables and for room in replay."""
    while not stop.is_set():
      if self._actor is None and self._replay.latest(_PATIENCE) is None:
        continue
      self._writer.insert(self.collect())
      while not stop.is_set() and not self._writer.flush(_PATIENCE):
        pass
    self._writer.close()

  def send(self) -> None:
    """Collects one block and delivers it: a collector's share of a lock step.

    Raises:
      RuntimeError: there is no room, so nobody takes the blocks.
    """
    self._writer.insert(self.collect())
    if not self._writer.flush(timeout=30.0):
      raise RuntimeError('replay took no block in 30 s: is its trainer running?')

  def collect(self) -> types.Block:
    """Takes T control steps, through as many episodes as they touch."""
    steps = [self._advance() for _ in range(self._block_steps)]
    return jax.tree.map(lambda *fields: np.array(fields), *steps)

  def state(self) -> dict[str, Any]:
    """All that `restore` needs to go on with the same step, as a tree of arrays."""
    actor = self._actor or self._begin_episode()
    self._actor = actor
    return {
      'environment': self._environment.state(),
      'actor': actor,
      'episode': np.int64(self._episode),
      'step': np.int64(self._step),
    }

  def restore(self, state: dict[str, Any]) -> None:
    """Goes on from where `state` was taken, with the same numbers to the bit.

    An environment that knows no way back begins its next episode instead; the same
    one again, where no step of it was taken.
    """
    self._episode = int(state['episode'])
    self._step = int(state['step'])
    if not state['environment']:
      self._episode += self._step > 0
      self._actor, self._step = None, 0
      return
    actor: Actor = state['actor']
    variables = jax.device_put(actor.published.variables)
    version, published = int(actor.published.version), float(actor.published.time)
    self._actor = actor._replace(
      published=types.Published(version, published, variables),
      age=float(actor.age),
    )
    self._environment.restore(state['environment'])

  def _begin_episode(self) -> Actor:
    published = self._replay.latest(timeout=30.0)
    if published is None:
      raise RuntimeError('no variables came in 30 s: is the trainer running?')
    key = jax.random.fold_in(self._key, self._episode)
    key, key_reset = jax.random.split(key)
    observation = self._environment.reset(key_reset)
    noise, key = _begin(self._agent, jax.random.key_data(key))
    variables = jax.device_put(published.variables)
    age = max(0.0, time.time() - published.time)
    return Actor(published._replace(variables=variables), age, noise, observation, key)

  def _advance(self) -> types.Block:
    """Takes one control step; returns it as a block without [T]."""
    actor = self._actor or self._begin_episode()
    action, noise, key = _explore(
      self._agent, actor.published.variables, actor.noise, actor.observation, actor.key
    )
    action = np.asarray(action)
    step = self._environment.step(action)
    numbers = (self._number, self._episode, self._step)
    origin = types.Origin(*map(np.int32, numbers))
    item = types.Item(_transition(actor.observation, action, step), origin)
    block = types.Block(
      item,
      version=np.int32(actor.published.version),
      age=np.float32(actor.age),
      success=np.bool_(step.success),
    )
    self._step += 1
    self._actor = actor._replace(noise=noise, observation=step.observation, key=key)
    if step.terminated or step.truncated:
      self._actor = None
      self._episode += 1
      self._step = 0
    return block
