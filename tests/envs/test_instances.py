"""Numbered instances: of tasks that name theirs, and of all others."""

import jax
import numpy as np
import pytest

from armfarm import envs
from armfarm.configs import gps
from armfarm.envs import host
from armfarm.envs import task as tasks


@pytest.fixture(params=sorted(set(envs.TASKS) - {'grasp'}))
def task(request, numbers):
  return envs.TASKS[request.param](**numbers[request.param])


def _start(task, seed=0):
  return tasks.Start(*map(np.asarray, task.reset(jax.random.key(seed))))


def test_a_number_decides_an_episode_whatever_the_key(task):
  numbered = [tasks.instance(task, number) for number in (0, 1, 0)]
  first, other, again = (_start(each, seed) for seed, each in enumerate(numbered))
  np.testing.assert_array_equal(first.goal, again.goal)
  np.testing.assert_array_equal(first.qpos, again.qpos)
  assert not np.array_equal(first.goal, other.goal)
  assert numbered[0].reset is not task.reset
  assert _start(tasks.instance(numbered[1], 0)).goal == pytest.approx(first.goal)


def test_every_body_begins_in_it(task):
  one = tasks.instance(task, 2)
  single, batch = host.Host(one), host.HostBatch(one, size=2, threads=1)
  first = single.reset(jax.random.key(3))
  keys = jax.random.split(jax.random.key(4), 2)
  np.testing.assert_array_equal(batch.reset(keys), [first, first])
  assert not np.array_equal(first, host.Host(task).reset(jax.random.key(3)))


def test_a_number_that_is_not_there_is_refused(task):
  with pytest.raises(ValueError, match=r'instance is -1: give 0'):
    tasks.instance(task, -1)


def test_a_task_knows_how_many_it_has(numbers):
  task = envs.TASKS['peg'](**numbers['peg'])
  with pytest.raises(ValueError, match=r'instance is 4: give 0 to 3'):
    tasks.instance(task, 4)


def test_a_key_perturbs_an_instance_where_the_task_does_so(numbers):
  task = envs.TASKS['peg'](**numbers['peg'] | {'perturbation': 0.02})
  one = tasks.instance(task, 1)
  goals = np.stack([_start(one, seed).goal for seed in (0, 1, 0)])
  np.testing.assert_array_equal(goals[0], goals[2])
  assert 0 < np.abs(goals[0] - goals[1]).max() < 0.04
  assert np.abs(goals - [0.55, -0.1, 0.02]).max() <= 0.02 + 1e-6


@pytest.mark.parametrize(('name', 'count'), [('peg', 4), ('reach_torque', 16)])
def test_the_instances_of_a_config_are_there(numbers, name, count):
  config = gps.get_config(name)
  task = envs.TASKS[name](**numbers[name])
  asked = {*config.instances.train, *config.instances.validate, *config.instances.test}
  assert asked == set(range(count))
  goals = [_start(tasks.instance(task, number)).goal for number in sorted(asked)]
  assert len(np.unique(goals, axis=0)) == count
  assert config.agent.local.state_size + 9 == task.observation_size
  assert config.agent.local.steps == task.episode_steps


def test_a_config_of_another_task_is_refused():
  with pytest.raises(ValueError, match='there is no config gps.py:reach; choose peg'):
    gps.get_config('reach')
