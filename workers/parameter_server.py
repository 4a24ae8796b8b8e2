"""The parameter server: gradients come, parameters go (Yahya et al. 2016, Figure 2).

  for ever
    take the gradients that have arrived, apply one after the other
    every `publish_every` updates, publish the learner

Gradients are for parameters that may be older than those that they are applied to: how
many updates older is their staleness, which is counted. Rollouts stay with their pairs,
which report of them.

Letters as in `armfarm.agents.types`.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.agents.gps import agent as gps
from armfarm.replay import types
from armfarm.workers import lessons as memories
from armfarm.workers.global_worker import Parcel
from armfarm.workers.local_worker import READY
from armfarm.workers.local_worker import Rollout
from armfarm.workers.trainer import Counters


class Staleness(NamedTuple):
  """Of the gradients so far, in updates.

  Attributes:
    gradients: how many.
    total: their staleness, added up.
    most: the highest.
  """

  gradients: int = 0
  total: int = 0
  most: int = 0

  def after(self, staleness: int) -> Staleness:
    """Returns the numbers with one more gradient."""
    return Staleness(
      self.gradients + 1, self.total + staleness, max(self.most, staleness)
    )


@functools.partial(jax.jit, static_argnums=0)
def _apply(
  agent: gps.GuidedPolicySearch, learner: gps.LearnerState, gradients: gps.Gradients
) -> tuple[gps.LearnerState, agent_types.Metrics]:
  return agent.apply(learner, gradients)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _learn(
  agent: gps.GuidedPolicySearch,
  updates: int,
  size: int,
  learner: gps.LearnerState,
  lessons: memories.Lessons,
  key: chex.PRNGKey,
) -> tuple[gps.LearnerState, agent_types.Metrics]:
  """So many updates, each with a minibatch of its own."""

  def one(
    learner: gps.LearnerState, key: chex.PRNGKey
  ) -> tuple[gps.LearnerState, agent_types.Metrics]:
    key_sample, key_update = jax.random.split(key)
    examples = memories.sample(lessons, size, key_sample)
    return agent.update(learner, examples, key_update)

  learner, metrics = jax.lax.scan(one, learner, jax.random.split(key, updates))
  return learner, jax.tree.map(lambda x: x[-1], metrics)


class ParameterServer:
  """Learns from gradients; see `supervisor.Supervised`.

  Args:
    agent: who learns.
    replay: where the learner is published.
    publish_every: updates between two publications.
    key: consumed.

  Attributes:
    counters: how far the run is: steps and rollouts that were reported, updates.
    dropped: rollouts that were reported before.
    staleness: of the gradients so far.
    ready: numbers of the robots that have said so.
  """

  def __init__(
    self,
    agent: gps.GuidedPolicySearch,
    replay: types.Replay,
    publish_every: int,
    key: chex.PRNGKey,
  ):
    key_init, self._key = jax.random.split(key)
    self._agent = agent
    self._replay = replay
    self._publish_every = publish_every
    self._learner = jax.jit(agent.init)(key_init)
    self._metrics: agent_types.Metrics = {}
    self._published = -1  # updates at the last publication
    self._last: dict[int, Rollout] = {}  # by robot
    self.counters = Counters()
    self.dropped = 0
    self.staleness = Staleness()
    self.ready: set[int] = set()

  def receive(self, parcel: Parcel) -> None:
    """Applies a gradient, and publishes when it is time."""
    gradients, version, _ = jax.tree.map(lambda x: x[0], parcel)
    self._learner, self._metrics = _apply(self._agent, self._learner, gradients)
    stale = self.counters.updates - (int(version) - 1)
    self.staleness = self.staleness.after(stale)
    self._count(1)

  def adopt(self, policy: agent_types.Variables) -> None:
    """Goes on from a policy that was taught before."""
    self._learner = gps.adopt(self._learner, jax.tree.map(jnp.asarray, policy))

  def train(self, lessons: memories.Lessons, updates: int, size: int) -> None:
    """Makes so many updates with minibatches of `size` at once, and publishes."""
    self._key, key = jax.random.split(self._key)
    self._learner, self._metrics = _learn(
      self._agent, updates, size, self._learner, lessons, key
    )
    self._count(updates)

  def note(self, rollout: Rollout) -> list[Rollout]:
    """Counts a rollout; returns it, or nothing if it was counted before.

    From a robot that is ready, it is no rollout.
    """
    robot = rollout.collector
    if rollout.episode == READY:
      self.ready.add(robot)
      return []
    if robot in self._last and rollout.episode <= self._last[robot].episode:
      self.dropped += 1
      return []
    self._last[robot] = rollout
    counters = self.counters
    self.counters = counters._replace(
      env_steps=counters.env_steps + rollout.steps, episodes=counters.episodes + 1
    )
    return [rollout]

  def next_episode(self, collector: int) -> int:
    """Returns the first rollout's number that a new robot of this number may use."""
    last = self._last.get(collector)
    return last.episode + 1 if last else 0

  def publish(self) -> None:
    """Puts the present learner on offer, without its optimizer."""
    learner = jax.tree.map(np.asarray, gps.portable(self._learner))
    version = self.counters.updates + 1
    self._replay.publish(types.Published(version, time.time(), learner))
    self._published = self.counters.updates

  def judge(self, success: float) -> None:
    """Nothing: no robot acts by it."""

  def check(self) -> None:
    """Nothing: what is not finite is rolled back, and counted as a rollback."""

  def variables(self) -> agent_types.Variables:
    """Returns the present global policy on the host."""
    return jax.tree.map(np.asarray, self._agent.variables(self._learner))

  def metrics(self) -> dict[str, float]:
    """Returns the metrics of the last update, of staleness and of the robots."""
    numbers = {name: float(x) for name, x in self._metrics.items()}
    stale = self.staleness
    numbers['staleness'] = stale.total / max(stale.gradients, 1)
    numbers['staleness_max'] = stale.most
    last = self._last.values()
    if last:
      numbers['utilization'] = float(np.mean([row.utilization for row in last]))
      numbers['late'] = max(row.late for row in last)
    for robot, row in sorted(self._last.items()):
      numbers[f'utilization_{robot}'] = row.utilization
    return numbers

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs."""
    return {'learner': self._learner, 'key': jax.random.key_data(self._key)}

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""
    return {
      'counters': self.counters._asdict(),
      'last': [list(row) for row in self._last.values()],
      'dropped': self.dropped,
      'staleness': list(self.staleness),
    }

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""
    self._learner = state['learner']
    self._key = jax.random.wrap_key_data(state['key'])
    self.counters = Counters(**progress['counters'])
    self._last = {row[0]: Rollout(*row) for row in progress['last']}
    self.dropped = progress['dropped']
    self.staleness = Staleness(*progress['staleness'])

  def _count(self, updates: int) -> None:
    total = self.counters.updates + updates
    self.counters = self.counters._replace(updates=total)
    if total - self._published >= self._publish_every:
      self.publish()
