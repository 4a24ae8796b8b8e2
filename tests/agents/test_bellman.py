"""Targets, by hand: r = 2, gamma = 1/2, V'(x') = 10, so y = 7, or 2 at an end."""

import jax
import jax.numpy as jnp
import pytest

from armfarm.agents import bellman
from armfarm.agents import types

_R, _GAMMA, _V, _Q = 2.0, 0.5, 10.0, 3.0


def _transition(discount, truncation, reward=_R):
  x, u = jnp.zeros([3]), jnp.zeros([2])
  reward, discount, truncation = map(jnp.float32, (reward, discount, truncation))
  return types.Transition(x, u, reward, discount, truncation, x)


_ENDS = pytest.mark.parametrize(
  ('discount', 'truncation', 'bootstrap', 'continues'),
  [
    (1, 0, True, 1),  # under way
    (1, 0, False, 1),
    (1, 1, True, 1),  # cut by the time limit: the choice that the switch makes
    (1, 1, False, 0),
    (0, 0, True, 0),  # terminated
    (0, 0, False, 0),
    (0, 1, True, 0),  # terminated on the last step
    (0, 1, False, 0),
  ],
)


@_ENDS
def test_continuation(variant, discount, truncation, bootstrap, continues):
  function = variant(lambda t: bellman.continuation(t, bootstrap))
  assert function(_transition(discount, truncation)) == continues


@pytest.mark.parametrize(('continues', 'y'), [(1.0, 7.0), (0.0, 2.0)])
def test_td_target(variant, continues, y):
  arguments = map(jnp.float32, (_R, continues, _GAMMA, _V))
  assert variant(bellman.td_target)(*arguments) == y


@_ENDS
def test_td_error(variant, discount, truncation, bootstrap, continues):
  function = variant(lambda t, q, v: bellman.td_error(t, q, v, _GAMMA, bootstrap))
  error = function(_transition(discount, truncation), jnp.float32(_Q), jnp.float32(_V))
  assert error == (7.0 if continues else 2.0) - _Q


def test_the_target_is_a_constant(variant):
  def error(q, v, reward):
    return bellman.td_error(_transition(1, 0, reward), q, v, _GAMMA, True)

  gradient = variant(jax.grad(error, argnums=(0, 1, 2)))
  assert gradient(jnp.float32(_Q), jnp.float32(_V), jnp.float32(_R)) == (-1.0, 0.0, 0.0)


def test_a_batch_is_its_examples(variant):
  batch = jax.tree.map(lambda *x: jnp.stack(x), _transition(1, 0), _transition(0, 0))
  q, v = jnp.array([3.0, 4.0]), jnp.array([10.0, 10.0])
  function = variant(lambda *x: bellman.batch_td_error(*x, _GAMMA, True))
  assert function(batch, q, v).tolist() == [7.0 - 3.0, 2.0 - 4.0]


def test_a_column_of_values_is_refused():
  with pytest.raises(AssertionError):
    bellman.td_error(_transition(1, 0), jnp.zeros([1]), jnp.float32(_V), _GAMMA, True)


@pytest.mark.parametrize(
  ('kind', 'expected'),
  [('single', [1.0, 4.0]), ('double', [2.0, 3.0]), ('clipped', [1.0, 3.0])],
)
def test_double_q(variant, kind, expected):
  function = variant(lambda *q: bellman.double_q(kind, *q))
  assert function(jnp.array([1.0, 4.0]), jnp.array([2.0, 3.0])).tolist() == expected


def test_lag(variant):
  # With a period of 3, theta(t) = t and theta(0) = 0: copies at 3, 6, 9 and 12, of
  # which the older is 3 to 5 steps old once there are two.
  step = variant(lambda *x: bellman.lag(*x, 3))
  state, seen = bellman.Lag(jnp.int32(0), jnp.int32(0)), []
  for t in range(1, 13):
    state = step(state, jnp.int32(t), jnp.int32(t))
    seen.append((int(state.waiting), int(state.lagged)))
  waiting, lagged = zip(*seen, strict=True)
  assert waiting == (0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 12)
  assert lagged == (0, 0, 0, 0, 0, 3, 3, 3, 6, 6, 6, 9)
