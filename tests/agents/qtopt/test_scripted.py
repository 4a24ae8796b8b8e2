"""The scripted policy: what a plan does, and how often it grasps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm import envs
from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import scripted
from armfarm.configs import qtopt as configs
from armfarm.envs import host
from armfarm.launchers import guided

_OPTIONS = scripted.Options((1.8, 1.2), 3.3, (0.5, 1.0), 1.57, 0.5)
_MANY = 200


def _plays(layout, options=_OPTIONS, count=_MANY, steps=20):
  """Actions of many episodes, [T I A]."""
  explore = functools.partial(scripted.explore, layout, options, ())
  draws = jax.random.split(jax.random.key(0), count)
  plan = jax.vmap(functools.partial(scripted.begin, options))(draws)

  def step(plan, key):
    keys = jax.random.split(key, count)
    action, plan = jax.vmap(lambda p, k: explore(p, (), k))(plan, keys)
    return plan, action

  keys = jax.random.split(jax.random.key(1), steps)
  return np.asarray(jax.jit(lambda plan: jax.lax.scan(step, plan, keys)[1])(plan))


@pytest.fixture(scope='module')
def played(layout):
  return _plays(layout)


def test_actions_are_such(played):
  assert (np.abs(played) <= 1).all()
  np.testing.assert_allclose((played[..., 3:5] ** 2).sum(axis=-1), 1, atol=1e-6)
  assert (played[..., 5:].sum(axis=-1) <= 1).all()
  assert not played[..., 6].any()  # it never opens


def test_it_goes_anywhere_within_reach(played):
  aside = played[..., :2].sum(axis=0)
  assert (np.abs(aside) <= [1.8 + 0.06, 1.2 + 0.06]).all()
  np.testing.assert_allclose(aside.mean(axis=0), 0, atol=0.25)
  # Uniform: the deviation is the range by the root of twelve.
  np.testing.assert_allclose(
    aside.std(axis=0), np.array([3.6, 2.4]) / 12**0.5, rtol=0.1
  )
  turned = np.arctan2(played[..., 3], played[..., 4])
  assert (np.abs(turned) <= 0.5 + 1e-6).all()
  np.testing.assert_allclose(turned.sum(axis=0).std(), 3.14 / 12**0.5, rtol=0.1)


def test_it_descends_closes_rises_and_terminates_once(played):
  z, close, terminate = played[..., 2], played[..., 5] > 0, played[..., 7] > 0
  steps = np.arange(len(z))[:, None]
  closed, ended = close.argmax(axis=0), terminate.argmax(axis=0)
  assert (close.sum(axis=0) == 1).all()
  assert terminate.any(axis=0).all()
  assert (ended < 19).all()
  assert (z[steps < closed] <= 0).all()
  assert (z[(steps > closed) & (steps < ended)] >= 0.5).all()
  np.testing.assert_allclose(-np.minimum(z, 0).sum(axis=0), 3.3, atol=1e-5)
  assert (np.maximum(z, 0).sum(axis=0) >= 3.3).all()
  assert (np.maximum(z, 0).sum(axis=0) <= 3.3 + 1.0).all()
  moves = np.abs(played[..., :2]).max(axis=-1) > 0
  assert not (moves & (z != 0)).any()  # aside first, then down


def test_descents_are_random(played):
  down = -played[..., 2][played[..., 2] < 0]
  assert len(np.unique(down)) > _MANY
  assert down.max() <= 1.0
  assert (
    np.diff((played[..., 2] < 0).sum(axis=0)) != 0
  ).any()  # in more or fewer steps


def test_without_a_command_to_terminate_it_stays_up():
  layout = actions.layout(6, 0, ('open', 'close', 'wave'))
  played = _plays(layout, count=5)
  assert played.shape == (20, 5, 6)
  assert (played[..., 4].sum(axis=0) == 1).all()  # closes
  assert not played[..., [3, 5]].any()
  assert not played[-1].any()


@pytest.mark.parametrize(
  ('size', 'angles', 'commands'),
  [(4, 1, ('close',)), (9, 2, ('close',)), (8, 1, ('open', 'terminate'))],
)
def test_actions_that_it_cannot_make_are_refused(size, angles, commands):
  layout = actions.layout(size, angles, commands)
  with pytest.raises(ValueError, match='needs an action of x, y and z'):
    scripted.check(layout)


_assert_close = functools.partial(
  jax.tree.map, functools.partial(np.testing.assert_allclose, atol=1e-5)
)


def test_it_explores_until_there_are_updates_enough_or_success(layout, spec, config):
  own = qtopt.make(spec, config)
  agent = scripted.begins(own, layout, _OPTIONS, scripted.End(100, success=0.5))
  explore = jax.jit(agent.explore)
  variables = jax.jit(lambda key: own.variables(own.init(key)))(jax.random.key(0))
  state = jax.jit(agent.begin)(jax.random.key(1))
  observation = jnp.zeros(spec.observation_size)
  by_script, *by_itself = (
    explore(
      variables._replace(updates=jnp.int32(count), success=jnp.float32(success)),
      state,
      observation,
      jax.random.key(2),
    )
    for count, success in ((99, 0.49), (100, 0.0), (0, 0.5))
  )
  script = jax.jit(functools.partial(scripted.explore, layout, _OPTIONS))
  action, plan = script(variables, state.plan, observation, jax.random.key(2))
  _assert_close(by_script, (action, state._replace(plan=plan)))
  action, left = jax.jit(own.explore)(
    variables, state.own, observation, jax.random.key(2)
  )
  for found in by_itself:
    _assert_close(found, (action, state._replace(own=left)))
  assert agent.act is own.act


def test_it_grasps_now_and_then(layout):
  # `benchmarks/grasp.py` measures how often, over many more episodes.
  config = configs.get_config('grasp_state')
  numbers = config.task.to_dict()
  task = envs.TASKS[numbers.pop('name')](**numbers)
  options = guided.fill(scripted.Options, config.scripted.to_dict())
  scripted.check(layout)
  size = 64
  plays = _plays(layout, options, size)
  batch = host.HostBatch(task, size, threads=1)
  batch.reset(jax.random.split(jax.random.key(2), size))
  success, running = np.zeros(size, bool), np.arange(size)
  for actions_t in plays:
    step = batch.step(actions_t[running], running)
    success[running] = step.success
    running = running[~step.terminated]
    if not len(running):
      break
  assert not len(running)
  assert 0.05 < success.mean() < 0.4
