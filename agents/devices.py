"""One learner on several devices, each with its part of every batch."""

from __future__ import annotations

import jax
import optax


def averaged(
  optimizer: optax.GradientTransformation, axis_name: str | None
) -> optax.GradientTransformation:
  """Puts the mean over devices before an optimiser, so that all take the same step.

  Args:
    optimizer: of each device.
    axis_name: of the devices; None leaves the optimiser as it is.
  """
  if axis_name is None:
    return optimizer

  def mean(grads: optax.Updates, params: optax.Params) -> optax.Updates:
    del params
    return jax.lax.pmean(grads, axis_name)  # type: ignore[no-untyped-call]

  return optax.chain(optax.stateless(mean), optimizer)
