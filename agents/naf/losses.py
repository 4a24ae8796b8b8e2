"""The loss of NAF. Letters as in `armfarm.agents.types`."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def naf_q(
  value: chex.Array, tril: chex.Array, mu: chex.Array, action: chex.Array
) -> chex.Array:
  """Q(x, u) = V(x) - 1/2 (u - mu(x))^T P(x) (u - mu(x)), Eq. 1 of Gu et al. 2016.

  Args:
    value: V(x), [].
    tril: L(x), lower triangular with a positive diagonal, P = L L^T, [A A].
    mu: the greedy action, [A].
    action: u, [A].

  Returns:
    Q(x, u), [].
  """
  chex.assert_rank([value, tril, mu, action], [0, 2, 1, 1])
  chex.assert_type([value, tril, mu, action], float)
  deviation = tril.T @ (action - mu)
  return value - 0.5 * jnp.sum(deviation**2)


batch_naf_q = jax.vmap(naf_q)
