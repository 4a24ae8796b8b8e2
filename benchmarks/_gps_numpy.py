"""The equations of `armfarm.agents.gps` in NumPy, as one would write them there.

Loops run over what is sequential or not of one size; all else is matrix products,
stacked where NumPy can.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg
from scipy import optimize
from scipy import special

Array = Any


class Mixture(NamedTuple):
  """Gaussians: weights [G], means [G D], covariances [G D D]."""

  weights: Array
  mean: Array
  covariance: Array


def log_densities(mixture: Mixture, points: Array) -> Array:
  """log (weight N(y)), [P G], of points [P D]."""
  logs = np.empty([len(points), len(mixture.weights)])
  constant = 0.5 * points.shape[1] * math.log(2.0 * math.pi)
  for g, (weight, mean, cov) in enumerate(zip(*mixture, strict=True)):
    tril = np.linalg.cholesky(cov)
    white = linalg.solve_triangular(
      tril, (points - mean).T, lower=True, check_finite=False
    )
    half = np.log(tril.diagonal()).sum() + constant
    logs[:, g] = math.log(weight) - half - 0.5 * np.einsum('dp,dp->p', white, white)
  return logs


def maximise(
  mixture: Mixture, points: Array, ridge: float, steps: int
) -> tuple[Mixture, float]:
  """Expectation maximisation: so many expectations, and the last one's likelihood."""
  added = ridge * np.eye(points.shape[1])
  for step in range(steps):
    logs = log_densities(mixture, points)
    likelihood = special.logsumexp(logs, axis=1)
    if step == steps - 1:
      break
    given = np.exp(logs - likelihood[:, None])
    mass = given.sum(0)
    mean = given.T @ points / mass[:, None]
    cov = np.empty_like(mixture.covariance)
    for g in range(len(mass)):
      apart = points - mean[g]
      cov[g] = (given[:, g, None] * apart).T @ apart / mass[g] + added
    mixture = Mixture(mass / mass.sum(), mean, cov)
  return mixture, float(likelihood.mean())


def fit_dynamics(
  mixture: Mixture, joint: Array, inputs: int, seen: int, regularization: float
) -> tuple[Array, Array, Array]:
  """F, f, W of each step from joint samples [N T D] and a mixture of `seen` points."""
  rollouts, steps, size = joint.shape
  given = special.softmax(log_densities(mixture, joint.reshape(-1, size)), axis=1)
  share = given.reshape(rollouts, steps, -1).mean(0)
  center = share @ mixture.mean
  apart = mixture.mean[None] - center[:, None]
  within = np.tensordot(share, mixture.covariance, 1)
  scatter = within + (share[..., None] * apart).swapaxes(1, 2) @ apart
  degrees = (seen - 2.0 - size) / seen
  points = joint.swapaxes(0, 1)
  mean = points.mean(1)
  off = points - mean[:, None]
  pull = mean - center
  scatter += off.swapaxes(1, 2) @ off
  scatter += rollouts / (rollouts + 1.0) * pull[:, :, None] * pull[:, None, :]
  cov = scatter / (rollouts + degrees)
  added = regularization * np.eye(inputs)
  inner = cov[:, :inputs, :inputs] + added
  matrix = np.linalg.solve(inner, cov[:, :inputs, inputs:]).swapaxes(1, 2)
  eye = np.broadcast_to(np.eye(size - inputs), (steps, size - inputs, size - inputs))
  residual = np.concatenate([-matrix, eye], axis=2)
  unexplained = residual @ cov @ residual.swapaxes(1, 2)
  unexplained += regularization * matrix @ matrix.swapaxes(1, 2)
  offset = mean[:, inputs:] - np.einsum('txz,tz->tx', matrix, mean[:, :inputs])
  pad = [(0, 1), (0, 0)]
  return (
    np.pad(matrix, [*pad, (0, 0)]),
    np.pad(offset, pad),
    np.pad(unexplained, [*pad, (0, 0)]),
  )


class Regulator:
  """One problem of `armfarm.agents.gps.lqr`, in absolute coordinates."""

  def __init__(self, dynamics: Any, cost: Any, initial: Any, anchor: Any):
    self._dynamics, self._cost, self._initial = dynamics, cost, initial
    self._gain, self._offset, tril = anchor
    inverse = np.linalg.inv(tril)
    self._precision = inverse.swapaxes(1, 2) @ inverse
    self._log = 2.0 * np.log(np.diagonal(tril, axis1=1, axis2=2)).sum(1)
    rows = np.concatenate([-inverse @ self._gain, inverse], axis=2)
    origin = (inverse @ self._offset[..., None])[..., 0]
    self._pull = (
      rows.swapaxes(1, 2) @ rows,
      -(rows.swapaxes(1, 2) @ origin[..., None])[..., 0],
    )

  def backward(self, eta: float) -> tuple[Array, Array, Array]:
    """K, k and Q_uu of the minimum of cost / eta + KL."""
    matrix, offset, _ = self._dynamics
    steps, state, _ = matrix.shape
    hessian = self._cost.hessian / eta + self._pull[0]
    gradient = self._cost.gradient / eta + self._pull[1]
    value, slope = np.zeros([state, state]), np.zeros(state)
    found = []
    for t in reversed(range(steps)):
      f = matrix[t]
      q = hessian[t] + f.T @ value @ f
      r = gradient[t] + f.T @ (slope + value @ offset[t])
      quu, qux = q[state:, state:], q[state:, :state]
      np.linalg.cholesky(quu)  # raises where it is not positive definite
      solved = -np.linalg.solve(quu, np.column_stack([qux, r[state:]]))
      gain, shift = solved[:, :state], solved[:, state]
      value = q[:state, :state] + qux.T @ gain
      value = 0.5 * (value + value.T)
      slope = r[:state] + qux.T @ shift
      found.append((gain, shift, quu))
    return tuple(np.stack(x[::-1]) for x in zip(*found, strict=True))

  def divergence(self, gain: Array, shift: Array, quu: Array) -> float:
    """KL from the anchor under the controller's own marginals."""
    matrix, offset, noise = self._dynamics
    state = matrix.shape[1]
    cov = np.linalg.inv(quu)
    push = matrix[:, :, state:]
    closed = matrix[:, :, :state] + push @ gain
    drift = offset + (push @ shift[..., None])[..., 0]
    shaken = push @ cov @ push.swapaxes(1, 2) + noise
    mean, spread = np.empty_like(drift), np.empty_like(noise)
    mean[0], spread[0] = self._initial
    for t in range(len(matrix) - 1):
      mean[t + 1] = closed[t] @ mean[t] + drift[t]
      spread[t + 1] = closed[t] @ spread[t] @ closed[t].T + shaken[t]
    apart = self._gain - gain
    mu = np.einsum('tax,tx->ta', apart, mean) + self._offset - shift
    second = apart @ spread @ apart.swapaxes(1, 2) + mu[:, :, None] * mu[:, None, :]
    traces = np.einsum('tab,tab->t', self._precision, cov + second)
    logs = self._log + np.linalg.slogdet(quu)[1]
    return float(0.5 * (traces + logs - gain.shape[1]).sum())

  def search(self, etas: Array) -> tuple[Array, float]:
    """The passes at the given multipliers: the last controller and its divergence."""
    for eta in etas:
      found = self.backward(eta)
      divergence = self.divergence(*found)
    return found, divergence


def temperatures(to_go: Array, epsilon: float) -> Array:
  """The exact eta of each step, [T], of costs to go [N T]."""
  count, steps = to_go.shape
  found = np.empty(steps)
  for t in range(steps):
    costs = to_go[:, t] - to_go[:, t].min()

    def excess(log_eta: float, costs: Array = costs) -> float:
      weights = np.exp(-costs / math.exp(log_eta))
      weights /= weights.sum()
      kept = weights[weights > 0.0]
      return float(kept @ np.log(kept)) + math.log(count) - epsilon

    high = math.log(costs.max() / math.sqrt(8.0 * epsilon))
    found[t] = math.exp(optimize.brentq(excess, high - 20.0, high, xtol=1e-12))
  return found


def pi2(gain: Array, tril: Array, states: Array, actions: Array, costs: Array) -> Any:
  """Offsets, covariances and temperatures of PI2 with damping 2 and epsilon 1."""
  to_go = np.flip(np.cumsum(np.flip(costs, 1), 1), 1)
  eta = temperatures(to_go, 1.0)
  share = special.softmax(-to_go / eta, axis=0)
  offsets = actions - np.einsum('tax,ntx->nta', gain, states)
  offset = np.einsum('nt,nta->ta', share, offsets)
  apart = offsets - offset
  cov = np.einsum('nt,nta,ntb->tab', share, apart, apart)
  old = tril @ tril.swapaxes(1, 2)
  variance = np.einsum('tab,tba->t', np.linalg.inv(old), cov) / offset.shape[1]
  return offset, np.sqrt(variance)[:, None, None] * old, eta
