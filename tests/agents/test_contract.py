"""What every agent owes its caller."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm import agents
from armfarm.agents import exploration
from armfarm.agents import networks
from armfarm.agents import types


class Learner(NamedTuple):
  """An agent, a state of its learner, and functions compiled once for all tests.

  Attributes:
    agent: under test.
    state: scattered.
    init: `key -> state`.
    update: `state, batch, **numbers -> state, metrics`; consumes the state's memory.
    traces: grows when `update` is traced.
  """

  agent: types.Agent
  state: Any
  init: Any
  update: Any
  traces: list


@pytest.fixture(scope='module')
def learner(subject, scatter):
  agent, traces = subject.make(), []
  defaults = {name: subject.numbers[name] for name in ('tau', *subject.rates)}

  @functools.partial(jax.jit, donate_argnums=1)
  def compiled(numbers, state, batch, key):
    traces.append(numbers)
    return subject.make(**numbers).update(state, batch, key)

  def update(state, batch, **numbers):
    return compiled({**defaults, **numbers}, state, batch, jax.random.key(2))

  return Learner(agent, scatter(agent), jax.jit(agent.init), update, traces)


def _update(learner, batch, **numbers):
  """Updates the scattered state, which stays."""
  return learner.update(jax.tree.map(jnp.copy, learner.state), batch, **numbers)


def _equal(left, right):
  """Whether every array is bit-equal."""
  same = jax.tree.map(lambda x, y: bool((x == y).all()), left, right)
  return all(jax.tree.leaves(same))


def _loss(learner, batch):
  return float(_update(learner, batch)[1]['loss'])


# Update.


def test_update_is_deterministic(learner, batch):
  chex.assert_trees_all_equal(*[_update(learner, batch) for _ in range(2)])


def test_update_traces_once_and_reuses_its_memory(learner, batch):
  state = learner.init(jax.random.key(0))
  first = jax.tree.leaves(state)
  for _ in range(5):
    state, metrics = learner.update(state, batch)
  assert all(leaf.is_deleted() for leaf in first)
  assert len(learner.traces) == 1
  chex.assert_tree_all_finite((state, metrics))
  assert {metric.shape for metric in metrics.values()} == {()}


def test_target_starts_as_a_copy(subject, learner):
  state = learner.init(jax.random.key(0))
  assert _equal(state.target, subject.copied(state.params))


@pytest.mark.parametrize('tau', [0.0, 0.25, 1.0])
def test_target_follows(subject, learner, batch, tau):
  # theta' <- tau theta + (1 - tau) theta', with theta after its step.
  new, _ = _update(learner, batch, tau=tau)
  theta, old = subject.copied(new.params), learner.state.target
  mixed = jax.tree.map(lambda x, y: tau * x + (1 - tau) * y, theta, old)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  jax.tree.map(
    close if 0 < tau < 1 else np.testing.assert_array_equal, new.target, mixed
  )


def test_a_rate_moves_its_own_network(subject, learner, batch):
  for frozen in subject.rates:
    new, _ = _update(learner, batch, **{frozen: 0.0})
    for name, part in subject.rates.items():
      stayed = _equal(part(new.params), part(learner.state.params))
      assert stayed == (name == frozen), (frozen, name)


def test_metrics(learner, batch):
  metrics = _update(learner, batch)[1]
  assert {'loss', 'q', 'gradient_norm'} <= set(metrics)
  assert float(metrics['gradient_norm']) > 0.0


# Batch normalisation.


def test_update_moves_every_average(learner, batch):
  new, _ = _update(learner, batch)
  same = jax.tree.map(lambda x, y: (x == y).all(), learner.state, new).statistics
  assert jax.tree.leaves(same)
  assert not any(jax.tree.leaves(same))


def _with_other_averages(learner):
  other = jax.tree.map(lambda x: 2.0 * x, learner.state.statistics)
  return learner._replace(state=learner.state._replace(statistics=other))


def test_learner_uses_the_batch(learner, batch):
  last = batch._replace(discount=jnp.zeros_like(batch.discount))  # y = r: no target
  loss = _loss(learner, last)
  assert loss == _loss(_with_other_averages(learner), last)
  assert loss != _loss(learner, batch)


def test_target_uses_the_batch(learner, batch):
  loss = _loss(learner, batch)
  assert loss == _loss(_with_other_averages(learner), batch)


def test_what_normalises_the_target_of_an_example(subject, learner, batch):
  # The batch of x or, in DDPG, that of x': docs/decisions.md says why.
  # Only the first goes on, so that only its next observation can matter.
  discount = jnp.zeros_like(batch.discount).at[0].set(1.0)
  alone = batch._replace(discount=discount)
  moved = [
    alone._replace(next_observation=alone.next_observation.at[rows].multiply(-9.0))
    for rows in (slice(1, None), slice(0, 1))
  ]
  loss, of_others, of_its_own = (
    _loss(learner, examples) for examples in (alone, *moved)
  )
  assert (abs(of_others / loss - 1.0) <= 1e-6) == subject.alone
  assert abs(of_its_own / loss - 1.0) > 1e-4


@pytest.mark.parametrize('normalization', ['none', 'layer'])
def test_other_normalizations_keep_no_averages(subject, batch, normalization):
  agent = subject.make(normalization=normalization)
  state = jax.eval_shape(agent.init, jax.random.key(0))
  new, _ = jax.eval_shape(agent.update, state, batch, jax.random.key(1))
  assert jax.tree.leaves((state.statistics, new.statistics)) == []
  chex.assert_trees_all_equal_shapes_and_dtypes(state, new)


# Acting.


def _policy(subject, variables):
  """A bare policy with the variables of an agent: same leaves, other names."""
  config = subject.config()
  hidden = () if subject.numbers.get('network') == 'linear' else config.hidden
  module = networks.Policy(hidden, 2, networks.Normalization(config.normalization))
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros([1, 3]), False)
  )
  leaves, structure = jax.tree.flatten(shapes)
  assert [leaf.shape for leaf in jax.tree.leaves(variables)] == [
    leaf.shape for leaf in leaves
  ]
  return lambda x: module.apply(
    structure.unflatten(jax.tree.leaves(variables)), x, False
  )


def test_variables_are_a_policy_with_running_averages(subject, learner, batch):
  variables = learner.agent.variables(learner.state)
  key = jax.random.key(0)
  act = jax.jit(jax.vmap(learner.agent.act, in_axes=(None, 0, None)))
  together = jax.jit(_policy(subject, variables))(batch.observation)
  u = act(variables, batch.observation, key)
  chex.assert_shape(u, (12, 2))
  np.testing.assert_allclose(u, together, rtol=1e-4, atol=1e-6)
  assert (u[0] != u[1]).all()


def test_act_draws_nothing(learner, batch):
  act, variables = jax.jit(learner.agent.act), learner.agent.variables(learner.state)
  u, v = (act(variables, batch.observation[0], jax.random.key(i)) for i in range(2))
  assert (u == v).all()


def test_explore_adds_its_noise(learner, batch):
  agent, x = learner.agent, batch.observation[0]
  variables = agent.variables(learner.state)
  explore = jax.jit(agent.explore)
  start = agent.begin(jax.random.key(0))
  assert start.noise.tolist() == [0.0, 0.0]
  mu = agent.act(variables, x, jax.random.key(0))
  noises = []
  for i in range(2):
    u, state = explore(variables, start, x, jax.random.key(i))
    expected = jnp.clip(mu + state.noise, -1.0, 1.0)
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-6)
    noises.append(state.noise)
  assert (noises[0] != noises[1]).all()
  assert (noises[0] != 0.0).all()


def test_explore_is_clipped_and_its_noise_is_not(subject, learner, batch):
  # With sigma 0 and theta 0.25, noise of (400, -400) goes to (300, -300).
  agent = subject.make(noise_theta=0.25, noise_sigma=0.0)
  state = exploration.OrnsteinUhlenbeck(jnp.array([400.0, -400.0]))
  variables = agent.variables(learner.state)
  u, state = agent.explore(variables, state, batch.observation[0], jax.random.key(0))
  assert u.tolist() == [1.0, -1.0]
  assert state.noise.tolist() == [300.0, -300.0]


@pytest.mark.parametrize('normalization', networks.NORMALIZATIONS)
@pytest.mark.parametrize('hidden', [(8, 8), (6,)])
def test_the_host_explores_alike(subject, scatter, batch, normalization, hidden):
  agent = subject.make(normalization=normalization, hidden=hidden)
  variables = jax.tree.map(np.asarray, agent.variables(scatter(agent)))
  layers = agent.host.prepare(variables)
  start = exploration.OrnsteinUhlenbeck(np.float32([0.5, -0.25]))
  draw = np.float32([0.75, -1.5])
  noise = 0.85 * start.noise + 0.2 * draw  # theta and sigma of conftest
  mu = jax.jit(jax.vmap(agent.act, in_axes=(None, 0, None)))(
    variables, batch.observation, jax.random.key(0)
  )
  for x, u in zip(np.asarray(batch.observation), mu, strict=True):
    action, state = agent.host.explore(layers, start, x, draw)
    np.testing.assert_allclose(action, np.clip(u + noise, -1, 1), atol=2e-6)
    np.testing.assert_allclose(state.noise, noise, rtol=1e-6)
    assert action.dtype == state.noise.dtype == np.float32


def test_label_changes_nothing(learner, batch):
  labelled = learner.agent.label({}, (), batch, jax.random.key(0))
  assert labelled == (batch, ())


# Config.


def test_an_unknown_normalization_is_refused(subject):
  with pytest.raises(
    ValueError, match="^normalization is 'x'; .*'none', 'batch', 'layer'.*$"
  ):
    subject.make(normalization='x')


def test_an_unknown_network_is_refused(subjects):
  with pytest.raises(ValueError, match="^network is 'x'; .*'mlp', 'linear'.*$"):
    subjects['naf'].make(network='x')


def test_every_agent_is_tested(subjects):
  elsewhere = {agents.AGENTS[name] for name in ('qtopt', 'supervised')}  # in `qtopt`
  here = {subject.entry for subject in subjects.values()}
  assert here | elsewhere == set(agents.AGENTS.values())
