"""The Bellman updater: labels transitions with target networks of its own (F.4).

  every `period` s, at a time of its own, load the target networks
  take transitions, compute y = r + gamma V(s'), and put them into `train`

Kalashnikov et al. 2018 run up to a thousand, and each loads at another time: so the
labels of a minibatch come from an ensemble of recent target networks. Every label says
which version made it.

What an updater takes is a copy, and the memory that it is from keeps the transition. So
one that dies in the middle of its work loses nothing: others are given the same again.

Letters as in `armfarm.agents.types`.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.replay import types
from armfarm.workers.collector import Stop

_PATIENCE = 0.5  # s between two looks at whether to stop


class Seams(NamedTuple):
  """What an updater sees of replay.

  Attributes:
    variables: where target networks come from.
    raw: the queue of transitions to label.
    train: the queue of labelled ones.
  """

  variables: types.Replay
  raw: types.Replay
  train: types.Replay


class Beat(NamedTuple):
  """When an updater loads target networks.

  Attributes:
    period: s.
    offset: of its first load after the one that it begins with, s.
  """

  period: float
  offset: float


def staggered(period: float, number: int, updaters: int) -> Beat:
  """Returns the beat of an updater, spread evenly over the period."""
  return Beat(period, period * (number + 1) / updaters)


@functools.partial(jax.jit, static_argnums=0)
def _label(
  agent: agent_types.Agent,
  variables: agent_types.Variables,
  transitions: agent_types.Transition,
  key_data: chex.Array,
) -> tuple[agent_types.Examples, chex.Array]:
  key, key_label = jax.random.split(jax.random.wrap_key_data(key_data))
  examples, _ = agent.label(variables, (), transitions, key_label)
  return examples, jax.random.key_data(key)


class BellmanUpdater:
  """Labels until told to stop.

  Args:
    agent: whose labels they are.
    seams: to replay.
    beat: see there.
    number: of this updater, told with every label.
    key: of the run, the same for all updaters; consumed.
    first: number of its first batch.
  """

  def __init__(
    self,
    agent: agent_types.Agent,
    seams: Seams,
    beat: Beat,
    *,
    number: int,
    key: chex.PRNGKey,
    first: int = 0,
  ):
    key = jax.random.fold_in(jax.random.fold_in(key, number), first)
    self._agent = agent
    self._seams = seams
    self._beat = beat
    self._number = number
    self._batch = first
    self._key = jax.random.key_data(key)
    self._writer = seams.train.writer()
    self._next = 0.0  # when to load again, on the monotonic clock
    self._version = 0
    self._variables: Any = None

  def run(self, stop: Stop) -> None:
    """Works until told to stop; waits for networks, transitions and room."""
    while not stop.is_set():
      if not self.load(_PATIENCE):
        continue
      work = self._seams.raw.take(_PATIENCE)
      if work is None:
        continue
      self._writer.insert(self.label(work))
      while not stop.is_set() and not self._writer.flush(_PATIENCE):
        pass
    self._writer.close()

  def load(self, timeout: float) -> bool:
    """Loads target networks if it is time; returns whether there are any."""
    now = time.monotonic()
    if self._version and now < self._next:
      return True
    published = self._seams.variables.latest(timeout)
    if published is None:
      return self._version > 0
    first = not self._version
    self._next = now + (self._beat.offset if first else self._beat.period)
    if published.version != self._version:
      self._version = published.version
      self._variables = jax.device_put(published.variables)
    return True

  def label(self, work: types.Work) -> types.Work:
    """Labels transitions, [B ...]."""
    examples, self._key = _label(self._agent, self._variables, work.items, self._key)
    count = len(work.part)
    items = types.Labelled(
      jax.tree.map(np.asarray, examples), np.full(count, self._version, np.int32)
    )
    updater, batch = (
      np.full(count, number, np.int32) for number in (self._number, self._batch)
    )
    self._batch += 1
    return types.Work(work.part, items, updater, batch)
