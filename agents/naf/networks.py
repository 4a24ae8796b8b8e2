"""The networks of NAF and Linear-NAF. Letters as in `armfarm.agents.types`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax.numpy as jnp

from armfarm.agents import networks


class Quadratic(NamedTuple):
  """The pieces of Q(x, u), for a batch or, mapped, for one example.

  Attributes:
    mu: the greedy action, [B A].
    tril: L(x), lower triangular with a positive diagonal, [B A A].
    value: V(x), [B].
  """

  mu: chex.Array
  tril: chex.Array
  value: chex.Array


def lower_triangular(entries: chex.Array) -> chex.Array:
  """Makes L of free entries: exponentials on its diagonal keep P = L L^T definite.

  Args:
    entries: [..., A A]; those above the diagonal are ignored.

  Returns:
    L, [..., A A].
  """
  eye = jnp.eye(entries.shape[-1], dtype=bool)
  eye = jnp.broadcast_to(eye, entries.shape)
  return jnp.where(eye, jnp.exp(jnp.where(eye, entries, 0.0)), jnp.tril(entries, -1))


class NAF(nn.Module):
  """Separate networks for mu, L and V (Gu et al. 2016, IV-C)."""

  action_size: int
  hidden: Sequence[int]
  normalization: networks.Normalization

  def setup(self) -> None:
    shape = (tuple(self.hidden), self.normalization)
    self.mu = networks.Policy(shape[0], self.action_size, shape[1])
    self.tril = networks.MLP(shape[0], self.action_size**2, shape[1])
    self.value = networks.MLP(shape[0], 1, shape[1])

  def __call__(self, x: chex.Array, train: bool) -> Quadratic:
    """Maps observations [B O] to the pieces of Q."""
    entries = self.tril(x, train)
    entries = entries.reshape(-1, self.action_size, self.action_size)
    return Quadratic(
      self.policy(x, train), lower_triangular(entries), self.state_value(x, train)
    )

  def policy(self, x: chex.Array, train: bool) -> chex.Array:
    """mu(x), [B A]."""
    return self.mu(x, train)

  def state_value(self, x: chex.Array, train: bool) -> chex.Array:
    """V(x), [B]."""
    return self.value(x, train)[:, 0]


class QuadraticValue(nn.Module):
  """x^T B x + x^T b + c."""

  normalization: networks.Normalization

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps observations [B O] to values [B 1]."""
    x = networks.Torso((), self.normalization)(x, train)
    curved = nn.Dense(x.shape[-1], use_bias=False, kernel_init=networks.last_init)(x)
    linear = nn.Dense(1, kernel_init=networks.last_init)(x)
    return jnp.sum(x * curved, axis=-1, keepdims=True) + linear


class Constant(nn.Module):
  """Free entries that depend on nothing."""

  @nn.compact
  def __call__(self, size: int) -> chex.Array:
    """Returns the entries, [A A]; the identity comes of their initial zeros."""
    return self.param('entries', nn.initializers.zeros, (size, size))


class LinearNAF(nn.Module):
  """Linear-NAF (Gu et al. 2016, IV-C): mu(x) = tanh(k + K x), a constant P.

  The paper prints +1/2 before the quadratic form of Linear-NAF where its Eq. 1 has
  -1/2. Only the latter has a maximum in u, so the sign here is that of Eq. 1.
  """

  action_size: int
  normalization: networks.Normalization

  def setup(self) -> None:
    self.mu = networks.Policy((), self.action_size, self.normalization)
    self.value = QuadraticValue(self.normalization)
    self.tril = Constant()

  def __call__(self, x: chex.Array, train: bool) -> Quadratic:
    """Maps observations [B O] to the pieces of Q."""
    tril = lower_triangular(self.tril(self.action_size))
    return Quadratic(
      self.policy(x, train),
      jnp.broadcast_to(tril, (x.shape[0], *tril.shape)),
      self.state_value(x, train),
    )

  def policy(self, x: chex.Array, train: bool) -> chex.Array:
    """mu(x), [B A]."""
    return self.mu(x, train)

  def state_value(self, x: chex.Array, train: bool) -> chex.Array:
    """V(x), [B]."""
    return self.value(x, train)[:, 0]


NETWORKS = ('mlp', 'linear')


def make(
  kind: str,
  action_size: int,
  hidden: Sequence[int],
  normalization: networks.Normalization,
) -> NAF | LinearNAF:
  """Builds the network of NAF ('mlp') or of Linear-NAF ('linear').

  Args:
    kind: one of `NETWORKS`.
    action_size: A.
    hidden: widths of the hidden layers; Linear-NAF has none and ignores them.
    normalization: see there.

  Raises:
    ValueError: a name is unknown.
  """
  networks.check_normalization(normalization)
  if kind == 'mlp':
    return NAF(action_size, tuple(hidden), normalization)
  if kind == 'linear':
    return LinearNAF(action_size, normalization)
  raise ValueError(f'network is {kind!r}; choose one of {NETWORKS}')
