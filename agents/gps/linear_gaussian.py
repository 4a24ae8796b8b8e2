"""Time-varying linear-Gaussian controllers, models and what follows from them.

Letters of every file here, beyond those of `armfarm.agents.types`:

  [X] state    [Z] = X + A, state and action    [N] rollouts

The controller is u = K_t x + k_t + S_t e with e ~ N(0, I), the model
x' = F_t [x; u] + f_t + w with w ~ N(0, W_t), and the cost
c_t + g_t.z + z.H_t z / 2 in absolute z = [x; u]. Time comes first.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Controller(NamedTuple):
  """p(u|x) = N(K_t x + k_t, S_t S_t^T).

  The factor is kept, not the covariance: any factor with a positive diagonal is a
  positive definite covariance, in whichever precision it is written down.

  Attributes:
    gain: K, [T A X].
    offset: k, [T A].
    scale_tril: S, lower triangular with a positive diagonal, [T A A].
  """

  gain: chex.Array
  offset: chex.Array
  scale_tril: chex.Array


class Dynamics(NamedTuple):
  """p(x'|x, u) = N(F_t [x; u] + f_t, W_t); the last step leads nowhere, and is unused.

  Attributes:
    matrix: F, [T X Z].
    offset: f, [T X].
    covariance: W, positive semidefinite, [T X X].
  """

  matrix: chex.Array
  offset: chex.Array
  covariance: chex.Array


class Gaussian(NamedTuple):
  """A mean [... X] and a covariance [... X X]."""

  mean: chex.Array
  covariance: chex.Array


class Quadratic(NamedTuple):
  """The cost c_t + g_t.z + z.H_t z / 2, symmetric H.

  Attributes:
    hessian: H, [T Z Z].
    gradient: g, at z = 0, [T Z].
    constant: c, [T].
  """

  hessian: chex.Array
  gradient: chex.Array
  constant: chex.Array


def transpose(matrix: chex.Array) -> chex.Array:
  """Exchanges the last two axes."""
  return jnp.swapaxes(matrix, -1, -2)


def symmetric(matrix: chex.Array) -> chex.Array:
  """Returns the symmetric part of a matrix [... X X]."""
  return 0.5 * (matrix + transpose(matrix))


def rounding(like: chex.Array) -> chex.Array:
  """Distance from 1 to the next number in the precision of an array, []."""
  one = jnp.ones([], like.dtype)
  return jnp.nextafter(one, 2.0 * one) - one


def outer(vector: chex.Array) -> chex.Array:
  """Returns v v^T, [... X X], of v [... X]."""
  return vector[..., :, None] * vector[..., None, :]


@jax.jit  # traced once of a shape, for all that is compiled of it
def inverse_factor(scale_tril: chex.Array) -> chex.Array:
  """Returns S^-1, lower triangular, of S [... A A], by forward substitution.

  Row by row, in the open: for matrices this small, calls of LAPACK cost more than what
  they do. The same holds for `eliminate`.
  """
  eye = jnp.broadcast_to(
    jnp.eye(scale_tril.shape[-1], dtype=scale_tril.dtype), scale_tril.shape
  )
  rows: list[chex.Array] = []
  for a in range(scale_tril.shape[-1]):
    row = eye[..., a, :]
    for b, above in enumerate(rows):
      row = row - scale_tril[..., a, b, None] * above
    rows.append(row / scale_tril[..., a, a, None])
  return jnp.stack(rows, axis=-2)


@jax.jit
def eliminate(matrix: chex.Array, right: chex.Array) -> tuple[chex.Array, chex.Array]:
  """The Cholesky factor S of a matrix, and S^-1 times what stands right of it.

  Args:
    matrix: symmetric, of which the upper triangle counts, [... A A].
    right: [... A B].

  Returns:
    S, lower triangular, [... A A], with a NaN on the diagonal unless the matrix is
    positive definite; S^-1 right, [... A B].
  """
  size = matrix.shape[-1]
  both = jnp.concatenate([matrix, right], axis=-1)
  rows: list[chex.Array] = []
  for a in range(size):
    row = both[..., a, :]
    for above in rows:
      row = row - above[..., a, None] * above
    rows.append(row / jnp.sqrt(row[..., a, None]))
  done = jnp.stack(rows, axis=-2)
  return transpose(jnp.triu(done[..., :size])), done[..., size:]


def cholesky(matrix: chex.Array) -> chex.Array:
  """The factor S of a small symmetric matrix S S^T, [... A A]; see `eliminate`."""
  return eliminate(matrix, matrix[..., :0])[0]


def log_determinant(scale_tril: chex.Array) -> chex.Array:
  """Returns log |S S^T|, [...], of S [... A A]."""
  diagonal = jnp.diagonal(scale_tril, axis1=-2, axis2=-1)
  return 2.0 * jnp.sum(jnp.log(diagonal), axis=-1)


def covariance(controller: Controller) -> chex.Array:
  """C_t = S_t S_t^T, [T A A]."""
  tril = controller.scale_tril
  return jnp.sum(tril[..., :, None, :] * tril[..., None, :, :], axis=-1)


def precision(controller: Controller) -> chex.Array:
  """P_t = C_t^-1, [T A A]."""
  inverse = inverse_factor(controller.scale_tril)
  return transpose(inverse) @ inverse


def mean_action(controller: Controller, states: chex.Array) -> chex.Array:
  """K_t x_t + k_t, [... T A], of states [... T X]."""
  moved = jnp.einsum('tax,...tx->...ta', controller.gain, states)
  return moved + jnp.broadcast_to(controller.offset, moved.shape)


def log_density(
  controller: Controller, states: chex.Array, actions: chex.Array
) -> chex.Array:
  """log p(u_t|x_t), [... T], of states [... T X] and actions [... T A]."""
  deviation = actions - mean_action(controller, states)
  inverse = inverse_factor(controller.scale_tril)
  noise = jnp.einsum('tab,...tb->...ta', inverse, deviation)
  size = actions.shape[-1] * jnp.log(2.0 * jnp.pi)
  normaliser = 0.5 * (log_determinant(controller.scale_tril) + size)
  squares = 0.5 * jnp.sum(noise**2, axis=-1)
  return -squares - jnp.broadcast_to(normaliser, squares.shape)


def visited(dynamics: Dynamics, controller: Controller, initial: Gaussian) -> Gaussian:
  """The distribution of x_t of a rollout in the model.

  Args:
    dynamics: the model.
    controller: that acts in it.
    initial: of x_0, mean [X] and covariance [X X].

  Returns:
    Mean [T X] and covariance [T X X].
  """
  chex.assert_rank([initial.mean, initial.covariance], [1, 2])
  size = initial.mean.shape[0]
  push = dynamics.matrix[:, :, size:]
  closed = dynamics.matrix[:, :, :size] + push @ controller.gain
  drift = dynamics.offset + jnp.einsum('txa,ta->tx', push, controller.offset)
  root = push @ controller.scale_tril
  noise = root @ transpose(root) + dynamics.covariance

  def step(
    x: Gaussian, at: tuple[chex.Array, chex.Array, chex.Array]
  ) -> tuple[Gaussian, Gaussian]:
    closed_t, drift_t, noise_t = at
    cov = symmetric(closed_t @ x.covariance @ closed_t.T + noise_t)
    return Gaussian(closed_t @ x.mean + drift_t, cov), x

  return jax.lax.scan(step, initial, (closed, drift, noise))[1]


def marginals(
  dynamics: Dynamics, controller: Controller, initial: Gaussian
) -> Gaussian:
  """The distribution of z_t = [x_t; u_t] of a rollout in the model.

  Args:
    dynamics: the model.
    controller: that acts in it.
    initial: of x_0, mean [X] and covariance [X X].

  Returns:
    Mean [T Z] and covariance [T Z Z].
  """
  states = visited(dynamics, controller, initial)
  action = jnp.einsum('tax,tx->ta', controller.gain, states.mean) + controller.offset
  across = controller.gain @ states.covariance
  own = across @ transpose(controller.gain) + covariance(controller)
  upper = jnp.concatenate([states.covariance, transpose(across)], axis=2)
  lower = jnp.concatenate([across, symmetric(own)], axis=2)
  return Gaussian(
    jnp.concatenate([states.mean, action], axis=1),
    jnp.concatenate([upper, lower], axis=1),
  )


def state_marginals(distribution: Gaussian, size: int) -> Gaussian:
  """The part of marginals of [x; u] that is the state's: [T X] and [T X X]."""
  return Gaussian(distribution.mean[:, :size], distribution.covariance[:, :size, :size])


def divergence(new: Controller, old: Controller, states: Gaussian) -> chex.Array:
  """E_x KL(new || old) of each step, over given distributions of the state.

  With d(x) = (K_old - K) x + k_old - k and C = S S^T, a step has
  [log|C_old| - log|C| - A + tr(P_old C) + E d^T P_old d] / 2.

  Args:
    new: p.
    old: the anchor.
    states: of x_t, mean [T X] and covariance [T X X].

  Returns:
    In nats, [T].
  """
  chex.assert_rank([states.mean, states.covariance], [2, 3])
  whiten = inverse_factor(old.scale_tril)
  gain = whiten @ (old.gain - new.gain)
  offset = (whiten @ (old.offset - new.offset)[..., None])[..., 0]
  mean = jnp.einsum('tax,tx->ta', gain, states.mean) + offset
  scale = whiten @ new.scale_tril
  squares = jnp.sum(scale**2, axis=(1, 2)) + jnp.sum(mean**2, axis=1)
  squares += jnp.sum((gain @ states.covariance) * gain, axis=(1, 2))
  return 0.5 * (squares - log_determinant(scale) - scale.shape[-1])


def expected_cost(cost: Quadratic, distribution: Gaussian) -> chex.Array:
  """E c_t(z), [T], for z with mean [T Z] and covariance [T Z Z]."""
  second = distribution.covariance + outer(distribution.mean)
  curved = 0.5 * jnp.sum(cost.hessian * second, axis=(1, 2))
  sloped = jnp.sum(cost.gradient * distribution.mean, axis=1)
  return cost.constant + sloped + curved


def surprise(controller: Controller) -> Quadratic:
  """-log p(u|x) but for its normaliser, as a cost of z = [x; u]."""
  whiten = inverse_factor(controller.scale_tril)
  rows = jnp.concatenate([-whiten @ controller.gain, whiten], axis=-1)
  origin = (whiten @ controller.offset[..., None])[..., 0]
  return Quadratic(
    transpose(rows) @ rows,
    -jnp.einsum('taz,ta->tz', rows, origin),
    0.5 * jnp.sum(origin**2, axis=-1),
  )
