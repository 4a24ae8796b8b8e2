"""Controllers to begin with: PD, LQR on a guessed model, a demonstration.

The state begins with joint positions q [A] and their velocities [A]; what follows is
neither fed back nor predicted. Letters as in `armfarm.agents.gps.linear_gaussian`.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp

from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import lqr


class PD(NamedTuple):
  """A proportional-derivative controller around a state.

  Attributes:
    stiffness: action per unit of position.
    damping: action per unit of velocity, as a multiple of `stiffness`.
    variance: of the action.
  """

  stiffness: float
  damping: float
  variance: float


class Guess(NamedTuple):
  """A regulator of a guessed model q'' = gains u.

  Attributes:
    gains: acceleration per unit of action, of each joint.
    stiffness: cost of a position off the first state, over that of the action.
    damping: cost of a velocity, as a multiple of `stiffness`.
    variance: of the action where nothing else costs.
    final_weight: multiplies the cost of the last step.
    dt: control period, s.
  """

  gains: tuple[float, ...]
  stiffness: float
  damping: float
  variance: float
  final_weight: float
  dt: float


def _tile(array: chex.Array, steps: int) -> chex.Array:
  """Repeats an array for every step, [T ...]."""
  return jnp.broadcast_to(array, (steps, *array.shape))


def pd(options: PD, first: chex.Array, steps: int, action: int) -> lg.Controller:
  """K = -stiffness [I, damping I, 0], k = -K x_0, around the state `first` [X]."""
  chex.assert_rank(first, 1)
  eye = jnp.eye(action)
  rest = jnp.zeros([action, len(first) - 2 * action])
  gain = -options.stiffness * jnp.concatenate([eye, options.damping * eye, rest], 1)
  tril = jnp.sqrt(options.variance) * eye
  return lg.Controller(
    _tile(gain, steps), _tile(-gain @ first, steps), _tile(tril, steps)
  )


def guessed(options: Guess, first: chex.Array, steps: int) -> lg.Controller:
  """The regulator around the state `first` [X] of the guessed model."""
  chex.assert_rank(first, 1)
  action, state, dt = len(options.gains), len(first), options.dt
  eye, gains = jnp.eye(action), jnp.diag(jnp.array(options.gains))
  matrix = jnp.zeros([state, state + action])
  q, v, u = slice(0, action), slice(action, 2 * action), slice(state, None)
  matrix = matrix.at[q, q].set(eye).at[q, v].set(dt * eye).at[q, u].set(dt**2 * gains)
  matrix = matrix.at[v, v].set(eye).at[v, u].set(dt * gains)
  weights = jnp.zeros([state + action]).at[u].set(1.0).at[q].set(options.stiffness)
  weights = weights.at[v].set(options.stiffness * options.damping) / options.variance
  last = jnp.where(jnp.arange(steps) == steps - 1, options.final_weight, 1.0)
  hessian = last[:, None, None] * jnp.diag(weights)[None]
  gradient = -hessian[:, :, :state] @ first
  model = lg.Dynamics(
    _tile(matrix, steps), jnp.zeros([steps, state]), jnp.zeros([steps, state, state])
  )
  return lqr.optimal(model, lg.Quadratic(hessian, gradient, jnp.zeros([steps])))


def demonstrated(options: PD, states: chex.Array, actions: chex.Array) -> lg.Controller:
  """Follows a recorded trajectory: its actions, and a PD controller back to it.

  Args:
    options: of the controller.
    states: recorded, [T X].
    actions: likewise, [T A].
  """
  steps, action = actions.shape
  back = pd(options, jnp.zeros_like(states[0]), steps, action)
  offset = actions - jnp.einsum('tax,tx->ta', back.gain, states)
  return back._replace(offset=offset)
