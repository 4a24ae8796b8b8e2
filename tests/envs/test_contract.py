"""What every environment owes its caller: every task of `TASKS` on every body."""

import functools

import jax
import numpy as np
import pytest

from armfarm import envs
from armfarm.envs import host
from armfarm.envs.task import OBSERVATION_LIMIT
from armfarm.envs.task import never

_STEPS = 12  # of an episode, where its length does not matter


class _Rows:
  """A body seen as a batch of `size`, so that one test serves one and many."""

  def __init__(self, body, size):
    self.body = body
    self.size = size

  def reset(self, seed):
    if self.size == 1:
      return _stacked(self.body.reset(jax.random.key(seed)))
    return self.body.reset(jax.random.split(jax.random.key(seed), self.size))

  def step(self, actions):
    if self.size > 1:
      return self.body.step(actions)
    return _stacked(self.body.step(actions[0]))

  def play(self, actions):
    return [self.step(action) for action in actions]

  def random_actions(self, seed, steps=_STEPS):
    shape = (steps, self.size, self.body.action_size)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def _stacked(tree):
  return jax.tree.map(lambda x: np.asarray(x)[None], tree)


def _vector(observation):
  """What a network takes beside an image, or all where there is none."""
  return getattr(observation, 'state', observation)


def _equal(tree, other):
  return jax.tree.all(jax.tree.map(np.array_equal, tree, other))


def _host(task):
  return _Rows(host.Host(task), 1)


def _host_batch(task):
  return _Rows(host.HostBatch(task, size=3, threads=2), 3)


@pytest.fixture(scope='module')
def build(numbers):
  """Makes a task once for all tests, which so compile its `reset` once."""

  @functools.cache
  def build(name, **other):
    chosen = numbers[name] | {'episode_steps': _STEPS} | other
    if 'in_bin' in chosen:
      chosen['in_bin'] = (1, 3)  # more take longer, and nothing else
    return envs.TASKS[name](**chosen)

  return build


@pytest.fixture(params=sorted(envs.TASKS))
def make_task(request, build):
  """Makes a task that ends at its limit alone, whatever the actions."""
  if request.param == 'grasp':
    request.getfixturevalue('opengl')

  def make(**other):
    return build(request.param, **other)._replace(terminated=never)

  return make


@pytest.fixture(params=[_host, _host_batch])
def run(request):
  return request.param


@pytest.fixture
def rows(make_task, run):
  return run(make_task())


def _assert_equal(steps, others):
  assert len(steps) == len(others)
  jax.tree.map(np.testing.assert_array_equal, list(steps), list(others))


def test_shapes_and_types_are_those_of_the_task(make_task, rows):
  task = make_task()
  assert rows.body.observation_size == task.observation_size
  assert rows.body.action_size == task.action_size
  assert rows.body.episode_steps == task.episode_steps == _STEPS
  first = rows.reset(0)
  step = rows.step(rows.random_actions(0)[0])
  for observation in (first, step.observation):
    assert _vector(observation).shape == (rows.size, task.observation_size)
    assert _vector(observation).dtype == np.float32
    if task.view is not None:
      assert observation.image.shape == (rows.size, *task.view[1:], 3)
      assert observation.image.dtype == np.uint8
  assert step.reward.dtype == np.float32
  for field in step[1:]:
    assert field.shape == (rows.size,)
  for flag in (step.terminated, step.truncated, step.success):
    assert flag.dtype == bool


def test_what_was_returned_stays_as_it_was(rows):
  first = rows.reset(0)
  kept = jax.tree.map(np.copy, first)
  step, after = rows.play(rows.random_actions(0, steps=2))
  assert _equal(first, kept)
  assert not _equal(step.observation, after.observation)


def test_a_seed_decides_an_episode(rows):
  actions = rows.random_actions(1)
  first = rows.reset(7)
  steps = rows.play(actions)
  assert _equal(rows.reset(7), first)
  _assert_equal(rows.play(actions), steps)
  assert not _equal(rows.reset(8), first)


def test_an_episode_leaves_nothing_to_the_next(make_task, run):
  used, fresh = run(make_task()), run(make_task())
  used.reset(1)
  used.play(used.random_actions(1))
  assert _equal(used.reset(2), fresh.reset(2))
  state = fresh.body.state()
  for name, value in used.body.state().items():
    np.testing.assert_array_equal(value, state[name], err_msg=name)
  actions = used.random_actions(2)
  _assert_equal(used.play(actions), fresh.play(actions))


@pytest.mark.parametrize('kind', ['random', 'ones', 'minus ones', 'switching'])
def test_whole_episodes_stay_finite(make_task, run, kind):
  rows = run(make_task(episode_steps=100))
  actions = rows.random_actions(3, steps=100)
  if kind == 'switching':
    actions = np.sign(actions)
  elif kind != 'random':
    actions = np.full_like(actions, 1 if kind == 'ones' else -1)
  rows.reset(3)
  for step in rows.play(actions):
    assert np.isfinite(_vector(step.observation)).all()
    assert np.isfinite(step.reward).all()
    vector = _vector(step.observation)
    assert (np.abs(vector) <= OBSERVATION_LIMIT).all()  # nothing flies apart


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1.001, -1.001, 1e300])
def test_values_outside_the_bounds_are_refused(rows, value):
  rows.reset(0)
  actions = np.zeros((rows.size, rows.body.action_size))
  actions[-1, -1] = value
  before = rows.body.state()
  with pytest.raises(ValueError, match='action is not finite or outside'):
    rows.step(actions)
  for name, kept in rows.body.state().items():
    np.testing.assert_array_equal(kept, before[name])


def test_rounding_past_one_is_accepted(rows):
  rows.reset(0)
  rows.step(np.full((rows.size, rows.body.action_size), -1 - 5e-7))


def test_other_shapes_are_refused(rows):
  rows.reset(0)
  action = np.zeros(rows.body.action_size)
  for wrong in (action[:-1], action[None, None], np.float64(0), []):
    with pytest.raises(ValueError, match='give'):
      rows.body.step(wrong)


def test_nothing_steps_before_a_reset_or_after_the_end(rows):
  actions = rows.random_actions(4)
  with pytest.raises(RuntimeError, match='not begun'):
    rows.step(actions[0])
  rows.reset(4)
  rows.play(actions)
  with pytest.raises(RuntimeError, match='ended'):
    rows.step(actions[0])
  rows.reset(5)
  rows.play(actions)


def test_the_time_limit_ends_with_the_true_last_observation(make_task, run):
  short, long = run(make_task()), run(make_task(episode_steps=2 * _STEPS))
  actions = short.random_actions(5)
  first = short.reset(5)
  long.reset(5)
  steps, others = short.play(actions), long.play(actions)
  for step in (*steps[:-1], *others[:-1]):
    assert not (step.truncated | step.terminated).any()
  # A limit that is part of the MDP terminates, any other truncates.
  in_mdp = make_task().final_reward is not None
  assert (steps[-1].terminated == in_mdp).all()
  assert (steps[-1].truncated != in_mdp).all()
  assert not (others[-1].truncated | others[-1].terminated).any()
  assert _equal(steps[-1].observation, others[-1].observation)
  assert not _equal(steps[-1].observation, first)


@pytest.mark.parametrize('limit', [1, _STEPS])
def test_termination_is_no_truncation(make_task, run, limit):
  def always(data, goal, action):
    return np.ones(goal.shape[:-1], bool)

  rows = run(make_task(episode_steps=limit)._replace(terminated=always))
  actions = rows.random_actions(6)
  rows.reset(6)
  step = rows.step(actions[0])
  assert step.terminated.all()
  assert not step.truncated.any()
  with pytest.raises(RuntimeError, match='ended'):
    rows.step(actions[1])


def test_restore_goes_back_bit_for_bit(make_task, run):
  rows, other = run(make_task()), run(make_task())
  actions = rows.random_actions(7)
  rows.reset(7)
  rows.play(actions[:5])
  state = rows.body.state()
  rest = rows.play(actions[5:])
  rows.reset(8)  # leads elsewhere
  rows.play(actions[:3])
  rows.body.restore(state)
  _assert_equal(rows.play(actions[5:]), rest)
  other.body.restore(state)
  _assert_equal(other.play(actions[5:]), rest)
  with pytest.raises(RuntimeError, match='ended'):
    other.step(actions[0])


def test_a_state_is_plain_arrays_of_its_own(rows):
  actions = rows.random_actions(8)
  rows.reset(8)
  state = rows.body.state()
  kept = {name: value.copy() for name, value in state.items()}
  rows.body.restore(state)
  rows.play(actions[:4])
  rows.reset(9)
  for name, value in state.items():
    assert type(value) is np.ndarray
    np.testing.assert_array_equal(value, kept[name], err_msg=name)


def test_a_state_of_other_shapes_is_refused(rows):
  rows.reset(0)
  state = rows.body.state()
  for name, value in state.items():
    with pytest.raises(ValueError, match='give one with'):
      rows.body.restore(state | {name: np.zeros((*value.shape, 1))})
    missing = {other: state[other] for other in state if other != name}
    with pytest.raises(ValueError, match='give one with'):
      rows.body.restore(missing)
