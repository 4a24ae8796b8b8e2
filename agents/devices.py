"""One learner on several devices, each with its part of every batch."""

from __future__ import annotations

import functools

import jax
import optax


def averaged(
  optimizer: optax.GradientTransformation, axis_name: str | None
) -> optax.GradientTransformation:
  """Puts the mean over devices before an optimiser, so that all take the same step.

  The state is the optimiser's own: one device and several can go on from each other.

  Args:
    optimizer: of each device.
    axis_name: of the devices; None leaves the optimiser as it is.
  """
  if axis_name is None:
    return optimizer
  mean = functools.partial(jax.lax.pmean, axis_name=axis_name)

  def update(
    grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    return optimizer.update(mean(grads), state, params)

  return optax.GradientTransformation(optimizer.init, update)
