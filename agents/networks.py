"""Modules that more than one agent builds on.

Networks take whole batches, since batch normalisation needs one; the mathematics
that uses their outputs is written for one example. Letters as in
`armfarm.agents.types`, and [H] hidden units, [D] outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

NORMALIZATIONS = ('none', 'batch', 'layer')
_MOMENTUM = 0.99  # of the running averages of batch normalisation

# Lillicrap et al. 2016, section 7: hidden layers uniform within 1 / sqrt(fan-in), the
# last one within 3e-3, so that the first actions and values are near zero.
hidden_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def last_init(key: chex.PRNGKey, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
  """Draws uniformly within 3e-3; the key is consumed."""
  return jax.random.uniform(key, shape, dtype, -3e-3, 3e-3)


class Normalization(NamedTuple):
  """What is normalised by.

  Attributes:
    kind: one of `NORMALIZATIONS`.
    axis_name: of the devices that share a batch, None for one device; batch
      normalisation then uses the statistics of all of them.
  """

  kind: str
  axis_name: str | None = None


class Normalize(nn.Module):
  """Batch, layer or no normalisation.

  Batch normalisation uses the statistics of the batch while training and running
  averages otherwise (Ioffe and Szegedy 2015); layer normalisation knows no difference
  (Ba et al. 2016).
  """

  normalization: Normalization
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Normalises the features of x, [B H]."""
    kind, axis_name = self.normalization
    if kind == 'batch':
      return nn.BatchNorm(
        use_running_average=not train,
        momentum=_MOMENTUM,
        use_bias=self.use_bias,
        axis_name=axis_name,
      )(x)
    if kind == 'layer':
      return nn.LayerNorm()(x)
    return x


def join(params: Any, statistics: Any) -> Any:
  """Returns the variables of one network as flax takes them."""
  return {'params': params, 'batch_stats': statistics}


def batch_statistics(
  network: nn.Module, variables: Any, *inputs: chex.Array, **options: Any
) -> Any:
  """Returns the statistics by which a network normalises a batch in training.

  Args:
    network: to be applied.
    variables: of the network, as flax takes them.
    *inputs: the batch.
    **options: of `apply`.

  Returns:
    What may stand for the network's running averages; {} without batch normalisation.
  """
  nothing = jax.tree.map(jnp.zeros_like, variables['batch_stats'])
  _, after = network.apply(
    {**variables, 'batch_stats': nothing},
    *inputs,
    train=True,
    mutable=['batch_stats'],
    **options,
  )
  return jax.tree.map(lambda x: x / (1.0 - _MOMENTUM), after.get('batch_stats', {}))


class Torso(nn.Module):
  """Hidden ReLU layers, normalised before the nonlinearity.

  Batch normalisation also covers the input, which brings observations of different
  units to one scale. Layer normalisation does not: it would mix those units. What batch
  normalisation subtracts again gets no bias: its gradient would be rounding errors
  alone, which Adam makes as large as any other.
  """

  hidden: Sequence[int]
  normalization: Normalization

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps observations [B O] to features [B H]."""
    chex.assert_rank(x, 2)
    centred = self.normalization.kind == 'batch'
    if centred:
      x = Normalize(self.normalization, use_bias=False)(x, train)
    for width in self.hidden:
      x = nn.Dense(width, use_bias=not centred, kernel_init=hidden_init)(x)
      x = nn.relu(Normalize(self.normalization)(x, train))
    return x


class MLP(nn.Module):
  """A torso and a linear head."""

  hidden: Sequence[int]
  output_size: int
  normalization: Normalization

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps observations [B O] to outputs [B D]."""
    x = Torso(self.hidden, self.normalization)(x, train)
    return nn.Dense(self.output_size, kernel_init=last_init)(x)


class Policy(nn.Module):
  """mu(x): an MLP under a tanh, which bounds the action to [-1, 1]."""

  hidden: Sequence[int]
  action_size: int
  normalization: Normalization

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps observations [B O] to actions [B A]."""
    return jnp.tanh(MLP(self.hidden, self.action_size, self.normalization)(x, train))


def check_normalization(normalization: Normalization) -> None:
  """Raises ValueError unless there is such a kind of normalisation."""
  kind = normalization.kind
  if kind not in NORMALIZATIONS:
    raise ValueError(f'normalization is {kind!r}; choose one of {NORMALIZATIONS}')
