"""Small runs of QT-Opt, from the command line to their summary."""

import pytest

_CONFIG = 'configs/qtopt.py:grasp_few'
_NUMBERS = {
  'agent__cem__samples': 8,
  'agent__cem__elites': 2,
  'run__warmup_steps': 40,
  'run__updates_per_step': 1.0,
  'run__scripted_updates': 40,
  'run__evaluate_every': 4,
  'run__held_out_episodes': 2,
  'run__fresh_episodes': 1,
  'run__checkpoint_every': 4,
  'task__train_objects': 12,
  'task__test_objects': 12,
  'task__episode_steps': 16,
}


@pytest.fixture(name='runs', scope='module')
def _runs(unmeasured_farm, tmp_path_factory):
  """The folder of a run of eight episodes, and of one that stopped on the way."""
  folder = tmp_path_factory.mktemp('qtopt')
  unmeasured_farm.run(folder / 'whole', config=_CONFIG, **_NUMBERS, run__max_episodes=8)
  for end in (4, 8):
    unmeasured_farm.run(
      folder / 'stopped', config=_CONFIG, **_NUMBERS, run__max_episodes=end
    )
  return folder


def test_grasping_is_learned_in_lock_step(runs, left):
  run = left(runs / 'whole')
  summary, counters = run.read('summary.json'), run.counters()
  assert (summary['agent'], summary['task']) == ('qtopt', 'grasp_state')
  assert counters['episodes'] >= 8  # a block may end several
  assert counters['updates'] == counters['env_steps'] - 40
  learned = run.rows('learner')[-1]
  assert {'loss', 'q', 'target', 'error', 'outside'} <= set(learned)
  assert 0.0 < learned['q'] < 1.0
  assert run.rows('evaluation')[-1]['episodes'] == counters['episodes']
  scripted = [row['steps'] for row in run.rows('episode') if row['version'] <= 40]
  assert len(scripted) >= 3
  assert min(scripted) > 8  # there, down, closed, up


def test_a_run_of_grasping_goes_on_as_if_it_had_not_been_stopped(runs, left):
  whole, stopped = left(runs / 'whole'), left(runs / 'stopped')
  clocks = ('seconds', 'age_s')
  rows = [
    [{name: x for name, x in row.items() if name not in clocks} for row in run.rows()]
    for run in (whole, stopped)
  ]
  assert rows[0] == rows[1]


def test_a_policy_of_grasping_is_tried_on_objects_not_seen(farm, runs):
  process = farm.start(
    f'--workdir={runs / "whole"}', '--episodes=2', '--nopictures', module='evaluate'
  )
  assert process.wait() == 0, process.err
  assert 'of 2 episodes' in process.out
