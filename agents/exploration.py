"""Exploration noise: state in, state out. Letters as in `armfarm.agents.types`."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp


class OrnsteinUhlenbeck(NamedTuple):
  """State of the process: its last value, [A]."""

  noise: chex.Array


def begin(action_size: int, key: chex.PRNGKey) -> OrnsteinUhlenbeck:
  """Returns the process at rest, as at the start of an episode (Algorithm 1)."""
  del key  # at rest there is nothing to draw
  return OrnsteinUhlenbeck(jnp.zeros([action_size]))


def ornstein_uhlenbeck(
  state: OrnsteinUhlenbeck, theta: float, sigma: float, draw: chex.Array
) -> OrnsteinUhlenbeck:
  """One control step of n' = (1 - theta) n + sigma e, e ~ N(0, I).

  The temporally correlated noise of Lillicrap et al. 2016, in discrete time. Left
  alone it is stationary with standard deviation sigma / sqrt(theta (2 - theta)) and
  forgets with a time constant of about 1 / theta steps.

  Args:
    state: the process, [A].
    theta: pull towards zero per step, in (0, 1].
    sigma: noise per step, in units of the action.
    draw: e, [A]; in numpy, as the state, or in JAX.

  Returns:
    The process one step on; its `noise` [A] is what is added to the action.
  """
  return OrnsteinUhlenbeck((1.0 - theta) * state.noise + sigma * draw)
