"""The supervised baseline: greedy prediction of whether the next grasp succeeds.

What Kalashnikov et al. 2018 compare with in 6.1 and C, after Levine et al. 2016
(https://arxiv.org/abs/1603.02199): no rewards are added up over time, every example
counts alike, and the gripper is not the network's to command.

  data     for every step with an open gripper that came before a grasp
             v = the way from there to where the gripper closed, as commanded
             l = 1 if the episode ended with that grasp, and a success
  update   regression of g(s, v) to l, as QT-Opt regresses Q to its targets
  act      v* = argmax_v g(s, v), by CEM
             close    if staying promises `patience` of what v* does
             go       along v*, as far as a step does, if not
             rise, and terminate above a height, once it has closed

Network, optimiser and search are those of QT-Opt. Where episodes become data is
`hindsight`; attempts that never close are left out, as in 6.1. Letters as in
`armfarm.agents.qtopt.actions`, and [T] steps of an episode.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents import types
from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import losses
from armfarm.agents.qtopt import noisy
from armfarm.agents.qtopt import scripted
from armfarm.agents.qtopt.actions import Layout


class Config(NamedTuple):
  """Every number of the baseline.

  Attributes:
    critic: those of QT-Opt, of which the ones of targets are of no use.
    reach: the longest way along an axis that v can say, in units of the action.
    max_turn: the most that a step turns, whatever its action says, rad.
    patience: of what v* promises, from which on the gripper closes where it is.
    lift_height: above which an episode is ended, as the observation tells it.
    status_at: where an observation's numbers tell whether the gripper is closed; its
      height comes next.
  """

  critic: qtopt.Config
  reach: float
  max_turn: float
  patience: float
  lift_height: float
  status_at: int


class Model(NamedTuple):
  """What `make` builds once.

  Attributes:
    critic: of ways v; its layout has no commands.
    layout: of the action.
    config: every number.
  """

  critic: qtopt.Model
  layout: Layout
  config: Config


# From episodes to data.


def hindsight(
  model: Model, episode: types.Transition
) -> tuple[types.Transition, chex.Array]:
  """Tells of each step of an episode how the grasp came out that it led to.

  Args:
    model: see there.
    episode: of any policy, whole; its last reward is 1 if it succeeded, [T ...].

  Returns:
    The episode with ways v in place of actions, outcomes l in place of rewards and no
    step after another, [T ...], and which of the steps tell anything, [T].
  """
  chex.assert_rank([episode.action, episode.reward], [2, 1])

  def gripper(
    state: noisy.Gripper, action: chex.Array
  ) -> tuple[noisy.Gripper, chex.Array]:
    state = noisy.after(model.layout, state, action)
    return state, state.closed

  opened = noisy.Gripper(jnp.array(False))
  _, held = jax.lax.scan(gripper, opened, episode.action)  # after each step
  before = jnp.pad(held, (1, 0))[:-1]
  none = len(held)  # the number of a grasp that did not come
  grasps = jnp.where(held & ~before, jnp.arange(none), none)
  upcoming = jax.lax.cummin(grasps, reverse=True)
  last = jnp.max(jnp.where(grasps < none, grasps, -1))
  success = (episode.reward[-1] > 0.5) & held[-1]
  outcome = ((upcoming == last) & success).astype(jnp.float32)
  way = ways(model, episode.action, jnp.minimum(upcoming, none - 1))
  told = episode._replace(
    action=way, reward=outcome, discount=jnp.zeros_like(episode.discount)
  )
  return told, ~before & (upcoming < none)


def ways(model: Model, action: chex.Array, until: chex.Array) -> chex.Array:
  """Returns the way from before each step to before another, v [T 5].

  Args:
    model: see there.
    action: of an episode, [T A].
    until: number of that other step, not an earlier one, [T].
  """
  turn = _turn(model, action)
  motion = jnp.concatenate([action[:, :3], turn[:, None]], axis=1)
  total = jnp.pad(jnp.cumsum(motion, axis=0), ((1, 0), (0, 0)))
  left = total[until] - total[:-1]
  box = jnp.clip(left[:, :3] / model.config.reach, -1.0, 1.0)
  return jnp.concatenate([box, actions.turns(left[:, 3:])], axis=1)


def _turn(model: Model, motion: chex.Array) -> chex.Array:
  """What a step turns by, rad, [...], of its sine and cosine in [... A]."""
  most = model.config.max_turn
  return jnp.clip(jnp.arctan2(motion[..., 3], motion[..., 4]), -most, most)


# The policy.


def act(
  model: Model, variables: qtopt.Variables, observation: Any, key: chex.PRNGKey
) -> chex.Array:
  """Goes where a grasp is most likely to succeed, and grasps there, [A].

  Args:
    model: see there.
    variables: of the critic.
    observation: [O].
    key: consumed.
  """
  critic, config = model.critic, model.config
  best = qtopt.search(critic, variables, observation, key)
  stay = promise(model, variables, observation, actions.still(critic.layout))
  closed, height = status(model, observation)
  closes = ~closed & (stay >= config.patience * best.value)
  goes, rises = ~closed & ~closes, closed & (height <= config.lift_height)
  way = jnp.clip(config.reach * best.action[:3], -1.0, 1.0)
  motion = jnp.where(goes, way, 0.0).at[2].add(jnp.where(rises, 1.0, 0.0))
  turn = jnp.where(goes, _turn(model, best.action), 0.0)
  commands = {'close': closes, 'terminate': closed & ~rises}
  return scripted.assemble(model.layout, motion, turn, commands)


def promise(
  model: Model, variables: qtopt.Variables, observation: Any, way: chex.Array
) -> chex.Array:
  """g(s, v) of one way [5], [], in the range of values."""
  seen = jax.tree.map(lambda x: x[None], qtopt.seen(model.critic, observation))
  logit = model.critic.network.apply(variables.target, seen, way[None], False)
  return losses.q_value(model.config.critic.value_range, logit[0])


def status(model: Model, observation: Any) -> tuple[chex.Array, chex.Array]:
  """Whether the gripper is closed, and its height, [] and []."""
  numbers = getattr(observation, 'state', observation)
  at = model.config.status_at
  return numbers[at] > 0.5, numbers[at + 1]


def explore(
  model: Model,
  variables: qtopt.Variables,
  actor_state: noisy.Gripper,
  observation: Any,
  key: chex.PRNGKey,
) -> tuple[chex.Array, noisy.Gripper]:
  """The same with QT-Opt's noise, [A]; the key is consumed."""
  key_act, key_noise = jax.random.split(key)
  layout, noise = model.layout, model.config.critic.noise
  best = act(model, variables, observation, key_act)
  action = noisy.mixture(layout, noise, actor_state, best, key_noise)
  return action, noisy.after(layout, actor_state, action)


# Training.


def label(
  model: Model,
  variables: qtopt.Variables,
  actor_state: types.ActorState,
  experience: types.Transition,
  key: chex.PRNGKey,
) -> tuple[qtopt.Example, types.ActorState]:
  """Takes outcomes for targets, [B ...]; the key, of augmentation, is consumed."""
  del variables  # nothing is bootstrapped
  keys = jax.random.split(key, experience.reward.shape[0])
  augmented = functools.partial(qtopt.augmented, model.critic)
  batch = jax.vmap(augmented)(experience, keys)
  return qtopt.Example(batch.observation, batch.action, batch.reward), actor_state


def build(spec: types.Spec, config: Config, axis_name: str | None = None) -> Model:
  """Builds what all functions share; arguments as for `make`.

  Raises:
    ValueError: the action is not that of a gripper.
  """
  layout = actions.layout(
    spec.action_size, config.critic.angles, config.critic.commands
  )
  scripted.check(layout)
  if layout[:2] != (3, 1) or 'open' not in layout.commands:
    raise ValueError(f'the baseline needs x, y, z and one angle, but there is {layout}')
  if config.critic.network == 'mlp' and spec.observation_size < config.status_at + 2:
    raise ValueError(f'status_at is {config.status_at}: give where the gripper is')
  ways_of = types.Spec(spec.observation_size, layout.motion_size)
  critic = qtopt.build(ways_of, config.critic._replace(commands=()), axis_name)
  return Model(critic, layout, config)


def make(spec: types.Spec, config: Config, axis_name: str | None = None) -> types.Agent:
  """Builds the baseline; arguments as for `qtopt.agent.make`.

  What it learns from are transitions told by `hindsight`.
  """
  model = build(spec, config, axis_name)
  partial = functools.partial
  return types.Agent(
    init=partial(qtopt.init, model.critic),
    variables=qtopt.target_variables,
    begin=noisy.begin,
    explore=partial(explore, model),
    act=partial(act, model),
    label=partial(label, model),
    update=partial(qtopt.update, model.critic),
    judge=qtopt.judge,
  )
