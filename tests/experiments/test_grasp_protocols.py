"""What protocols count, and that they fit what a policy has learned to see."""

import pathlib

from absl.testing import flagsaver
import jax
import numpy as np
import pytest

from armfarm.configs import qtopt as configs
from armfarm.configs import tasks
from armfarm.envs import task
from armfarm.experiments import grasp_protocols as protocols
from armfarm.launchers.app import UserError


class _Bin:
  """A bin where attempts come out as it was told: letters, g grasped, . not."""

  def __init__(self, letters, count):
    self._letters, self._full = iter(letters), count
    self.filled = self.count = 0

  def fill(self, key):
    del key
    self.filled += 1
    self.count = self._full

  def begin(self):
    self._left = 3
    return np.zeros(2)

  def step(self, action):
    assert action == 7
    self._left -= 1
    over = not self._left
    success = over and next(self._letters) == 'g'
    return task.Step(np.zeros(2), 0.0, over, False, success)

  def put_aside(self):
    self.count -= 1


def _act(observation, key):
  jax.random.bits(key)  # each is used once
  assert observation.shape == (2,)
  return 7


@pytest.mark.parametrize(
  ('letters', 'count', 'made', 'left'),
  [
    ('g.gg......', 5, 'g.gg......', 2),
    ('ggg.......', 3, 'ggg', 0),
    ('..........', 3, '..........', 3),
  ],
)
def test_a_bin_is_emptied_until_it_is_empty_or_time_is_up(letters, count, made, left):
  bin = _Bin(letters, count)
  outcomes, remaining = protocols.empty(bin, _act, 10, jax.random.key(0))
  assert ''.join('.g'[x] for x in outcomes) == made
  assert remaining == left
  assert bin.filled == 1


def test_what_is_reported_of_bins(monkeypatch):
  bin = _Bin('g' * 12 + '.' * 8 + '.' * 20, 12)
  monkeypatch.setattr(protocols, 'variant', lambda *_: ())
  monkeypatch.setattr(protocols.grasp_attempts, 'Bin', lambda: bin)
  numbers = tasks.protocols()
  numbers.emptying, numbers.attempts, numbers.counted = 2, 20, (10, 20)
  monkeypatch.setattr(protocols.tasks, 'protocols', lambda: numbers)
  found = protocols.emptying(configs.get_config('grasp_state'), _act, jax.random.key(0))
  # The first bin was empty after 12 attempts, from the second nothing was taken.
  assert found == {
    'first_10': (50.0, '%'),
    'first_20': (100 * 12 / 32, '%'),
    'emptied': (1.0, 'of 2 bins'),
  }


@pytest.mark.parametrize(
  'change', [tasks.unseen, tasks.emptying, tasks.disturbed, tasks.singulation]
)
def test_a_policy_sees_as_it_has_learned(change):
  config = configs.get_config('grasp_state')
  before = config.task.to_dict()
  made, numbers = protocols.variant(config, change)
  assert made.observation_size == 6 + 12 * 10
  assert made.action_size == 8
  assert numbers.unseen
  assert config.task.to_dict() == before


def test_the_runs_of_grasp_state_are_tried_unless_others_are_given(parsed, tmp_path):
  workdir = tmp_path / 'grasp_state' / 'supervised-0'
  workdir.mkdir(parents=True)
  with flagsaver.as_parsed(runs=str(tmp_path)):
    with pytest.raises(UserError, match='no run of grasp_state is finished: run'):
      protocols.workdirs()
    (workdir / 'summary.json').write_text('{"finished": true}')
    assert protocols.workdirs() == [workdir]
    with flagsaver.as_parsed(agents='qtopt'), pytest.raises(UserError, match='no run'):
      protocols.workdirs()
    with flagsaver.as_parsed(workdirs='a,b'):
      assert protocols.workdirs() == [pathlib.Path('a'), pathlib.Path('b')]


def test_other_tasks_have_no_protocols():
  with pytest.raises(UserError, match='reach is no grasping'):
    protocols.variant(configs.get_config('reach'), tasks.unseen)


def test_protocols_are_those_of_the_paper():
  numbers = tasks.protocols()
  assert numbers.replacement >= 700
  assert (numbers.emptying, numbers.attempts) == (5, 30)
  full = tasks.grasp_state()
  tasks.emptying(full)
  assert full.in_bin == (28, 28)
