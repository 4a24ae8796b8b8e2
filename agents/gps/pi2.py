"""Path integral policy improvement of a controller's offsets (Chebotar et al. 2017).

At each step, rollouts are weighted by the exponential of their cost to go, and the
offset and the covariance of the controller become those of the weighted actions. The
temperature of a step is where relative entropy to the unweighted rollouts is epsilon:

  p_n = softmax_n(-S_n / eta),   KL(p || 1/N) = epsilon

which falls monotonically with eta, so it is a root in log eta.

Letters as in `armfarm.agents.gps.linear_gaussian`.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents.gps import linear_gaussian as lg

_NEWTON_STEPS = 60  # bisection alone would bring 40 decades down to rounding in these


class Options(NamedTuple):
  """Of an improvement.

  Attributes:
    epsilon: relative entropy of the weights of a step, nats, below log N.
    min_temperature: floor of eta, in units of the cost.
    damping: c: the covariance keeps its shape and is scaled by a^(1/c), a the mean
      variance of the weighted actions in units of the old one; 0 takes the weighted
      covariance itself.
    covariance_floor: added to its diagonal, in squared units of the action: no
      eigenvalue is smaller.
  """

  epsilon: float
  min_temperature: float
  damping: float
  covariance_floor: float


class Improvement(NamedTuple):
  """What an improvement found.

  Attributes:
    controller: with the gains of the old one.
    temperature: eta of each step, [T].
    weights: p of each step, [N T].
  """

  controller: lg.Controller
  temperature: chex.Array
  weights: chex.Array


def check(options: Options, rollouts: int) -> None:
  """Raises ValueError unless the temperature exists: epsilon lies in (0, log N)."""
  limit = float(jnp.log(rollouts))
  if not 0.0 < options.epsilon < limit:
    raise ValueError(
      f'epsilon is {options.epsilon}; with {rollouts} rollouts it must lie between 0'
      f' and log({rollouts}) = {limit:.4g}, so use more rollouts or a smaller epsilon'
    )
  if options.min_temperature <= 0.0 or options.covariance_floor <= 0.0:
    raise ValueError('min_temperature and covariance_floor must be positive')


def _entropy(scaled: chex.Array) -> tuple[chex.Array, chex.Array]:
  """KL(softmax(-S / eta) || 1/N), and its slope in log eta, of S / eta >= 0 [N].

  The least of S / eta is nought, so that exponentials neither overflow nor all vanish.
  """
  mass = jnp.exp(-scaled)
  scaled = jnp.where(mass > 0.0, scaled, 0.0)  # nought times infinity is not a number
  total = jnp.sum(mass)
  mean = jnp.sum(mass * scaled) / total
  slope = jnp.sum(mass * (scaled - mean) ** 2) / total
  return jnp.log(len(scaled)) - mean - jnp.log(total), -slope


class _Root(NamedTuple):
  """A bracket of log eta, and where to look next."""

  low: chex.Array
  high: chex.Array
  guess: chex.Array
  steps: chex.Array
  done: chex.Array


def temperature(
  costs: chex.Array, epsilon: chex.Array, min_temperature: chex.Array
) -> chex.Array:
  """The eta at which the weights of costs have relative entropy epsilon.

  Args:
    costs: S, to go from one step on, [N].
    epsilon: in (0, log N), [].
    min_temperature: returned where even this eta leaves less relative entropy, as when
      all costs are the same, [].

  Returns:
    eta, exact but for rounding, [].
  """
  chex.assert_rank([costs, epsilon, min_temperature], [1, 0, 0])
  costs = costs - jnp.min(costs)
  # KL <= (range / eta)^2 / 8 (Hoeffding): above this it is less than epsilon.
  above = jnp.max(costs) / jnp.sqrt(8.0 * epsilon)
  low, high = jnp.log(min_temperature), jnp.log(jnp.maximum(above, min_temperature))

  def step(s: _Root) -> _Root:
    entropy, slope = _entropy(costs / jnp.exp(s.guess))
    warm = entropy > epsilon
    low, high = jnp.where(warm, s.guess, s.low), jnp.where(warm, s.high, s.guess)
    newton = s.guess - entropy / slope * jnp.log(entropy / epsilon)
    inside = (newton >= low) & (newton <= high)
    guess = jnp.where(inside, newton, 0.5 * (low + high))
    # Newton's error is squared in a step: after this one it is rounding.
    near = inside & (jnp.abs(guess - s.guess) <= jnp.sqrt(lg.rounding(guess)))
    return _Root(low, high, guess, s.steps + 1, near | (high - low <= 0.0))

  # KL is var / (2 eta^2) for large eta; costs that are all the same have no root.
  spread = jnp.log(jnp.maximum(jnp.var(costs) / (2.0 * epsilon), min_temperature**2))
  guess = jnp.clip(0.5 * spread, low, high)
  start = _Root(low, high, guess, jnp.int32(0), high <= low)
  root = jax.lax.while_loop(lambda s: ~s.done & (s.steps < _NEWTON_STEPS), step, start)
  cold = _entropy(costs / min_temperature)[0] <= epsilon
  return jnp.where(cold, min_temperature, jnp.exp(root.guess))


def weights(costs: chex.Array, temperatures: chex.Array) -> chex.Array:
  """softmax_n(-S_nt / eta_t), [N T], of costs to go [N T] at eta [T]."""
  return jax.nn.softmax(-costs / temperatures[None], axis=0)


def costs_to_go(costs: chex.Array) -> chex.Array:
  """S_nt = sum_(j >= t) l_nj, [N T]."""
  return jnp.flip(jnp.cumsum(jnp.flip(costs, axis=1), axis=1), axis=1)


def reweigh(
  anchor: lg.Controller,
  states: chex.Array,
  actions: chex.Array,
  share: chex.Array,
  options: Options,
) -> lg.Controller:
  """The controller of weighted rollouts; gains stay.

  Args:
    anchor: from which the rollouts came.
    states: [N T X].
    actions: [N T A].
    share: weights that sum to 1 over rollouts, [N T].
    options: of the improvement.
  """
  # Sums of products in the open: calls of matrix products this small cost more.
  offsets = actions - jnp.sum(anchor.gain[None] * states[:, :, None], axis=3)
  offset = jnp.sum(share[..., None] * offsets, axis=0)
  apart = offsets - offset[None]
  if options.damping > 0.0:
    inverse = lg.inverse_factor(anchor.scale_tril)
    white = jnp.sum(inverse[None] * apart[:, :, None], axis=3)
    variance = jnp.sum(share * jnp.mean(white**2, axis=2), axis=0)
    scale = variance ** (1.0 / options.damping)
    cov = scale[:, None, None] * lg.covariance(anchor)
  else:
    cov = jnp.einsum('nt,nta,ntb->tab', share, apart, apart)
  floor = options.covariance_floor * jnp.eye(offset.shape[1], dtype=cov.dtype)
  return lg.Controller(anchor.gain, offset, lg.cholesky(cov + floor[None]))


def improve(
  anchor: lg.Controller,
  states: chex.Array,
  actions: chex.Array,
  costs: chex.Array,
  options: Options,
) -> Improvement:
  """Moves a controller towards its cheaper rollouts.

  Args:
    anchor: from which the rollouts came.
    states: [N T X].
    actions: [N T A].
    costs: of each step, finite, [N T].
    options: for which `check` holds with N rollouts.
  """
  chex.assert_rank([states, actions, costs], [3, 3, 2])
  to_go = costs_to_go(costs)
  bounds = (
    jnp.asarray(x, costs.dtype) for x in (options.epsilon, options.min_temperature)
  )
  find = jax.vmap(temperature, in_axes=(1, None, None))
  eta = find(to_go, *bounds)
  share = weights(to_go, eta)
  return Improvement(reweigh(anchor, states, actions, share, options), eta, share)
