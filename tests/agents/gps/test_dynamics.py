"""Fitted models: golden cases, known systems, few and degenerate rollouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.gps import dynamics
from armfarm.agents.gps import mixture as gmm
from armfarm.agents.gps import precision

_MIXTURE = gmm.Options(ridge=1e-6, tolerance=1e-3, max_steps=100)
_OPTIONS = dynamics.Options(
  prior_weight=1.0, points_per_gaussian=40, regularization=1e-6, mixture=_MIXTURE
)
_learn = jax.jit(dynamics.learn, static_argnums=3)
_joint = jax.jit(dynamics.joint)
_fit = jax.jit(dynamics.fit, static_argnums=3)
_posterior = jax.jit(dynamics.posterior)
_local_prior = jax.jit(dynamics.local_prior)
_initial_state = jax.jit(dynamics.initial_state)


def test_golden_fit(double, golden):
  known = golden('dyn_lr')
  amount = known['in_regularization'].item()
  everywhere = dynamics.Regularization(amount, everywhere=True)
  found = _fit(known['in_X'], known['in_U'], None, everywhere)
  for x, name in zip(found, ['Fm', 'fv', 'dyn_covar'], strict=True):
    expected = known[f'out_{name}']
    error = np.abs(x - expected).max() / np.abs(expected).max()
    assert error < 1e-8, name


def _rollouts(problem, seed, count, noise=0.01):
  """States and actions of random rollouts of a known system."""
  system = problem(0, steps=20).dynamics
  random = np.random.default_rng(seed)
  x, states = random.normal(size=[count, 3]), []
  actions = random.normal(size=[count, 20, 2])
  for t in range(20):
    states.append(x)
    z = np.concatenate([x, actions[:, t]], axis=1)
    x = z @ system.matrix[t].T + system.offset[t][None]
    x = x + noise * random.normal(size=x.shape)
  states = np.stack(states, 1)
  return system, states.astype(system.matrix.dtype), actions.astype(system.matrix.dtype)


def _apart(found, system):
  return np.abs(np.asarray(found.matrix)[:-1] - system.matrix[:-1]).max()


@pytest.mark.parametrize('everywhere', [False, True])
def test_many_rollouts_give_the_system(double, problem, everywhere):
  system, states, actions = _rollouts(problem, 1, 2000)
  added = dynamics.Regularization(1e-9, everywhere)
  found = _fit(states, actions, None, added)
  assert _apart(found, system) < 5e-3
  covariance = np.asarray(found.covariance)[0]
  np.testing.assert_allclose(covariance, 1e-4 * np.eye(3), atol=1e-5)


def test_the_regression_is_that_of_least_squares(double, problem):
  _, states, actions = _rollouts(problem, 1, 12)
  found = jax.device_get(_fit(states, actions, None, dynamics.Regularization(0.0)))
  rows = np.concatenate([states[:, 3], actions[:, 3], np.ones([12, 1])], axis=1)
  solution = np.linalg.lstsq(rows, states[:, 4], rcond=None)
  np.testing.assert_allclose(found.matrix[3], solution[0][:5].T, rtol=1e-9)
  np.testing.assert_allclose(found.offset[3], solution[0][5], rtol=1e-8, atol=1e-11)
  error = states[:, 4] - rows @ solution[0]
  np.testing.assert_allclose(found.covariance[3], error.T @ error / 12, atol=1e-12)


def test_without_regularization_the_gain_changes_nothing(double, problem):
  _, states, actions = _rollouts(problem, 1, 12)
  gain = np.random.default_rng(2).normal(size=[20, 2, 3])
  none = dynamics.Regularization(0.0)
  plain = _fit(states, actions, None, none)
  found = _fit(states, actions, None, none, gain)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-9), found, plain)


def test_what_was_never_seen_fades_in_the_closed_loop(double, problem):
  # Of three states, the last is the first once more, as points follow from joints.
  _, states, noise = _rollouts(problem, 1, 30)
  states[..., 2] = states[..., 0]
  gain = np.broadcast_to(np.array([[30.0, 0, -25], [0, 5, 9]]), (20, 2, 3))
  actions = np.einsum('tax,ntx->nta', gain, states) + noise
  unseen = np.array([1.0, 0, -1]) / np.sqrt(2.0)

  def moves(found):
    matrix = np.asarray(found.matrix)[:-1]
    closed = matrix[..., :3] + matrix[..., 3:] @ gain[:-1]
    return np.abs(closed @ unseen).max()

  added = dynamics.Regularization(1e-6)
  assert moves(_fit(states, actions, None, added, gain)) < 1e-3
  assert moves(_fit(states, actions, None, added)) > 10.0


def test_a_prior_makes_up_for_rollouts(double, problem):
  # Four rollouts of five inputs: alone they leave directions open.
  system, states, actions = _rollouts(problem, 1, 4)
  memory = dynamics.remember(20, 20, 3, 2, 4)
  memory = _learn(memory, *_rollouts(problem, 2, 12)[1:], _OPTIONS, jax.random.key(0))
  found = _learn(memory.memory, states, actions, _OPTIONS, jax.random.key(1))
  alone = _fit(states, actions, None, dynamics.Regularization(1e-6))
  assert _apart(alone, system) > 0.5
  assert _apart(found.dynamics, system) < 0.2


def test_memory_keeps_the_latest(double, problem):
  memory = dynamics.remember(7, 20, 3, 2, 2)
  seen = []
  for seed in range(3):
    _, states, actions = _rollouts(problem, seed, 3)
    seen.append(_joint(states, actions))
    memory = _learn(memory, states, actions, _OPTIONS, jax.random.key(seed)).memory
  np.testing.assert_array_equal(memory.points, np.concatenate(seen)[-7:])
  assert memory.count == 7


def _by_hand(points, mean, scatter, weight, degrees):
  """The normal-inverse-Wishart posterior, sum by sum."""
  size, center = len(points), np.mean(points, axis=0)
  total = scatter + sum(np.outer(y - center, y - center) for y in points)
  total = total + size * weight / (size + weight) * np.outer(
    center - mean, center - mean
  )
  return center, total / (size + degrees)


@pytest.mark.parametrize('variances', [[1.0, 2.0, 3.0], [1.0, 0.0, 0.0], [0.0] * 3])
def test_posterior_by_hand(double, variances):
  random = np.random.default_rng(0)
  points, mean = random.normal(size=[4, 3]), random.normal(size=3)
  scatter = np.diag(variances)
  prior = dynamics.Prior(mean, scatter, 0.5, 0.25)
  found = _posterior(points, prior)
  covariance = found.root.T @ found.root
  expected = _by_hand(points, mean, scatter, 0.5, 0.25)
  for x, y in zip((found.mean, covariance), expected, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-12)


def test_local_prior_has_the_moments_of_its_gaussians(double):
  # Points right on two far Gaussians, one of three rollouts on the second.
  mixture = gmm.Mixture(
    np.array([0.5, 0.5]),
    np.array([[0.0, 0.0], [100.0, 0.0]]),
    np.stack([np.eye(2), np.sqrt(2.0) * np.eye(2)]),
  )
  points = np.array([[[0.0, 0.0]], [[0.0, 0.0]], [[100.0, 0.0]]])
  prior = jax.device_get(_local_prior(mixture, points, np.float64(20.0), 2.0))
  np.testing.assert_allclose(prior.mean, [[100.0 / 3.0, 0.0]])
  spread = 100.0**2 * 2.0 / 9.0
  expected = 2.0 * (4.0 / 3.0 * np.eye(2) + np.diag([spread, 0.0]))
  np.testing.assert_allclose(prior.scatter[0], expected, rtol=1e-12)
  assert prior.mean_weight == 2.0
  np.testing.assert_allclose(prior.degrees, 2.0 * 16.0 / 20.0)


@pytest.mark.parametrize('kind', ['one', 'same', 'still', 'unstable', 'huge'])
def test_degenerate_rollouts_give_a_model(double, problem, kind):
  _, states, actions = _rollouts(problem, 1, 1 if kind == 'one' else 4)
  if kind == 'same':
    states, actions = (np.repeat(x[:1], 4, 0) for x in (states, actions))
  if kind == 'still':
    states, actions = np.zeros_like(states), np.zeros_like(actions)
  if kind == 'unstable':
    states = states * 2.0 ** np.arange(20.0)[None, :, None]
  if kind == 'huge':
    states = 1e9 * states
  memory = dynamics.remember(8, 20, 3, 2, 4)
  found = _learn(memory, states, actions, _OPTIONS, jax.random.key(0))
  plain = _fit(states, actions, None, dynamics.Regularization(1e-6))
  for model in (found.dynamics, plain):
    assert all(np.isfinite(x).all() for x in model)
    least = np.linalg.eigvalsh(model.covariance).min(axis=1)
    most = np.abs(model.covariance).max(axis=(1, 2))
    assert (least >= -1e-12 * most).all()


@pytest.mark.parametrize('seed', range(1, 7))
def test_rounding_of_large_states_is_no_covariance(double, problem, seed):
  # Of a variance of 1e18, the model leaves 1e-4.
  _, states, actions = _rollouts(problem, seed, 4)
  states = states * 3.0 ** np.arange(20.0)[None, :, None]
  found = _fit(states, actions, None, dynamics.Regularization(1e-6))
  assert (np.linalg.eigvalsh(found.covariance[:-1]) > 0.0).all()


def test_initial_state(double):
  first = np.array([[1.0, 3.0], [3.0, 3.0]])
  plain = jax.device_get(_initial_state(first, 1e-6))
  np.testing.assert_allclose(plain.mean, [2.0, 3.0])
  np.testing.assert_allclose(plain.covariance, [[1.0, 0.0], [0.0, 1e-6]])


def test_double_precision_inside_and_single_outside(problem):
  memory = dynamics.remember(8, 20, 3, 2, 4)
  _, states, actions = _rollouts(problem, 1, 5, noise=1e-4)
  traces = []

  def learn(*arguments):
    traces.append(jax.tree.map(lambda x: x.dtype, arguments[:3]))
    return dynamics.learn(*arguments[:3], _OPTIONS, arguments[3])

  learn_wide = precision.double(learn)
  for seed in range(2):
    found = learn_wide(memory, states, actions, jax.random.key(seed))
  assert len(traces) == 1
  assert traces[0][1] == jnp.float64
  assert {x.dtype for x in jax.tree.leaves(found)} == {
    jnp.dtype(d) for d in ('f4', 'i4')
  }
  assert jnp.zeros([]).dtype == jnp.float32
  jax.config.update('jax_enable_x64', True)
  wide = jax.tree.map(
    lambda x: x.astype(np.float64) if x.dtype == np.float32 else x,
    jax.device_get((memory, states, actions)),
  )
  expected = _learn(*wide, _OPTIONS, jax.random.key(1)).dynamics
  jax.config.update('jax_enable_x64', False)
  for x, y in zip(found.dynamics, expected, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-12)
