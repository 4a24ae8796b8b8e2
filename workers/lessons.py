"""Lessons: what a pair of workers remembers, one block an instance.

The local worker replaces the block of an instance whenever it has improved the
controller there, so that every remembered observation carries the latest label; the
global worker samples. Both may be threads: a block is swapped, never written into.

Letters as in `armfarm.agents.types`, [I] instances, [S] lessons of a block.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.agents import types as agent_types


class Lessons(NamedTuple):
  """Everything there is to sample from.

  Attributes:
    examples: [I S ...], the latest at the end of each block.
    filled: how many of each block there are, [I] int32; those before are padding.
  """

  examples: agent_types.Examples
  filled: chex.Array


def sample(lessons: Lessons, size: int, key: chex.PRNGKey) -> agent_types.Examples:
  """Draws a minibatch, every lesson as likely as any other.

  Args:
    lessons: at least one.
    size: B.
    key: consumed.

  Returns:
    Examples [B ...].
  """
  length = jax.tree.leaves(lessons.examples)[0].shape[1]
  ends = jnp.cumsum(lessons.filled)
  drawn = jax.random.randint(key, [size], 0, ends[-1])
  block = jnp.searchsorted(ends, drawn, side='right')
  row = length - (ends[block] - drawn)
  return jax.tree.map(lambda x: x[block, row], lessons.examples)


class Memory:
  """The lessons of one pair, or of all pairs that share a process.

  Args:
    instances: I, however many there will be.
    block: examples of zeros, [S ...].

  Attributes:
    block: the same.
  """

  def __init__(self, instances: int, block: agent_types.Examples):
    self.block = jax.tree.map(np.asarray, block)
    self._blocks = [self.block] * instances
    self._filled = np.zeros(instances, np.int32)
    self._lessons: Lessons | None = None

  def replace(self, instance: int, block: agent_types.Examples, filled: int) -> None:
    """Swaps the block [S ...] of an instance, of which the last `filled` count."""
    self._blocks[instance] = jax.tree.map(np.asarray, block)
    self._filled[instance] = filled
    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *self._blocks)
    self._lessons = Lessons(stacked, jnp.asarray(self._filled.copy()))

  def latest(self) -> Lessons | None:
    """Returns what there is to sample from; None before the first lesson."""
    return self._lessons

  def state(self) -> dict[str, Any]:
    """All that `restore` needs, as a tree of arrays."""
    return {'blocks': list(self._blocks), 'filled': self._filled.copy()}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes back to where `state` was taken."""
    for instance, filled in enumerate(np.asarray(state['filled'])):
      if filled:
        self.replace(instance, state['blocks'][instance], int(filled))
