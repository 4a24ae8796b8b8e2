"""Targets of temporal-difference learning. Letters as in `armfarm.agents.types`."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents import types

DOUBLE_Q = ('single', 'double', 'clipped')


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


def double_q(kind: str, q_1: chex.Array, q_2: chex.Array) -> chex.Array:
  """V(x'), both critics asked at the action that the first one likes best.

  Kalashnikov et al. 2018, F.4: V(x') = min_i Q_i(x', argmax_u Q_1(x', u)), clipped
  double Q-learning (Fujimoto et al. 2018); their ablations are the other two.

  Args:
    kind: 'single' for Q_1, whose choice it was; 'double' for Q_2; 'clipped' for the
      smaller one.
    q_1: Q_1(x', u'), any shape.
    q_2: Q_2(x', u'), the same shape.
  """
  chex.assert_equal_shape([q_1, q_2])
  if kind == 'clipped':
    return jnp.minimum(q_1, q_2)
  return {'single': q_1, 'double': q_2}[kind]


class Lag(NamedTuple):
  """Copies of something that changes, for a target network that lags.

  Attributes:
    waiting: the copy made last, less than a period ago.
    lagged: the copy before it, at least one period old and less than two.
  """

  waiting: types.Params
  lagged: types.Params


def lag(state: Lag, newest: types.Params, step: chex.Array, period: int) -> Lag:
  """Lets copies grow older, and takes one every `period` steps.

  One copy would be fresh once a period, and a target network that has just been
  copied has nothing to say. Of two, the older is 1.5 periods old in the mean.

  Args:
    state: of the step before.
    newest: what is copied.
    step: counted from 1, [].
    period: steps between copies.
  """
  chex.assert_rank(step, 0)
  due = step % period == 0

  def pick(new: chex.Array, old: chex.Array) -> chex.Array:
    return jnp.where(due, new, old)

  return Lag(
    jax.tree.map(pick, newest, state.waiting),
    jax.tree.map(pick, state.waiting, state.lagged),
  )
