"""Targets of temporal-difference learning. Letters as in `armfarm.agents.types`."""

from __future__ import annotations

import chex
import jax

from armfarm.agents import types


def continuation(
  transition: types.Transition, bootstrap_at_time_limit: bool
) -> chex.Array:
  """How much of the next state's value counts towards the target.

  An episode ends in two ways. At true termination nothing follows, and the answer
  is 0. At a time limit the MDP would have gone on: bootstrapping there is unbiased,
  while Algorithm 1 of Gu et al. 2016 sets y = r at t = T, which is the other choice.

  Args:
    transition: one step of experience.
    bootstrap_at_time_limit: False for the rule of Algorithm 1.

  Returns:
    0 or 1, [].
  """
  chex.assert_rank([transition.discount, transition.truncation], 0)
  if bootstrap_at_time_limit:
    return transition.discount
  return transition.discount * (1.0 - transition.truncation)


def td_target(
  r_t: chex.Array, continuation_t: chex.Array, gamma: float, v_t: chex.Array
) -> chex.Array:
  """y = r + gamma V'(x'), the target of Algorithm 1 (Gu et al. 2016).

  Args:
    r_t: reward, [].
    continuation_t: what `continuation` returned, [].
    gamma: discount factor of the problem, in [0, 1].
    v_t: value of the next state under the target network, [].

  Returns:
    y, []. Who takes a gradient treats it as a constant.
  """
  chex.assert_rank([r_t, continuation_t, v_t], 0)
  chex.assert_type([r_t, continuation_t, v_t], float)
  return r_t + gamma * continuation_t * v_t


def td_error(
  transition: types.Transition,
  q_tm1: chex.Array,
  v_t: chex.Array,
  gamma: float,
  bootstrap_at_time_limit: bool,
) -> chex.Array:
  """y - Q(x, u), y held constant: the error that Algorithm 1 squares.

  Args:
    transition: one step of experience.
    q_tm1: Q(x, u) under the learner, [].
    v_t: the value of x' under the target network, [].
    gamma: discount factor of the problem.
    bootstrap_at_time_limit: see `continuation`.

  Returns:
    The temporal-difference error, [].
  """
  chex.assert_rank([q_tm1, v_t], 0)
  proceeds = continuation(transition, bootstrap_at_time_limit)
  y = td_target(transition.reward, proceeds, gamma, v_t)
  return jax.lax.stop_gradient(y) - q_tm1


batch_td_error = jax.vmap(td_error, in_axes=(0, 0, 0, None, None))
