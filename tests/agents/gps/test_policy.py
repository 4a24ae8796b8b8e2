"""The global policy: moments, the loss, and linearisations."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from armfarm.agents import networks
from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import policy as global_policy

_NONE = networks.Normalization('none')


def _policy(hidden=(8,), seed=0, size=4):
  """A random network of `size` inputs and two actions that normalises."""
  network, random = networks.MLP(hidden, 2, _NONE), np.random.default_rng(seed)
  shapes = jax.eval_shape(
    lambda: network.init(jax.random.key(0), jnp.zeros([1, size]), False)
  )['params']
  params = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), shapes)
  seen = global_policy.moments(jnp.asarray(random.normal(size=[9, size])), jnp.ones(9))
  return network, global_policy.Policy(params, seen, jnp.array([4.0, 25.0]))


def _examples(count=6, seed=1):
  random = np.random.default_rng(seed)
  root = random.normal(size=[count, 2, 2])
  fields = (
    random.normal(size=[count, 4]),
    random.normal(size=[count, 2]),
    root @ root.swapaxes(1, 2) + np.eye(2),
    random.uniform(0.5, 2.0, count),
  )
  return global_policy.Examples(*map(jnp.asarray, fields))


def test_moments_of_parts_are_those_of_all(double):
  o = jnp.asarray(3.0 + 2.0 * np.random.default_rng(0).normal(size=[20, 3]))
  weight = jnp.asarray(np.arange(20) % 4, float)  # every fourth does not count
  parts = [global_policy.moments(o[i : i + 5], weight[i : i + 5]) for i in (0, 5, 10)]
  seen = global_policy.no_moments(3)
  for part in [*parts, global_policy.moments(o[15:], weight[15:])]:
    seen = global_policy.merge(seen, part)
  counted = o[weight > 0.0]
  assert seen.count == len(counted)
  np.testing.assert_allclose(seen.mean, counted.mean(0), rtol=1e-12)
  np.testing.assert_allclose(seen.squares / seen.count, counted.var(0), rtol=1e-12)
  normal = global_policy.normalize(seen, counted)
  np.testing.assert_allclose(normal.std(0), 1.0, rtol=1e-12)


def test_normalisation_before_and_of_constants(double):
  o = jnp.array([[2.0, 7.0], [4.0, 7.0]])
  none = global_policy.no_moments(2)
  np.testing.assert_array_equal(global_policy.normalize(none, o), o)
  seen = global_policy.moments(o, jnp.ones(2))
  moved = global_policy.normalize(seen, o + jnp.array([[0.0, 0.001]]))
  np.testing.assert_allclose(moved, [[-1.0, 1.0], [1.0, 1.0]], rtol=1e-9)


def test_loss_by_hand(double):
  network, policy = _policy()
  examples = _examples()
  expected = [
    0.5 * w * (m - u) @ p @ (m - u)
    for m, u, p, w in zip(
      np.asarray(global_policy.mean(network, policy, examples.observation)),
      *map(np.asarray, examples[1:]),
      strict=True,
    )
  ]
  found = global_policy.loss(policy.params, network, policy.moments, examples)
  np.testing.assert_allclose(found, np.mean(expected), rtol=1e-12)


def test_mean_and_covariance_minimise_the_divergence(double):
  # sum_b w KL(N(m, diag v) || N(u_b, P_b^-1)) has no slope in v at 1 / mean_precision.
  examples = _examples()

  def divergence(variance):
    traces = jnp.einsum('baa,a->b', examples.precision, variance)
    return jnp.sum(examples.weight * (traces - jnp.sum(jnp.log(variance))))

  best = 1.0 / global_policy.mean_precision(examples)
  np.testing.assert_allclose(jax.grad(divergence)(best), 0.0, atol=1e-10)


def test_weights_of_nought_teach_nothing(double):
  network, policy = _policy()
  examples = _examples()
  padded = examples._replace(weight=examples.weight.at[3:].set(0.0))
  moved = padded._replace(action=padded.action.at[3:].add(9.0))
  arguments = policy.params, network, policy.moments
  assert global_policy.loss(*arguments, padded) == global_policy.loss(*arguments, moved)
  np.testing.assert_array_equal(
    global_policy.mean_precision(padded),
    global_policy.mean_precision(moved._replace(precision=padded.precision)),
  )
  nothing = examples._replace(weight=jnp.zeros(6))
  assert global_policy.moments(nothing.observation, nothing.weight).count == 0.0
  np.testing.assert_array_equal(global_policy.mean_precision(nothing), 0.0)


def test_log_density_is_that_of_scipy(double):
  network, policy = _policy()
  examples = _examples()
  found = global_policy.log_density(
    network, policy, examples.observation, examples.action
  )
  mean = global_policy.mean(network, policy, examples.observation)
  for x, m, u in zip(found, mean, examples.action, strict=True):
    density = scipy.stats.multivariate_normal(m, np.diag([0.25, 0.04]))
    np.testing.assert_allclose(x, density.logpdf(u), rtol=1e-10)


def test_a_linear_policy_is_its_own_linearisation(double):
  network, policy = _policy(hidden=(), size=5)
  observations = jnp.asarray(np.random.default_rng(2).normal(size=[3, 4, 5]))
  observations = observations.at[:, :, 3:].set(0.7)  # a goal, the same everywhere
  found = global_policy.linearize(network, policy, observations, 3)
  np.testing.assert_allclose(
    lg.mean_action(found, observations[..., :3]),
    global_policy.mean(network, policy, observations),
    rtol=1e-10,
  )
  own = np.broadcast_to(np.diag([0.25, 0.04]), (4, 2, 2))
  np.testing.assert_allclose(lg.covariance(found), own, rtol=1e-9, atol=1e-12)


def test_linearisation_is_a_regression_on_gaussian_states(double):
  # Stein: E mu'(x) = Cov(mu, x) Cov(x)^-1, four standard errors of many samples.
  network, policy = _policy(size=3)
  x = jnp.asarray(np.random.default_rng(3).normal(size=[40_000, 1, 3]))
  found = global_policy.linearize(network, policy, x, 3)
  means = global_policy.mean(network, policy, x)
  solution, *_ = np.linalg.lstsq(
    np.concatenate([x[:, 0], np.ones([len(x), 1])], 1), means[:, 0], rcond=None
  )
  apart = np.std(means[:, 0]) / np.sqrt(len(x))
  assert np.abs(found.gain[0] - solution[:3].T).max() < 8.0 * apart
  rest = lg.covariance(found)[0] - np.diag([0.25, 0.04])
  assert np.linalg.eigvalsh(rest).min() > 0.0


def test_one_rollout_is_enough(double):
  network, policy = _policy()
  observations = jnp.asarray(np.random.default_rng(2).normal(size=[1, 4, 4]))
  found = global_policy.linearize(network, policy, observations, 4)
  np.testing.assert_allclose(
    lg.mean_action(found, observations),
    global_policy.mean(network, policy, observations),
    rtol=1e-10,
  )
  assert jnp.isfinite(found.scale_tril).all()


def test_golden_regression(double, golden):
  known = golden('mdgps')
  arguments = known['in_pol_mu'], known['in_pol_sig'], known['in_X']
  strength = float(known['in_prior_strength'])
  first = global_policy.regress(*(x[:, :1] for x in arguments), strength, 1e-8)
  later = global_policy.regress(*(x[:, 1:] for x in arguments), strength, 0.0)
  found = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), first, later)
  for x, name in (
    (found.gain, 'K'),
    (found.offset, 'k'),
    (lg.covariance(found), 'S'),
  ):
    expected = known[f'out_pol_{name}']
    error = jnp.max(jnp.abs(x - expected)) / jnp.max(jnp.abs(expected))
    assert error < 1e-8, (name, float(error))
