"""The global worker: sends gradients of what its pair remembers (Algorithm 3).

  for ever
    sample a minibatch of lessons
    send the gradient for the newest parameters at hand to the parameter server

Letters as in `armfarm.agents.types`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from armfarm.agents.gps import agent as gps
from armfarm.replay import types
from armfarm.workers import lessons as memories


class Parcel(NamedTuple):
  """What travels, as [1 ...] for the sake of replay's format.

  Attributes:
    gradients: of one minibatch.
    version: of the parameters that they are for, int32.
    collector: number of the robot, int32.
  """

  gradients: gps.Gradients
  version: Any
  collector: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradient(
  agent: gps.GuidedPolicySearch,
  size: int,
  learner: gps.LearnerState,
  lessons: memories.Lessons,
  key_data: chex.Array,
) -> tuple[gps.Gradients, chex.Array]:
  key, key_sample = jax.random.split(jax.random.wrap_key_data(key_data))
  examples = memories.sample(lessons, size, key_sample)
  return agent.gradient(learner, examples), jax.random.key_data(key)


class GlobalWorker:
  """Makes gradients of minibatches.

  Args:
    agent: who learns.
    memory: of the pair.
    batch_size: B.
    number: of the robot.
    key: of the run, the same for all robots; consumed.
  """

  def __init__(
    self,
    agent: gps.GuidedPolicySearch,
    memory: memories.Memory,
    batch_size: int,
    number: int,
    key: chex.PRNGKey,
  ):
    self._agent = agent
    self._memory = memory
    self._batch_size = batch_size
    self._number = number
    self._key = jax.random.key_data(jax.random.fold_in(key, number))

  def prepare(self, learner: gps.LearnerState) -> None:
    """Compiles everything for a learner without its optimizer, whatever it holds."""
    lessons = self._memory.template()
    _gradient(self._agent, self._batch_size, learner, lessons, self._key)

  def parcel(self, published: types.Published) -> Parcel | None:
    """Returns the gradient of one minibatch; None while there are no lessons."""
    lessons = self._memory.latest()
    if lessons is None:
      return None
    learner = jax.device_put(published.variables)
    gradients, self._key = _gradient(
      self._agent, self._batch_size, learner, lessons, self._key
    )
    row = Parcel(gradients, np.int32(published.version), np.int32(self._number))
    return jax.tree.map(lambda x: np.asarray(x)[None], row)


def parcel_template(agent: gps.GuidedPolicySearch) -> Parcel:
  """Returns a parcel of zeros with the shapes and types that travel, [1 ...]."""
  shapes = gps.gradient_shapes(jax.eval_shape(agent.init, jax.random.key(0)))
  row = Parcel(shapes, np.int32(0), np.int32(0))
  return jax.tree.map(lambda x: np.zeros((1, *x.shape), x.dtype), row)
