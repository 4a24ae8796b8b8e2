"""Agents of ours on Gymnasium's environments, from the command line to the resume."""

import numpy as np
import pytest

_NUMBERS = {
  'task__episode_steps': 20,
  'task__success_return': -30.0,
  'run__collectors': 1,
  'run__warmup_steps': 40,
  'run__evaluate_every': 2,
  'run__checkpoint_every': 2,
  'run__stop_when_solved': False,
}
_PENDULUM = 'configs/naf.py:gym/Pendulum-v1'


def _weights(run):
  return np.concatenate(
    [np.ravel(x) for x in _leaves(run.tree()['trainer']['learner'])]
  )


def _leaves(tree):
  if not isinstance(tree, dict | list):
    return [tree]
  branches = tree.values() if isinstance(tree, dict) else tree
  return [leaf for branch in branches for leaf in _leaves(branch)]


@pytest.mark.parametrize(
  ('config', 'flags'),
  [
    ('configs/naf.py:gym/Pendulum-v1,linear', []),
    ('configs/ddpg.py:gym/Pendulum-v1', ['--runtime=async']),
    pytest.param(
      _PENDULUM, ['--runtime=async', '--replay=reverb'], marks=pytest.mark.reverb
    ),
  ],
)
def test_every_agent_and_runtime_ends_well(farm, left, config, flags):
  run = left()
  farm.run(run.workdir, *flags, config=config, **_NUMBERS, run__max_episodes=5)
  episodes = run.rows('episode')
  assert len(episodes) >= 5
  assert {row['steps'] for row in episodes} == {20}
  for row in episodes:
    assert -20 * 17 < row['total'] < 0  # Pendulum's own reward, not a scaled one
    assert row['success'] == (row['total'] >= -30)
  summary = run.read('summary.json')
  assert (summary['finished'], summary['task']) == (True, 'Pendulum-v1')


def test_a_run_resumes_with_its_next_episode(farm, left):
  whole, cut = left('whole'), left('cut')
  numbers = {'config': _PENDULUM, **_NUMBERS}
  farm.run(whole.workdir, **numbers, run__max_episodes=6)
  farm.run(cut.workdir, **numbers, run__max_episodes=4)
  process = farm.run(cut.workdir, **numbers, run__max_episodes=6)
  assert 'Going on at episode 4, ' in process.err
  assert [row['episode'] for row in cut.rows('episode')] == list(range(6))
  # Its checkpoints lie between episodes, where nothing is lost: the same to the bit.
  totals = [[row['total'] for row in run.rows('episode')] for run in (whole, cut)]
  assert totals[0] == totals[1]
  np.testing.assert_array_equal(_weights(whole), _weights(cut))


def test_an_episode_that_was_cut_short_is_left_out(farm, left):
  run = left()
  numbers = {'config': _PENDULUM, **_NUMBERS, 'run__block_steps': 8}
  farm.run(run.workdir, **numbers, run__max_episodes=3)  # ends 4 steps into episode 3
  farm.run(run.workdir, **numbers, run__max_episodes=6)
  assert [row['episode'] for row in run.rows('episode')] == [0, 1, 2, 4, 5, 6]
  assert {row['steps'] for row in run.rows('episode')} == {20}
