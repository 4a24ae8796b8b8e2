"""The parts of an action, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.qtopt import actions


def test_the_action_of_the_paper(layout):
  # D.2: (t, r, g_close, g_open, e), t in R^3 and r in R^2.
  assert layout == (3, 1, ('close', 'open', 'terminate'))
  assert layout.motion_size == 5
  assert layout.parts == (3, 2, 1, 1, 1)


def test_parts_without_a_box():
  assert actions.layout(3, 1, ('close',)).parts == (2, 1)
  assert actions.layout(4, 0, ()).parts == (4,)


def test_hold(variant, layout):
  motion = jnp.array([[0.5, 2.0, -3.0, 3.0, -4.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
  held = variant(lambda x: actions.hold(layout, x))(motion)
  expected = [[0.5, 1.0, -1.0, 0.6, -0.8], [0.0, 0.0, 1.0, 0.0, 1.0]]
  np.testing.assert_allclose(held, expected, rtol=1e-6)


def test_turns():
  # Sine, then cosine, of each angle.
  pairs = actions.turns(jnp.array([[0.0, jnp.pi / 2]]))
  np.testing.assert_allclose(pairs, [[0.0, 1.0, 1.0, 0.0]], atol=1e-6)


def test_still(layout):
  assert actions.still(layout).tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_choices(layout):
  rows = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
  assert actions.choices(layout).tolist() == rows
  assert actions.choices(actions.layout(2, 0, ())).shape == (1, 0)


def test_commands(layout):
  assert actions.command(layout, 'open').tolist() == [0, 1, 0]
  action = jnp.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
  given = [actions.commanded(layout, action, name) for name in layout.commands]
  assert given == [False, True, False]


def test_too_small_an_action_is_refused():
  with pytest.raises(ValueError, match="^1 angles and 3 .* the action's 4 numbers$"):
    actions.layout(4, 1, ('close', 'open', 'terminate'))
