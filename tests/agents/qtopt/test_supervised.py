"""The baseline: what it learns from, by hand, and what it does with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types
from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import cem
from armfarm.agents.qtopt import supervised

_SPEC = types.Spec(observation_size=3, action_size=8)


@pytest.fixture(name='model', scope='module')
def _model(config):
  config = config._replace(
    commands=('close', 'open', 'terminate'), angles=1, learning_rate=0.3
  )
  numbers = supervised.Config(
    config, reach=4.0, max_turn=0.5, patience=0.9, lift_height=0.13, status_at=1
  )
  return supervised.build(_SPEC, numbers)


def _episode(letters, success=True):
  """Returns an episode: . move   c close   o open   b both   T terminate.

  Step t moves by (0.1 t, -0.1, 0.5) and turns by 0.2 rad.
  """
  count = len(letters)
  steps = np.arange(count)
  motion = np.stack([0.1 * steps, np.full(count, -0.1), np.full(count, 0.5)], axis=1)
  pairs = np.tile([np.sin(0.2), np.cos(0.2)], (count, 1))
  commands = [[x in 'cb', x in 'ob', x == 'T'] for x in letters]
  reward = np.full(count, -0.05)
  reward[-1] = float(success)
  transition = types.Transition(
    observation=np.ones([count, 3]),
    action=np.concatenate([motion, pairs, commands], axis=1),
    reward=reward,
    discount=np.ones(count),
    truncation=np.zeros(count),
    next_observation=np.ones([count, 3]),
  )
  return jax.tree.map(jnp.float32, transition)


@pytest.mark.parametrize(
  ('letters', 'success', 'kept', 'outcome'),
  [
    ('..c.T', True, '11100', '111'),
    ('..c.T', False, '11100', '000'),
    ('....T', True, '00000', ''),  # it never closed
    ('.cco.c.T', True, '11001100', '0011'),  # the first grasp was given up
    ('.c.o.cT', False, '1100110', '0000'),
    ('.c.o..T', True, '1100000', '00'),  # nothing is held at the end
    ('o.o.c', True, '11111', '11111'),  # to open what is open does nothing
    ('b.T', True, '100', '1'),  # of both commands, the one to close is heard
    ('.c.c.T', True, '110000', '11'),
  ],
)
def test_which_steps_tell_of_which_grasp(model, letters, success, kept, outcome):
  episode = _episode(letters, success)
  told, keep = jax.jit(functools.partial(supervised.hindsight, model))(episode)
  assert ''.join(str(int(x)) for x in keep) == kept
  assert ''.join(str(int(x)) for x in told.reward[keep]) == outcome
  assert not told.discount.any()


def test_the_way_to_a_grasp_by_hand(model):
  hindsight = jax.jit(functools.partial(supervised.hindsight, model))
  told, keep = hindsight(_episode('..c.T'))
  # Two steps are left, then one, then none; in units of `reach`.
  box = np.array([[0.1, -0.2, 1.0], [0.1, -0.1, 0.5], [0.0, 0.0, 0.0]]) / 4.0
  angles = np.array([0.4, 0.2, 0.0])
  expected = np.concatenate([box, np.stack([np.sin(angles), np.cos(angles)], 1)], 1)
  np.testing.assert_allclose(told.action[keep], expected, atol=1e-6)
  far, _ = hindsight(_episode('.' * 15 + 'c'))
  np.testing.assert_allclose(far.action[0, 2], 1.0)  # 7.5 is beyond its reach


def test_a_step_turns_no_further_than_it_can(model):
  episode = _episode('..c')
  wide = episode.action.at[:, 3:5].set(jnp.array([np.sin(1.5), np.cos(1.5)]))
  told, _ = jax.jit(functools.partial(supervised.hindsight, model))(
    episode._replace(action=wide)
  )
  turns = np.arctan2(told.action[:, 3], told.action[:, 4])
  np.testing.assert_allclose(turns, [1.0, 0.5, 0.0], atol=1e-6)


class _Hill:
  """Promises most for one way, and less the farther another one is."""

  def __init__(self, peak):
    self.peak = peak

  def apply(self, variables, *inputs, method=None):
    del variables
    if method == 'embed':
      return inputs[0]
    return -10.0 * jnp.sum((inputs[1][:, :3] - self.peak[None]) ** 2, axis=1)


@pytest.fixture(name='act', scope='module')
def _act(model):
  """Returns `peak [3], observation [3] -> action`."""
  precise = model.critic.config._replace(cem=cem.Options(400, 10, 4))

  @jax.jit
  def act(peak, observation):
    critic = model.critic._replace(network=_Hill(peak), config=precise)
    its = model._replace(critic=critic)
    variables = qtopt.Variables((), (), (), ())
    return supervised.act(its, variables, observation, jax.random.key(0))

  return lambda *inputs: np.asarray(act(*map(jnp.float32, inputs)))


def test_it_goes_where_grasps_succeed(act):
  action = act([0.1, -0.2, 0.5], [0.0, 0.0, 0.2])
  np.testing.assert_allclose(action[:3], [0.4, -0.8, 1.0], atol=0.15)
  assert action[5:].tolist() == [0, 0, 0]
  assert np.hypot(*action[3:5]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
  ('peak', 'observation', 'expected'),
  [
    ([0.0, 0.0, 0.0], [0.0, 0.0, 0.02], [0, 0, 0, 0, 1, 1, 0, 0]),  # here: close
    ([0.1, 0.0, 0.0], [0.0, 1.0, 0.02], [0, 0, 1, 0, 1, 0, 0, 0]),  # closed: rise
    ([0.1, 0.0, 0.0], [0.0, 1.0, 0.14], [0, 0, 0, 0, 1, 0, 0, 1]),  # high: terminate
  ],
)
def test_the_gripper_is_scripted(act, peak, observation, expected):
  np.testing.assert_allclose(act(peak, observation), expected, atol=1e-6)


def test_targets_are_outcomes(model, batch):
  told = batch._replace(
    action=batch.action[:, :5], reward=jnp.float32(jnp.arange(12) % 2)
  )
  examples, _ = supervised.label(model, (), (), told, jax.random.key(0))
  np.testing.assert_array_equal(examples.target, told.reward)
  np.testing.assert_array_equal(examples.action, told.action)


@pytest.mark.no_cover
def test_it_learns_which_grasps_succeed(model):
  """A grasp succeeds if its way along x is that to the object, to 1/4."""
  agent = supervised.make(_SPEC, model.config)
  update, label = jax.jit(agent.update), jax.jit(agent.label)

  def draw(key):
    keys = jax.random.split(key, 2)
    action = cem.draw(
      model.critic.layout, cem.prior(model.critic.layout, 0.7), 64, keys[0]
    )
    observation = jax.random.uniform(keys[1], [64, 3], minval=-0.5, maxval=0.5)
    reward = (jnp.abs(action[:, 0] - observation[:, 0]) < 0.25).astype(jnp.float32)
    zeros = jnp.zeros(64)
    return types.Transition(observation, action, reward, zeros, zeros, observation)

  learner = agent.init(jax.random.key(0))
  for key in jax.random.split(jax.random.key(1), 400):
    key_draw, key_label, key_update = jax.random.split(key, 3)
    variables = agent.variables(learner)
    examples, _ = label(variables, (), jax.jit(draw)(key_draw), key_label)
    learner, metrics = update(learner, examples, key_update)
  variables = agent.variables(learner)
  ask = jax.jit(functools.partial(supervised.promise, model, variables))
  still = actions.still(model.critic.layout)
  for place in (-0.4, 0.0, 0.4):
    here = ask(jnp.float32([place, 0, 0]), still.at[0].set(place))
    there = ask(jnp.float32([place, 0, 0]), still.at[0].set(-0.5 if place > 0 else 0.6))
    assert here > 0.6 > 0.4 > there
  assert metrics['loss'] < 0.5


@pytest.mark.parametrize(
  'changes', [{'commands': ('close', 'terminate')}, {'angles': 0}, {'commands': ()}]
)
def test_an_action_that_is_not_a_gripper(model, changes):
  config = model.config._replace(critic=model.config.critic._replace(**changes))
  with pytest.raises(ValueError, match='needs'):
    supervised.make(_SPEC, config)
