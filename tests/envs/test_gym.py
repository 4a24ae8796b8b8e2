"""Gymnasium, both ways: our tasks for others' learners, others' for ours."""

import sys
import warnings

import gymnasium
from gymnasium.utils import env_checker
import jax
import numpy as np
import pytest

from armfarm.envs import foreign
from armfarm.envs import gym
from armfarm.envs import host
from armfarm.envs import reach
from armfarm.envs import serial

_STEPS = 6
_ID = 'armfarm/Reach-v0'


def _make(**numbers):
  return gymnasium.make(_ID, episode_steps=_STEPS, **numbers)


def _play(environment, seed):
  """Plays an episode of random actions; returns all that was seen."""
  rng = np.random.default_rng(0)
  seen = [environment.reset(seed=seed)[0]]
  over = False
  while not over:
    action = rng.uniform(-1, 1, environment.action_space.shape).astype(np.float32)
    observation, reward, terminated, truncated, info = environment.step(action)
    seen += [observation, reward, terminated, truncated, info['is_success']]
    over = terminated or truncated
  return np.concatenate([np.ravel(x) for x in seen])


@pytest.mark.parametrize('id', gym.IDS.values())
def test_gymnasium_s_own_check_passes_without_a_warning(id):
  environment = gymnasium.make(id).unwrapped
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    env_checker.check_env(environment)


def test_it_is_found_by_module_and_id():
  environment = gymnasium.make(f'armfarm.envs.gym:{_ID}')
  assert isinstance(environment.unwrapped, gym.TaskEnv)
  assert gymnasium.spec(_ID).max_episode_steps is None  # the limit is the task's


def test_it_computes_what_the_host_does(numbers):
  environment = _make()
  task = reach.make(**numbers['reach'] | {'episode_steps': _STEPS})
  body = host.Host(task)
  observation, _ = environment.reset(seed=3)
  draw = np.random.default_rng(np.random.SeedSequence(3)).integers(2**32)
  _, key = jax.random.split(jax.random.key(int(draw)))
  np.testing.assert_array_equal(observation, body.reset(key))
  for number in range(1, _STEPS + 1):
    action = np.full(7, 0.1 * number, np.float32)
    step = body.step(action)
    observation, reward, terminated, truncated, info = environment.step(action)
    np.testing.assert_array_equal(observation, step.observation)
    assert (reward, terminated, truncated) == (step.reward, False, number == _STEPS)
    assert info == {'is_success': step.success}


def test_a_seed_decides_this_episode_and_the_next():
  environment, other = _make(), _make()
  first, second = _play(environment, 1), _play(environment, None)
  np.testing.assert_array_equal(_play(other, 1), first)
  np.testing.assert_array_equal(_play(other, None), second)
  assert not np.array_equal(first, second)
  assert not np.array_equal(_play(environment, 2), first)


def test_numbers_can_be_given_and_are_checked():
  far = _make(success_distance=9.0)
  far.reset(seed=0)
  assert far.step(np.zeros(7, np.float32))[-1] == {'is_success': True}
  with pytest.raises(ValueError, match='speed is 2'):
    _make(speed=2.0)
  with pytest.raises(ValueError, match="give 'rgb_array' or None"):
    gym.TaskEnv('reach', render_mode='human')


class Clock(gymnasium.Env):
  """Counts; its observations are one array, used again and again.

  The reward is the action's first number, within bounds of its own; the episode ends
  after `last` steps, if that is given.
  """

  action_space = gymnasium.spaces.Box(
    np.float32([[0, -4]]), np.float32([[10, -2]]), dtype=np.float32
  )
  observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2, 1), np.float64)

  def __init__(self, last=None, says=None, **spaces):
    self._last, self._says = last, says
    self._now = np.zeros((2, 1))
    for name, space in spaces.items():
      setattr(self, name, space)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._now[:, 0] = 0, self.np_random.uniform()
    return self._now, {}

  def step(self, action):
    assert action.shape == self.action_space.shape
    assert action.dtype == self.action_space.dtype
    assert self.action_space.contains(action)
    self._now[0] += 1
    over = self._now[0, 0] == self._last
    info = {} if self._says is None else {'is_success': self._says}
    return self._now, float(action[0, 0]), bool(over), False, info


@pytest.fixture
def register():
  """Registers clocks, `id, limit, arguments`, and forgets them again."""
  known = dict(gymnasium.registry)

  def add(id, limit=4, **arguments):
    gymnasium.register(id, Clock, max_episode_steps=limit, kwargs=arguments)
    return id

  yield add
  gymnasium.registry.clear()
  gymnasium.registry.update(known)


def _foreign(id, episode_steps=0, success_return=None):
  return foreign.make(id=id, episode_steps=episode_steps, success_return=success_return)


def test_actions_are_stretched_and_observations_laid_flat(register):
  task = _foreign(register('Clock-v0'))
  assert task[1:] == (2, 2, 4, None)
  body = foreign.ForeignHost(task)
  first = body.reset(jax.random.key(0))
  kept = first.copy()
  steps = [body.step(np.array([u, -u])) for u in (-1, 0, 0.5, 1 + 5e-7)]
  assert [step.reward for step in steps] == [0.0, 5.0, 7.5, 10.0]
  assert [step.observation[0] for step in steps] == [1, 2, 3, 4]
  assert first.dtype == np.float32
  np.testing.assert_array_equal(first, kept)
  for wrong in (np.nan, 1.1, np.zeros(1)):
    with pytest.raises(ValueError, match='give|clip it'):
      body.step(np.zeros(2) + wrong if np.ndim(wrong) == 0 else wrong)


@pytest.mark.parametrize(
  ('last', 'limit', 'ends'),
  [(2, 4, (True, False)), (4, 4, (True, False)), (9, 4, (False, True))],
)
def test_an_end_is_apart_from_the_time_limit(register, last, limit, ends):
  body = foreign.ForeignHost(_foreign(register('Clock-v0', limit, last=last)))
  with pytest.raises(RuntimeError, match='not begun'):
    body.step(np.zeros(2))
  body.reset(jax.random.key(0))
  steps = [body.step(np.zeros(2)) for _ in range(min(last, limit))]
  assert [step.terminated or step.truncated for step in steps[:-1]] == [False] * (
    len(steps) - 1
  )
  assert (steps[-1].terminated, steps[-1].truncated) == ends
  with pytest.raises(RuntimeError, match='ended'):
    body.step(np.zeros(2))


@pytest.mark.parametrize(
  ('says', 'success_return', 'expected'),
  [
    (None, None, [False] * 4),
    (None, 20.0, [False, False, False, True]),
    (None, 20.1, [False] * 4),
    (True, 20.1, [True] * 4),
    (False, 20.0, [False] * 4),
  ],
)
def test_success_is_said_or_a_matter_of_the_return(
  register, says, success_return, expected
):
  id = register('Clock-v0', says=says)
  body = foreign.ForeignHost(_foreign(id, success_return=success_return))
  for _ in range(2):  # the return begins anew
    body.reset(jax.random.key(0))
    assert [body.step(np.zeros(2)).success for _ in range(4)] == expected


def test_a_key_decides_an_episode():
  task = _foreign('Pendulum-v1')
  body, other = foreign.ForeignHost(task), foreign.ForeignHost(task)
  first = body.reset(jax.random.key(1))
  assert not np.array_equal(body.reset(jax.random.key(2)), first)
  other.reset(jax.random.key(3))
  np.testing.assert_array_equal(other.reset(jax.random.key(1)), first)
  assert body.state() == {}


def test_a_batch_computes_what_single_instances_do():
  task = _foreign('Pendulum-v1', episode_steps=3)
  keys = jax.random.split(jax.random.key(0), 3)
  batch = serial.Serial([foreign.ForeignHost(task) for _ in keys])
  singles = [foreign.ForeignHost(task) for _ in keys]
  first = [single.reset(key) for single, key in zip(singles, keys, strict=True)]
  np.testing.assert_array_equal(batch.reset(keys), first)
  for ids in ([0, 1, 2], [2, 0], [1], [0, 1]):
    actions = np.linspace(-1, 1, len(ids))[:, None]
    together = batch.step(actions, np.array(ids))
    apart = [singles[i].step(u) for i, u in zip(ids, actions, strict=True)]
    for mine, theirs in zip(together, zip(*apart, strict=True), strict=True):
      np.testing.assert_array_equal(mine, theirs)
  assert together.truncated.tolist() == [True, True]


_BOX = gymnasium.spaces.Box
_SPACES = [
  ({'action_space': gymnasium.spaces.Discrete(2)}, 'actions of Discrete'),
  ({'observation_space': gymnasium.spaces.Dict()}, 'observations of Dict'),
  ({'action_space': _BOX(-np.inf, np.inf, (1,))}, 'actions without bounds'),
  ({'action_space': _BOX(0, 9, (1,), np.int64)}, 'actions of int64'),
]


@pytest.mark.parametrize(('spaces', 'says'), _SPACES)
def test_other_spaces_are_refused(register, spaces, says):
  with pytest.raises(ValueError, match=f'Clock-v0 has {says}.*: choose one'):
    _foreign(register('Clock-v0', **spaces))


@pytest.mark.parametrize(
  ('id', 'says'),
  [
    ('Pendullum-v1', 'Pendullum'),
    ('Pendulum-v99', 'v99'),
    ('nowhere:Env-v0', 'nowhere'),
    ('GymV26Environment-v0', 'shimmy'),
    ('pendulum', 'pendulum'),
  ],
)
def test_what_cannot_be_made_is_said_in_one_line(id, says):
  with pytest.raises(
    ValueError, match=f'Gymnasium cannot make {id}: .*{says}'
  ) as error:
    _foreign(id)
  assert '\n' not in str(error.value)


def test_without_gymnasium_it_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'gymnasium', None)
  with pytest.raises(ValueError, match=r"pip install 'armfarm\[gym\]'"):
    _foreign('Pendulum-v1')


def test_an_episode_needs_a_limit(register):
  id = register('Clock-v0', limit=None)
  with pytest.raises(ValueError, match='has no time limit: give one by task'):
    _foreign(id)
  task = _foreign(id, episode_steps=2)
  body = foreign.ForeignHost(task)
  body.reset(jax.random.key(0))
  assert [body.step(np.zeros(2)).truncated for _ in range(2)] == [False, True]
  with pytest.raises(ValueError, match='episode_steps is -1: give 0'):
    _foreign(id, episode_steps=-1)
