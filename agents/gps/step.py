"""How far the next improvement may go (Levine and Abbeel 2014; Montgomery et al. 2016).

An improvement promised a cost in its model; the next rollouts say what came of it. If
half of the error is second order in the step, the best next step is

  multiplier <- multiplier * promised / (2 (promised - actual)),

where both are improvements over the cost before. Which costs: 'laplace' takes the
expectation in the fitted models, with what BADMM adds, 'mc' the mean cost of the
rollouts.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp

RULES = ('laplace', 'mc')

_LEAST, _MOST = 0.1, 5.0  # of one change, as in the published code
_TINY = 1e-4  # the smallest shortfall that counts, in units of the cost, likewise


class Options(NamedTuple):
  """Of the size of steps.

  Attributes:
    kl_step: nats a time step that a multiplier of 1 allows.
    min_multiplier: smallest.
    max_multiplier: largest.
  """

  kl_step: float
  min_multiplier: float
  max_multiplier: float


class State(NamedTuple):
  """What the last improvement promised.

  Attributes:
    multiplier: of `kl_step`, [].
    before: cost before the improvement, [].
    promised: cost after it, in the model that it was made with, [].
    held: whether there was none, and the anchor was kept, [].
  """

  multiplier: chex.Array
  before: chex.Array
  promised: chex.Array
  held: chex.Array


def begin() -> State:
  """Returns the state before the first improvement: nothing was promised."""
  nought = jnp.zeros([])
  return State(jnp.ones([]), nought, nought, jnp.array(True))


def adjust(state: State, actual: chex.Array, options: Options) -> State:
  """Adjusts the multiplier to what came of the last improvement.

  Costs that are not finite, as of a model that explodes, make it fall the most.

  Args:
    state: with what it promised; if it was held, the multiplier stays.
    actual: cost now, [].
    options: of the size.
  """
  promised = state.before - state.promised
  shortfall = promised - (state.before - actual)
  change = promised / (2.0 * jnp.maximum(_TINY, shortfall))
  change = jnp.where(jnp.isfinite(change), change, _LEAST)
  change = jnp.where(state.held, 1.0, jnp.clip(change, _LEAST, _MOST))
  bounds = options.min_multiplier, options.max_multiplier
  return state._replace(multiplier=jnp.clip(change * state.multiplier, *bounds))


def promise(
  state: State,
  before: chex.Array,
  promised: chex.Array,
  held: chex.Array,
  options: Options,
) -> State:
  """Notes what an improvement promises; one that was held halves the next step.

  Args:
    state: with the multiplier that was used.
    before: cost before the improvement, [].
    promised: cost after it, [].
    held: whether the anchor was kept, [].
    options: of the size.
  """
  halved = jnp.maximum(0.5 * state.multiplier, options.min_multiplier)
  return State(jnp.where(held, halved, state.multiplier), before, promised, held)


def epsilon(state: State, steps: int, options: Options) -> chex.Array:
  """The divergence that an improvement may use over all steps, nats, []."""
  return options.kl_step * steps * state.multiplier
