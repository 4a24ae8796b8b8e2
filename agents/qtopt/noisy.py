"""The noisy policy: now and then a random action in place of the best.

Kalashnikov et al. 2018, B: with probability epsilon a random action, which is a change
of pose, a toggle of the gripper or the end of the episode. Letters as in
`armfarm.agents.qtopt.actions`.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt.actions import Layout


class Options(NamedTuple):
  """Numbers of the policy.

  Attributes:
    epsilon: probability of a random action.
    weights: of a change of pose, a toggle of the gripper and termination; what the
      layout cannot command gives its weight to the others.
    translation_deviation: of a random change, in units of the action.
    rotation_deviation: of a random change, rad.
  """

  epsilon: float
  weights: tuple[float, float, float]
  translation_deviation: float
  rotation_deviation: float


def check(options: Options) -> None:
  """Raises ValueError unless probabilities are some, and deviations not negative."""
  if not 0.0 <= options.epsilon <= 1.0:
    raise ValueError(f'noise.epsilon is {options.epsilon}; choose 0 to 1')
  if min(options.weights) < 0.0 or not sum(options.weights) > 0.0:
    raise ValueError(
      f'noise.weights are {tuple(options.weights)}; choose none below 0, and one above'
    )
  deviations = options.translation_deviation, options.rotation_deviation
  if min(deviations) < 0.0:
    raise ValueError(f'noise deviates by {deviations}; choose 0 or more')


class Gripper(NamedTuple):
  """State of the policy within an episode.

  Attributes:
    closed: whether the gripper was last told to close, [].
  """

  closed: chex.Array


def begin(key: chex.PRNGKey) -> Gripper:
  """Returns the state at the start of an episode: open."""
  del key  # nothing to draw
  return Gripper(jnp.array(False))


def after(layout: Layout, state: Gripper, action: chex.Array) -> Gripper:
  """Returns the state after an action [A]."""
  if not {'close', 'open'} <= set(layout.commands):
    return state
  closes, opens = (
    actions.commanded(layout, action, name) for name in ('close', 'open')
  )
  return Gripper(closes | (state.closed & ~opens))


def mixture(
  layout: Layout,
  options: Options,
  state: Gripper,
  greedy: chex.Array,
  key: chex.PRNGKey,
) -> chex.Array:
  """The greedy action [A], or with probability epsilon a random one.

  Args:
    layout: of the action.
    options: numbers of the policy.
    state: before the action.
    greedy: the best action, [A].
    key: consumed.
  """
  chex.assert_rank(greedy, 1)
  key_whether, key_random = jax.random.split(key)
  explores = jax.random.bernoulli(key_whether, options.epsilon)
  return jnp.where(explores, draw(layout, options, state, key_random), greedy)


def draw(
  layout: Layout, options: Options, state: Gripper, key: chex.PRNGKey
) -> chex.Array:
  """Draws a random action, [A]; the key is consumed."""
  key_kind, key_pose = jax.random.split(key)
  none, still = jnp.zeros(len(layout.commands)), actions.still(layout)
  kinds = {'pose': jnp.concatenate([pose(layout, options, key_pose), none])}
  if {'close', 'open'} <= set(layout.commands):
    opens, closes = (actions.command(layout, name) for name in ('open', 'close'))
    toggle = jnp.where(state.closed, opens, closes)
    kinds['toggle'] = jnp.concatenate([still, toggle])
  if 'terminate' in layout.commands:
    last = actions.command(layout, 'terminate')
    kinds['terminate'] = jnp.concatenate([still, last])
  weights = dict(zip(('pose', 'toggle', 'terminate'), options.weights, strict=True))
  logits = jnp.log(jnp.array([weights[kind] for kind in kinds]))
  chosen = jax.random.categorical(key_kind, logits)
  return jnp.stack([*kinds.values()])[chosen]


def pose(layout: Layout, options: Options, key: chex.PRNGKey) -> chex.Array:
  """Draws a change of pose, [M]: Gaussian, and clipped; the key is consumed."""
  key_box, key_angle = jax.random.split(key)
  box = options.translation_deviation * jax.random.normal(key_box, [1, layout.box])
  angle = jax.random.normal(key_angle, [1, layout.angles])
  pairs = actions.turns(options.rotation_deviation * angle)
  return jnp.concatenate([jnp.clip(box, -1.0, 1.0), pairs], axis=1)[0]
