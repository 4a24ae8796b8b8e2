"""The global policy: moments, the loss, and linearisations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from armfarm.agents import networks
from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import policy as global_policy

_NONE = networks.Normalization('none')

# Compiled, each is one program for all tests of a shape.
_moments = jax.jit(global_policy.moments)
_merge = jax.jit(global_policy.merge)
_normalize = jax.jit(global_policy.normalize)
_mean = jax.jit(global_policy.mean, static_argnums=0)
_loss = jax.jit(global_policy.loss, static_argnums=1)
_mean_precision = jax.jit(global_policy.mean_precision)
_log_density = jax.jit(global_policy.log_density, static_argnums=0)
_linearize = jax.jit(global_policy.linearize, static_argnums=(0, 3))
_regress = jax.jit(global_policy.regress)
_mean_action = jax.jit(lg.mean_action)
_covariance = jax.jit(lg.covariance)


def _policy(hidden=(8,), seed=0, size=4):
  """A random network of `size` inputs and two actions that normalises."""
  module, random = networks.MLP(hidden, 2, _NONE), np.random.default_rng(seed)
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros([1, size]), False)
  )['params']
  params = jax.tree.map(lambda x: random.normal(size=x.shape), shapes)
  seen = _moments(random.normal(size=[9, size]), np.ones(9))
  network = global_policy.Network(module, 1e-3)
  return network, global_policy.Policy(params, seen, np.array([4.0, 25.0]))


def _examples(count=6, seed=1):
  random = np.random.default_rng(seed)
  root = random.normal(size=[count, 2, 2])
  return global_policy.Examples(
    random.normal(size=[count, 4]),
    random.normal(size=[count, 2]),
    root @ root.swapaxes(1, 2) + np.eye(2),
    random.uniform(0.5, 2.0, count),
  )


def test_moments_of_parts_are_those_of_all(double):
  o = 3.0 + 2.0 * np.random.default_rng(0).normal(size=[20, 3])
  weight = (np.arange(20) % 4).astype(float)  # every fourth does not count
  parts = [_moments(o[i : i + 5], weight[i : i + 5]) for i in (0, 5, 10, 15)]
  seen = global_policy.no_moments(3)
  for part in parts:
    seen = _merge(seen, part)
  counted = o[weight > 0.0]
  assert seen.count == len(counted)
  np.testing.assert_allclose(seen.mean, counted.mean(0), rtol=1e-12)
  np.testing.assert_allclose(
    np.divide(seen.squares, seen.count), counted.var(0), rtol=1e-12
  )
  normal = np.asarray(_normalize(seen, counted, 1e-3))
  np.testing.assert_allclose(normal.std(0), 1.0, rtol=1e-12)


@pytest.mark.parametrize('least', [1e-3, 0.05, 2.0])
def test_normalisation_before_and_of_what_hardly_varies(double, least):
  o = np.array([[2.0, 7.0], [4.0, 7.0]])
  none = global_policy.no_moments(2)
  np.testing.assert_array_equal(_normalize(none, o, least), o)
  seen = _moments(o, np.ones(2))
  moved = _normalize(seen, o + np.array([[0.0, 0.001]]), least)
  first, second = 1.0 / max(least, 1.0), 0.001 / least
  np.testing.assert_allclose(moved, [[-first, second], [first, second]], rtol=1e-9)


def test_loss_by_hand(double):
  network, policy = _policy()
  examples = _examples()
  expected = [
    0.5 * w * (m - u) @ p @ (m - u)
    for m, u, p, w in zip(
      np.asarray(_mean(network, policy, examples.observation)),
      *examples[1:],
      strict=True,
    )
  ]
  found = _loss(policy.params, network, policy.moments, examples)
  np.testing.assert_allclose(found, np.mean(expected), rtol=1e-12)


def test_mean_and_covariance_minimise_the_divergence(double):
  # sum_b w KL(N(m, diag v) || N(u_b, P_b^-1)) has no slope in v at 1 / mean_precision.
  examples = _examples()

  def divergence(variance):
    traces = jnp.einsum('baa,a->b', examples.precision, variance)
    return jnp.sum(examples.weight * (traces - jnp.sum(jnp.log(variance))))

  best = 1.0 / np.asarray(_mean_precision(examples))
  np.testing.assert_allclose(jax.jit(jax.grad(divergence))(best), 0.0, atol=1e-10)


def test_weights_of_nought_teach_nothing(double):
  network, policy = _policy()
  examples = _examples()
  taught = np.arange(6) < 3
  padded = examples._replace(weight=np.where(taught, examples.weight, 0.0))
  moved = padded._replace(action=padded.action + 9.0 * ~taught[:, None])
  arguments = policy.params, network, policy.moments
  assert _loss(*arguments, padded) == _loss(*arguments, moved)
  np.testing.assert_array_equal(
    _mean_precision(padded),
    _mean_precision(moved._replace(precision=padded.precision)),
  )
  nothing = examples._replace(weight=np.zeros(6))
  assert _moments(nothing.observation, nothing.weight).count == 0.0
  np.testing.assert_array_equal(_mean_precision(nothing), 0.0)


def test_log_density_is_that_of_scipy(double):
  network, policy = _policy()
  examples = _examples()
  found = _log_density(network, policy, examples.observation, examples.action)
  mean = _mean(network, policy, examples.observation)
  for x, m, u in zip(np.asarray(found), np.asarray(mean), examples.action, strict=True):
    density = scipy.stats.multivariate_normal(m, np.diag([0.25, 0.04]))
    np.testing.assert_allclose(x, density.logpdf(u), rtol=1e-10)


def test_a_linear_policy_is_its_own_linearisation(double):
  network, policy = _policy(hidden=(), size=5)
  observations = np.random.default_rng(2).normal(size=[3, 4, 5])
  observations[:, :, 3:] = 0.7  # a goal, the same everywhere
  found = _linearize(network, policy, observations, 3)
  np.testing.assert_allclose(
    _mean_action(found, observations[..., :3]),
    _mean(network, policy, observations),
    rtol=1e-10,
  )
  own = np.broadcast_to(np.diag([0.25, 0.04]), (4, 2, 2))
  np.testing.assert_allclose(_covariance(found), own, rtol=1e-9, atol=1e-12)


def test_linearisation_is_a_regression_on_gaussian_states(double):
  # Stein: E mu'(x) = Cov(mu, x) Cov(x)^-1, four standard errors of many samples.
  network, policy = _policy(size=3)
  x = np.random.default_rng(3).normal(size=[40_000, 1, 3])
  found = _linearize(network, policy, x, 3)
  means = np.asarray(_mean(network, policy, x))
  solution, *_ = np.linalg.lstsq(
    np.concatenate([x[:, 0], np.ones([len(x), 1])], 1), means[:, 0], rcond=None
  )
  apart = np.std(means[:, 0]) / np.sqrt(len(x))
  assert np.abs(np.asarray(found.gain)[0] - solution[:3].T).max() < 4.0 * apart
  rest = np.asarray(_covariance(found))[0] - np.diag([0.25, 0.04])
  assert np.linalg.eigvalsh(rest).min() > 0.0


def test_one_rollout_is_enough(double):
  network, policy = _policy()
  observations = np.random.default_rng(2).normal(size=[1, 4, 4])
  found = _linearize(network, policy, observations, 4)
  np.testing.assert_allclose(
    _mean_action(found, observations),
    _mean(network, policy, observations),
    rtol=1e-10,
  )
  assert np.isfinite(found.scale_tril).all()


def test_golden_regression(double, golden):
  known = golden('mdgps')
  arguments = known['in_pol_mu'], known['in_pol_sig'], known['in_X']
  strength = float(known['in_prior_strength'])
  first = _regress(*(x[:, :1] for x in arguments), strength, 1e-8)
  later = _regress(*(x[:, 1:] for x in arguments), strength, 0.0)
  found = jax.tree.map(lambda x, y: np.concatenate([x, y]), first, later)
  for x, name in (
    (found.gain, 'K'),
    (found.offset, 'k'),
    (_covariance(found), 'S'),
  ):
    expected = known[f'out_pol_{name}']
    error = np.abs(x - expected).max() / np.abs(expected).max()
    assert error < 1e-8, (name, error)
