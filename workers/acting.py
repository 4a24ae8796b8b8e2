"""Acting, step by step, as every process that explores does it.

Letters as in `armfarm.agents.types`, and [N] steps to come.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax

from armfarm.agents import types


@functools.partial(jax.jit, static_argnums=0)
def explore(
  agent: Any,
  variables: types.Variables,
  state: types.ActorState,
  observation: chex.Array,
  key_data: chex.Array,
) -> tuple[chex.Array, types.ActorState, chex.Array]:
  """One exploring step, compiled.

  Args:
    agent: whose `explore` it is; see `types.Agent`.
    variables: that act.
    state: the agent's actor state.
    observation: before the action, [O].
    key_data: of a key, which is consumed. Keys pass in and out as their data: JAX
      dispatches what takes or returns a typed key in Python, several times more slowly.

  Returns:
    The action [A], the next actor state, and the data of the key to go on with.
  """
  key, key_explore = jax.random.split(jax.random.wrap_key_data(key_data))
  action, state = agent.explore(variables, state, observation, key_explore)
  return action, state, jax.random.key_data(key)


@functools.partial(jax.jit, static_argnums=0)
def draw(shape: tuple[int, int], key_data: chex.Array) -> tuple[chex.Array, chex.Array]:
  """Draws e ~ N(0, I) for some steps at once: JAX takes as long for one as for many.

  Args:
    shape: [N A].
    key_data: as in `explore`.

  Returns:
    The draws [N A], and the data of the key to go on with.
  """
  key, key_draw = jax.random.split(jax.random.wrap_key_data(key_data))
  return jax.random.normal(key_draw, shape), jax.random.key_data(key)
