"""The trainer: the learner thread of Algorithm 1, with its replay memory.

  take a block from replay into memory
  while the ratio of updates to steps allows it
    scan: sample a minibatch, label it, update    one call, `updates_per_call` updates
  every `publish_every` updates, publish the variables, while the next call computes

The trainer takes no block while updates are due, and replay holds few blocks that were
not taken: so the ratio is enforced in both directions, on whoever is faster.

Letters as in `armfarm.agents.types`, and [T] steps of a block.
"""

from __future__ import annotations

from fractions import Fraction
import queue
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.replay import packing
from armfarm.replay import types


class Diverged(Exception):
  """The loss is no longer finite; what was learned since is worthless."""


class Options(NamedTuple):
  """How the trainer trains.

  Attributes:
    updates_per_step: gradient updates for an environment step, all collectors counted.
    warmup_steps: environment steps before the first update.
    block_steps: T, steps that arrive together.
    publish_every: updates between two publications.
    batch_size: B, transitions of a minibatch.
  """

  updates_per_step: float
  warmup_steps: int
  block_steps: int
  publish_every: int
  batch_size: int

  @property
  def ratio(self) -> Fraction:
    """`updates_per_step` as a fraction, so that no rounding adds up."""
    return Fraction(self.updates_per_step).limit_denominator(1000)

  @property
  def updates_per_call(self) -> int:
    """Updates that a block of steps pays for.

    Raises:
      ValueError: that is no whole number.
    """
    updates = self.ratio * self.block_steps
    if updates.denominator != 1 or updates < 1:
      raise ValueError(
        f'run.block_steps {self.block_steps} x run.updates_per_step {self.ratio} is'
        f' {updates} updates: set block_steps to a multiple of'
        f' {self.ratio.denominator}'
      )
    return int(updates)


class Counters(NamedTuple):
  """How far the run is; a run that resumes goes on from the saved ones.

  Attributes:
    env_steps: transitions in memory or once there.
    updates: gradient updates.
    episodes: episodes that ended.
  """

  env_steps: int = 0
  updates: int = 0
  episodes: int = 0


class Last(NamedTuple):
  """The last step that arrived from a collector, and its episode's return so far."""

  episode: int = -1
  step: int = -1
  total: float = 0.0


class Episode(NamedTuple):
  """What became of one training episode.

  Attributes:
    collector: who ran it.
    episode: its number with that collector.
    steps: control steps.
    total: undiscounted sum of rewards.
    success: the task's criterion held at the last step.
    version: of the variables that acted.
    age_updates: updates since that version, when the episode had arrived.
    age_s: seconds since that version, when the episode began.
  """

  collector: int
  episode: int
  steps: int
  total: float
  success: bool
  version: int
  age_updates: int
  age_s: float


def learn(
  agent: agent_types.Agent,
  updates: int,
  learner: agent_types.LearnerState,
  examples: agent_types.Examples,
  key: chex.PRNGKey,
) -> tuple[agent_types.LearnerState, agent_types.Metrics]:
  """Labels one minibatch after the other, by the newest variables, and updates.

  Args:
    agent: who learns.
    updates: N, how many, at least 1.
    learner: its state.
    examples: all the minibatches, not labelled, [N * B ...].
    key: consumed.

  Returns:
    The learner and the means of its metrics.
  """
  batches = jax.tree.map(lambda x: x.reshape(updates, -1, *x.shape[1:]), examples)

  def one(
    learner: agent_types.LearnerState, inputs: tuple[agent_types.Examples, chex.PRNGKey]
  ) -> tuple[agent_types.LearnerState, agent_types.Metrics]:
    batch, key = inputs
    key_label, key_update = jax.random.split(key)
    labelled, _ = agent.label(agent.variables(learner), (), batch, key_label)
    return agent.update(learner, labelled, key_update)

  keys = jax.random.split(key, updates)
  learner, metrics = jax.lax.scan(one, learner, (batches, keys))
  return learner, jax.tree.map(jnp.mean, metrics)


def check(metrics: agent_types.Metrics, counters: Counters) -> None:
  """Raises Diverged if a metric is not finite."""
  for name, value in metrics.items():
    if np.isfinite(value):
      continue
    raise Diverged(
      f'the {name} is {value} after {counters.updates} updates'
      f' ({counters.episodes} episodes): start anew with a lower learning rate'
      ' or smaller weights of the reward'
    )


def learner_template(agent: agent_types.Agent) -> agent_types.LearnerState:
  """Returns the shapes and types of a learner."""
  return jax.eval_shape(agent.init, jax.random.key(0))


def _on_host(tree: Any) -> Any:
  return jax.tree.map(np.asarray, tree)


class Trainer:
  """Learns from the blocks that replay delivers.

  Args:
    agent: who learns.
    memory: where experience is kept.
    replay: where blocks come from and variables go.
    options: see `Options`.
    key: consumed.
  """

  def __init__(
    self,
    agent: agent_types.Agent,
    memory: types.Memory,
    replay: types.Replay,
    options: Options,
    key: chex.PRNGKey,
  ):
    key_init, key = jax.random.split(key)
    self._key = jax.random.key_data(key)
    self._agent = agent
    self._memory = memory
    self._replay = replay
    self._options = options
    self._ratio = options.ratio
    self.updates_per_call = options.updates_per_call
    self._template = learner_template(agent)
    self._learner = jax.jit(lambda key: packing.pack_one(agent.init(key)))(key_init)
    # Not donated: on a CPU that would make every call wait for its end, and collectors
    # of a lock step could not act meanwhile.
    self._train = jax.jit(self._traced)
    self._variables = jax.jit(
      lambda learner: agent.variables(packing.unpack_one(self._template, learner))
    )
    self._verdicts: queue.SimpleQueue[float] = queue.SimpleQueue()
    self._judge = jax.jit(self._judged)
    self._names: tuple[str, ...] = ()  # of the metrics
    self._metrics = np.zeros(0)  # in that order
    self._published = -1  # updates at the last publication
    self._last: dict[int, Last] = {}  # by collector
    self.counters = Counters()
    self.dropped = 0  # items that had arrived before

  def advance(self, block: types.Block) -> list[Episode]:
    """Stores a block and makes the updates that it pays for.

    Returns:
      The episodes that ended in the block.

    Raises:
      Diverged: the loss was not finite at a publication.
    """
    episodes = self.ingest(block)
    self.train_due()
    return episodes

  def ingest(self, block: types.Block) -> list[Episode]:
    """Stores a block; returns the episodes that ended in it.

    A block that was stored before is dropped and counted.
    """
    origin = block.items.origin
    collector = int(origin.collector[0])
    last = self._last.get(collector, Last())
    if (int(origin.episode[0]), int(origin.step[0])) <= (last.episode, last.step):
      self.dropped += len(origin.step)
      return []
    self._memory.add(block.items)
    env_steps = self.counters.env_steps + len(origin.step)
    self.counters = self.counters._replace(env_steps=env_steps)
    return self._finished(collector, block, last.total)

  @property
  def warm(self) -> bool:
    """There are enough steps in memory for updates to begin."""
    return self.counters.env_steps >= self._options.warmup_steps

  @property
  def ready(self) -> bool:
    """It is warm, and memory holds examples: some wait for how an episode comes out."""
    return self.warm and len(self._memory) > 0

  def train_due(self) -> None:
    """Makes all the updates that the ratio of updates to steps asks for."""
    steps = self.counters.env_steps - self._options.warmup_steps
    due = steps * self._ratio.numerator // self._ratio.denominator
    while self.ready and self.counters.updates + self.updates_per_call <= due:
      self.train_once()

  def train_once(self) -> None:
    """Makes `updates_per_call` updates, and publishes when it is time.

    What is published is the learner before this call: it is ready, and on its way
    while the call computes.

    Raises:
      Diverged: the loss was not finite at a publication.
    """
    self._hear()
    ready = (self._learner, self._metrics, self.counters.updates)
    items = self._memory.sample(self._options.batch_size * self.updates_per_call)
    self._learner, self._metrics, self._key = self._train(
      self._learner, items, self._key
    )
    updates = self.counters.updates + self.updates_per_call
    self.counters = self.counters._replace(updates=updates)
    if ready[2] - self._published >= self._options.publish_every:
      self._publish(*ready)

  def publish(self) -> None:
    """Puts the present variables on offer.

    Raises:
      Diverged: the loss is not finite.
    """
    self._hear()
    self._publish(self._learner, self._metrics, self.counters.updates)

  def judge(self, success: float) -> None:
    """Tells the learner how a policy of it did; it hears of it before its next call.

    May be called from another thread.
    """
    if self._agent.judge is not None:
      self._verdicts.put(success)

  def check(self) -> None:
    """Raises Diverged if a metric of the last call is not finite."""
    check(self._named(self._metrics), self.counters)

  def _traced(
    self, learner: packing.Packed, items: packing.Packed, key_data: chex.Array
  ) -> tuple[packing.Packed, chex.Array, chex.Array]:
    """Makes `updates_per_call` updates; to be compiled.

    What passes in and out is packed, and the key is its data: each array of a call
    takes its microseconds, and a typed key is dispatched in Python.
    """
    state = packing.unpack_one(self._template, learner)
    examples = packing.unpack(self._memory.item.transition, items)
    key, key_learn = jax.random.split(jax.random.wrap_key_data(key_data))
    state, metrics = learn(
      self._agent, self.updates_per_call, state, examples, key_learn
    )
    self._names = tuple(metrics)
    means = jnp.stack([*metrics.values()])
    return packing.pack_one(state), means, jax.random.key_data(key)

  def _hear(self) -> None:
    while not self._verdicts.empty():
      self._learner = self._judge(self._learner, self._verdicts.get())

  def _judged(self, learner: packing.Packed, success: chex.Array) -> packing.Packed:
    assert self._agent.judge is not None
    state = packing.unpack_one(self._template, learner)
    return packing.pack_one(self._agent.judge(state, success))

  def _named(self, metrics: chex.Array) -> dict[str, float]:
    values = np.asarray(metrics).tolist()
    return dict(zip(self._names, values, strict=True)) if values else {}

  def _publish(
    self,
    learner: packing.Packed,
    metrics: chex.Array,
    updates: int,
  ) -> None:
    check(self._named(metrics), self.counters._replace(updates=updates))
    variables = _on_host(self._variables(learner))
    self._replay.publish(types.Published(updates + 1, time.time(), variables))
    self._published = updates

  def variables(self) -> agent_types.Variables:
    """Returns the present variables on the host."""
    return _on_host(self._variables(self._learner))

  def metrics(self) -> dict[str, float]:
    """Returns the metrics of the last call, and the ratio reached so far."""
    steps = self.counters.env_steps - self._options.warmup_steps
    ratio = self.counters.updates / steps if steps > 0 else 0.0
    drawn = self._memory.metrics()
    return {**self._named(self._metrics), **drawn, 'updates_per_step': ratio}

  def next_episode(self, collector: int) -> int:
    """Returns the first episode number that a new collector may use."""
    return self._last.get(collector, Last()).episode + 1

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs."""
    return {
      'learner': packing.unpack_one(self._template, _on_host(self._learner)),
      'memory': self._memory.state(),
      'key': self._key,
    }

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""
    last = {str(collector): list(row) for collector, row in self._last.items()}
    return {
      'counters': self.counters._asdict(),
      'last': last,
      'dropped': self.dropped,
      'memory': self._memory.progress(),
    }

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""
    self._learner = jax.device_put(packing.pack_one(_on_host(state['learner'])))
    self._memory.restore(state['memory'], progress['memory'])
    self._key = state['key']
    self.counters = Counters(**progress['counters'])
    self._last = {int(c): Last(*row) for c, row in progress['last'].items()}
    self.dropped = progress['dropped']

  def _finished(
    self, collector: int, block: types.Block, total: float
  ) -> list[Episode]:
    """Adds up rewards; returns the episodes of the block that are over."""
    transition, origin = block.items
    over = (transition.discount == 0) | (transition.truncation == 1)
    episodes = []
    for t, reward in enumerate(transition.reward):
      total = float(reward) + (total if origin.step[t] else 0.0)
      if over[t]:
        count = self.counters.episodes + 1
        self.counters = self.counters._replace(episodes=count)
        episodes.append(self._episode(collector, block, t, total))
    self._last[collector] = Last(int(origin.episode[-1]), int(origin.step[-1]), total)
    return episodes

  def _episode(
    self, collector: int, block: types.Block, t: int, total: float
  ) -> Episode:
    version = int(block.version[t])
    return Episode(
      collector=collector,
      episode=int(block.items.origin.episode[t]),
      steps=int(block.items.origin.step[t]) + 1,
      total=total,
      success=bool(block.success[t]),
      version=version,
      age_updates=self.counters.updates + 1 - version,
      age_s=float(block.age[t]),
    )
