"""Small runs of the fused runtime, from the command line to their summary."""

import numpy as np
import pytest

_FUSED = {
  'run__environments': 2,
  'run__warmup_steps': 60,
  'run__checkpoint_every': 4,
  'run__evaluate_every': 4,
}
_FOUR = {'run__environments': 4}
_MANY = {'run__environments': 20}


def test_a_run_from_its_flags_to_its_summary(unmeasured_farm, left):
  run = left()
  unmeasured_farm.run(run.workdir, '--runtime=fused', run__max_episodes=8, **_FUSED)
  summary = run.read('summary.json')
  counters = {'episodes': 8, 'env_steps': 240, 'updates': 180, 'traces': 1}
  assert {name: summary[name] for name in counters} == counters
  assert (summary['runtime'], summary['updates_per_step']) == ('fused', 1.0)
  episodes = run.rows('episode')
  assert [row['collector'] for row in episodes] == [0, 1] * 4
  assert [row['episode'] for row in episodes] == [0, 0, 1, 1, 2, 2, 3, 3]
  assert len({row['total'] for row in episodes}) == 8
  assert run.whole()


# That it ends as if it had not been stopped, to the bit, tests/workers shows.
def test_a_run_on_two_devices_goes_on_with_one_learner(unmeasured_farm, left):
  run = left()
  numbers = {**_FUSED, 'run__environments': 4, 'run__devices': 2}
  for end in (4, 8):
    process = unmeasured_farm.run(
      run.workdir, '--runtime=fused', run__max_episodes=end, **numbers
    )
  assert 'Going on at episode 4' in process.err
  summary = run.read('summary.json')
  assert (summary['env_steps'], summary['updates'], summary['traces']) == (240, 180, 1)
  rows = run.rows('episode')
  assert [row['collector'] for row in rows] == [0, 1, 2, 3] * 2
  assert [row['episode'] for row in rows] == [0] * 4 + [1] * 4
  assert run.whole()
  arrays = run.tree()['trainer']
  learner = [x for path, x in arrays.items() if path.startswith('.learner')]
  assert learner
  for array in learner:
    np.testing.assert_array_equal(array[0], array[1])
  assert not np.array_equal(*arrays['.state.obs'])


@pytest.mark.parametrize(
  ('flags', 'numbers', 'says'),
  [
    (['--replay=reverb'], {}, 'keeps experience on the device: leave out --replay='),
    ([], {'run__devices': 3}, 'run.environments is 16: give a multiple of 3'),
    ([], {'run__environments': 15}, 'replay.capacity is 5000: give a multiple of 15'),
    ([], _FOUR | {'run__updates_per_step': 0.3}, 'is 6/5 updates: set environments'),
    ([], _MANY | {'replay__batch_size': 400}, 'a block of steps asks for 8000 samples'),
    ([], {'config': 'configs/naf.py:gym/Pendulum-v1'}, 'fused needs a task on MJX'),
  ],
)
def test_what_cannot_be_fused(farm, left, flags, numbers, says):
  run = left()
  process = farm.launch(run.workdir, '--runtime=fused', *flags, **numbers)
  assert process.wait() == 2
  (line,) = process.err.splitlines()
  assert line.startswith('armfarm: ') and says in line
  assert process.out == ''
  assert not run.workdir.exists()
