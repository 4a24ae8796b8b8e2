"""The evaluator: which episodes it runs, with which policy, and what it adds up."""

import jax
import numpy as np
import pytest

from armfarm.envs import host
from armfarm.envs import task
from armfarm.workers import evaluator as evaluators


class _Robots:
  """Robots that are paid the action and, in the last step, where they began.

  Each succeeds if it began above zero, and only in its last step. `ends` says after
  how many steps, of all or of each.
  """

  def __init__(self, size, ends=3):
    self.size = size
    self.begun, self.stepped = [], []
    self._ends = np.broadcast_to(ends, size)

  def reset(self, keys):
    draw = jax.vmap(lambda key: jax.random.uniform(key, minval=-1.0))
    self._starts = np.asarray(draw(keys))
    self.begun.append(self._starts)
    self._step = 0
    return self._observe()

  def step(self, actions, ids):
    assert actions.shape == (len(ids), 1)
    self.stepped.append(ids.tolist())
    self._step += 1
    last = self._ends[ids] == self._step
    reward = actions[:, 0] + np.where(last, self._starts[ids], 0)
    success = last & (self._starts[ids] > 0)
    limit = ids % 2 == 0  # ends are of either kind
    observation = self._observe()[ids]
    return task.Step(observation, reward, last & ~limit, last & limit, success)

  def _observe(self):
    return np.stack([self._starts, np.full(self.size, self._step)], 1).astype(
      np.float32
    )


@pytest.fixture
def agent(toy):
  """The toy, which must not explore here."""

  def explore(*_):
    pytest.fail('an evaluator explores')

  return toy.agent._replace(explore=explore, begin=explore)


def _evaluator(agent, robots, held_out, seed=0):
  return evaluators.Evaluator(agent, robots, held_out, jax.random.key(seed))


def test_success_and_return_are_those_of_the_episodes(agent, published):
  robots = _Robots(size=8)
  evaluator = _evaluator(agent, robots, held_out=5)
  trial = evaluator.try_out(published(2).variables, number=0)
  (starts,) = robots.begun
  assert trial.success == np.mean(starts[:5] > 0)
  assert trial.fresh_success == np.mean(starts[5:] > 0)
  assert 0 < trial.success < 1  # a draw that can tell
  np.testing.assert_allclose(trial.total, 3 * 2.0 + starts[:5].mean(), rtol=1e-6)


def test_distances_are_those_after_the_held_out_episodes(agent, published):
  robots = _Robots(size=8)
  apart = evaluators.Evaluator(
    agent, robots, 5, jax.random.key(0), lambda last: last[:, 0] + last[:, 1]
  )
  trial = apart.try_out(published(2).variables, number=0)
  np.testing.assert_allclose(trial.distances, robots.begun[0][:5] + 3.0, rtol=1e-6)
  plain = _evaluator(agent, robots, held_out=5)
  assert plain.try_out(published(2).variables, 0).distances is None


def test_held_out_episodes_stay_and_fresh_ones_come(agent, published):
  robots = _Robots(size=8)
  evaluator = _evaluator(agent, robots, held_out=5)
  for number in (0, 20, 40, 20):
    evaluator.try_out(published(1).variables, number)
  _evaluator(agent, robots, held_out=5, seed=1).try_out(published(1).variables, 0)
  first, second, third, again, other_seed = robots.begun
  for begun in (second, third, again):
    np.testing.assert_array_equal(begun[:5], first[:5])
  np.testing.assert_array_equal(second, again)
  starts = np.concatenate([first, second[5:], third[5:], other_seed])
  assert len(set(starts)) == len(starts)


@pytest.mark.parametrize('ends', [1, 2, 3])
def test_nothing_is_stepped_beyond_its_end(agent, published, ends):
  robots = _Robots(size=3, ends=ends)
  _evaluator(agent, robots, held_out=2).try_out(published(1).variables, 0)
  assert robots.stepped == [[0, 1, 2]] * ends


def test_each_instance_ends_when_it_does(agent, published):
  robots = _Robots(size=4, ends=[2, 1, 4, 2])
  keys = jax.random.split(jax.random.key(5), 4)
  totals, success, last = evaluators.rollout(
    agent, robots, published(2).variables, keys
  )
  (starts,) = robots.begun
  assert robots.stepped == [[0, 1, 2, 3], [0, 2, 3], [2], [2]]
  np.testing.assert_allclose(totals, 2.0 * np.array([2, 1, 4, 2]) + starts, rtol=1e-6)
  np.testing.assert_array_equal(success, starts > 0)
  np.testing.assert_array_equal(last[:, 0], starts)
  np.testing.assert_array_equal(last[:, 1], [2, 1, 4, 2])  # not what came later
  assert 0 < success.mean() < 1  # a draw that can tell


def test_a_trial_of_reach(agent, published, reach_task):
  still = agent._replace(act=lambda variables, observation, key: jax.numpy.zeros([7]))
  evaluator = _evaluator(still, host.HostBatch(reach_task, 4, threads=1), held_out=3)
  trial, again = (evaluator.try_out(published(1).variables, 0) for _ in range(2))
  assert trial == again
  assert (trial.success, trial.fresh_success) == (0.0, 0.0)
  assert trial.total < 0
