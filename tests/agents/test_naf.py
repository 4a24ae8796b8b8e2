"""NAF and Linear-NAF: the quadratic, the networks and the loss, by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types
from armfarm.agents.naf import agent as naf
from armfarm.agents.naf import losses
from armfarm.agents.naf import networks
from armfarm.agents.networks import Normalization

_NONE = Normalization('none')


def _dense(kernel, *bias):
  layer = {'kernel': jnp.array(kernel)}
  return dict(layer, bias=jnp.array(*bias)) if bias else layer


def test_naf_q(variant):
  # u - mu = (1, 1) and L = [[1, 0], [2, 3]]: P = L L^T = [[1, 2], [2, 13]], whose
  # entries sum to 18, so Q = 1 - 18 / 2. (With L^T L they would sum to 26.)
  tril = jnp.array([[1.0, 0.0], [2.0, 3.0]])
  mu, u = jnp.array([0.5, -0.5]), jnp.array([1.5, 0.5])
  q = variant(losses.naf_q)
  assert q(jnp.float32(1.0), tril, mu, u) == -8.0
  assert q(jnp.float32(1.0), tril, mu, mu) == 1.0
  assert variant(losses.batch_naf_q)(
    jnp.array([1.0, 2.0]),
    jnp.stack([tril, tril]),
    jnp.stack([mu, mu]),
    jnp.stack([u, mu]),
  ).tolist() == [-8.0, 2.0]


def test_naf_q_gradient(variant):
  # dQ/dV = 1, dQ/du = -P (u - mu) = -(3, 15), dQ/dmu the opposite.
  tril = jnp.array([[1.0, 0.0], [2.0, 3.0]])
  mu, u = jnp.array([0.5, -0.5]), jnp.array([1.5, 0.5])
  gradient = variant(jax.grad(losses.naf_q, argnums=(0, 2, 3)))
  dv, dmu, du = gradient(jnp.float32(1.0), tril, mu, u)
  assert (dv, dmu.tolist(), du.tolist()) == (1.0, [3.0, 15.0], [-3.0, -15.0])


def test_lower_triangular(variant):
  # exp(0) and exp(log 3) on the diagonal, 9 above it ignored, 2 below it kept.
  entries = jnp.array([[[0.0, 9.0], [2.0, jnp.log(3.0)]]])
  tril = variant(networks.lower_triangular)(entries)
  np.testing.assert_allclose(tril, [[[1, 0], [2, 3]]], rtol=1e-6)


def test_lower_triangular_gradient(variant):
  # exp(1000) overflows, but only the diagonal is exponentiated: d sum L is exp(0) on
  # the diagonal, 1 below and 0 above.
  entries = jnp.array([[0.0, 1000.0], [1000.0, 0.0]])
  gradient = variant(jax.grad(lambda x: jnp.sum(networks.lower_triangular(x))))
  assert gradient(entries).tolist() == [[1.0, 0.0], [1.0, 1.0]]


@pytest.fixture(params=networks.NETWORKS)
def network(request):
  return networks.make(request.param, 2, (8, 8), _NONE)


@pytest.fixture
def params(network):
  """Random ones, far from their initial values."""
  init = functools.partial(network.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros([1, 3]))['params']
  random = np.random.default_rng(0)
  return jax.tree.map(lambda x: jnp.float32(random.uniform(-1, 1, x.shape)), shapes)


@functools.partial(jax.jit, static_argnums=0)
def _heads(network, params):
  x = jax.random.normal(jax.random.key(2), [50, 3])
  return network.apply({'params': params}, x, False)


def test_p_is_positive_definite(network, params):
  heads = _heads(network, params)
  p = heads.tril @ jnp.swapaxes(heads.tril, -1, -2)
  assert jnp.linalg.eigvalsh(p).min() > 1e-4
  assert jnp.ptp(heads.mu, axis=0).min() > 0.1


def test_q_is_maximal_at_mu(network, params):
  heads = _heads(network, params)
  others = jax.random.uniform(jax.random.key(3), [50, 2], minval=-1.0)
  q = functools.partial(losses.batch_naf_q, heads.value, heads.tril, heads.mu)
  assert (q(heads.mu) == heads.value).all()
  assert (q(others) < heads.value).all()


def test_only_the_linear_p_is_constant(network, params):
  heads = _heads(network, params)
  spread = jnp.ptp(heads.tril, axis=0).max()
  assert (spread == 0.0) == isinstance(network, networks.LinearNAF)


@pytest.mark.parametrize('changed', ['mu', 'tril', 'value'])
def test_networks_are_separate(network, params, changed):
  assert set(params) == {'mu', 'tril', 'value'}
  moved = jax.tree.map(lambda leaf: leaf + 0.1, params[changed])
  before = _heads(network, params)
  after = _heads(network, {**params, changed: moved})
  for name in ('mu', 'tril', 'value'):
    same = (getattr(before, name) == getattr(after, name)).all()
    assert same == (name != changed), name


def _linear(bias, mu=0.0, observation_size=1):
  """Linear-NAF with one action, V(x) = bias, mu(x) = tanh(mu) and P = 1."""
  zeros = jnp.zeros([observation_size, 1])
  square = jnp.zeros([observation_size, observation_size])
  return {
    'mu': {'MLP_0': {'Dense_0': _dense(zeros, [mu])}},
    'tril': {'entries': jnp.zeros([1, 1])},
    'value': {'Dense_0': _dense(square), 'Dense_1': _dense(zeros, [bias])},
  }


def test_linear_naf(variant):
  # x = (1, 2): x^T B x = 1 + 2*2 + 2*3 + 4*4 = 27 and b^T x = 5 + 12 = 17, so
  # V = 27 + 17 + 7; mu = tanh(0.5 + 1 - 1).
  network = networks.make('linear', 1, (), _NONE)
  params = _linear(7.0, observation_size=2)
  params['mu']['MLP_0']['Dense_0'] = _dense([[1.0], [-0.5]], [0.5])
  params['value']['Dense_0'] = _dense([[1.0, 2.0], [3.0, 4.0]])
  params['value']['Dense_1'] = _dense([[5.0], [6.0]], [7.0])
  apply = variant(lambda x: network.apply({'params': params}, x, False))
  heads = apply(jnp.array([[1.0, 2.0]]))
  assert heads.value.tolist() == [51.0]
  assert heads.tril.tolist() == [[[1.0]]]
  np.testing.assert_allclose(heads.mu, [[np.tanh(0.5)]], rtol=1e-6)


def test_loss(variant, subjects):
  # V = 1, mu = 0, P = 1; V' = 4, r = 1, gamma = 1/2.
  #   under way,  u = 0:  y = 1 + 4/2 = 3, Q = 1,        error 2
  #   terminated, u = 1:  y = 1,           Q = 1 - 1/2,  error 1/2
  # Mean square (4 + 1/4) / 2; mean Q 3/4.
  config = subjects['linear-naf'].config(normalization='none')
  network = networks.make('linear', 1, (), _NONE)
  state = naf.LearnerState(_linear(1.0), {}, _linear(4.0)['value'], ())
  x, ones = jnp.zeros([2, 1]), jnp.ones([2])
  u, discount = jnp.array([[0.0], [1.0]]), jnp.array([1.0, 0.0])
  batch = types.Transition(x, u, ones, discount, jnp.zeros([2]), x)
  value, (_, metrics) = variant(lambda p: naf.loss(p, network, config, state, batch))(
    state.params
  )
  assert (value, metrics['loss'], metrics['q']) == (2.125, 2.125, 0.75)


@pytest.mark.parametrize('name', ['naf', 'linear-naf'])
def test_loss_gradient(subjects, scatter, batch, differentiate, name):
  config, state = subjects[name].config(), scatter(subjects[name].make())
  normalization = Normalization(config.normalization)
  network = networks.make(config.network, 2, config.hidden, normalization)

  def loss(params, target, reward, action):
    examples = batch._replace(reward=reward, action=action)
    moved = state._replace(target=target)
    return naf.loss(params, network, config, moved, examples)[0]

  _, target, reward, action = differentiate(
    loss, state.params, state.target, batch.reward, batch.action
  )
  assert not any(leaf.any() for leaf in jax.tree.leaves((target, reward)))
  assert action.any()
