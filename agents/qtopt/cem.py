"""The cross-entropy method: argmax_a f(a) by sampling (Rubinstein and Kroese 2004).

As in section 4.2 of Kalashnikov et al. 2018: draw N actions, fit a distribution to the
best of them, draw the next N from it. What the paper leaves open is in
`docs/decisions.md`. Letters as in `armfarm.agents.qtopt.actions`, and [N] samples of an
iteration, [E] elites, [I] iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt.actions import Layout


class Options(NamedTuple):
  """Numbers of the search; the defaults are those of the paper, section 4.2.

  Attributes:
    samples: N.
    elites: E, the paper's M.
    iterations: I.
    min_deviation: of the Gaussian that is fitted, in units of the action.
  """

  samples: int = 64
  elites: int = 6
  iterations: int = 2
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
  """Raises ValueError unless there are elites to fit to, and samples to fit for."""
  samples, elites, iterations, _ = options
  if not (1 <= elites <= samples and iterations >= 1):
    raise ValueError(
      f'CEM has {samples} samples, {elites} elites and {iterations} iterations;'
      ' choose at least one of each, and no more elites than samples'
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
  first, *later = jax.random.split(key, options.iterations)
  drawn = [draw_anywhere(layout, options.samples, first)]
  values = [objective(drawn[0])]
  for key_i in later:  # unrolled: in loops, XLA runs convolutions on one core
    _, best = jax.lax.top_k(values[-1], options.elites)
    proposal = fit(layout, drawn[-1][best], options.min_deviation)
    drawn.append(draw(layout, proposal, options.samples, key_i))
    values.append(objective(drawn[-1]))
  every_action, every_value = jnp.concatenate(drawn), jnp.concatenate(values)
  chex.assert_rank(every_value, 1)
  best = jnp.argmax(every_value)
  return Optimum(every_action[best], every_value[best], every_action, every_value)


def draw_anywhere(layout: Layout, samples: int, key: chex.PRNGKey) -> chex.Array:
  """Draws uniformly from all actions, [N A]; the key is consumed."""
  key_box, key_angle, key_command = jax.random.split(key, 3)
  box = jax.random.uniform(key_box, [samples, layout.box], minval=-1.0)
  angle = jax.random.uniform(
    key_angle, [samples, layout.angles], minval=-jnp.pi, maxval=jnp.pi
  )
  ways = len(layout.commands) + 1
  chosen = choose(layout, jnp.full([ways], 1.0 / ways), samples, key_command)
  return jnp.concatenate([box, actions.turns(angle), chosen], axis=1)


def draw(
  layout: Layout, proposal: Proposal, samples: int, key: chex.PRNGKey
) -> chex.Array:
  """Draws from a proposal and holds to the bounds, [N A]; the key is consumed."""
  key_motion, key_command = jax.random.split(key)
  noise = jax.random.normal(key_motion, [samples, layout.motion_size])
  motion = proposal.mean[None] + proposal.deviation[None] * noise
  chosen = choose(layout, proposal.weights, samples, key_command)
  return jnp.concatenate([actions.hold(layout, motion), chosen], axis=1)


def choose(
  layout: Layout, weights: chex.Array, samples: int, key: chex.PRNGKey
) -> chex.Array:
  """Draws commands [N D] systematically: every count is N w, up or down to a whole.

  Args:
    layout: of the action.
    weights: of the choices, [K], summing to 1.
    samples: N.
    key: consumed.
  """
  chex.assert_rank(weights, 1)
  marks = (jnp.arange(samples) + jax.random.uniform(key)) / samples
  edges = jnp.cumsum(weights)[:-1]
  chosen = jnp.sum(marks[:, None] >= edges[None], axis=1)
  return actions.choices(layout)[chosen]


def fit(layout: Layout, elites: chex.Array, min_deviation: float) -> Proposal:
  """Fits a proposal to the best samples.

  The motion's is the Gaussian of highest likelihood with a diagonal covariance, the
  commands' their frequencies among the elites and one vote shared by all choices.

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
  deviation = jnp.maximum(jnp.std(motion, axis=0), min_deviation)
  return Proposal(jnp.mean(motion, axis=0), deviation, weights)
