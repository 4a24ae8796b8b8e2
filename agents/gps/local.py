"""The local half of guided policy search: rollouts in, lessons for the network out.

  learn    rollouts -> memory, model of the dynamics, cost, size of the step
  improve  controller <- argmin E[cost]  within a divergence, by LQR or PI2
  teach    remembered observations -> (o, mean action, precision, weight)

One local state belongs to one initial state, or one distribution of them. All of it
computes in double precision within `armfarm.agents.gps.precision.double`.

Letters as in `armfarm.agents.gps.linear_gaussian`, and [R] remembered rollouts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from armfarm.agents import types
from armfarm.agents.gps import badmm
from armfarm.agents.gps import costs
from armfarm.agents.gps import dynamics
from armfarm.agents.gps import importance
from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import lqr
from armfarm.agents.gps import mdgps
from armfarm.agents.gps import pi2
from armfarm.agents.gps import policy as global_policy
from armfarm.agents.gps import step as step_size

ALGORITHMS = ('mdgps', 'badmm', 'trajectory')
OPTIMIZERS = ('lqr', 'pi2')
MEASURES = ('model', 'rollouts')

Cost = Callable[[chex.Array, chex.Array], costs.Expansion]


class Options(NamedTuple):
  """Every number of the local half.

  Attributes:
    algorithm: one of `ALGORITHMS`; 'trajectory' improves a controller within a
      divergence of itself, whatever the global policy has learned of it.
    optimizer: one of `OPTIMIZERS`.
    on_policy: whether the global policy acts, once it has been taught.
    state_size: X; the state is the beginning of an observation.
    steps: T.
    rollouts: N of an iteration.
    remembered: R, at least N.
    gaussians: most of the dynamics' mixture.
    initial_variance: floor of the variance of x_0.
    measure: one of `MEASURES`: over which states a divergence is taken, those that the
      model predicts or those that were seen.
    step_rule: one of `step_size.RULES`.
    importance_horizon: see `importance.weigh`.
    importance_limit: likewise.
    step: size of steps.
    dynamics: fit of the model.
    lqr: search for eta.
    pi2: search for the temperature.
    badmm: multipliers and weights.
    taught: whether the global policy was taught before the first iteration.
  """

  algorithm: str
  optimizer: str
  on_policy: bool
  state_size: int
  steps: int
  rollouts: int
  remembered: int
  gaussians: int
  initial_variance: float
  measure: str
  step_rule: str
  importance_horizon: int
  importance_limit: float
  step: step_size.Options
  dynamics: dynamics.Options
  lqr: lqr.Options
  pi2: pi2.Options
  badmm: badmm.Options
  taught: bool = False


class Tools(NamedTuple):
  """What the local half is built from.

  Attributes:
    network: of the global policy.
    cost: `(observations [T O], actions [T A]) -> Expansion` in z, of one rollout.
    options: numbers.
  """

  network: global_policy.Network
  cost: Cost
  options: Options


class Rollouts(NamedTuple):
  """What the robot did.

  Attributes:
    observation: [N T O].
    action: as executed, [N T A].
  """

  observation: chex.Array
  action: chex.Array


class Experience(NamedTuple):
  """An iteration's rollouts.

  Attributes:
    rollouts: [N T ...].
    policy: the global one, as it was for all of them.
  """

  rollouts: Rollouts
  policy: global_policy.Policy


class Replay(NamedTuple):
  """Remembered rollouts, latest last.

  Attributes:
    rollouts: [R T ...].
    behaviour: log density of their actions when they were made, [R T].
    count: how many there are, [] int32.
  """

  rollouts: Rollouts
  behaviour: chex.Array
  count: chex.Array


class Lesson(NamedTuple):
  """What the latest rollouts said.

  Attributes:
    model: of the dynamics, and where to judge a divergence.
    cost: mean expansion.
    sampler: the controller that acted; the linearised policy if that did.
  """

  model: lqr.Model
  cost: lg.Quadratic
  sampler: lg.Controller


class Report(NamedTuple):
  """Numbers to log, each [] but the counts.

  Attributes:
    cost: mean summed cost of the latest rollouts.
    divergence: of the improvement, nats over all steps.
    passes: of the search for eta.
    effective_share: of the remembered rollouts, after weighting.
    log_likelihood: of the mixture.
    reasons: how often each of `lqr.REASONS` ended an improvement, [5] int32.
  """

  cost: chex.Array
  divergence: chex.Array
  passes: chex.Array
  effective_share: chex.Array
  log_likelihood: chex.Array
  reasons: chex.Array


class LocalState(NamedTuple):
  """All that one robot keeps.

  Attributes:
    controller: p, the latest.
    iteration: lessons so far, [] int32.
    clock: step of the rollout under way, [] int32.
    noise: of that rollout, [T A].
    eta: to start the next search from, [].
    step: size of the next improvement.
    memory: what the model's prior is fitted to.
    replay: what the network is taught from.
    lesson: the latest, for BADMM to improve on more than once.
    multipliers: of BADMM; untouched by MDGPS.
    report: of the latest improvement.
  """

  controller: lg.Controller
  iteration: chex.Array
  clock: chex.Array
  noise: chex.Array
  eta: chex.Array
  step: step_size.State
  memory: dynamics.Memory
  replay: Replay
  lesson: Lesson
  multipliers: badmm.Multipliers
  report: Report


def check(options: Options) -> None:
  """Raises ValueError unless every choice exists and every number can work."""
  choices = {
    'algorithm': ALGORITHMS,
    'optimizer': OPTIMIZERS,
    'measure': MEASURES,
    'step_rule': step_size.RULES,
  }
  for name, allowed in choices.items():
    value = getattr(options, name)
    if value not in allowed:
      raise ValueError(f'{name} is {value!r}; choose one of {allowed}')
  if options.remembered < options.rollouts:
    raise ValueError(
      f'remembered is {options.remembered}, less than the {options.rollouts} rollouts'
      ' of an iteration; remember at least those'
    )
  if options.optimizer == 'pi2':
    pi2.check(options.pi2, options.rollouts)
  if options.on_policy and options.algorithm != 'mdgps':
    raise ValueError(
      f'{options.algorithm} samples from its local controllers: set on_policy to False'
    )
  if options.taught and not options.on_policy:
    raise ValueError(
      'a policy that was taught before is to act, or the first lessons undo what it'
      ' knows: set on_policy to True, and algorithm to mdgps'
    )
  weighs = options.algorithm == 'mdgps' and options.optimizer == 'pi2'
  if weighs and not options.on_policy:
    raise ValueError(
      'mdgps by pi2 weighs rollouts of the global policy: set on_policy to True, or'
      ' algorithm to trajectory'
    )


def begin(options: Options, spec: types.Spec, controller: lg.Controller) -> LocalState:
  """Returns the state before the first rollout.

  Args:
    options: numbers.
    spec: sizes of the boundary.
    controller: to begin with.
  """
  steps, state, kept = options.steps, options.state_size, options.remembered
  observation, action = spec
  z = state + action
  rollouts = Rollouts(
    jnp.zeros([kept, steps, observation]), jnp.zeros([kept, steps, action])
  )
  flat = lg.Dynamics(
    jnp.zeros([steps, state, z]),
    jnp.zeros([steps, state]),
    jnp.zeros([steps, state, state]),
  )
  start = lg.Gaussian(jnp.zeros([state]), jnp.zeros([state, state]))
  cost = lg.Quadratic(
    jnp.zeros([steps, z, z]), jnp.zeros([steps, z]), jnp.zeros([steps])
  )
  seen = lg.Gaussian(jnp.zeros([steps, state]), flat.covariance)
  model = lqr.Model(flat, start, seen if options.measure == 'rollouts' else None)
  nought, zero = jnp.zeros([]), jnp.int32(0)
  reasons = jnp.zeros([len(lqr.REASONS)], jnp.int32)
  return LocalState(
    controller=controller,
    iteration=zero,
    clock=zero,
    noise=jnp.zeros([steps, action]),
    eta=jnp.ones([]),
    step=step_size.begin(),
    memory=dynamics.remember(kept, steps, state, action, options.gaussians),
    replay=Replay(rollouts, jnp.zeros([kept, steps]), zero),
    lesson=Lesson(model, cost, controller),
    multipliers=badmm.begin(steps, action, options.badmm),
    report=Report(nought, nought, zero, nought, nought, reasons),
  )


def knows_nothing(options: Options, before: chex.Array) -> chex.Array:
  """Whether the global policy was taught nothing yet after so many lessons, []."""
  return (before == 0) & (not options.taught)


def held(report: Report) -> chex.Array:
  """How many improvements kept their anchor, [] int32."""
  return jnp.sum(report.reasons[lqr.INSIDE + 1 :])


def states(options: Options, rollouts: Rollouts) -> chex.Array:
  """The states of rollouts, [N T X]."""
  return rollouts.observation[..., : options.state_size]


def latest(options: Options, replay: Replay) -> Rollouts:
  """The N latest rollouts."""
  return jax.tree.map(lambda x: x[-options.rollouts :], replay.rollouts)


def _acted(
  tools: Tools, state: LocalState, experience: Experience
) -> tuple[lg.Controller, chex.Array]:
  """The controller that made rollouts, and log densities of their actions [N T]."""
  options, (rollouts, policy) = tools.options, experience
  x = states(options, rollouts)
  own = lg.log_density(state.controller, x, rollouts.action)
  if not options.on_policy:
    return state.controller, own
  linear = global_policy.linearize(
    tools.network, policy, rollouts.observation, options.state_size
  )
  first = knows_nothing(options, state.iteration)
  density = global_policy.log_density(
    tools.network, policy, rollouts.observation, rollouts.action
  )
  sampler = mdgps.choose(first, state.controller, linear)
  return sampler, jnp.where(first, own, density)


def _append(replay: Replay, rollouts: Rollouts, behaviour: chex.Array) -> Replay:
  """Adds rollouts at the end; the oldest make room."""
  size = len(replay.behaviour)
  kept, densities = jax.tree.map(
    lambda old, new: jnp.concatenate([old, new])[-size:],
    (replay.rollouts, replay.behaviour),
    (rollouts, behaviour),
  )
  count = jnp.minimum(replay.count + len(behaviour), size)
  return Replay(kept, densities, count)


def learn(
  tools: Tools,
  policy: global_policy.Policy,
  state: LocalState,
  experience: Experience,
  key: chex.PRNGKey,
) -> LocalState:
  """Takes in the rollouts of an iteration; the key is consumed.

  Args:
    tools: of the local half.
    policy: the global one, as it is now.
    state: under which the rollouts were made.
    experience: what was made.
    key: consumed.
  """
  options, rollouts = tools.options, experience.rollouts
  x = states(options, rollouts)
  sampler, behaviour = _acted(tools, state, experience)
  expansion = jax.vmap(tools.cost)(rollouts.observation, rollouts.action)
  points = jnp.concatenate([x, rollouts.action], axis=2)
  report = state.report._replace(cost=jnp.mean(jnp.sum(expansion.value, axis=1)))
  memory, model = state.memory, state.lesson.model
  if options.optimizer == 'lqr':
    found = dynamics.learn(
      memory, x, rollouts.action, options.dynamics, key, sampler.gain
    )
    memory, report = found.memory, report._replace(log_likelihood=found.log_likelihood)
    start = dynamics.initial_state(x[:, 0], options.initial_variance)
    measure = _seen(x) if options.measure == 'rollouts' else None
    model = lqr.Model(found.dynamics, start, measure)
  lesson = Lesson(model, costs.average(expansion, points), sampler)
  state = state._replace(
    iteration=state.iteration + 1,
    clock=jnp.zeros_like(state.clock),
    memory=memory,
    replay=_append(state.replay, rollouts, behaviour),
    lesson=lesson,
    report=report,
  )
  actual = yardstick(tools, policy, state, state.controller)
  return state._replace(step=step_size.adjust(state.step, actual, options.step))


def _seen(x: chex.Array) -> lg.Gaussian:
  """Mean and covariance of the states of rollouts [N T X], at every step."""
  mean = jnp.mean(x, axis=0)
  return lg.Gaussian(mean, jnp.mean(lg.outer(x - mean[None]), axis=0))


def _linear(
  tools: Tools, policy: global_policy.Policy, state: LocalState
) -> lg.Controller:
  """The policy linearised around the latest rollouts."""
  options = tools.options
  seen = latest(options, state.replay).observation
  return global_policy.linearize(tools.network, policy, seen, options.state_size)


def _flow(lesson: Lesson, controller: lg.Controller) -> lg.Gaussian:
  """Marginals of a controller in the lesson's model."""
  return lg.marginals(lesson.model.dynamics, controller, lesson.model.initial)


def promised(
  lesson: Lesson,
  controller: lg.Controller,
  linear: lg.Controller,
  multipliers: badmm.Multipliers | None,
) -> chex.Array:
  """Expected cost of a controller in the lesson's model, [].

  Args:
    lesson: with model and cost.
    controller: to judge.
    linear: the policy, whose divergence counts for BADMM.
    multipliers: of BADMM, None for MDGPS.
  """
  flow = _flow(lesson, controller)
  expected = lg.expected_cost(lesson.cost, flow)
  if multipliers is None:
    return jnp.sum(expected)
  seen = lg.state_marginals(flow, controller.gain.shape[2])
  apart = lg.divergence(controller, linear, seen)
  return badmm.regularized(expected, multipliers, apart)


def yardstick(
  tools: Tools,
  policy: global_policy.Policy,
  state: LocalState,
  controller: lg.Controller,
) -> chex.Array:
  """The cost now, by which the size of steps is judged, [].

  It is that of the global policy for MDGPS and that of the local controller otherwise.
  """
  options = tools.options
  if options.optimizer == 'pi2' or options.step_rule == 'mc':
    return state.report.cost
  linear = _linear(tools, policy, state)
  if options.algorithm == 'badmm':
    return promised(state.lesson, controller, linear, state.multipliers)
  first = knows_nothing(options, state.iteration - 1)
  own = first | (options.algorithm == 'trajectory')
  now = mdgps.choose(own, controller, linear)
  return promised(state.lesson, now, linear, None)


class Setting(NamedTuple):
  """One improvement to make.

  Attributes:
    anchor: to start from and to stay near.
    cost: to lower.
    sampled: cost of the latest rollouts, [N T], likewise.
    entropy: weight of the controller's, [T].
  """

  anchor: lg.Controller
  cost: lg.Quadratic
  sampled: chex.Array
  entropy: chex.Array


def _setting(tools: Tools, state: LocalState, linear: lg.Controller) -> Setting:
  """What the algorithm asks of an improvement."""
  options, lesson = tools.options, state.lesson
  rollouts = latest(options, state.replay)
  sampled = jax.vmap(tools.cost)(rollouts.observation, rollouts.action).value
  if options.algorithm != 'badmm':
    # PI2 weighs rollouts, so that it starts where they came from.
    own = options.optimizer == 'pi2' or options.algorithm == 'trajectory'
    first = knows_nothing(options, state.iteration - 1)
    anchor = mdgps.choose(first | own, lesson.sampler, linear)
    nought = jnp.zeros_like(lesson.cost.constant)
    return Setting(anchor, lesson.cost, sampled, nought)
  cost = badmm.augment(lesson.cost, state.multipliers, linear)
  x = states(options, rollouts)
  sampled = badmm.sampled_costs(sampled, state.multipliers, linear, x, rollouts.action)
  return Setting(lesson.sampler, cost, sampled, state.multipliers.weight)


def _optimize(tools: Tools, state: LocalState, setting: Setting) -> lqr.Improvement:
  """Improves by LQR or PI2."""
  options = tools.options
  if options.optimizer == 'pi2':
    rollouts = latest(options, state.replay)
    x = states(options, rollouts)
    found = pi2.improve(
      setting.anchor, x, rollouts.action, setting.sampled, options.pi2
    )
    apart = lg.divergence(found.controller, setting.anchor, _seen(x))
    return lqr.Improvement(
      found.controller,
      state.eta,
      jnp.sum(apart),
      jnp.int32(lqr.MET),
      jnp.int32(0),
    )
  epsilon = step_size.epsilon(state.step, options.steps, options.step)
  return lqr.improve(
    state.lesson.model,
    setting.cost,
    setting.anchor,
    epsilon,
    state.eta,
    setting.entropy,
    options.lqr,
  )


def _promise(
  tools: Tools,
  state: LocalState,
  setting: Setting,
  found: lqr.Improvement,
  linear: lg.Controller,
) -> step_size.State:
  """Notes what the improvement promises."""
  options = tools.options
  if options.optimizer == 'pi2':
    return state.step
  sampled = options.step_rule == 'mc'  # costs alone: nobody samples a divergence
  both = state.multipliers if options.algorithm == 'badmm' and not sampled else None
  after = promised(state.lesson, found.controller, linear, both)
  before = promised(state.lesson, setting.anchor, linear, both)
  if sampled:
    before = state.report.cost
  held = found.reason > lqr.INSIDE
  return step_size.promise(state.step, before, after, held, options.step)


def improve(
  tools: Tools, policy: global_policy.Policy, state: LocalState, *, again: bool
) -> LocalState:
  """Improves the controller on the latest lesson; BADMM may do so more than once.

  What BADMM pulls by moves first, by how far the policy is from the controller that it
  was taught. Before the first improvement it was taught nothing.

  Args:
    tools: of the local half.
    policy: the global one, as it is now.
    state: after `learn`.
    again: whether the lesson served before; weights move only when it is new.
  """
  options = tools.options
  linear = _linear(tools, policy, state)
  if options.algorithm == 'badmm':
    moved = _multiply(tools, policy, state, linear, weigh=not again)
    taught = again | (state.iteration > 1)
    both = (moved, state.multipliers)
    moved = jax.tree.map(lambda new, old: jnp.where(taught, new, old), *both)
    state = state._replace(multipliers=moved)
  setting = _setting(tools, state, linear)
  found = _optimize(tools, state, setting)
  held = found.reason > lqr.INSIDE
  report = state.report._replace(
    divergence=found.divergence,
    passes=found.passes,
    reasons=state.report.reasons.at[found.reason].add(1),
  )
  return state._replace(
    controller=found.controller,
    eta=jnp.where(held, jnp.ones_like(found.eta), found.eta),
    step=_promise(tools, state, setting, found, linear),
    report=report,
  )


def _multiply(
  tools: Tools,
  policy: global_policy.Policy,
  state: LocalState,
  linear: lg.Controller,
  *,
  weigh: bool,
) -> badmm.Multipliers:
  """BADMM's multipliers, and weights if these move, for the controller as it is."""
  options = tools.options
  rollouts = latest(options, state.replay)
  x = states(options, rollouts)
  moved = state.multipliers
  if weigh:
    divergence = lg.divergence(state.controller, linear, _seen(x))
    moved = badmm.reweigh(moved, divergence, options.badmm)
  means = global_policy.mean(tools.network, policy, rollouts.observation)
  return badmm.ascend(moved, state.controller, means, x, options.badmm)


def teach(tools: Tools, state: LocalState) -> tuple[global_policy.Examples, LocalState]:
  """Labels every remembered observation with the latest controller.

  Returns:
    Examples [R T ...] as one batch [B ...], the weights of rollouts that do not exist
    yet nought and their mean near 1; and the state, with its report.
  """
  options, replay = tools.options, state.replay
  x = states(options, replay.rollouts)
  size = len(replay.behaviour)
  mask = (jnp.arange(size) >= size - replay.count).astype(x.dtype)
  target = lg.log_density(state.controller, x, replay.rollouts.action)
  horizon, limit = options.importance_horizon, options.importance_limit
  weight = importance.weigh(target, replay.behaviour, mask, horizon, limit)
  share = jnp.mean(importance.effective_share(weight, mask))
  action = lg.mean_action(state.controller, x)
  if options.algorithm == 'badmm':
    # They were bounded for the controller before: the new one may be wider.
    multipliers = badmm.bound(state.multipliers, state.controller, options.badmm)
    state = state._replace(multipliers=multipliers)
    action = badmm.targets(multipliers, state.controller, x)
    w = multipliers.weight
    weight = weight * (w / jnp.mean(w))[None]
  precision = lg.precision(state.controller)
  precision = jnp.broadcast_to(precision, (size, *precision.shape))
  fields = replay.rollouts.observation, action, precision, weight
  flat = (field.reshape(-1, *field.shape[2:]) for field in fields)
  report = state.report._replace(effective_share=share)
  return global_policy.Examples(*flat), state._replace(report=report)


def label(
  tools: Tools,
  policy: global_policy.Policy,
  state: LocalState,
  experience: Experience,
  key: chex.PRNGKey,
) -> tuple[global_policy.Examples, LocalState]:
  """`learn`, `improve` and `teach`; the key is consumed."""
  state = learn(tools, policy, state, experience, key)
  return teach(tools, improve(tools, policy, state, again=False))


def relabel(
  tools: Tools, policy: global_policy.Policy, state: LocalState
) -> tuple[global_policy.Examples, LocalState]:
  """`improve` and `teach` once more, for the policy as it is now, without rollouts."""
  return teach(tools, improve(tools, policy, state, again=True))
