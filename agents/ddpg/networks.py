"""The critic of DDPG; its actor is `armfarm.agents.networks.Policy`.

Letters as in `armfarm.agents.types`.
"""

from __future__ import annotations

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax.numpy as jnp

from armfarm.agents import networks


class Critic(nn.Module):
  """Q(x, u) with the action entering the second hidden layer (Gu et al. 2016, IV-C).

  Normalisation covers only what is computed before the action enters, as in section 7
  of Lillicrap et al. 2016.
  """

  hidden: Sequence[int]
  normalization: networks.Normalization

  @nn.compact
  def __call__(self, x: chex.Array, action: chex.Array, train: bool) -> chex.Array:
    """Maps observations [B O] and actions [B A] to values [B]."""
    h = networks.Torso(self.hidden[:1], self.normalization)(x, train)
    h = jnp.concatenate([h, action], axis=-1)
    for width in self.hidden[1:]:
      h = nn.relu(nn.Dense(width, kernel_init=networks.hidden_init)(h))
    return nn.Dense(1, kernel_init=networks.last_init)(h)[:, 0]
