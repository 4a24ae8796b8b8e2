"""The agent: a mass that learns to be at its goal, and what it owes its caller."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import networks
from armfarm.agents import types
from armfarm.agents.gps import agent as gps
from armfarm.agents.gps import badmm
from armfarm.agents.gps import costs
from armfarm.agents.gps import dynamics
from armfarm.agents.gps import initial
from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import local
from armfarm.agents.gps import lqr
from armfarm.agents.gps import mixture
from armfarm.agents.gps import pi2
from armfarm.agents.gps import policy as global_policy
from armfarm.agents.gps import precision
from armfarm.agents.gps import step

_T, _X, _A = 12, 2, 1
_SPEC = types.Spec(observation_size=3, action_size=_A)  # position, velocity, goal
_LOCAL = local.Options(
  algorithm='mdgps',
  optimizer='lqr',
  on_policy=False,
  state_size=_X,
  steps=_T,
  rollouts=4,
  remembered=8,
  gaussians=2,
  initial_variance=1e-6,
  measure='model',
  step_rule='laplace',
  importance_horizon=1,
  importance_limit=4.0,
  step=step.Options(kl_step=1.0, min_multiplier=0.1, max_multiplier=5.0),
  dynamics=dynamics.Options(1.0, 20, 1e-6, mixture.Options(1e-6, 1e-3, 50)),
  lqr=lqr.Options(tolerance=0.1, min_eta=1e-8, max_eta=1e16, max_passes=50),
  pi2=pi2.Options(1.0, 1e-3, 2.0, 1e-4),
  badmm=badmm.Options(0.1, 0.01, 1e-3, 1.0, 1.0),
)
_CONFIG = gps.Config(
  hidden=(16,),
  min_deviation=1e-3,
  learning_rate=5e-3,
  weight_decay=0.0,
  initial_variance=0.1,
  precision_rate=0.1,
  snapshot_period=50,
  harm=10.0,
  noise_deviation=1.0,
  local=_LOCAL,
)
_pd = jax.jit(initial.pd, static_argnums=(0, 2, 3))


def _cost(observation, action):
  """(q - goal)^2 + v^2 / 10 + u^2 / 100."""
  weights = jnp.array([2.0, 0.2, 0.02])
  distance = observation[:, 0] - observation[:, 2]
  z = jnp.stack([distance, observation[:, 1], action[:, 0]], axis=1)
  hessian = jnp.broadcast_to(jnp.diag(weights), (len(z), 3, 3)).astype(z.dtype)
  gradient = (weights[None] * z).astype(z.dtype)
  return costs.Expansion(0.5 * jnp.sum(gradient * z, axis=1), gradient, hessian)


@jax.jit
def _value(observation, action):
  return _cost(observation, action).value


def _make(config=_CONFIG, **changes):
  config = config._replace(local=config.local._replace(**changes))
  first = _pd(initial.PD(0.2, 1.0, 0.1), np.zeros(_X, np.float32), _T, _A)
  return gps.make(_SPEC, config, _cost, first)


class GlobalHalf(NamedTuple):
  """What an agent does without its local numbers, compiled."""

  init: Any
  act: Any
  train: Any


@pytest.fixture(name='global_half', scope='module')
def _global_half():
  agent = _make()
  return GlobalHalf(
    jax.jit(agent.init),
    jax.jit(functools.partial(_rollout, _still(agent.act))),
    jax.jit(functools.partial(_train, agent.update)),
  )


class Loop:
  """Rollouts, labels and updates in turn."""

  def __init__(self, agent, global_half, rollouts):
    self.agent = agent
    self._global_half = global_half
    self._rollouts = rollouts
    self._explore = jax.jit(functools.partial(_rollout, agent.explore))
    self._random = np.random.default_rng(0)
    self._keys = iter(jax.random.split(jax.random.key(0), 200))
    self.learner = global_half.init(next(self._keys))
    self.state = agent.begin(next(self._keys))

  def policy(self):
    return self.agent.variables(self.learner)

  def roll_out(self):
    policy, parts = self.policy(), []
    for _ in range(self._rollouts):
      self.state, *part = self._explore(policy, self.state, next(self._keys))
      parts.append(part)
    rollouts = local.Rollouts(*map(np.stack, zip(*parts, strict=True)))
    return local.Experience(rollouts, policy)

  def iterate(self, updates=150):
    made, policy = self.roll_out(), self.policy()
    examples, self.state = self.agent.label(policy, self.state, made, next(self._keys))
    rows = self._random.integers(0, len(examples.weight), (updates, 25))
    minibatches = jax.tree.map(lambda x: np.asarray(x)[rows], examples)
    if updates:
      key = next(self._keys)
      self.learner = self._global_half.train(self.learner, minibatches, key)
    return examples

  def test_cost(self):
    _, *rollout = self._global_half.act(self.learner.policy, (), next(self._keys))
    return float(_value(*rollout).sum())


def _still(act):
  return lambda policy, state, observation, key: (act(policy, observation, key), state)


def _rollout(explore, policy, state, key):
  """A mass that is pushed: the agent's state, observations [T 3], actions [T 1]."""

  def advance(carry, key):
    x, state = carry
    key, key_noise = jax.random.split(key)
    o = jnp.append(x, 0.5)
    u, state = explore(policy, state, o, key)
    x = x + 0.2 * jnp.append(x[1:], 2.0 * u)
    return (x + 1e-3 * jax.random.normal(key_noise, [_X]), state), (o, u)

  start = jnp.zeros(_X), state
  (_, state), (observations, actions) = jax.lax.scan(
    advance, start, jax.random.split(key, _T)
  )
  return state, observations, actions


def _train(update, learner, minibatches, key):
  def one(learner, inputs):
    return update(learner, *inputs)

  keys = jax.random.split(key, len(minibatches.weight))
  return jax.lax.scan(one, learner, (minibatches, keys))[0]


@pytest.mark.parametrize(
  ('changes', 'iterations'),
  [
    ({'algorithm': 'mdgps', 'optimizer': 'lqr'}, 5),
    ({'algorithm': 'badmm', 'optimizer': 'lqr', 'measure': 'rollouts'}, 5),
    ({'algorithm': 'badmm', 'optimizer': 'pi2', 'rollouts': 12, 'remembered': 12}, 5),
    (
      {
        'algorithm': 'mdgps',
        'optimizer': 'pi2',
        'on_policy': True,
        'rollouts': 12,
        'remembered': 12,
      },
      6,
    ),
  ],
  ids=lambda x: '-'.join(map(str, x.values())) if isinstance(x, dict) else str(x),
)
def test_learns_to_be_at_the_goal(global_half, changes, iterations):
  # Standing still costs 12 / 4 = 3.
  rollouts = changes.get('rollouts', _LOCAL.rollouts)
  loop = Loop(_make(**changes), global_half, rollouts)
  own = []
  for _ in range(iterations):
    examples = loop.iterate()
    own.append(float(loop.state.report.cost))
    chex.assert_tree_all_finite((examples, loop.state, loop.learner))
  assert own[-1] < 0.6 * own[0]
  assert loop.test_cost() < 1.8
  assert np.sum(loop.state.report.reasons) == iterations
  assert int(loop.state.iteration) == iterations
  kinds = {x.dtype for x in jax.tree.leaves((examples, loop.state))}
  assert kinds == {jnp.dtype(kind) for kind in ('f4', 'i4', 'bool')}


class Update(NamedTuple):
  """A learner with examples to learn from, and the agent compiled."""

  agent: Any
  learner: Any
  examples: Any


@pytest.fixture(name='setting', scope='module')
def _setting(global_half):
  agent, random = _make(), np.random.default_rng(1)
  examples = gps.global_policy.Examples(
    random.normal(size=[10, 3]),
    random.normal(size=[10, 1]),
    random.uniform(1.0, 2.0, [10, 1, 1]),
    random.uniform(0.5, 1.5, 10),
  )
  learner = global_half.init(jax.random.key(0))
  names = 'update', 'gradient', 'apply'
  agent = agent._replace(**{name: jax.jit(getattr(agent, name)) for name in names})
  return Update(agent, learner, jax.tree.map(np.float32, examples))


def test_update_is_apply_of_gradient(setting):
  agent, learner, examples = setting
  key = jax.random.key(1)
  whole, parts = (learner, {}), (learner, {})
  for _ in range(3):
    whole = agent.update(whole[0], examples, jax.random.clone(key))
    parts = agent.apply(parts[0], agent.gradient(parts[0], examples))
  # Adam makes a whole step of a gradient that is nearly rounding.
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), whole, parts
  )
  before, after = jax.device_get((learner.policy, parts[0].policy))
  moved = jax.tree.map(lambda x, y: np.any(x != y), before, after)
  assert all(jax.tree.leaves(moved))


def test_a_worker_needs_no_optimizer(setting):
  agent, learner, examples = setting
  bare = learner._replace(optimizer=())
  chex.assert_trees_all_equal(
    agent.gradient(bare, examples), agent.gradient(learner, examples)
  )


def test_updates_trace_once_and_keep_averages(setting):
  agent, learner, examples = setting
  traces = []

  @jax.jit
  def update(*arguments):
    traces.append(arguments)
    return agent.update(*arguments)

  for key in jax.random.split(jax.random.key(0), 3):
    learner, metrics = update(learner, examples, key)
  assert len(traces) == 1
  assert metrics['rollbacks'] == 0
  seen, mean = learner.policy.moments, examples.observation.mean(0)
  assert seen.count == 30.0
  np.testing.assert_allclose(seen.mean, mean, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    learner.policy.precision,
    jax.jit(gps.global_policy.mean_precision)(examples),
    rtol=1e-5,
  )


@pytest.mark.parametrize('kind', ['loss', 'gradient', 'harm'])
def test_harm_is_rolled_back_and_counted(setting, kind):
  agent, learner, examples = setting
  once, _ = agent.update(learner, examples, jax.random.key(0))
  gradients = jax.device_get(agent.gradient(once, examples))
  nans = jax.tree.map(lambda x: x * np.float32(np.nan), gradients.params)
  bad = {
    'loss': gradients._replace(loss=np.float32(np.inf)),
    'gradient': gradients._replace(params=nans),
    'harm': gradients._replace(loss=10.1 * gradients.snapshot_loss),
  }[kind]
  after, metrics = agent.apply(once, bad)
  assert metrics['rollbacks'] == after.rollbacks == 1
  assert after.updates == once.updates
  chex.assert_trees_all_equal(after.policy.params, learner.snapshot)
  chex.assert_trees_all_equal(after.optimizer, once.optimizer)
  chex.assert_trees_all_equal(after.policy.moments, once.policy.moments)
  fine, _ = agent.apply(once, gradients._replace(loss=9.9 * gradients.snapshot_loss))
  assert fine.rollbacks == 0


def test_one_rollback_does_not_call_for_another(setting, global_half):
  agent, learner, examples = setting
  many = jax.tree.map(lambda x: np.broadcast_to(x, (2000, *x.shape)), examples)
  learner = global_half.train(learner, many, jax.random.key(0))
  before = int(learner.rollbacks)
  bad = agent.gradient(learner, examples)._replace(loss=np.float32(np.inf))
  learner, _ = agent.apply(learner, bad)
  for i in range(20):
    learner, _ = agent.update(learner, examples, jax.random.key(i))
  assert learner.rollbacks == before + 1


def test_explore_acts_by_the_clock(setting):
  agent, learner, _ = setting
  state = agent.begin(jax.random.key(0))
  shifted = state.controller._replace(
    offset=np.linspace(-0.5, 0.5, _T, dtype=np.float32)[:, None],
    scale_tril=np.full([_T, 1, 1], 1e-6, np.float32),
  )
  state = state._replace(controller=shifted)
  explore = jax.jit(agent.explore)
  actions = []
  for i in range(_T + 1):
    key = jax.random.fold_in(jax.random.key(1), i)
    u, state = explore(learner.policy, state, np.zeros(3, np.float32), key)
    actions.append(np.asarray(u).item())
  expected = [*np.linspace(-0.5, 0.5, _T), -0.5]
  np.testing.assert_allclose(actions, expected, atol=1e-5)
  assert state.clock == 1


def test_noise_keeps_its_variance():
  keys = jax.random.split(jax.random.key(0), 4000)
  draw = jax.jit(jax.vmap(lambda key: gps.draw_noise(10, 1, 2.0, key)))
  noise = np.asarray(draw(keys))[..., 0]
  np.testing.assert_allclose(noise.std(0), 1.0, atol=0.05)
  assert np.corrcoef(noise[:, 4], noise[:, 5])[0, 1] > 0.9
  white = np.asarray(gps.draw_noise(4000, 1, 0.0, jax.random.key(1)))[:, 0]
  assert abs(np.corrcoef(white[1:], white[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'algorithm': 'x'}, "algorithm is 'x'; choose one of"),
    ({'optimizer': 'x'}, "optimizer is 'x'; choose one of"),
    ({'measure': 'x'}, "measure is 'x'; choose one of"),
    ({'step_rule': 'x'}, "step_rule is 'x'; choose one of"),
    ({'remembered': 3}, 'remembered is 3, less than the 4 rollouts'),
    ({'optimizer': 'pi2', 'rollouts': 2}, 'use more rollouts or a smaller epsilon'),
    (
      {'algorithm': 'badmm', 'on_policy': True},
      'badmm samples .* set on_policy to False',
    ),
    (
      {'algorithm': 'trajectory', 'on_policy': True},
      'trajectory samples from its local',
    ),
    (
      {'algorithm': 'mdgps', 'optimizer': 'pi2', 'rollouts': 9, 'remembered': 9},
      'weighs rollouts of the global policy: set on_policy to True',
    ),
    ({'state_size': 4}, 'state_size is 4, but an observation has 3'),
    ({'steps': 5}, 'the first controller has gains'),
  ],
)
def test_what_cannot_be_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _make(**changes)


def test_badmm_moves_by_what_was_taught_and_weighs_once_an_iteration(global_half):
  agent = _make(algorithm='badmm', measure='rollouts')
  loop = Loop(agent, global_half, _LOCAL.rollouts)
  loop.iterate()
  first = loop.state.multipliers
  assert not np.any(first.slope)  # for nothing had been taught
  np.testing.assert_allclose(first.weight, _LOCAL.badmm.initial_weight)
  _, again = agent.relabel(loop.policy(), loop.state)
  assert np.all(again.multipliers.slope)
  np.testing.assert_array_equal(again.multipliers.weight, first.weight)
  loop.iterate()
  factors = loop.state.multipliers.weight / first.weight
  assert {2.0} < set(np.unique(factors).tolist()) <= {0.5, 1.0, 2.0}


@pytest.mark.parametrize('rule', ['laplace', 'mc'])
def test_badmm_promises_in_the_weights_that_it_is_judged_by(global_half, rule):
  agent = _make(algorithm='badmm', measure='rollouts', step_rule=rule)
  loop = Loop(agent, global_half, _LOCAL.rollouts)
  loop.iterate()
  made, policy = loop.roll_out(), loop.policy()
  _, state = agent.label(policy, loop.state, made, jax.random.key(1))
  module = networks.MLP(_CONFIG.hidden, _A, networks.Normalization('none'))
  network = global_policy.Network(module, _CONFIG.min_deviation)

  def promise(policy, state):
    seen = local.latest(_CONFIG.local, state.replay).observation
    linear = global_policy.linearize(network, policy, seen, _X)
    both = state.multipliers if rule == 'laplace' else None  # rollouts cost no more
    return local.promised(state.lesson, state.controller, linear, both)

  promised = precision.double(promise)(policy, state)
  np.testing.assert_allclose(state.step.promised, promised, rtol=1e-3)
  cost = jax.vmap(_value)(made.rollouts.observation, made.rollouts.action)
  sampled = np.isclose(state.step.before, np.sum(cost, axis=1).mean(), rtol=1e-3)
  assert sampled == (rule == 'mc')


def test_no_target_moves_further_than_the_new_controller_is_wide(global_half):
  loop = Loop(_make(algorithm='badmm'), global_half, _LOCAL.rollouts)
  loop.iterate()
  state, options = loop.state, _LOCAL._replace(algorithm='badmm')
  slope = jnp.full_like(state.multipliers.slope, 1e6)
  multipliers = badmm.bound(
    state.multipliers._replace(slope=slope), state.controller, options.badmm
  )
  wide = state.controller._replace(scale_tril=4.0 * state.controller.scale_tril)
  state = state._replace(multipliers=multipliers, controller=wide)
  tools = local.Tools(None, None, options)
  examples, after = local.teach(tools, state)
  x = local.states(options, state.replay.rollouts)
  own = np.asarray(jax.jit(lg.mean_action)(wide, x)).reshape(-1, _A)
  shift = np.abs(examples.action - own).reshape(-1, _T, _A)
  np.testing.assert_allclose(
    shift[..., 0], np.broadcast_to(wide.scale_tril[:, 0, 0], shift.shape[:2]), rtol=1e-3
  )
  assert after.multipliers.clipped == multipliers.clipped + _T


@pytest.mark.parametrize('taught', [True, False])
def test_who_acts_first(global_half, taught):
  loop = Loop(_make(on_policy=True), global_half, _LOCAL.rollouts)
  loop.iterate()
  policy = loop.policy()._replace(precision=jnp.full([_A], 1e8))
  agent = _make(on_policy=True, taught=taught)
  observation, key = np.array([0.2, 0.1, 0.5], np.float32), jax.random.key(1)
  state = agent.begin(jax.random.key(0))
  still = state.controller._replace(scale_tril=1e-4 * state.controller.scale_tril)
  action, _ = jax.jit(agent.explore)(
    policy, state._replace(controller=still), observation, key
  )
  own = still.gain[0] @ observation[:_X] + still.offset[0]
  mean = jax.jit(agent.act)(policy, observation, jax.random.key(2))
  assert np.abs(own - mean).max() > 0.05
  np.testing.assert_allclose(action, mean if taught else own, atol=2e-3)


@pytest.mark.parametrize('taught', [True, False])
def test_the_first_improvement_starts_from_who_acted(global_half, taught):
  loop = Loop(_make(on_policy=True, taught=taught), global_half, _LOCAL.rollouts)
  made = loop.roll_out()
  own = loop.state.controller
  _, state = loop.agent.label(made.policy, loop.state, made, jax.random.key(1))
  same = np.allclose(state.lesson.sampler.gain, own.gain)
  assert same != taught


def test_a_taught_policy_keeps_its_precision(global_half):
  loop = Loop(_make(on_policy=True, taught=True), global_half, _LOCAL.rollouts)
  examples = loop.iterate(updates=0)
  before = loop.policy().precision
  learner, _ = jax.jit(loop.agent.update)(loop.learner, examples, jax.random.key(1))
  diagonal = jax.jit(global_policy.mean_precision)(examples)
  moved = before + _CONFIG.precision_rate * (diagonal - before)
  np.testing.assert_allclose(learner.policy.precision, moved, rtol=1e-4)


def test_densities_are_those_of_the_policy_that_acted(global_half):
  agent = _make(on_policy=True)
  loop = Loop(agent, global_half, _LOCAL.rollouts)
  loop.iterate()
  made, other = loop.roll_out(), global_half.init(jax.random.key(7)).policy

  def behaviour(newest, acted):
    experience = made._replace(policy=acted)
    _, state = agent.label(newest, loop.state, experience, jax.random.key(1))
    return np.asarray(state.replay.behaviour[-_LOCAL.rollouts :])

  true = behaviour(made.policy, made.policy)
  np.testing.assert_allclose(behaviour(other, made.policy), true)
  assert np.abs(behaviour(other, other) - true).max() > 0.1


def test_pi2_reports_how_far_it_went(global_half):
  agent = _make(algorithm='trajectory', optimizer='pi2', rollouts=12, remembered=12)
  loop = Loop(agent, global_half, 12)
  loop.iterate(updates=0)
  once, made = loop.state.controller, loop.roll_out()
  _, state = agent.label(made.policy, loop.state, made, jax.random.key(1))
  x = np.asarray(made.rollouts.observation)[..., :_X]
  apart = x - x.mean(0)
  cov = np.einsum('ntx,nty->txy', apart, apart) / len(x)
  seen = lg.Gaussian(x.mean(0), cov)
  far = jax.jit(lg.divergence)(state.controller, once, seen)
  np.testing.assert_allclose(state.report.divergence, far.sum(), rtol=1e-3)


def test_a_trajectory_is_improved_whatever_the_policy_does(global_half):
  agent = _make(algorithm='trajectory')
  found, costs_of = [], []
  for scale in (1.0, 100.0):  # an untaught policy, and another far from it
    loop = Loop(agent, global_half, _LOCAL.rollouts)
    untaught = jax.device_get(loop.learner.policy.params)
    params = jax.tree.map(lambda x, by=scale: by * x, untaught)
    policy = loop.learner.policy._replace(params=params)
    loop.learner = loop.learner._replace(policy=policy)
    for _ in range(4):
      loop.iterate(updates=0)
      costs_of.append(float(loop.state.report.cost))
    found.append(loop.state.controller)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), *found)
  assert costs_of[3] < 0.6 * costs_of[0]


def test_numbers_that_cannot_work_are_refused():
  with pytest.raises(ValueError, match='needs more than 1'):
    _make(_CONFIG._replace(harm=1.0))
  with pytest.raises(ValueError, match='min_deviation is 0.0; give more'):
    _make(_CONFIG._replace(min_deviation=0.0))
  with pytest.raises(ValueError, match='set on_policy to True'):
    _make(taught=True)


def test_initial_controllers():
  mean_action = jax.jit(lg.mean_action)
  first = np.float32([0.3, -0.2, 7.0])
  pd = _pd(initial.PD(10.0, 0.1, 4.0), first, 3, 1)
  np.testing.assert_allclose(np.asarray(pd.gain)[0], [[-10.0, -1.0, 0.0]])
  np.testing.assert_allclose(mean_action(pd, first[None, None]), 0.0, atol=1e-6)
  np.testing.assert_allclose(pd.scale_tril, 2.0)
  guess = initial.Guess((2.0,), 1.0, 0.5, 1.0, 1.0, 0.05)
  rest = np.float32([0.3, 0.0, 7.0])
  found = jax.jit(initial.guessed, static_argnums=(0, 2))(guess, rest, 40)
  still = mean_action(found, np.broadcast_to(rest, (40, 3)))
  np.testing.assert_allclose(still, 0.0, atol=1e-5)
  gain = np.asarray(found.gain)
  assert (gain[0, 0, :2] < 0.0).all()
  assert gain[0, 0, 2] == 0.0
  states = np.float32(np.random.default_rng(0).normal(size=[3, 3]))
  actions = np.float32([[0.1], [0.2], [0.3]])
  follow = jax.jit(initial.demonstrated, static_argnums=0)
  shown = follow(initial.PD(10.0, 0.1, 4.0), states, actions)
  np.testing.assert_allclose(mean_action(shown, states), actions, atol=1e-5)
