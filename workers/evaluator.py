"""The evaluator: tries policies without exploration noise, on targets held out.

Every trial runs the same held-out episodes and a few fresh ones, as one batch. Two
criteria are kept: ours asks for every held-out episode in two trials in a row, the
paper's for every fresh one in one trial (Gu et al. 2016, V-A.1).

Letters as in `armfarm.agents.types`, and [E] episodes of a trial.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple, Protocol

import chex
import jax
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.envs import task


class BatchEnvironment(Protocol):
  """What an evaluator steps: as `task.Environment`, with [E] before everything."""

  size: int

  def reset(self, keys: chex.PRNGKey) -> Any:
    """Begins an episode in every instance; keys [E] are consumed."""

  def step(self, actions: Any, ids: np.ndarray) -> task.Step:
    """Takes one control step in the instances `ids` [I]; actions [I A]."""


class Trial(NamedTuple):
  """What became of one policy.

  Attributes:
    success: share of the held-out episodes that succeeded.
    total: mean undiscounted return of the held-out episodes.
    fresh_success: share of the fresh episodes that succeeded.
    distances: from the goal after each of the held-out episodes, m; None where there is
      no measure of that.
  """

  success: float
  total: float
  fresh_success: float
  distances: tuple[float, ...] | None = None


@functools.partial(jax.jit, static_argnums=0)
def _act(
  agent: agent_types.Agent,
  variables: agent_types.Variables,
  observations: chex.Array,
  key: chex.PRNGKey,
) -> tuple[chex.Array, chex.PRNGKey]:
  key, key_act = jax.random.split(key)
  keys = jax.random.split(key_act, len(jax.tree.leaves(observations)[0]))
  return jax.vmap(agent.act, in_axes=(None, 0, 0))(variables, observations, keys), key


class Rolled(NamedTuple):
  """What became of one episode in every instance.

  Attributes:
    totals: returns, [E].
    success: at the last step of each, [E].
    observations: after the last step of each, [E O].
  """

  totals: np.ndarray
  success: np.ndarray
  observations: np.ndarray


def rollout(
  agent: agent_types.Agent,
  environment: BatchEnvironment,
  variables: agent_types.Variables,
  keys: chex.PRNGKey,
) -> Rolled:
  """Runs one episode in every instance, under the evaluation policy.

  Args:
    agent: whose policy acts.
    environment: a batch of E instances; each ends when it does, and rests then.
    variables: of the policy.
    keys: one for each episode, [E]; consumed.
  """
  key = jax.random.fold_in(jax.random.clone(keys)[0], 1)
  observations = jax.tree.map(np.array, environment.reset(keys))
  totals, success = np.zeros(environment.size), np.zeros(environment.size, bool)
  running = np.arange(environment.size)
  variables = jax.device_put(variables)
  while running.size:
    actions, key = _act(agent, variables, observations, key)  # of all: compiled once
    step = environment.step(np.asarray(actions)[running], running)
    totals[running] += step.reward
    success[running] = step.success
    _put(observations, running, step.observation)
    running = running[~(step.terminated | step.truncated)]
  return Rolled(totals, success, observations)


def _put(observations: Any, ids: np.ndarray, new: Any) -> None:
  """Writes those of some instances, [I ...], to those of all."""
  for every, some in zip(*map(jax.tree.leaves, (observations, new)), strict=True):
    every[ids] = some


class Evaluator:
  """Tries policies, always on the same episodes and on a few fresh ones.

  Args:
    agent: whose policies are tried.
    environment: a batch of `held_out + fresh` instances.
    held_out: episodes that are the same in every trial.
    key: of the run's evaluations; consumed.
    distance: from the goal, m, [E], of observations [E O]; None for no measure.
  """

  def __init__(
    self,
    agent: agent_types.Agent,
    environment: BatchEnvironment,
    held_out: int,
    key: chex.PRNGKey,
    distance: Callable[[chex.Array], chex.Array] | None = None,
  ):
    self._agent = agent
    self._environment = environment
    self._held_out = held_out
    self._distance = distance
    key_held_out, self._key = jax.random.split(key)
    self._keys = jax.random.split(key_held_out, held_out)

  def try_out(self, variables: agent_types.Variables, number: int) -> Trial:
    """Runs one trial of a policy.

    Args:
      variables: of the policy.
      number: decides the fresh episodes.
    """
    fresh = self._environment.size - self._held_out
    keys = jax.random.split(jax.random.fold_in(self._key, number), fresh)
    keys = jax.numpy.concatenate([jax.random.clone(self._keys), keys])
    totals, success, last = rollout(self._agent, self._environment, variables, keys)
    held_out = slice(None, self._held_out)
    distances = None
    if self._distance is not None:
      distances = tuple(np.asarray(self._distance(last[held_out])).tolist())
    return Trial(
      success=float(np.mean(success[held_out])),
      total=float(np.mean(totals[held_out])),
      fresh_success=float(np.mean(success[self._held_out :])),
      distances=distances,
    )
