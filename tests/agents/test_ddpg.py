"""DDPG: the critic and both losses, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import networks
from armfarm.agents import types
from armfarm.agents.ddpg import agent as ddpg
from armfarm.agents.ddpg.networks import Critic
from armfarm.agents.networks import Normalization

_NONE = Normalization('none')


def _dense(kernel, bias):
  return {'kernel': jnp.array(kernel), 'bias': jnp.array(bias)}


def _critic(x=0.0, u=1.0, inner=0.0, outer=0.0, head=1.0, last=0.0):
  """Q(x, u) = head * relu(relu(x_1 + inner) * x + u_1 * u + outer) + last."""
  return {
    'Torso_0': {'Dense_0': _dense([[1.0]], [inner])},
    'Dense_0': _dense([[x], [u]], [outer]),
    'Dense_1': _dense([[head]], [last]),
  }


def test_critic(variant):
  # x = 2, u = -1: h = relu(2 + 1) = 3, then relu(2*3 - 4*1 - 1) = 1, then 5*1 + 7.
  params = _critic(x=2.0, u=4.0, inner=1.0, outer=-1.0, head=5.0, last=7.0)
  apply = variant(
    lambda x, u: Critic((1, 1), _NONE).apply({'params': params}, x, u, False)
  )
  assert apply(jnp.array([[2.0]]), jnp.array([[-1.0]])).tolist() == [12.0]


@pytest.mark.parametrize('normalization', networks.NORMALIZATIONS)
def test_the_action_enters_the_second_layer(normalization):
  critic, key = (
    Critic((100, 100), Normalization(normalization)),
    jax.random.key(0),
  )
  shapes = jax.eval_shape(
    lambda: critic.init(key, jnp.zeros([1, 17]), jnp.zeros([1, 7]), False)
  )
  params = shapes['params']
  assert params['Torso_0']['Dense_0']['kernel'].shape == (17, 100)
  assert params['Dense_0']['kernel'].shape == (107, 100)
  assert params['Dense_1']['kernel'].shape == (100, 1)
  assert set(params) == {'Torso_0', 'Dense_0', 'Dense_1'}  # nothing else after it


def _networks():
  return ddpg.Pair(networks.Policy((), 1, _NONE), Critic((1, 1), _NONE))


def _actor(u):
  return {'MLP_0': {'Dense_0': _dense([[0.0]], [np.arctanh(u)])}}


def _state(mu, target_mu):
  """Q(x, u) = u for u > -2 and mu(x) = mu; Q'(x, u) = 3 u and mu'(x) = target_mu."""
  return ddpg.LearnerState(
    params=ddpg.Pair(_actor(mu), _critic(outer=2.0, last=-2.0)),
    statistics=ddpg.Pair({}, {}),
    target=ddpg.Pair(_actor(target_mu), _critic(outer=2.0, head=3.0, last=-6.0)),
    optimizer=ddpg.Pair((), ()),
  )


def test_critic_loss(variant, subjects):
  # Q' = 3 * 0.5, r = 1, gamma = 1/2.
  #   under way,  u = 0:    y = 1 + 1.5/2, Q = 0,   error 7/4
  #   terminated, u = 0.5:  y = 1,         Q = 0.5, error 1/2
  # Mean square (49/16 + 4/16) / 2; mean Q 1/4.
  state, x, ones = _state(mu=0.25, target_mu=0.5), jnp.zeros([2, 1]), jnp.ones([2])
  u, discount = jnp.array([[0.0], [0.5]]), jnp.array([1.0, 0.0])
  batch = types.Transition(x, u, ones, discount, jnp.zeros([2]), x)
  arguments = _networks(), subjects['ddpg'].config(normalization='none'), state, batch
  loss = variant(lambda params: ddpg.critic_loss(params, *arguments))
  value, (_, metrics) = loss(state.params.critic)
  np.testing.assert_allclose(value, 53 / 32, rtol=1e-6)
  np.testing.assert_allclose(
    [metrics['loss'], metrics['q']], [53 / 32, 0.25], rtol=1e-6
  )


def test_actor_loss(variant):
  # Q(x, mu(x)) = mu(x) = 1/4 under the learner; its slope along the bias of the tanh
  # is 1 - (1/4)^2.
  state, x = _state(mu=0.25, target_mu=0.5), jnp.zeros([2, 1])
  arguments = _networks(), state, x
  loss = jax.value_and_grad(lambda p: ddpg.actor_loss(p, *arguments)[0])
  value, gradient = variant(loss)(state.params.actor)
  np.testing.assert_allclose(value, -0.25, rtol=1e-6)
  bias = gradient['MLP_0']['Dense_0']['bias']
  np.testing.assert_allclose(bias, [-15 / 16], rtol=1e-6)


@pytest.fixture
def setting(subjects, scatter):
  """Networks, config and a learner with batch normalisation."""
  config = subjects['ddpg'].config()
  shape = config.hidden, Normalization(config.normalization)
  network = ddpg.Pair(networks.Policy(shape[0], 2, shape[1]), Critic(*shape))
  return network, config, scatter(subjects['ddpg'].make())


def test_critic_loss_gradient(setting, batch, differentiate):
  network, config, state = setting

  def loss(params, target, reward, action):
    examples = batch._replace(reward=reward, action=action)
    moved = state._replace(target=target)
    return ddpg.critic_loss(params, network, config, moved, examples)[0]

  _, target, reward, action = differentiate(
    loss, state.params.critic, state.target, batch.reward, batch.action
  )
  assert not any(leaf.any() for leaf in jax.tree.leaves((target, reward)))
  assert action.any()


def test_targets_are_normalized_by_their_own_batch(setting, batch):
  # Whatever the unit and origin of x', and wherever x is.
  network, _, state = setting
  value = jax.jit(lambda batch: ddpg.target_value(network, state, batch))
  x, x_t = batch.observation, batch.next_observation
  moved = batch._replace(observation=x + 5.0, next_observation=100.0 * x_t - 30.0)
  np.testing.assert_allclose(value(moved), value(batch), rtol=1e-3, atol=1e-4)


def test_actor_loss_gradient(setting, batch, differentiate):
  network, _, state = setting

  def loss(params, observation):
    return ddpg.actor_loss(params, network, state, observation)[0]

  differentiate(loss, state.params.actor, batch.observation)
