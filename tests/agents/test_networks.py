"""The shared modules, on numbers small enough for a hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import networks


def _dense(kernel, bias):
  return {'kernel': jnp.array(kernel), 'bias': jnp.array(bias)}


@pytest.mark.parametrize('kind', ['none', 'layer'])
def test_normalization_without_state(kind):
  module, x = networks.Normalize(networks.Normalization(kind)), jnp.ones([4, 3])
  assert 'batch_stats' not in module.init(jax.random.key(0), x, True)


def test_layer_normalization(variant):
  # Each row by itself: (1, 3) has mean 2 and standard deviation 1.
  module, x = (
    networks.Normalize(networks.Normalization('layer')),
    jnp.array([[1.0, 3.0], [20.0, 40.0]]),
  )
  variables = module.init(jax.random.key(0), x, True)
  for train in (True, False):
    y = variant(lambda x, train=train: module.apply(variables, x, train))(x)
    np.testing.assert_allclose(y, [[-1, 1], [-1, 1]], atol=1e-5)


def test_batch_normalization(variant):
  # Each column by itself: (1, 3) has mean 2 and variance 1; (2, 6) 4 and 4. The
  # averages start at 0 and 1 and move by one hundredth of the way.
  module, x = (
    networks.Normalize(networks.Normalization('batch')),
    jnp.array([[1.0, 2.0], [3.0, 6.0]]),
  )
  variables = module.init(jax.random.key(0), x, False)
  apply = variant(lambda v, x: module.apply(v, x, True, mutable=['batch_stats']))
  y, new = apply(variables, x)
  np.testing.assert_allclose(y, [[-1, -1], [1, 1]], atol=1e-5)
  statistics = new['batch_stats']['BatchNorm_0']
  np.testing.assert_allclose(statistics['mean'], [0.02, 0.04], rtol=1e-5)
  np.testing.assert_allclose(statistics['var'], [1.0, 1.03], rtol=1e-5)


def test_batch_normalization_evaluates_with_running_averages(variant):
  # Averages 1 and 4: (x - 1) / 2, whatever else is in the batch.
  module = networks.Normalize(networks.Normalization('batch'))
  scale = {'scale': jnp.ones([1]), 'bias': jnp.zeros([1])}
  averages = {'mean': jnp.array([1.0]), 'var': jnp.array([4.0])}
  variables = {
    'params': {'BatchNorm_0': scale},
    'batch_stats': {'BatchNorm_0': averages},
  }
  apply = variant(lambda x: module.apply(variables, x, False))
  np.testing.assert_allclose(apply(jnp.array([[3.0]])), [[1.0]], rtol=1e-5)
  np.testing.assert_allclose(apply(jnp.array([[3.0], [5.0]])), [[1], [2]], rtol=1e-5)


@pytest.mark.parametrize('kind', networks.NORMALIZATIONS)
def test_batch_statistics_are_those_of_training(variant, kind):
  module = networks.MLP((4, 3), 2, networks.Normalization(kind))
  x, y = jax.random.normal(jax.random.key(0), [2, 5, 3])
  variables = {'batch_stats': {}, **module.init(jax.random.key(1), x, False)}

  def apply(x, y):
    statistics = networks.batch_statistics(module, variables, x)
    together = {**variables, 'batch_stats': statistics}
    return [module.apply(together, rows, train=False) for rows in (x, y, y[:1])]

  of_x, of_y, alone = variant(apply)(x, y)
  trained, _ = module.apply(variables, x, train=True, mutable=['batch_stats'])
  np.testing.assert_allclose(of_x, trained, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(alone, of_y[:1], rtol=1e-4, atol=1e-6)
  assert not np.allclose(of_x, of_y)


def test_mlp(variant):
  # x = (1, 2): hidden relu(1*1 + 2*1 - 1, 1*1 - 2*1 + 0) = relu(2, -1) = (2, 0), then
  # 3 * 2 + 5 * 0 + 4 = 10.
  params = {
    'Torso_0': {'Dense_0': _dense([[1.0, 1.0], [1.0, -1.0]], [-1.0, 0.0])},
    'Dense_0': _dense([[3.0], [5.0]], [4.0]),
  }
  module = networks.MLP((2,), 1, networks.Normalization('none'))
  apply = variant(lambda x: module.apply({'params': params}, x, True))
  assert apply(jnp.array([[1.0, 2.0]])).tolist() == [[10.0]]


@pytest.mark.parametrize(
  ('kind', 'normalized'), [('none', []), ('layer', [5, 7]), ('batch', [3, 5, 7])]
)
def test_only_batch_normalization_covers_the_input(kind, normalized):
  init = networks.Torso((5, 7), networks.Normalization(kind)).init
  shapes = jax.eval_shape(lambda: init(jax.random.key(0), jnp.zeros([1, 3]), True))
  params = jax.tree.leaves_with_path(shapes['params'])
  scales = [leaf.size for path, leaf in params if path[-1].key == 'scale']
  assert sorted(scales) == normalized


def test_initial_scales():
  # Uniform within 1 / sqrt(fan_in) = 1 / 5, and within 3e-3 at the end.
  init = jax.jit(
    functools.partial(
      networks.MLP((400,), 40, networks.Normalization('none')).init, train=True
    )
  )
  params = init(jax.random.key(0), jnp.zeros([1, 25]))['params']
  hidden = np.abs(params['Torso_0']['Dense_0']['kernel'])
  last = np.abs(params['Dense_0']['kernel'])
  assert 0.199 < hidden.max() <= 0.2
  assert 0.00299 < last.max() <= 0.003


def test_a_policy_is_bounded(variant):
  # tanh(x) of x = 0, 1 and far away.
  module, params = (
    networks.Policy((), 1, networks.Normalization('none')),
    {'Dense_0': _dense([[1.0]], [0.0])},
  )
  apply = variant(lambda x: module.apply({'params': {'MLP_0': params}}, x, False))
  u = apply(jnp.array([[0.0], [1.0], [-1e6]]))
  np.testing.assert_allclose(u, [[0], [0.7615942], [-1]], rtol=1e-6)
