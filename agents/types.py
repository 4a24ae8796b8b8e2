"""The types that every agent shares.

Letters, here and in every file of `agents`:

  [B] batch    [T] time    [O] observation    [A] action

Functions of one example carry no [B]; whoever needs a batch maps them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex

Params = Any  # a pytree of arrays
Variables = Any  # what other processes need of a learner: a pytree of arrays
LearnerState = Any
ActorState = Any
Examples = Any
Metrics = dict[str, chex.Array]


class Spec(NamedTuple):
  """Sizes of an environment's boundary; actions lie in [-1, 1].

  Attributes:
    observation_size: O.
    action_size: A.
  """

  observation_size: int
  action_size: int


class Transition(NamedTuple):
  """One step of experience, raw: no discount factor has touched it.

  Attributes:
    observation: before the action, [O].
    action: as executed, [A].
    reward: for this step, [].
    discount: 0 where the MDP ended with this step, else 1, [].
    truncation: 1 where the time limit cut the episode after this step, else 0, [].
    next_observation: after the action, the true last one of an episode, [O].
  """

  observation: chex.Array
  action: chex.Array
  reward: chex.Array
  discount: chex.Array
  truncation: chex.Array
  next_observation: chex.Array


class Host(NamedTuple):
  """Exploring in numpy, for who acts in one environment with a small network.

  Attributes:
    prepare: `variables -> prepared`, once for a version; numpy's arrays, like what
      `explore` is given and returns.
    explore: `(prepared, actor_state, observation [O], draw [A]) -> action [A],
      ActorState`, what `Agent.explore` does where its key draws e ~ N(0, I).
  """

  prepare: Callable[[Variables], Any]
  explore: Callable[
    [Any, ActorState, chex.Array, chex.Array], tuple[chex.Array, ActorState]
  ]


class Searched(Protocol):
  """What an agent found among actions that it tried in thought, [S].

  Attributes:
    action: the best, [A].
    value: what it promises, [].
    actions: all, [S A].
    values: what they promise, [S].
  """

  @property
  def action(self) -> chex.Array: ...

  @property
  def value(self) -> chex.Array: ...

  @property
  def actions(self) -> chex.Array: ...

  @property
  def values(self) -> chex.Array: ...


class Agent(NamedTuple):
  """A learner as pure functions, all jittable. Every key passed is consumed.

  Attributes:
    init: `key -> LearnerState`.
    variables: `LearnerState -> Variables`, what acting and labelling need.
    begin: `key -> ActorState`, at the start of an episode.
    explore: `(variables, actor_state, observation [O], key) -> action [A], ActorState`.
    act: `(variables, observation [O], key) -> action [A]`, the evaluation policy.
    label: `(variables, actor_state, experience, key) -> examples, ActorState`.
    update: `(learner_state, examples [B ...], key) -> LearnerState, metrics`.
    host: `explore` once more, in numpy, where that is faster; the only member that is
      not jittable.
    search: `(variables, observation [O], key) -> Searched`, how `act` came to its
      action; of agents that search for it.
    judge: `(LearnerState, success []) -> LearnerState`, once a policy was tried; of
      agents that act by how that went.
  """

  init: Callable[[chex.PRNGKey], LearnerState]
  variables: Callable[[LearnerState], Variables]
  begin: Callable[[chex.PRNGKey], ActorState]
  explore: Callable[
    [Variables, ActorState, chex.Array, chex.PRNGKey], tuple[chex.Array, ActorState]
  ]
  act: Callable[[Variables, chex.Array, chex.PRNGKey], chex.Array]
  label: Callable[
    [Variables, ActorState, Examples, chex.PRNGKey], tuple[Examples, ActorState]
  ]
  update: Callable[[LearnerState, Examples, chex.PRNGKey], tuple[LearnerState, Metrics]]
  host: Host | None = None
  search: Callable[[Variables, chex.Array, chex.PRNGKey], Searched] | None = None
  judge: Callable[[LearnerState, chex.Array], LearnerState] | None = None


def identity(
  variables: Variables, actor_state: ActorState, experience: Examples, key: chex.PRNGKey
) -> tuple[Examples, ActorState]:
  """The `label` of agents that learn from transitions as they are."""
  del variables, key
  return experience, actor_state
