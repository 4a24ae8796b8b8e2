"""The agent: targets by hand, schedules, what it owes its caller, and a task."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import augment
from armfarm.agents.qtopt import cem
from armfarm.agents.qtopt import networks
from armfarm.agents.qtopt import noisy

_FIRST, _SECOND = np.log(3.0), np.log(1.5)  # Q = 3/4 and 3/5 at the peaks


class Hill:
  """A Q-function that is a hill over the first number of the action; counts its calls.

  Variables are the height of the logit and the place of its peak.
  """

  def __init__(self):
    self.calls = []

  def apply(self, variables, *inputs, method=None):
    self.calls.append((method, inputs[0].shape[0]))
    if method == 'embed':
      return inputs[0]
    height, peak = variables
    return height - (inputs[1][:, 0] - peak) ** 2


@pytest.fixture
def hill(spec, config):
  """A model on hills, and variables whose peaks are 1/2 apart."""
  options = cem.Options(400, 10, 3)
  model = qtopt.build(spec, config._replace(cem=options, label_cem=options))
  pairs = (jnp.float32(_FIRST), 0.25), (jnp.float32(_SECOND), -0.25)
  return model._replace(network=Hill()), qtopt.Variables(
    *pairs, jnp.int32(0), jnp.float32(0)
  )


def _label(model, variables, batch, key=0):
  label = functools.partial(qtopt.label, model)
  return jax.jit(label)(variables, (), batch, jax.random.key(key))[0]


def _assert_close(found, expected, atol):
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=atol)
  jax.tree.map(close, found, expected)


def _sigmoid(x):
  return 1.0 / (1.0 + np.exp(-x))


@pytest.mark.parametrize(
  ('target', 'bootstrap', 'value'),
  [
    # Both critics are asked at the first one's choice, 1/2 from the second one's peak.
    ('single', False, 0.75),
    ('double', False, _sigmoid(_SECOND - 0.25)),
    ('clipped', False, _sigmoid(_SECOND - 0.25)),
    ('clipped', True, _sigmoid(_SECOND - 0.25)),
  ],
)
def test_targets(hill, batch, target, bootstrap, value):
  model, variables = hill
  config = model.config._replace(target=target, bootstrap_at_time_limit=bootstrap)
  y = _label(model._replace(config=config), variables, batch).target
  proceeds = batch.discount if bootstrap else batch.discount * (1 - batch.truncation)
  np.testing.assert_allclose(y, batch.reward + 0.5 * proceeds * value, rtol=1e-4)


def test_clipping_takes_the_smaller(hill, batch):
  # The second critic is the higher one at the first one's choice: 0.88 > 0.75.
  model, variables = hill
  high = variables._replace(lagged=(jnp.float32(np.log(9.0)), -0.25))
  y = _label(model, high, batch).target
  proceeds = batch.discount * (1 - batch.truncation)
  np.testing.assert_allclose(y, batch.reward + 0.5 * proceeds * 0.75, rtol=1e-4)


def test_a_state_is_embedded_once(hill, batch):
  model, variables = hill
  fewer = model.config.label_cem._replace(iterations=2)
  model = model._replace(config=model.config._replace(label_cem=fewer))
  _label(model, variables, batch)
  # One pass of all 12 next states, one scoring an iteration, and the second critic.
  assert model.network.calls == [('embed', 12), *[('score', 1)] * 2, (None, 12)]
  del model.network.calls[:]
  jax.eval_shape(
    functools.partial(qtopt.act, model),
    variables,
    batch.observation[0],
    jax.random.key(0),
  )
  assert model.network.calls == [('embed', 1), *[('score', 1)] * 3]


def test_search(hill, batch):
  model, variables = hill
  found = jax.jit(functools.partial(qtopt.search, model))(
    variables, batch.observation[0], jax.random.key(0)
  )
  np.testing.assert_allclose(found.value, 0.75, rtol=1e-4)
  np.testing.assert_allclose(found.action[0], 0.25, atol=0.02)
  np.testing.assert_allclose(
    found.values,
    _sigmoid(_FIRST - (found.actions[:, 0] - 0.25) ** 2),
    rtol=1e-5,
  )


def test_values_have_a_range(hill, batch):
  # 3/4 of the way from -2 to 6 is 4, at the peak of the first. There the second is
  # lower, and counts where the episode goes on.
  model, variables = hill
  wide = model._replace(config=model.config._replace(value_range=(-2.0, 6.0)))
  search = jax.jit(functools.partial(qtopt.search, wide))
  found = search(variables, batch.observation[0], jax.random.key(0))
  np.testing.assert_allclose(found.value, 4.0, rtol=1e-3)
  second = -2.0 + 8.0 * _sigmoid(_SECOND - 0.25)
  y = _label(wide, variables, batch).target
  proceeds = np.arange(12) % 3 == 2
  expected = batch.reward + 0.5 * second * proceeds
  np.testing.assert_allclose(y, expected, atol=0.03)


def test_explore_mixes_and_remembers_the_gripper(hill, batch):
  model, variables = hill
  explore = jax.jit(
    jax.vmap(functools.partial(qtopt.explore, model), in_axes=(None, None, None, 0))
  )
  start = qtopt.noisy.begin(jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), 500)
  action, state = explore(variables, start, batch.observation[0], keys)
  greedy = abs(action[:, 0] - 0.25) < 0.05
  assert 0.75 < greedy.mean() < 0.87  # 80 %, and what falls there by chance
  assert (state.closed == (action[:, 5] > 0.5)).all()
  assert 0 < state.closed.mean() < 1


# Training.


class Learner(NamedTuple):
  """An agent with batch normalisation, its first states, and its traces.

  Attributes:
    agent: under test.
    states: after 0, 1, 2 ... updates.
    metrics: of the first update.
    traces: grows when a function is traced.
  """

  agent: types.Agent
  states: list
  metrics: Any
  traces: list


@pytest.fixture(scope='module')
def learner(spec, config, batch):
  agent = qtopt.make(spec, config._replace(normalization='batch'))
  traces, keys = [], jax.random.split(jax.random.key(0), 12)

  def counted(function):
    def traced(*arguments):
      traces.append(function)
      return function(*arguments)

    return jax.jit(traced)

  label, update = map(counted, (agent.label, agent.update))
  states, first = [jax.jit(agent.init)(jax.random.key(1))], None
  for key in keys:
    key_label, key_update = jax.random.split(key)
    variables = agent.variables(states[-1])
    examples, _ = label(variables, (), batch, key_label)
    state, metrics = update(states[-1], examples, key_update)
    first = first or metrics
    states.append(state)
  return Learner(agent, states, first, traces)


def test_every_function_is_traced_once(learner):
  assert len(learner.traces) == 2
  chex.assert_tree_all_finite(learner.states)


def test_theta_1_follows_by_polyak_averaging(learner):
  # theta_1 <- 3/4 theta_1 + 1/4 theta, with theta after its step.
  for old, new in zip(learner.states, learner.states[1:], strict=False):
    mixed = jax.tree.map(lambda x, y: 0.75 * x + 0.25 * y, old.target, new.params)
    _assert_close(new.target, mixed, atol=1e-7)


def test_theta_2_lags_theta_1(learner):
  # A mean lag of 3 makes copies every 2 updates: of 0, 0, 0, 2, 2, 4, 4 ...
  for t in range(1, 13):
    of = learner.states[max(0, t - t % 2 - 2)]
    expected = {'params': of.target, 'batch_stats': of.statistics}
    chex.assert_trees_all_equal(learner.states[t].copies.lagged, expected)
    variables = learner.agent.variables(learner.states[t])
    chex.assert_trees_all_equal(variables.lagged, expected)


def test_the_best_trial_is_kept_in_mind(learner):
  state = learner.states[-1]
  assert learner.agent.variables(state).success == 0.0
  for success, best in ((0.25, 0.25), (0.75, 0.75), (0.5, 0.75)):
    state = learner.agent.judge(state, jnp.float32(success))
    assert learner.agent.variables(state).success == best


def test_theta_1_has_the_statistics_of_theta(learner):
  state = learner.states[-1]
  variables = learner.agent.variables(state)
  expected = {'params': state.target, 'batch_stats': state.statistics}
  chex.assert_trees_all_equal(variables.target, expected)
  assert jax.tree.leaves(state.statistics)


def test_the_papers_lag():
  # Copies every 4000 updates: 4000 to 7999 old, 6000 in the mean.
  assert qtopt.lag_period(6000) == 4000
  assert qtopt.lag_period(1) == 1


def test_a_label_depends_on_its_transition_alone(learner, batch):
  variables = learner.agent.variables(learner.states[-1])
  label = jax.jit(learner.agent.label)
  whole, _ = label(variables, (), batch, jax.random.key(0))
  other = batch._replace(next_observation=batch.next_observation.at[1:].multiply(-9.0))
  moved, _ = label(variables, (), other, jax.random.key(0))
  np.testing.assert_allclose(moved.target[0], whole.target[0], rtol=1e-6)
  chex.assert_trees_all_equal(whole.action, batch.action)
  chex.assert_trees_all_equal(whole.observation, batch.observation)


def _examples(batch, target):
  return qtopt.Example(batch.observation, batch.action, jnp.asarray(target))


def test_metrics_count_targets_outside(learner, batch):
  target = jnp.array([-0.05, 1.2, *[0.5] * 10])
  state = learner.states[-1]
  metrics = jax.jit(learner.agent.update)(
    state, _examples(batch, target), jax.random.key(0)
  )[1]
  np.testing.assert_allclose(metrics['outside'], 2 / 12, rtol=1e-6)
  np.testing.assert_allclose(metrics['target'], 6.15 / 12, rtol=1e-6)
  assert set(metrics) == {
    *('loss', 'q', 'target', 'error', 'outside', 'gradient_norm'),
  }


def test_loss(variant, spec, config, batch):
  # Every Q is 1/2: log 2 whatever y is, or the mean of (1/2 - y)^2.
  class Half:
    def apply(self, variables, *inputs, train, mutable):
      return jnp.zeros(12), {}

  y = jnp.linspace(0.0, 1.0, 12)
  for kind, expected in (
    ('cross_entropy', np.log(2.0)),
    ('squared', np.mean((0.5 - np.asarray(y)) ** 2)),
  ):
    model = qtopt.build(spec, config._replace(loss=kind))._replace(network=Half())
    loss = variant(
      lambda y, model=model: qtopt.loss({}, model, {}, _examples(batch, y))
    )
    value, (statistics, metrics) = loss(y)
    np.testing.assert_allclose([value, metrics['loss']], expected, rtol=1e-6)
    np.testing.assert_allclose(metrics['q'], 0.5)
    np.testing.assert_allclose(metrics['error'], np.mean(abs(0.5 - y)), rtol=1e-6)
    assert statistics == {}


def test_sgd(config):
  # Weights decay by 0.5 of themselves, the bias does not. Momentum 1/2, rate 0.1:
  #   kernel: steps 0.1 (3 + 1) and 0.1 (4 / 2 + 3 + 0.8), so 2, 1.6, 1.02
  #   bias:   steps 0.1 * 3 and 0.1 (3 / 2 + 3), so 2, 1.7, 1.25
  optimizer = qtopt.descent(
    config._replace(learning_rate=0.1, momentum=0.5, weight_decay=0.5)
  )
  params = {'kernel': jnp.full([1, 1], 2.0), 'bias': jnp.full([1], 2.0)}
  grads = jax.tree.map(lambda x: jnp.full_like(x, 3.0), params)
  state, seen = optimizer.init(params), []
  for _ in range(2):
    steps, state = optimizer.update(grads, state, params)
    params = jax.tree.map(jnp.add, params, steps)
    seen.append([float(params['kernel'][0, 0]), float(params['bias'][0])])
  np.testing.assert_allclose(seen, [[1.6, 1.7], [1.02, 1.25]], rtol=1e-6)


def test_adam_steps_by_its_rate(config):
  config = config._replace(optimizer='adam', learning_rate=0.1, weight_decay=0.0)
  optimizer = qtopt.descent(config)
  params = {'kernel': jnp.ones([1, 1])}
  grads = {'kernel': jnp.full([1, 1], 1e3)}
  steps, _ = optimizer.update(grads, optimizer.init(params), params)
  np.testing.assert_allclose(steps['kernel'], [[-0.1]], rtol=1e-5)


@pytest.mark.parametrize(
  ('decay_updates', 'left'), [(0, [1, 1, 1, 1]), (2, [1, 0.1**0.5, 0.1, 0.1])]
)
def test_the_rate_falls_to_a_tenth(config, decay_updates, left):
  config = config._replace(optimizer='adam', learning_rate=0.1, weight_decay=0.0)
  optimizer = qtopt.descent(config._replace(decay_updates=decay_updates))
  params, grads = {'bias': jnp.ones([1])}, {'bias': jnp.full([1], 3.0)}
  state, found = optimizer.init(params), []
  for _ in left:
    steps, state = optimizer.update(grads, state, params)
    found.append(-10 * float(steps['bias'][0]))
  np.testing.assert_allclose(found, left, rtol=1e-4)


def test_two_devices_are_one(spec, config, batch):
  # Half the batch each, statistics and gradients shared.
  config = config._replace(normalization='batch')
  examples = _examples(batch, jnp.linspace(0.0, 1.0, 12))
  alone = qtopt.make(spec, config)
  state = jax.jit(alone.init)(jax.random.key(0))
  whole, metrics = jax.jit(alone.update)(state, examples, jax.random.key(1))
  halves = jax.tree.map(lambda x: x.reshape(2, 6, *x.shape[1:]), examples)
  update = jax.vmap(
    qtopt.make(spec, config, 'device').update,
    in_axes=(None, 0, None),
    axis_name='device',
  )
  shared, found = jax.jit(update)(state, halves, jax.random.key(1))
  for i in range(2):
    one = jax.tree.map(lambda x, i=i: x[i], shared)
    _assert_close(one, whole, atol=1e-6)
  norm = metrics['gradient_norm']  # of the gradient that is followed
  np.testing.assert_allclose(found['gradient_norm'], [norm, norm], rtol=1e-4)


# Images.


def test_images_are_bytes_from_end_to_end(spec, images, filmed):
  agent = qtopt.make(spec, images)
  state = jax.eval_shape(agent.init, jax.random.key(0))
  variables = jax.eval_shape(agent.variables, state)
  examples, _ = jax.eval_shape(agent.label, variables, (), filmed, jax.random.key(0))
  assert examples.observation.image.dtype == jnp.uint8
  assert examples.observation.image.shape == (12, 64, 64, 3)
  assert examples.target.shape == (12,)
  new, _ = jax.eval_shape(agent.update, state, examples, jax.random.key(0))
  chex.assert_trees_all_equal_shapes_and_dtypes(state, new)


def test_s_and_its_successor_change_alike(spec, images, filmed):
  # The same picture before and after remains so; every transition changes otherwise.
  model = qtopt.build(spec, images)
  still = filmed._replace(next_observation=filmed.observation)
  augmented = jax.jit(jax.vmap(functools.partial(qtopt.augmented, model)))
  new = augmented(still, jax.random.split(jax.random.key(0), 12))
  assert (new.observation.image == new.next_observation.image).all()
  first = jax.tree.map(lambda x: jnp.repeat(x[:1], 12, axis=0), still)
  same = augmented(first, jax.random.split(jax.random.key(0), 12))
  assert len(np.unique(np.asarray(same.observation.image), axis=0)) == 12


def test_acting_sees_the_centre(spec, images, filmed):
  model = qtopt.build(spec, images)
  one = jax.tree.map(lambda x: x[0], filmed.observation)
  seen = qtopt.seen(model, one)
  assert (seen.image == augment.centre(one.image, 64)).all()
  plain = qtopt.build(spec, images._replace(augmentation=None))
  labelled = qtopt.augmented(
    plain, jax.tree.map(lambda x: x[0], filmed), jax.random.key(0)
  )
  assert (labelled.observation.image == seen.image).all()


@pytest.mark.no_cover
def test_a_step_of_the_published_network(config, filmed):
  # 472 x 472, from bytes: forward with running averages, and one step of training.
  spec = types.Spec(observation_size=2, action_size=8)
  agent = qtopt.make(spec, config._replace(network='grasping472'))
  random = np.random.default_rng(0)
  image = jnp.asarray(random.integers(0, 256, [2, 472, 472, 3], np.uint8))
  observation = networks.Observation(image, jnp.array([[0.0, 0.1], [1.0, 0.2]]))
  examples = qtopt.Example(observation, filmed.action[:2], jnp.array([0.0, 1.0]))
  shapes = jax.eval_shape(agent.init, jax.random.key(0))

  def draw(x):  # quicker than compiling `init`
    return 0.03 * random.normal(size=x.shape) if x.ndim > 1 else np.ones(x.shape)

  params, ones = jax.tree.map(
    lambda x: jnp.asarray(draw(x), x.dtype), (shapes.params, shapes.statistics)
  )
  state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  state = state._replace(params=params, statistics=ones, target=params)
  network = qtopt.build(spec, config._replace(network='grasping472')).network
  variables = agent.variables(state).target
  forward = jax.jit(functools.partial(network.apply, train=False))
  one = jax.tree.map(lambda x: x[:1], observation)
  logits = forward(variables, one, filmed.action[:1])
  assert logits.shape == (1,)
  new, metrics = jax.jit(agent.update)(state, examples, jax.random.key(1))
  chex.assert_tree_all_finite((new, metrics, logits))
  moved = jax.tree.map(lambda x, y: bool((x != y).any()), state.params, new.params)
  assert sum(jax.tree.leaves(moved)) > 0.8 * len(jax.tree.leaves(moved))


# Learning.


def _play(x, action):
  """Two steps: at -1 the gripper must move to about 0.5, at 1 it must close."""
  first = x < 0.0
  went_on = first & (abs(action[0] - 0.5) < 0.5)
  closed = action[1] > 0.5
  reward = jnp.where(first, -0.05 * went_on, 1.0 * closed)
  return reward.astype(jnp.float32), went_on.astype(jnp.float32)


_UPDATES = 500
_SMALL = types.Spec(observation_size=1, action_size=3)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _experience(layout, count):
  """Random actions at both states; the next observation is -x."""
  action = cem.draw(layout, cem.prior(layout, 0.7), count, jax.random.key(0))
  x = jnp.where(jnp.arange(count) % 2 == 0, -1.0, 1.0)
  reward, discount = jax.vmap(_play)(x, action)
  zeros = jnp.zeros(count)
  return types.Transition(x[:, None], action, reward, discount, zeros, -x[:, None])


@pytest.mark.parametrize(
  ('target', 'loss', 'normalization'),
  [('clipped', 'cross_entropy', 'none'), ('double', 'squared', 'batch')],
)
@pytest.mark.no_cover
def test_learns(config, target, loss, normalization):
  # V(1) = 1 and V(-1) = -0.05 + 0.9.
  config = config._replace(
    hidden=(32, 32),
    angles=0,
    commands=('close', 'open'),
    gamma=0.9,
    target=target,
    loss=loss,
    normalization=normalization,
    learning_rate=0.05,
    polyak=0.98,
    lag=60,
  )
  model, agent = qtopt.build(_SMALL, config), qtopt.make(_SMALL, config)
  experience = _experience(model.layout, 2000)

  def iterate(state, key):
    key_rows, key_label, key_update = jax.random.split(key, 3)
    rows = jax.random.randint(key_rows, [32], 0, 2000)
    batch = jax.tree.map(lambda x: x[rows], experience)
    examples, _ = agent.label(agent.variables(state), (), batch, key_label)
    return agent.update(state, examples, key_update)

  key_learn, key_search = jax.random.split(jax.random.key(1))
  keys = jax.random.split(key_learn, _UPDATES)
  learn = jax.jit(lambda state, keys: jax.lax.scan(iterate, state, keys))
  state, metrics = learn(jax.jit(agent.init)(jax.random.key(2)), keys)
  search = jax.jit(jax.vmap(functools.partial(qtopt.search, model), (None, 0, 0)))
  found = search(
    agent.variables(state), jnp.array([[-1.0], [1.0]]), jax.random.split(key_search)
  )
  np.testing.assert_allclose(found.value, [0.85, 1.0], atol=0.1)
  assert 0.0 < found.action[0, 0] < 1.0
  assert found.action[1, 1:].tolist() == [1.0, 0.0]
  assert metrics['error'][-50:].mean() < 0.1 < metrics['error'][:5].mean()


@pytest.mark.parametrize(
  ('change', 'error'),
  [
    ({'target': 'x'}, "^target is 'x'; .*'single', 'double', 'clipped'.*$"),
    ({'loss': 'x'}, "^loss is 'x'; .*'cross_entropy', 'squared'.*$"),
    ({'lag': 0}, '^lag is 0; .*$'),
    ({'value_range': (1.0, 1.0)}, '^value_range is .*, the lower one first$'),
    ({'cem': cem.Options(elites=99)}, '^CEM has .*$'),
    ({'label_cem': cem.Options(iterations=0)}, '^CEM has .*$'),
    ({'cem': cem.Options(deviation=0.0)}, '^CEM has deviation 0.0 and .*$'),
    ({'polyak': 1.0}, '^polyak is 1.0; choose .*$'),
    ({'momentum': -0.1}, '^momentum is -0.1; choose .*$'),
    ({'weight_decay': -1.0}, '^weight_decay is -1.0; choose 0 or more$'),
    ({'noise': noisy.Options(1.5, (1, 0, 0), 0.5, 0.5)}, '^noise.epsilon is 1.5; .*$'),
    ({'noise': noisy.Options(0.5, (0, 0, 0), 0.5, 0.5)}, '^noise.weights are .*$'),
    ({'noise': noisy.Options(0.5, (1, 0, 0), -1.0, 0.5)}, '^noise deviates by .*$'),
    ({'network': 'things', 'hidden': ()}, '^hidden is empty; choose .*$'),
    ({'angles': 3}, '^3 angles .*$'),
  ],
)
def test_impossible_configs_are_refused(spec, config, change, error):
  with pytest.raises(ValueError, match=error):
    qtopt.make(spec, config._replace(**change))
