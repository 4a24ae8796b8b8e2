"""Several environments as a batch, stepped one after the other.

For those that no batch of MuJoCo's can hold: of Gymnasium, or of one task that begins
elsewhere in each. Letters as in `task.py`, and [I] instances picked from the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import chex
import numpy as np

from armfarm.envs.task import Array
from armfarm.envs.task import Environment
from armfarm.envs.task import Step


class Serial:
  """B environments.

  Attributes:
    size: B.
  """

  def __init__(self, environments: Sequence[Environment]):
    self.size = len(environments)
    self._environments = environments

  def reset(self, keys: chex.PRNGKey) -> Array:
    """Begins an episode in every instance; keys [B], observations [B O]."""
    pairs = zip(self._environments, keys, strict=True)
    return np.stack([environment.reset(key) for environment, key in pairs])

  def step(self, actions: Array, ids: Array | None = None) -> Step:
    """Takes one control step in some instances, in all by default.

    Args:
      actions: one for each instance of the call, [I A], in [-1, 1].
      ids: the instances, [I]; None for all, in order.

    Returns:
      The step of these, as each environment takes it.
    """
    rows = range(self.size) if ids is None else ids
    pairs = zip(rows, actions, strict=True)
    steps = [self._environments[row].step(action) for row, action in pairs]
    return Step(*map(np.stack, zip(*steps, strict=True)))
