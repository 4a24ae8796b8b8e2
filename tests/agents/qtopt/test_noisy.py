"""The noisy policy: its three kinds of exploration and their frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import noisy

_OPTIONS = noisy.Options(0.2, (0.75, 0.17, 0.08), 0.3, 0.4)
_COUNT = 20_000
_GREEDY = jnp.array([0.9, 0.9, 0.9, 1.0, 0.0, 0.0, 1.0, 0.0])


def _state(closed):
  return noisy.Gripper(jnp.array(closed))


def _mixture(layout, closed=False, options=_OPTIONS):
  greedy = _GREEDY[: layout.motion_size + len(layout.commands)]
  keys = jax.random.split(jax.random.key(0), _COUNT)

  def mixture(key):
    return noisy.mixture(layout, options, _state(closed), greedy, key)

  drawn = np.asarray(jax.jit(jax.vmap(mixture))(keys))
  return drawn, ~(drawn == np.asarray(greedy)).all(1)


@pytest.mark.parametrize(('closed', 'toggle'), [(False, 5), (True, 6)])
def test_frequencies(layout, closed, toggle):
  # 20 % explore: 75 % of them move, 17 % toggle the gripper, 8 % terminate.
  drawn, explored = _mixture(layout, closed)
  np.testing.assert_allclose(explored.mean(), 0.2, atol=0.01)
  random = drawn[explored]
  commands = random[:, 5:].mean(0)
  expected = np.zeros(3)
  expected[toggle - 5], expected[2] = 0.17, 0.08
  np.testing.assert_allclose(commands, expected, atol=0.02)
  still = random[random[:, 5:].sum(1) > 0]
  assert (still[:, :5] == np.array([[0, 0, 0, 0, 1]])).all()


def test_poses(layout):
  drawn, explored = _mixture(layout)
  poses = drawn[explored & (drawn[:, 5:].sum(1) == 0)]
  np.testing.assert_allclose(poses[:, :3].std(0), 0.3, rtol=0.05)
  np.testing.assert_allclose(poses[:, :3].mean(0), 0.0, atol=0.02)
  angle = np.arctan2(poses[:, 3], poses[:, 4])
  np.testing.assert_allclose(angle.std(), 0.4, rtol=0.05)
  np.testing.assert_allclose(angle.mean(), 0.0, atol=0.03)


def test_poses_are_clipped(layout):
  drawn, explored = _mixture(layout, options=_OPTIONS._replace(translation_deviation=5))
  assert abs(drawn[explored][:, :3]).max() == 1.0


def test_what_cannot_be_commanded_is_not_drawn():
  # Without termination, 75 and 17 of 92.
  layout = actions.layout(7, 1, ('close', 'open'))
  drawn, explored = _mixture(layout)
  share = drawn[explored][:, 5].mean()
  np.testing.assert_allclose(share, 17 / 92, atol=0.02)


def test_an_action_without_commands_moves():
  layout = actions.layout(2, 0, ())
  drawn, explored = _mixture(layout)
  np.testing.assert_allclose(explored.mean(), 0.2, atol=0.01)
  np.testing.assert_allclose(drawn[explored].std(0), 0.3, rtol=0.05)
  state = noisy.begin(jax.random.key(0))
  assert noisy.after(layout, state, jnp.zeros(2)) == state


@pytest.mark.parametrize('closed', [False, True])
def test_the_gripper_is_as_it_was_told(variant, layout, closed):
  # Nothing, close, open, terminate.
  after = variant(lambda *x: noisy.after(layout, *x))
  motion = jnp.zeros(5)
  states = [
    bool(after(_state(closed), jnp.concatenate([motion, row])).closed)
    for row in actions.choices(layout)
  ]
  assert states == [closed, True, False, closed]


def test_an_episode_begins_open():
  assert not noisy.begin(jax.random.key(0)).closed
