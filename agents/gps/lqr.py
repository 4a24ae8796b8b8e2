"""Improves a controller within a divergence of where it was (Levine and Abbeel 2014).

  minimise    E_p sum_t c_t(x, u) - h_t H(p(.|x))
  subject to  sum_t E_p KL(p(u|x) || anchor(u|x)) <= epsilon

in a linear-Gaussian model. For a multiplier eta, the minimum of cost / eta + KL is one
backward pass of dynamic programming; the divergence falls as eta grows, so the
constraint is met by finding a root in log eta.

The pass works with v = u - (K x + k of the anchor), so that its curvature is
Q_vv = P + (cost + value) / eta with P the anchor's precision. Whatever is wrong with
the cost fades with eta, and what is left is positive definite. Where no eta will do,
which a fitted model that explodes brings about, the anchor is returned with a reason.

Letters as in `armfarm.agents.gps.linear_gaussian`.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents.gps import linear_gaussian as lg

# How a search ended, the index of a reason in `REASONS`.
REASONS = ('met', 'slack', 'inside', 'unreachable', 'indefinite')
MET, SLACK, INSIDE, UNREACHABLE, INDEFINITE = range(len(REASONS))


class Options(NamedTuple):
  """Of the search for eta.

  Attributes:
    tolerance: a divergence in [1 - tolerance, 1] epsilon ends it.
    min_eta: smallest multiplier, in units of the cost's largest coefficient.
    max_eta: the largest one, likewise.
    max_passes: backward passes to spend.
  """

  tolerance: float
  min_eta: float
  max_eta: float
  max_passes: int


class Model(NamedTuple):
  """Where controllers are judged.

  Attributes:
    dynamics: of the system.
    initial: of x_0, mean [X] and covariance [X X].
    states: distribution over which divergences are taken, mean [T X] and covariance
      [T X X]; None for the model's own under the new controller.
  """

  dynamics: lg.Dynamics
  initial: lg.Gaussian
  states: lg.Gaussian | None = None


class Improvement(NamedTuple):
  """What a search found.

  Attributes:
    controller: the improved one, or the anchor.
    eta: its multiplier, from which to start next time, [].
    divergence: sum over steps from the anchor, nats, [].
    reason: index in `REASONS`, [] int32. 'met': the constraint is active; 'slack': it
      is not, even at the smallest eta; 'inside': it holds, but passes ran out. The
      others return the anchor: 'unreachable', no eta brought the divergence down to
      epsilon; 'indefinite', none made the curvature positive definite.
    passes: spent, [] int32.
  """

  controller: lg.Controller
  eta: chex.Array
  divergence: chex.Array
  reason: chex.Array
  passes: chex.Array


class _Problem(NamedTuple):
  """A problem in homogeneous coordinates, with v the action relative to the anchor.

  With y = [x; 1], [Y], and w = [y; v], [W], means and quadratics are matrices alone.

  Attributes:
    matrix: y' = matrix w + noise, [T Y W].
    noise: covariance, [T Y Y].
    hessian: the cost is w.hessian.w / 2 and a constant, [T W W].
    whiten: inverse of the anchor's factor, P = whiten^T whiten, [T A A].
    entropy: weight h of the entropy, [T].
  """

  matrix: chex.Array
  noise: chex.Array
  hessian: chex.Array
  whiten: chex.Array
  entropy: chex.Array


class _Pass(NamedTuple):
  """v = gain y + e, e of covariance temperature (factor factor^T)^-1.

  Attributes:
    gain: the last column is an offset, [T A Y].
    factor: Cholesky factor of Q_vv, lower, [T A A].
    inverse: of the factor, [T A A].
    temperature: 1 + h / eta, [T].
  """

  gain: chex.Array
  factor: chex.Array
  inverse: chex.Array
  temperature: chex.Array


def _affine(gain: chex.Array, offset: chex.Array) -> chex.Array:
  """[gain, offset], [T A Y] of [T A X] and [T A]."""
  return jnp.concatenate([gain, offset[..., None]], axis=-1)


def _relative(
  dynamics: lg.Dynamics,
  cost: lg.Quadratic,
  anchor: lg.Controller,
  entropy: chex.Array,
) -> _Problem:
  """Changes variables to w, of which u = [K, k] y + v."""
  state = anchor.gain.shape[2]
  shift = _affine(anchor.gain, anchor.offset)
  moves, push = dynamics.matrix[:, :, :state], dynamics.matrix[:, :, state:]
  top = jnp.concatenate([_affine(moves, dynamics.offset) + push @ shift, push], axis=2)
  last = jnp.zeros_like(top[:, :1]).at[:, :, state].set(1.0)
  hessian, gradient = lg.symmetric(cost.hessian), cost.gradient
  uu = hessian[:, state:, state:]
  uy = _affine(hessian[:, state:, :state], gradient[:, state:])
  yy = _affine(hessian[:, :state, :state], gradient[:, :state])
  row = jnp.pad(gradient[:, None, :state], ((0, 0), (0, 0), (0, 1)))
  yy = jnp.concatenate([yy, row], axis=1)
  vy = uy + uu @ shift
  yy = lg.symmetric(yy + lg.transpose(shift) @ (vy + uy))
  upper = jnp.concatenate([yy, lg.transpose(vy)], axis=2)
  return _Problem(
    matrix=jnp.concatenate([top, last], axis=1),
    noise=jnp.pad(dynamics.covariance, ((0, 0), (0, 1), (0, 1))),
    hessian=jnp.concatenate([upper, jnp.concatenate([vy, uu], axis=2)], axis=1),
    whiten=lg.inverse_factor(anchor.scale_tril),
    entropy=entropy,
  )


def _backward(problem: _Problem, eta: chex.Array) -> _Pass:
  """Dynamic programming for cost / eta + KL; NaN where Q_vv is indefinite."""
  size = problem.noise.shape[1]
  pull = lg.transpose(problem.whiten) @ problem.whiten
  hessians = (problem.hessian / eta).at[:, size:, size:].add(pull)

  def step(
    value: chex.Array, at: tuple[chex.Array, chex.Array]
  ) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
    matrix, hessian = at
    q = hessian + matrix.T @ (value @ matrix)
    factor, rows = lg.eliminate(q[size:, size:], q[size:, :size])
    return lg.symmetric(q[:size, :size] - rows.T @ rows), (factor, rows)

  end = jnp.zeros_like(problem.noise[0])
  inputs = problem.matrix, hessians
  _, (factor, rows) = jax.lax.scan(step, end, inputs, reverse=True)
  inverse = lg.inverse_factor(factor)
  gain = -lg.transpose(inverse) @ rows
  return _Pass(gain, factor, inverse, 1.0 + problem.entropy / eta)


def _second_moment(states: lg.Gaussian) -> chex.Array:
  """E y y^T, [... Y Y], of states [... X]."""
  mean = states.mean
  y = jnp.concatenate([mean, jnp.ones_like(mean[..., :1])], axis=-1)
  pad = [(0, 0)] * (mean.ndim - 1) + [(0, 1), (0, 1)]
  return lg.outer(y) + jnp.pad(states.covariance, pad)


def _flow(problem: _Problem, found: _Pass, initial: lg.Gaussian) -> chex.Array:
  """E y y^T of each step under a pass's controller, [T Y Y]."""
  size = problem.noise.shape[1]
  push = problem.matrix[:, :, size:]
  closed = problem.matrix[:, :, :size] + push @ found.gain
  root = found.inverse @ lg.transpose(push)
  shaken = found.temperature[:, None, None] * lg.transpose(root) @ root + problem.noise

  def step(
    moment: chex.Array, at: tuple[chex.Array, chex.Array]
  ) -> tuple[chex.Array, chex.Array]:
    closed_t, shaken_t = at
    return closed_t @ moment @ closed_t.T + shaken_t, moment

  return jax.lax.scan(step, _second_moment(initial), (closed, shaken))[1]


def _divergence(problem: _Problem, found: _Pass, model: Model) -> chex.Array:
  """Sum over steps of KL from the anchor, from v alone: nothing large cancels."""
  if model.states is None:
    moment = _flow(problem, found, model.initial)
  else:
    moment = _second_moment(model.states)
  gain = problem.whiten @ found.gain
  squares = jnp.sum((gain @ moment) * gain, axis=(1, 2))
  # The covariance is temperature R^-T R^-1, R the factor of Q_vv.
  scale = found.inverse @ lg.transpose(problem.whiten)
  spread = found.temperature * jnp.sum(scale**2, axis=(1, 2))
  size = gain.shape[1]
  logs = lg.log_determinant(found.factor) - lg.log_determinant(problem.whiten)
  logs -= size * jnp.log(found.temperature)
  return 0.5 * jnp.sum(squares + spread - size + logs)


class _Search(NamedTuple):
  """Where the search for log eta stands; a gap is log(divergence / what is wanted).

  Attributes:
    proposal: log eta of the next pass.
    low: the largest log eta that was too far from the anchor, -inf before.
    high: the smallest one that was near enough, inf before.
    gap_low: at `low`, positive, inf where Q_vv was indefinite.
    gap_high: at `high`, negative.
    stride: by which an open bracket grows.
    was_near: whether the last pass moved `high`.
    best: the pass at `high`.
    definite: whether any pass so far had a positive definite Q_vv.
    passes: made so far.
    reason: index in `REASONS`, -1 while the search goes on.
  """

  proposal: chex.Array
  low: chex.Array
  high: chex.Array
  gap_low: chex.Array
  gap_high: chex.Array
  stride: chex.Array
  was_near: chex.Array
  best: _Pass
  definite: chex.Array
  passes: chex.Array
  reason: chex.Array


def _propose(s: _Search, gap: chex.Array) -> _Search:
  """Chooses the next log eta: false position within a bracket, else a longer stride."""
  width = s.high - s.low
  crossing = s.high - width * s.gap_high / (s.gap_high - s.gap_low)
  inside = jnp.where(jnp.isfinite(crossing), crossing, s.low + 0.5 * width)
  inside = jnp.clip(inside, s.low + 0.02 * width, s.high - 0.02 * width)
  # The divergence falls about as 1 / eta; where it is not finite, try a decade.
  length = s.stride * jnp.where(jnp.isfinite(gap), jnp.abs(gap), jnp.log(10.0))
  outside = s.proposal + jnp.where(s.was_near, -length, length)
  return s._replace(
    proposal=jnp.where(jnp.isfinite(width), inside, outside), stride=2.0 * s.stride
  )


def _narrow(
  s: _Search, found: _Pass, divergence: chex.Array, epsilon: chex.Array, target: float
) -> _Search:
  """Moves an end of the bracket to the pass just made, keeping it if near enough."""
  definite = jnp.isfinite(divergence)
  gap = jnp.log(jnp.where(definite, divergence, jnp.inf) / (target * epsilon))
  near = definite & (divergence <= epsilon)
  # Illinois: halve the gap of an end that stays twice, or it would stay for ever.
  again = jnp.where(near == s.was_near, 0.5, 1.0)
  return s._replace(
    low=jnp.where(near, s.low, s.proposal),
    high=jnp.where(near, s.proposal, s.high),
    gap_low=jnp.where(near, s.gap_low * again, gap),
    gap_high=jnp.where(near, gap, s.gap_high * again),
    was_near=near,
    best=jax.tree.map(lambda new, old: jnp.where(near, new, old), found, s.best),
    definite=s.definite | definite,
    passes=s.passes + 1,
  )


def _judge(
  s: _Search,
  divergence: chex.Array,
  epsilon: chex.Array,
  bounds: tuple[chex.Array, chex.Array],
  options: Options,
) -> chex.Array:
  """Says whether the search ends with the pass just made, and why."""
  inside = jnp.isfinite(s.high)
  failed = jnp.where(s.definite, UNREACHABLE, INDEFINITE)
  ends = [
    (s.was_near & (divergence >= (1.0 - options.tolerance) * epsilon), MET),
    (s.was_near & (s.proposal <= bounds[0]), SLACK),
    (~s.was_near & (s.proposal >= bounds[1]), failed),
    (s.passes >= options.max_passes, jnp.where(inside, INSIDE, failed)),
  ]
  conditions, reasons = zip(*ends, strict=True)
  return jnp.select(conditions, reasons, -1).astype(jnp.int32)


def _begin(problem: _Problem, log_eta: chex.Array) -> _Search:
  """Returns a search that has not made a pass."""
  shapes = jax.eval_shape(_backward, problem, jnp.exp(log_eta))
  inf, no = jnp.full_like(log_eta, jnp.inf), jnp.array(False)
  return _Search(
    proposal=log_eta,
    low=-inf,
    high=inf,
    gap_low=inf,
    gap_high=-inf,
    stride=jnp.full_like(log_eta, 1.1),
    was_near=no,
    best=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
    definite=no,
    passes=jnp.int32(0),
    reason=jnp.int32(-1),
  )


def _search(
  problem: _Problem,
  model: Model,
  epsilon: chex.Array,
  eta: chex.Array,
  options: Options,
) -> _Search:
  """Looks for the eta whose divergence is just inside epsilon."""
  unit = jnp.max(jnp.abs(problem.hessian))
  unit = jnp.where((unit > 0.0) & jnp.isfinite(unit), unit, 1.0)
  limits = jnp.array([options.min_eta, options.max_eta], eta.dtype)
  bounds = tuple(jnp.log(limits) + jnp.log(unit))

  def step(s: _Search) -> _Search:
    found = _backward(problem, jnp.exp(s.proposal))
    divergence = _divergence(problem, found, model)
    s = _narrow(s, found, divergence, epsilon, 1.0 - 0.5 * options.tolerance)
    s = s._replace(reason=_judge(s, divergence, epsilon, bounds, options))
    s = _propose(s, jnp.where(s.was_near, s.gap_high, s.gap_low))
    return s._replace(proposal=jnp.clip(s.proposal, *bounds))

  first = _begin(problem, jnp.clip(jnp.log(eta), *bounds))
  return jax.lax.while_loop(lambda s: s.reason < 0, step, first)


def _controller(anchor: lg.Controller, found: _Pass) -> lg.Controller:
  """Writes a pass's controller in terms of u."""
  cov = lg.transpose(found.inverse) @ found.inverse
  return lg.Controller(
    anchor.gain + found.gain[..., :-1],
    anchor.offset + found.gain[..., -1],
    lg.cholesky(found.temperature[:, None, None] * cov),
  )


def improve(
  model: Model,
  cost: lg.Quadratic,
  anchor: lg.Controller,
  epsilon: chex.Array,
  eta: chex.Array,
  entropy: chex.Array,
  options: Options,
) -> Improvement:
  """Lowers the expected cost within a divergence; total for finite arguments.

  The divergence of what is returned was computed from it as returned, and is at most
  epsilon but for rounding.

  Args:
    model: where to judge; its positive semidefinite parts may be singular.
    cost: of z = [x; u]; it may be indefinite.
    anchor: where to start, and what to return when nothing else will do.
    epsilon: nats over all steps, positive, [].
    eta: positive multiplier to begin with, [].
    entropy: weight of the entropy of each step, not negative, [T]; zeros for none.
    options: of the search.
  """
  chex.assert_rank([epsilon, eta, entropy], [0, 0, 1])
  problem = _relative(model.dynamics, cost, anchor, entropy)
  s = _search(problem, model, epsilon, eta, options)
  found = _controller(anchor, s.best)
  states = model.states
  if states is None:
    states = lg.visited(model.dynamics, found, model.initial)
  divergence = jnp.sum(lg.divergence(found, anchor, states))
  rounding = jnp.sqrt(lg.rounding(divergence))
  # NaN compares false: whatever is not a controller is not good.
  good = (s.reason <= INSIDE) & (divergence <= epsilon * (1.0 + rounding))
  good &= jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in found]))
  failed = jnp.where(s.reason <= INSIDE, UNREACHABLE, s.reason)
  return Improvement(
    jax.tree.map(lambda new, old: jnp.where(good, new, old), found, anchor),
    jnp.where(good, jnp.exp(s.high), eta),
    jnp.where(good, divergence, 0.0),
    jnp.where(good, s.reason, failed),
    s.passes,
  )


def optimal(dynamics: lg.Dynamics, cost: lg.Quadratic) -> lg.Controller:
  """Minimises E sum c_t - H(p) without a constraint: C_t = Q_uu^-1.

  Args:
    dynamics: of the system.
    cost: convex.

  Returns:
    The linear-quadratic regulator, NaN where the cost-to-go is not convex.
  """
  steps, state, both = dynamics.matrix.shape
  zeros = jnp.zeros_like(dynamics.matrix, shape=(steps, both - state, state))
  eye = jnp.eye(both - state, dtype=zeros.dtype)
  idle = lg.Controller(
    zeros, zeros[:, :, 0], jnp.broadcast_to(eye, (steps, *eye.shape))
  )
  free = _relative(dynamics, cost, idle, zeros[:, 0, 0])
  free = free._replace(whiten=jnp.zeros_like(free.whiten))
  return _controller(idle, _backward(free, jnp.ones([], zeros.dtype)))
