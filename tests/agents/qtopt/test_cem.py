"""CEM on landscapes whose optimum is known.

Errors are quantiles over many searches with fixed keys.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import cem

_BOX = actions.layout(3, 0, ())
_KEYS = 500
_DEFAULT = cem.Options()


def _searches(objective, layout, options=_DEFAULT):
  search = functools.partial(cem.maximise, objective, layout, options)
  return jax.jit(jax.vmap(search))(jax.random.split(jax.random.key(0), _KEYS))


def _quadratic(peak):
  return lambda action: -jnp.sum((action - jnp.array([peak])) ** 2, axis=1)


def _error(found, peak, quantile=0.9):
  distance = np.linalg.norm(found.action - np.array([peak]), axis=1)
  return np.quantile(distance, quantile)


@pytest.mark.parametrize(
  ('peak', 'iterations', 'at_most'),
  [
    ((0.3, -0.2, 0.6), 1, 0.45),  # random search
    ((0.3, -0.2, 0.6), 2, 0.18),
    ((0.3, -0.2, 0.6), 6, 0.01),
    ((1.0, 1.0, -1.0), 2, 0.5),  # a corner
    ((1.0, 1.0, -1.0), 6, 0.15),
    ((3.0, 0.0, 0.0), 6, 2.001),  # out of bounds: the nearest is 2 away
  ],
)
def test_quadratic(peak, iterations, at_most):
  # Nine of ten searches end this close to the peak.
  options = cem.Options(iterations=iterations)
  found = _searches(_quadratic(peak), _BOX, options)
  assert _error(found, peak) <= at_most


def test_bimodal():
  # The higher one of two peaks is half as wide: two of three searches end on it.
  def objective(action):
    high = jnp.exp(-jnp.sum((action - 0.6) ** 2, axis=1) / 0.08)
    low = 0.7 * jnp.exp(-jnp.sum((action + 0.6) ** 2, axis=1) / 0.32)
    return jnp.maximum(high, low)

  found = _searches(objective, actions.layout(2, 0, ()))
  higher = np.all(found.action > 0.2, axis=1)
  assert higher.mean() > 0.62
  assert np.quantile(found.value[higher], 0.1) > 0.7


def _grasp(action):
  """Best at t = (0.5, 0, -0.5), a turn of 90 degrees, and closing."""
  distance = jnp.sum((action[:, :3] - jnp.array([[0.5, 0.0, -0.5]])) ** 2, axis=1)
  return 0.3 * action[:, 5] - distance + 0.2 * action[:, 3]


def test_mixed_action(layout):
  found = _searches(_grasp, layout, cem.Options(iterations=4))
  assert (found.action[:, 5:] == jnp.array([[1.0, 0.0, 0.0]])).all()
  assert np.quantile(found.action[:, 3], 0.1) > 0.95  # sine of the turn
  distance = np.linalg.norm(found.action[:, :3] - np.array([[0.5, 0, -0.5]]), axis=1)
  assert np.quantile(distance, 0.9) < 0.25


def test_a_command_can_be_worth_more_than_a_motion(layout):
  # With two iterations, no search may miss a command that alone decides.
  found = _searches(lambda action: action[:, 7] - 0.1 * action[:, 0] ** 2, layout)
  assert (found.action[:, 7] == 1.0).all()


def test_bounds_hold_inside_the_loop(layout):
  # What the objective sees is what is kept: all samples of all iterations.
  found = _searches(lambda action: 9.0 * action[:, 0] + action[:, 4], layout)
  seen = found.actions.reshape(-1, 8)
  assert seen.shape == (_KEYS * 128, 8)
  assert abs(seen[:, :3]).max() == 1.0
  radius = np.linalg.norm(seen[:, 3:5], axis=1)
  np.testing.assert_allclose(radius, 1.0, rtol=1e-5)
  assert set(np.unique(seen[:, 5:])) == {0.0, 1.0}
  assert set(np.unique(seen[:, 5:].sum(1))) == {0.0, 1.0}


def test_the_best_sample_of_all_iterations_is_returned(layout):
  # A needle at one sample of the first iteration: no later one comes near.
  def run(key):
    def search(objective):
      return cem.maximise(objective, layout, cem.Options(), key)

    needle = search(lambda action: action[:, 0]).actions[7]

    def objective(action):
      hit = jnp.all(action == needle[None], axis=1)
      return jnp.where(hit, 5.0, action[:, 0])

    return needle, search(objective)

  with jax.debug_key_reuse(False):  # the needle is drawn as the search will
    needle, found = jax.jit(run)(jax.random.key(3))
  assert (found.action == needle).all()
  assert found.value == found.values.max() == 5.0


def test_it_asks_once_an_iteration(layout):
  shapes = []

  def objective(action):
    shapes.append(action.shape)
    return action[:, 0]

  options = cem.Options(samples=10, elites=2, iterations=3)
  search = functools.partial(cem.maximise, objective, layout, options)
  jax.eval_shape(search, jax.random.key(0))
  assert shapes == [(10, 8)] * 3


def test_fit(variant, layout):
  # Motions 1 and 3 apart; close twice, nothing once, open once: votes (1, 2, 1, 0),
  # and a quarter of a vote for each: (1.25, 2.25, 1.25, 0.25) / 5.
  motion = jnp.array([[0.0], [0.2], [0.4], [0.6]]) * jnp.array([[1.0, -1, 0, 0, 0]])
  flags = jnp.array([[1.0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]])
  elites = jnp.concatenate([motion, flags], axis=1)
  mean, deviation, weights = variant(lambda x: cem.fit(layout, x, 0.01))(elites)
  np.testing.assert_allclose(mean, [0.3, -0.3, 0, 0, 0], rtol=1e-6)
  spread = np.sqrt(0.2 / 3)  # (0.09 + 0.01 + 0.01 + 0.09) / (4 - 1)
  np.testing.assert_allclose(deviation, [spread, spread, *[0.01] * 3], rtol=1e-5)
  np.testing.assert_allclose(weights, [0.25, 0.45, 0.25, 0.05], rtol=1e-6)


@pytest.mark.parametrize('offset', [0.0, 0.3, 0.999])
def test_commands_are_drawn_in_proportion(layout, offset):
  weights = jnp.array([0.5, 0.25, 0.125, 0.125])
  drawn = cem.choose(layout, weights, 16, jnp.float32(offset))
  assert drawn.sum(0).tolist() == [4.0, 2.0, 2.0]


def test_first_samples(layout):
  # Gaussian and clipped, in every direction alike, with every command as often.
  drawn = np.asarray(
    cem.draw(layout, cem.prior(layout, 0.5), 20_000, jax.random.key(0))
  )
  np.testing.assert_allclose(drawn[:, :5].mean(0), 0.0, atol=0.02)
  inside = abs(drawn[:, :3]) < 1.0
  np.testing.assert_allclose(inside.mean(0), 0.954, atol=0.01)  # two deviations
  np.testing.assert_allclose(drawn[:, 3:5].var(0), 1 / 2, rtol=0.03)
  np.testing.assert_allclose(drawn[:, 5:].mean(0), 1 / 4, rtol=1e-3)
  drawn = np.asarray(
    cem.draw(layout, cem.prior(layout, 0.1), 20_000, jax.random.key(1))
  )
  shares = [(drawn[:, 0] < 0.1 * z).mean() for z in (-2, -1, 0, 1, 2)]
  np.testing.assert_allclose(shares, [0.023, 0.159, 0.5, 0.841, 0.977], atol=0.01)
  assert abs(np.corrcoef(drawn[:, :5].T) - np.eye(5)).max() < 0.03


def test_a_batch_is_its_searches(layout):
  search = jax.jit(functools.partial(cem.maximise, _grasp, layout, cem.Options()))
  together = jax.vmap(search)(jax.random.split(jax.random.key(1), 3))
  for i, key in enumerate(jax.random.split(jax.random.key(1), 3)):
    np.testing.assert_allclose(search(key).action, together.action[i], rtol=1e-5)


@pytest.mark.parametrize(
  'change', [{'elites': 1}, {'elites': 65}, {'iterations': 0}, {'samples': 0}]
)
def test_impossible_numbers_are_refused(change):
  with pytest.raises(ValueError, match='^CEM has .*; choose .*$'):
    cem.check(cem.Options()._replace(**change))


def test_the_defaults_are_the_papers():
  assert cem.Options()[:3] == (64, 6, 2)
  cem.check(cem.Options())
