"""Importance weights: what they estimate, and where they are 1."""

import jax
import numpy as np
import pytest

from armfarm.agents.gps import importance
from armfarm.agents.gps import linear_gaussian as lg

_STEPS = 4
_weigh = jax.jit(importance.weigh, static_argnums=3)
_effective_share = jax.jit(importance.effective_share)
_log_density = jax.jit(lg.log_density)


@pytest.fixture(autouse=True)
def _wide(double):
  del double


def _controller(gain, offset, deviation):
  fields = [[gain]], [offset], [[deviation]]
  return lg.Controller(
    *(np.broadcast_to(np.array(x), (_STEPS, *np.shape(x))) for x in fields)
  )


def _rollouts(controller, count, seed):
  """States, actions and costs of x' = x + u / 2 with noise, cost x^2 + u^2 / 10."""
  random = np.random.default_rng(seed)
  gain, offset, deviation = (x[0].item() for x in controller)
  x, states, actions = random.normal(1.0, 0.3, count), [], []
  for _ in range(_STEPS):
    u = gain * x + offset + deviation * random.normal(size=count)
    states.append(x)
    actions.append(u)
    x = x + 0.5 * u + 0.05 * random.normal(size=count)
  states, actions = np.stack(states, 1), np.stack(actions, 1)
  costs = states**2 + 0.1 * actions**2
  return states[..., None], actions[..., None], costs


def _estimate(weights, costs):
  """Weighted mean of summed costs, and its standard error (Owen 2013, Eq. 9.9)."""
  terms = np.asarray(weights) * costs
  mean = terms.mean(0)
  deviation = (np.asarray(weights) * (costs - mean[None])).sum(1)
  return mean.sum(), deviation.std() / np.sqrt(len(costs))


def test_a_memory_of_two_controllers_estimates_a_third():
  now = _controller(-0.8, 0.0, 0.5)
  sources = [_controller(-0.5, 0.1, 0.7), _controller(-1.0, -0.2, 0.7)]
  parts = [_rollouts(q, 4000, seed) for seed, q in enumerate(sources)]
  states, actions, costs = (np.concatenate(x) for x in zip(*parts, strict=True))
  behaviour = np.concatenate(
    [_log_density(q, x, u) for q, (x, u, _) in zip(sources, parts, strict=True)]
  )
  target = _log_density(now, states, actions)
  mask = np.ones(len(costs))
  weights = _weigh(target, behaviour, mask, _STEPS, 1e9)
  on_policy = _rollouts(now, 100_000, 9)[2].sum(1)
  truth = on_policy.mean(), on_policy.std() / np.sqrt(len(on_policy))
  weighted, plain = (_estimate(w, costs) for w in (weights, np.ones_like(weights)))
  apart, unweighted = (
    abs(x[0] - truth[0]) / np.hypot(x[1], truth[1]) for x in (weighted, plain)
  )
  assert apart < 3.0
  assert unweighted > 3.0
  # One factor corrects for the action and leaves the states, which is not enough here.
  last = _weigh(target, behaviour, mask, 1, 1e9)
  single = _estimate(last, costs)
  assert abs(single[0] - truth[0]) / np.hypot(single[1], truth[1]) > 3.0


def test_weights_are_one_where_nothing_changed():
  logs = np.random.default_rng(0).normal(size=[5, 7])
  mask = np.array([0.0, 1.0, 1.0, 1.0, 1.0])
  weights = np.asarray(_weigh(logs, logs, mask, 3, 2.0))
  np.testing.assert_array_equal(weights[0], 0.0)
  np.testing.assert_array_equal(weights[1:], 1.0)
  np.testing.assert_allclose(_effective_share(weights, mask), 1.0)


def test_weights_by_hand():
  # Ratios of two rollouts: 2, 1, 4 and 2, 3, 1; the last two factors enter.
  ratio = np.array([[2.0, 1.0, 4.0], [2.0, 3.0, 1.0]])
  zeros, mask = np.zeros([2, 3]), np.ones(2)
  found = _weigh(np.log(ratio), zeros, mask, 2, 9.0)
  product = np.array([[2.0, 2.0, 4.0], [2.0, 6.0, 3.0]])
  np.testing.assert_allclose(found, product / product.mean(0))
  clipped = _weigh(np.log(ratio), zeros, mask, 2, 1.2)
  np.testing.assert_allclose(clipped, np.minimum(product / product.mean(0), 1.2))
  share = np.asarray(_effective_share(found, mask))
  np.testing.assert_allclose(share[1], 64.0 / (2.0 * (4.0 + 36.0)))


@pytest.mark.parametrize('scale', [1e-3, 1e3, 1e9])
def test_densities_far_apart_give_weights(scale):
  target = scale * np.random.default_rng(0).normal(size=[6, 50])
  weights = np.asarray(_weigh(target, -target, np.ones(6), 50, 4.0))
  assert np.isfinite(weights).all()
  assert (weights <= 4.0).all()
  assert (weights.max(0) > 0.0).all()


def test_no_rollouts_give_no_weights():
  weights = _weigh(np.zeros([3, 4]), np.zeros([3, 4]), np.zeros(3), 1, 4.0)
  np.testing.assert_array_equal(weights, 0.0)
