"""Actions of which some parts move the gripper and others command it.

Kalashnikov et al. 2018, D.2: a = (t, r, g_close, g_open, e), a translation, a rotation
about the vertical as its sine and cosine, a one-hot command, and termination. In
general, and in this order: numbers in [-1, 1], points on the unit circle, and commands
of which at most one is given. Letters as in `armfarm.agents.types`, and [M] numbers
that move, [D] commands, [K] choices among them, K = D + 1: the last D, or none.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Layout(NamedTuple):
  """The parts of an action.

  Attributes:
    box: how many numbers in [-1, 1].
    angles: how many sine-cosine pairs.
    commands: names, in order; 'close', 'open' and 'terminate' mean what they say.
  """

  box: int
  angles: int
  commands: tuple[str, ...]

  @property
  def motion_size(self) -> int:
    """M."""
    return self.box + 2 * self.angles

  @property
  def parts(self) -> tuple[int, ...]:
    """Sizes of the parts: the box, each pair, each command."""
    box = (self.box,) if self.box else ()
    return (*box, *(2,) * self.angles, *(1,) * len(self.commands))


def layout(action_size: int, angles: int, commands: tuple[str, ...]) -> Layout:
  """Returns the layout of A numbers, those in the box being what is left.

  Raises:
    ValueError: angles and commands need more than A.
  """
  box = action_size - 2 * angles - len(commands)
  if box < 0:
    raise ValueError(
      f'{angles} angles and {len(commands)} commands need more than the'
      f" action's {action_size} numbers"
    )
  return Layout(box, angles, tuple(commands))


def hold(layout: Layout, motion: chex.Array) -> chex.Array:
  """Returns the nearest motion within bounds, [N M]: clipped, and on the circles.

  Args:
    layout: of the action.
    motion: any finite numbers, [N M].
  """
  chex.assert_rank(motion, 2)
  chex.assert_axis_dimension(motion, 1, layout.motion_size)
  box, pairs = jnp.split(motion, [layout.box], axis=1)
  count = motion.shape[0]
  pairs = pairs.reshape(count, layout.angles, 2)
  radius = jnp.sqrt(jnp.sum(pairs**2, axis=2, keepdims=True))
  still = jnp.broadcast_to(jnp.array([0.0, 1.0], pairs.dtype), pairs.shape)
  pairs = jnp.where(radius > 0.0, pairs / jnp.where(radius > 0.0, radius, 1.0), still)
  pairs = pairs.reshape(count, 2 * layout.angles)
  return jnp.concatenate([jnp.clip(box, -1.0, 1.0), pairs], axis=1)


def turns(angle: chex.Array) -> chex.Array:
  """Returns the sines and cosines of angles [N J], rad, in pairs, [N 2J]."""
  chex.assert_rank(angle, 2)
  pairs = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=2)
  return pairs.reshape(angle.shape[0], 2 * angle.shape[1])


def still(layout: Layout) -> chex.Array:
  """Returns the motion that moves nothing, [M]."""
  return jnp.concatenate(
    [jnp.zeros(layout.box), jnp.tile(jnp.arange(2.0), layout.angles)]
  )


def choices(layout: Layout) -> chex.Array:
  """Returns the ways to command, [K D]: none, or one of them."""
  count = len(layout.commands)
  return jnp.concatenate([jnp.zeros([1, count]), jnp.eye(count)])


def command(layout: Layout, name: str) -> chex.Array:
  """Returns the command of that name, [D]."""
  return jax.nn.one_hot(layout.commands.index(name), len(layout.commands))


def commanded(layout: Layout, action: chex.Array, name: str) -> chex.Array:
  """Whether an action [A] gives the command of that name, []."""
  chex.assert_rank(action, 1)
  return action[layout.motion_size + layout.commands.index(name)] > 0.5
