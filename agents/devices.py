"""One learner on several devices, each with its part of every batch."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import jax

Mean = Callable[[Any], Any]  # of a tree of arrays, over devices


def mean(axis_name: str | None) -> Mean:
  """Returns what averages gradients over devices, so that all take the same step.

  Args:
    axis_name: of the devices; None for one, which has nothing to average.
  """
  if axis_name is None:
    return lambda tree: tree
  return functools.partial(jax.lax.pmean, axis_name=axis_name)
