"""The cross-entropy method: argmax_a f(a) by sampling (Rubinstein and Kroese 2004).

As in section 4.2 of Kalashnikov et al. 2018: draw N actions, fit a distribution to the
best of them, draw the next N from it. What the paper leaves open is in
`docs/decisions.md`. Letters as in `armfarm.agents.qtopt.actions`, and [N] samples of an
iteration, [E] elites, [I] iterations.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt.actions import Layout


class Options(NamedTuple):
  """Numbers of the search; the defaults of the first three are those of section 4.2.

  Attributes:
    samples: N.
    elites: E, the paper's M.
    iterations: I.
    deviation: of the first samples about nought, in units of the action.
    min_deviation: of the Gaussian that is fitted, in units of the action.
  """

  samples: int = 64
  elites: int = 6
  iterations: int = 2
  deviation: float = 0.7
  min_deviation: float = 0.01


class Proposal(NamedTuple):
  """What the next samples are drawn from.

  Attributes:
    mean: of the motion, [M].
    deviation: of the motion, [M].
    weights: probabilities of the choices among the commands, [K].
  """

  mean: chex.Array
  deviation: chex.Array
  weights: chex.Array


class Optimum(NamedTuple):
  """What a search found.

  Attributes:
    action: the best of all samples, [A].
    value: of the objective there, [].
    actions: all samples, [I*N A], for pictures; compiled away where nobody looks.
    values: theirs, [I*N].
  """

  action: chex.Array
  value: chex.Array
  actions: chex.Array
  values: chex.Array


def check(options: Options) -> None:
  """Raises ValueError unless there are elites to fit to, and samples that differ."""
  samples, elites, iterations = options[:3]
  if not (2 <= elites <= samples and iterations >= 1):
    raise ValueError(
      f'CEM has {samples} samples, {elites} elites and {iterations} iterations;'
      ' choose at least two elites, no more than samples, and one iteration'
    )
  if not (options.deviation > 0.0 and options.min_deviation > 0.0):
    raise ValueError(
      f'CEM has deviation {options.deviation} and min_deviation'
      f' {options.min_deviation}; choose both above 0'
    )


def maximise(
  objective: Callable[[chex.Array], chex.Array],
  layout: Layout,
  options: Options,
  key: chex.PRNGKey,
) -> Optimum:
  """Maximises an objective over the actions of a layout.

  Args:
    objective: `actions [N A] -> values [N]`; called once an iteration, always with
      actions within bounds.
    layout: of the action.
    options: numbers of the search.
    key: consumed.
  """
  proposal = prior(layout, options.deviation)
  shape = options.iterations, options.samples, layout.motion_size
  noise, offsets = _random(shape, key)
  drawn: list[chex.Array] = []
  values: list[chex.Array] = []
  # Unrolled: within loops, XLA runs a convolution on one core.
  for i in range(options.iterations):
    if values:
      _, best = jax.lax.top_k(values[-1], options.elites)
      proposal = fit(layout, drawn[-1][best], options.min_deviation)
    drawn.append(_spread(layout, proposal, noise[i], offsets[i]))
    values.append(objective(drawn[-1]))
  every_action, every_value = jnp.concatenate(drawn), jnp.concatenate(values)
  chex.assert_rank(every_value, 1)
  best = jnp.argmax(every_value)
  return Optimum(every_action[best], every_value[best], every_action, every_value)


def prior(layout: Layout, deviation: float) -> Proposal:
  """Returns what the first samples are drawn from: all commands, all directions."""
  size, ways = layout.motion_size, len(layout.commands) + 1
  return Proposal(
    jnp.zeros(size), jnp.full([size], deviation), jnp.full([ways], 1.0 / ways)
  )


def draw(
  layout: Layout, proposal: Proposal, samples: int, key: chex.PRNGKey
) -> chex.Array:
  """Draws from a proposal and holds to the bounds, [N A]; the key is consumed."""
  noise, offsets = _random((1, samples, layout.motion_size), key)
  return _spread(layout, proposal, noise[0], offsets[0])


def _random(
  shape: tuple[int, int, int], key: chex.PRNGKey
) -> tuple[chex.Array, chex.Array]:
  """Standard normals [I N M] and numbers in [0, 1) [I]; the key is consumed.

  Random bits are a fifth of a search. Sixteen make a normal of up to 4.3 deviations.
  """
  iterations, count = shape[0], math.prod(shape)
  bits = jax.random.bits(key, [iterations + (count + 1) // 2])
  first, rest = bits[:iterations], bits[iterations:]
  halves = jnp.concatenate([rest & 0xFFFF, rest >> 16])[:count]
  uniform = (halves.astype(jnp.float32) + 0.5) / 2**15 - 1.0
  offsets = (first >> 8).astype(jnp.float32) / 2**24
  return 2**0.5 * jax.lax.erf_inv(uniform).reshape(shape), offsets


def _spread(
  layout: Layout, proposal: Proposal, noise: chex.Array, offset: chex.Array
) -> chex.Array:
  """The samples [N A] that standard normals [N M] and an offset [] stand for."""
  motion = proposal.mean[None] + proposal.deviation[None] * noise
  chosen = choose(layout, proposal.weights, len(noise), offset)
  return jnp.concatenate([actions.hold(layout, motion), chosen], axis=1)


def choose(
  layout: Layout, weights: chex.Array, samples: int, offset: chex.Array
) -> chex.Array:
  """Draws commands [N D] systematically: every count is N w, up or down to a whole.

  Args:
    layout: of the action.
    weights: of the choices, [K], summing to 1.
    samples: N.
    offset: uniform in [0, 1), [].
  """
  chex.assert_rank([weights, offset], [1, 0])
  marks = (jnp.arange(samples) + offset) / samples
  edges = jnp.cumsum(weights)[:-1]
  chosen = jnp.sum(marks[:, None] >= edges[None], axis=1)
  return actions.choices(layout)[chosen]


def fit(layout: Layout, elites: chex.Array, min_deviation: float) -> Proposal:
  """Fits a proposal to the best samples.

  The motion's is a Gaussian with a diagonal covariance, that of a sample; the commands'
  are their frequencies among the elites and one vote shared by all choices.

  Args:
    layout: of the action.
    elites: [E A].
    min_deviation: see `Options`.
  """
  chex.assert_rank(elites, 2)
  motion, commands = jnp.split(elites, [layout.motion_size], axis=1)
  none = 1.0 - jnp.sum(commands, axis=1, keepdims=True)
  votes = jnp.sum(jnp.concatenate([none, commands], axis=1), axis=0)
  weights = (votes + 1.0 / votes.shape[0]) / (elites.shape[0] + 1.0)
  deviation = jnp.maximum(jnp.std(motion, axis=0, ddof=1), min_deviation)
  return Proposal(jnp.mean(motion, axis=0), deviation, weights)
