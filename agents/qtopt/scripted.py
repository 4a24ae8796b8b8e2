"""The scripted policy: somewhere over the bin, down, close, up. It looks at nothing.

Kalashnikov et al. 2018, B, collects its first experience with a policy that succeeds
now and then: "randomly choosing an (x, y) coordinate above the table, lowering the open
gripper to table level in a few random descent steps, closing the gripper, then
returning to the original height in a few ascent steps". It knows of no object; how
often it succeeds is up to the objects and the bin.

It stands in for `explore` of an agent whose action begins with x, y and z, until that
has learned something: `begins` puts it there.

Letters as in `armfarm.agents.qtopt.actions`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents import types
from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt.actions import Layout

_ARRIVED = 0.05  # of the action, or rad


class Options(NamedTuple):
  """Numbers of the policy; ways are in units of the action.

  Attributes:
    reach: how far it goes along x and y at most, either way, [2].
    depth: how far it goes down, and up again.
    stride: of a step down or up, least and most, in (0, 1].
    max_angle: that it turns by at most, either way, rad.
    max_turn: in a step, rad.
  """

  reach: tuple[float, float]
  depth: float
  stride: tuple[float, float]
  max_angle: float
  max_turn: float


class Plan(NamedTuple):
  """What is left to do in an episode.

  Attributes:
    aside: the way along x and y, [2].
    turn: rad, [].
    down: the way, [].
    up: the way, [].
    closed: whether the gripper has been told to close, [].
  """

  aside: chex.Array
  turn: chex.Array
  down: chex.Array
  up: chex.Array
  closed: chex.Array


class Actor(NamedTuple):
  """State within an episode of whoever acts in it.

  Attributes:
    plan: of the scripted policy.
    own: of the agent that it stands in for.
  """

  plan: Plan
  own: types.ActorState


def begin(options: Options, key: chex.PRNGKey) -> Plan:
  """Draws where an episode goes; the key is consumed."""
  key_aside, key_turn = jax.random.split(key)
  part = jax.random.uniform(key_aside, [2], minval=-1.0, maxval=1.0)
  most = options.max_angle
  return Plan(
    aside=jnp.asarray(options.reach) * part,
    turn=jax.random.uniform(key_turn, [], minval=-most, maxval=most),
    down=jnp.float32(options.depth),
    up=jnp.float32(options.depth),
    closed=jnp.array(False),
  )


def explore(
  layout: Layout,
  options: Options,
  variables: Any,
  plan: Plan,
  observation: Any,
  key: chex.PRNGKey,
) -> tuple[chex.Array, Plan]:
  """Takes the next step of a plan.

  Args:
    layout: of the action, of one pair at most.
    options: numbers of the policy.
    variables: of no use.
    plan: what is left.
    observation: of no use.
    key: consumed.

  Returns:
    The action, [A], and what is left after it.
  """
  del variables, observation
  low, high = options.stride
  stride = jax.random.uniform(key, [], minval=low, maxval=high)
  travels = (jnp.abs(plan.aside) > _ARRIVED).any() | (jnp.abs(plan.turn) > _ARRIVED)
  descends = ~travels & (plan.down > 0.0)
  closes = ~travels & ~descends & ~plan.closed
  rises = plan.closed & (plan.up > 0.0)
  aside = jnp.where(travels, jnp.clip(plan.aside, -1.0, 1.0), 0.0)
  most = options.max_turn
  turn = jnp.where(travels, jnp.clip(plan.turn, -most, most), 0.0)
  down = jnp.where(descends, jnp.minimum(stride, plan.down), 0.0)
  up = jnp.where(rises, stride, 0.0)
  ends = plan.closed & ~rises
  action = assemble(
    layout, jnp.append(aside, up - down), turn, {'close': closes, 'terminate': ends}
  )
  left = Plan(
    plan.aside - aside,
    plan.turn - turn,
    plan.down - down,
    plan.up - up,
    plan.closed | closes,
  )
  return action, left


def assemble(
  layout: Layout, motion: chex.Array, turn: chex.Array, given: dict[str, chex.Array]
) -> chex.Array:
  """Puts an action together, [A].

  Args:
    layout: of the action, of one pair at most.
    motion: x, y and z, [3]; what else is in the box is nought.
    turn: of the pair, if there is one, rad, [].
    given: name of a command -> whether it is given, []; those that the layout does not
      have are left out.
  """
  chex.assert_shape([motion, turn], [(3,), ()])
  box = jnp.pad(motion, (0, layout.box - 3))
  pair = actions.turns(turn[None, None])[0, : 2 * layout.angles]
  commands = [given.get(name, jnp.array(False)) for name in layout.commands]
  return jnp.concatenate([box, pair, jnp.array(commands, box.dtype)])


class End(NamedTuple):
  """When the scripted policy has done its part: when either holds of the variables.

  Attributes:
    updates: behind them; Kalashnikov et al. 2018, C: 120,000.
    success: share of a trial's episodes; Kalashnikov et al. 2018, 5: one half.
  """

  updates: int
  success: float


def begins(
  agent: types.Agent, layout: Layout, options: Options, end: End
) -> types.Agent:
  """Returns an agent that explores by script, and in the end as it did.

  Args:
    agent: whose variables say how many `updates` are behind them, and what `success`
      policies had.
    layout: of the action.
    options: numbers of the scripted policy.
    end: see there.
  """
  check(layout)

  def both(key: chex.PRNGKey) -> Actor:
    key_plan, key_own = jax.random.split(key)
    return Actor(begin(options, key_plan), agent.begin(key_own))

  def by_script(
    variables: Any, state: Actor, observation: Any, key: chex.PRNGKey
  ) -> tuple[chex.Array, Actor]:
    action, plan = explore(layout, options, variables, state.plan, observation, key)
    return action, state._replace(plan=plan)

  def by_agent(
    variables: Any, state: Actor, observation: Any, key: chex.PRNGKey
  ) -> tuple[chex.Array, Actor]:
    action, own = agent.explore(variables, state.own, observation, key)
    return action, state._replace(own=own)

  def either(
    variables: Any, state: Actor, observation: Any, key: chex.PRNGKey
  ) -> tuple[chex.Array, Actor]:
    learned = variables.updates >= end.updates
    learned |= variables.success >= end.success
    arguments = variables, state, observation, key
    return jax.lax.cond(learned, by_agent, by_script, *arguments)

  return agent._replace(begin=both, explore=either)


def check(layout: Layout) -> None:
  """Raises ValueError unless an action has what the policy moves."""
  if layout.box < 3 or layout.angles > 1 or 'close' not in layout.commands:
    raise ValueError(
      'the scripted policy needs an action of x, y and z, one pair at most, and the'
      f" command 'close', but it has {layout}"
    )
