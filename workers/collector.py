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
from armfarm.workers import acting

_PATIENCE = 0.5  # s between two looks at whether to stop
_AHEAD = 64  # steps for which an agent that acts on the host is given its draws


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
    draws: for the steps to come, [N A]; () where the agent draws for itself.
  """

  published: types.Published
  age: float
  noise: agent_types.ActorState
  observation: Any
  key: chex.Array
  draws: Any


# Keys pass in and out as their data, as in `acting`.
@functools.partial(jax.jit, static_argnums=0)
def _begin(
  agent: agent_types.Agent, key_data: chex.Array
) -> tuple[agent_types.ActorState, chex.Array]:
  key, key_noise = jax.random.split(jax.random.wrap_key_data(key_data))
  return agent.begin(key_noise), jax.random.key_data(key)


def _stack(column: tuple[Any, ...]) -> Any:
  """Stacks what T steps have alike, arrays or tuples of arrays, [T ...]."""
  first = column[0]
  if not isinstance(first, tuple):
    return np.array(column)
  return type(first)(*map(_stack, zip(*column, strict=True)))


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
    self._prepared: Any = None  # the actor's variables, as who acts wants them
    self._explore = self._explore_on_host if agent.host else self._explore_compiled

  def run(self, stop: Stop) -> None:
    """Collects until told to stop; waits for variables and for room in replay."""
    while not stop.is_set():
      if self._actor is None and self._replay.latest(_PATIENCE) is None:
        continue
      self._writer.insert(self.collect())
      while not stop.is_set() and not self._writer.flush(_PATIENCE):
        pass
    self.close()

  def send(self) -> None:
    """Collects one block and delivers it: a collector's share of a lock step.

    Raises:
      ConnectionError: there is no room, so nobody takes the blocks.
    """
    self._writer.insert(self.collect())
    if not self._writer.flush(timeout=30.0):
      raise ConnectionError('replay took no block in 30 s: is its trainer running?')

  def close(self) -> None:
    """Lets go of replay."""
    self._writer.close()

  def collect(self) -> types.Block:
    """Takes T control steps, through as many episodes as they touch."""
    rows = [self._advance() for _ in range(self._block_steps)]
    columns = [_stack(column) for column in zip(*rows, strict=True)]
    *transition, collector, episode, step, version, age, success = columns
    origin = types.Origin(collector, episode, step)
    items = types.Item(agent_types.Transition(*transition), origin)
    return types.Block(items, version, age, success)

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
    actor: Actor = jax.tree.map(np.asarray, state['actor'])
    version, published = int(actor.published.version), float(actor.published.time)
    self._actor = actor._replace(
      published=types.Published(version, published, actor.published.variables),
      age=float(actor.age),
    )
    self._prepared = self._prepare(actor.published.variables)
    self._environment.restore(state['environment'])

  def _begin_episode(self) -> Actor:
    published = self._replay.latest(timeout=30.0)
    if published is None:
      raise ConnectionError('no variables came in 30 s: is the trainer running?')
    key = jax.random.fold_in(self._key, self._episode)
    key, key_reset = jax.random.split(key)
    observation = self._environment.reset(key_reset)
    noise, key = _begin(self._agent, jax.random.key_data(key))
    age = max(0.0, time.time() - published.time)
    self._prepared = self._prepare(published.variables)
    draws: Any = ()
    if self._agent.host:
      noise = jax.tree.map(np.asarray, noise)
      draws = np.zeros([_AHEAD, self._environment.action_size], np.float32)
    return Actor(published, age, noise, observation, key, draws)

  def _prepare(self, variables: agent_types.Variables) -> Any:
    host = self._agent.host
    return host.prepare(variables) if host else jax.device_put(variables)

  def _explore_compiled(self, actor: Actor) -> tuple[np.ndarray, Actor]:
    action, noise, key = acting.explore(
      self._agent, self._prepared, actor.noise, actor.observation, actor.key
    )
    return np.asarray(action), actor._replace(noise=noise, key=key)

  def _explore_on_host(self, actor: Actor) -> tuple[np.ndarray, Actor]:
    assert self._agent.host is not None
    row = self._step % _AHEAD
    if row == 0:
      draws, key = acting.draw(actor.draws.shape, actor.key)
      actor = actor._replace(draws=np.asarray(draws), key=key)
    action, noise = self._agent.host.explore(
      self._prepared, actor.noise, actor.observation, actor.draws[row]
    )
    return action, actor._replace(noise=noise)

  def _advance(self) -> tuple[Any, ...]:
    """Takes one control step; returns the leaves of a block without [T], in order."""
    actor = self._actor or self._begin_episode()
    action, actor = self._explore(actor)
    step = self._environment.step(action)
    row = (
      actor.observation,
      action,
      np.float32(step.reward),
      np.float32(not step.terminated),
      np.float32(step.truncated),
      step.observation,
      np.int32(self._number),
      np.int32(self._episode),
      np.int32(self._step),
      np.int32(actor.published.version),
      np.float32(actor.age),
      np.bool_(step.success),
    )
    self._step += 1
    self._actor = actor._replace(observation=step.observation)
    if step.terminated or step.truncated:
      self._actor = None
      self._episode += 1
      self._step = 0
    return row
