"""Lessons: what a pair of workers remembers, a block an instance and iteration.

The local worker replaces the block of an instance whenever it has improved the
controller there, so that every remembered observation carries the latest label; where
an iteration is of another place, its block replaces one of long ago. The global worker
samples. Both may be threads: a block is swapped, never written into.

Letters as in `armfarm.agents.types`, [I] blocks, [S] lessons of a block.
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
    instances: however many there will be.
    block: examples of zeros, [S ...].
    iterations: latest ones of each instance that have a block.
  """

  def __init__(self, instances: int, block: agent_types.Examples, iterations: int = 1):
    self._iterations = iterations
    self._blocks = [jax.tree.map(np.asarray, block)] * (instances * iterations)
    self._filled = np.zeros(instances * iterations, np.int32)
    self._lessons: Lessons | None = None

  def replace(
    self, instance: int, iteration: int, block: agent_types.Examples, filled: int
  ) -> None:
    """Swaps the block of an instance that is the iteration's, or the oldest.

    Args:
      instance: whose lessons these are.
      iteration: likewise; once more for the same swaps the same block.
      block: [S ...].
      filled: how many of these count, the last ones.
    """
    at = instance * self._iterations + iteration % self._iterations
    self._blocks[at] = jax.tree.map(np.asarray, block)
    self._filled[at] = filled
    self._lessons = self._stacked(self._filled)

  def template(self) -> Lessons:
    """Lessons to compile with: of the shapes and types of `latest`."""
    return self._stacked(np.ones_like(self._filled))

  def latest(self) -> Lessons | None:
    """Returns what there is to sample from; None before the first lesson."""
    return self._lessons

  def state(self) -> dict[str, Any]:
    """All that `restore` needs, as a tree of arrays."""
    return {'blocks': list(self._blocks), 'filled': self._filled.copy()}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes back to where `state` was taken."""
    self._blocks = [jax.tree.map(np.asarray, block) for block in state['blocks']]
    self._filled = np.array(state['filled'])
    self._lessons = self._stacked(self._filled) if self._filled.any() else None

  def _stacked(self, filled: np.ndarray) -> Lessons:
    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *self._blocks)
    return Lessons(stacked, jnp.array(filled))
