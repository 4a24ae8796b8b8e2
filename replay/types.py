"""The seam between processes: blocks of experience one way, variables the other.

Letters: [T] steps of a block, and those of `armfarm.agents.types`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from armfarm.agents import types


class Origin(NamedTuple):
  """Where a transition comes from; no two have the same origin.

  Attributes:
    collector: number of the collector, int32 [].
    episode: number of the episode of that collector, int32 [].
    step: number of the step in that episode, int32 [].
  """

  collector: Any
  episode: Any
  step: Any


class Item(NamedTuple):
  """What replay stores: a transition and its origin."""

  transition: types.Transition
  origin: Origin


class Labelled(NamedTuple):
  """What the table `train` stores.

  Attributes:
    transition: labelled, as an agent's `update` takes it.
    version: of the target networks that labelled it, int32 [].
  """

  transition: Any
  version: Any


class Block(NamedTuple):
  """What travels: consecutive items of one collector, and how they came about.

  Attributes:
    items: [T].
    version: version of the variables that acted, int32 [T].
    age: seconds between their publication and the start of the episode, float32 [T].
    success: the task's criterion held after the step, bool [T].
  """

  items: Item
  version: Any
  age: Any
  success: Any


class Work(NamedTuple):
  """What a Bellman updater takes, and, labelled, what it gives back.

  Attributes:
    part: of the memory that each is from, int32 [B].
    items: transitions, or `Labelled`, [B ...].
    updater: number of who labelled them, int32 [B]; -1 before.
    batch: number of that updater's batch, int32 [B]; -1 before.
  """

  part: Any
  items: Any
  updater: Any
  batch: Any


class Published(NamedTuple):
  """Variables on their way to those who act.

  Attributes:
    version: 1 for the first ones, and 1 + the updates behind them ever after.
    time: of publication, s since the epoch.
    variables: a pytree of numpy arrays.
  """

  version: int
  time: float
  variables: types.Variables


class Writer(Protocol):
  """One collector's way in. Not to be shared between threads."""

  def insert(self, block: Any) -> None:
    """Hands over a block; `flush` must have returned True since the last one.

    It is a `Block`, or whatever else the queue is for, [T ...].
    """

  def flush(self, timeout: float) -> bool:
    """Waits up to `timeout` s for room; returns True once the block is delivered."""

  def close(self) -> None:
    """Lets go of the connection; an undelivered block may be lost."""


class Replay(Protocol):
  """What a process sees of the replay server."""

  def writer(self) -> Writer:
    """Returns a new way in."""

  def take(self, timeout: float) -> Any | None:
    """Returns the oldest block, once, or None when none came within `timeout` s."""

  def publish(self, published: Published) -> None:
    """Replaces the variables that are on offer."""

  def latest(self, timeout: float) -> Published | None:
    """Returns the newest variables, or None if there are none within `timeout` s."""

  def close(self) -> None:
    """Lets go of the server; who owns it stops it."""


class Memory(Protocol):
  """What a trainer draws from: a `ring.Ring`, or whoever stands for one."""

  item: Any  # template of what is drawn, in its field `transition`

  def __len__(self) -> int:
    """Returns how many items are there to be drawn."""

  def add(self, items: Item) -> None:
    """Takes items of one collector, [T]."""

  def sample(self, count: int) -> dict[str, Any]:
    """Draws `count` transitions; returns them packed, see `replay.packing`."""

  def metrics(self) -> dict[str, float]:
    """Returns what there is to say of what was drawn the last time."""

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs."""

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""


def item_template(spec: types.Spec, observation: Any = None) -> Item:
  """Returns an item of zeros with the shapes and types that travel.

  Args:
    spec: of the boundary.
    observation: one of zeros, where it is more than O numbers.
  """
  scalar = np.float32(0)
  if observation is None:
    observation = np.zeros(spec.observation_size, np.float32)
  transition = types.Transition(
    observation=observation,
    action=np.zeros(spec.action_size, np.float32),
    reward=scalar,
    discount=scalar,
    truncation=scalar,
    next_observation=observation,
  )
  return Item(transition, Origin(np.int32(0), np.int32(0), np.int32(0)))


def block_template(item: Item, block_steps: int) -> Block:
  """Returns a block of zeros with the shapes and types that travel."""
  items = jax.tree.map(lambda x: np.zeros((block_steps, *x.shape), x.dtype), item)
  return Block(
    items,
    version=np.zeros(block_steps, np.int32),
    age=np.zeros(block_steps, np.float32),
    success=np.zeros(block_steps, bool),
  )
