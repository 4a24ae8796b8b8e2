"""The supervisor: when policies are tried, runs saved and tasks learned."""

import json
import types

import pytest

from armfarm.workers import supervisor as supervisors
from armfarm.workers.evaluator import Trial
from armfarm.workers.supervisor import Criteria
from armfarm.workers.supervisor import Request
from armfarm.workers.trainer import Counters
from armfarm.workers.trainer import Diverged
from armfarm.workers.trainer import Episode

_WON = Trial(success=1.0, total=-1.0, fresh_success=1.0)
_LOST = Trial(success=0.95, total=-2.0, fresh_success=0.8)
_HELD_OUT = Trial(success=1.0, total=-1.0, fresh_success=0.8)
_FRESH = Trial(success=0.95, total=-2.0, fresh_success=1.0)


@pytest.mark.parametrize(
  ('trials', 'episodes', 'seconds', 'paper'),
  [
    ([], None, None, None),
    ([_LOST] * 5, None, None, None),
    ([_WON], None, None, 20),
    ([_WON, _WON], 20, 7, 20),
    ([_HELD_OUT, _HELD_OUT], 20, 7, None),
    ([_FRESH, _FRESH], None, None, 20),
    ([_WON, _LOST, _WON, _LOST], None, None, 20),
    ([_LOST, _HELD_OUT, _LOST, _HELD_OUT, _WON], 80, 28, 100),
    ([_WON, _WON, _LOST, _WON, _WON], 20, 7, 20),  # the first time counts
    ([_HELD_OUT, _HELD_OUT, _HELD_OUT, _FRESH, _WON], 20, 7, 80),
  ],
)
def test_criteria(trials, episodes, seconds, paper):
  criteria, previous = Criteria(), Request(Counters(), 0.0, None)
  for number, trial in enumerate(trials, start=1):
    request = Request(Counters(episodes=20 * number), 7.0 * number, None)
    criteria = criteria.after(request, trial, previous)
    previous = request
  assert criteria.episodes_to_100 == episodes
  assert criteria.wall_s_to_100 == seconds
  assert criteria.episodes_to_100_paper == paper
  assert criteria.met == (episodes is not None and paper is not None)
  last = trials[-1] if trials else Trial(None, None, None)
  assert (criteria.success, criteria.total) == (last.success, last.total)


_EPISODE = Episode(
  0, 3, 5, total=-4.5, success=True, version=1, age_updates=2, age_s=0.1
)


class _Trainer:
  """Trains ten steps and ten updates an episode, as far as anyone can see."""

  def __init__(self):
    self.counters, self.dropped, self.diverged = Counters(), 0, False
    self.published, self.verdicts = 0, []

  def judge(self, success):
    self.verdicts.append(success)

  def train(self, episodes):
    count = self.counters.episodes + episodes
    self.counters = Counters(10 * count, 10 * count, count)

  def check(self):
    if self.diverged:
      raise Diverged

  def publish(self):
    self.check()
    self.published += 1

  def variables(self):
    return {'updates': self.counters.updates}

  def metrics(self):
    return {'loss': 0.5, 'updates_per_step': 1.0}

  def progress(self):
    return {'counters': self.counters._asdict()}


class _Farm:
  """A supervisor among notebooks: whatever it asks for is written down.

  Training takes a second an episode, a trial a hundred. The trials are those given;
  without `reports` their outcomes wait for `report`.
  """

  def __init__(self, time, trials, *, reports=True, **options):
    numbers = dict(max_episodes=1000, evaluate_every=20, checkpoint_every=30)
    numbers |= dict(stop_when_solved=True) | options
    self.time, self.trials, self._reports = time, iter(trials), reports
    self._waiting = []
    self.trainer = _Trainer()
    self.tried, self.saved, self.rows, self.shown = [], [], [], []
    self.supervisor = supervisors.Supervisor(
      self.trainer,
      supervisors.Options(**numbers),
      submit=self._submit,
      arrays=lambda: 'arrays',
      checkpoints=types.SimpleNamespace(save=lambda *row: self.saved.append(row)),
      records=types.SimpleNamespace(
        write=lambda *row: self.rows.append(row), position=lambda: 123
      ),
      progress=types.SimpleNamespace(show=self.shown.append),
    )

  def train(self, episodes, blocks=1):
    for _ in range(blocks):
      self.trainer.train(episodes)
      self.time.now += episodes
      self.supervisor.after([_EPISODE] * episodes)

  def _submit(self, supervisor, request):
    assert supervisor is self.supervisor
    self.tried.append(request)
    self._waiting.append(request)
    if self._reports:
      self.time.now += 100
      self.report()

  def report(self):
    self.supervisor.report(self._waiting.pop(0), next(self.trials))

  @property
  def trial_episodes(self):
    return [request.counters.episodes for request in self.tried]


@pytest.fixture
def farm(clock):
  """Returns `trials, ... -> _Farm`."""
  time = clock(supervisors)
  return lambda trials=(_LOST,) * 100, **options: _Farm(time, trials, **options)


@pytest.mark.parametrize(
  ('episodes', 'tried', 'saved'),
  [
    (1, [20, 40, 60, 80], [30, 60, 90]),
    (3, [21, 42, 60, 81], [30, 60, 90]),  # late by what a block ends
    (0, [], []),
    (15, [30, 45, 60, 90], [30, 60, 90]),
  ],
)
def test_trials_and_checkpoints_keep_their_distance(farm, episodes, tried, saved):
  farm = farm()
  farm.train(episodes, blocks=90 // episodes if episodes else 5)
  assert farm.trial_episodes == tried
  assert [row[0] for row in farm.saved] == [10 * count for count in saved]
  assert farm.trainer.published == len(saved)


def test_what_is_tried_is_the_present_policy_and_the_clock_stands_still(farm):
  farm = farm()
  farm.train(1, blocks=45)
  assert farm.tried == [
    Request(Counters(200, 200, 20), 20.0, {'updates': 200}),
    Request(Counters(400, 400, 40), 40.0, {'updates': 400}),
  ]
  assert farm.supervisor.stopwatch.read() == 45.0


def test_all_is_recorded(farm):
  farm = farm([_HELD_OUT])
  farm.train(1, blocks=20)
  *episodes, learner, evaluation = farm.rows
  assert episodes == [('episode', 10 * n, _EPISODE._asdict()) for n in range(1, 21)]
  metrics = {'updates': 200, 'loss': 0.5, 'updates_per_step': 1.0}
  assert learner == ('learner', 200, metrics)
  counters = {'env_steps': 200, 'updates': 200, 'episodes': 20, 'seconds': 20.0}
  told = {'success': 1.0, 'total': -1.0, 'fresh_success': 0.8}  # and no distances
  assert evaluation == ('evaluation', 200, counters | told)
  assert len(farm.shown) == 20
  assert 'success   ---' in farm.shown[0]
  assert 'episode    20  return    -4.50  success 100 %' in farm.shown[-1]


def test_the_trainer_hears_of_every_trial(farm):
  farm = farm([_LOST, _WON, _HELD_OUT])
  farm.train(1, blocks=60)
  assert farm.trainer.verdicts == [_LOST.success, _WON.success, _HELD_OUT.success]


@pytest.mark.parametrize(
  ('trials', 'options', 'ends'),
  [
    ([_LOST, _WON, _WON], {}, 60),
    ([_LOST, _WON, _WON, _LOST, _LOST], {'stop_when_solved': False}, 100),
    ([_LOST, _WON, _LOST, _WON, _LOST], {}, 100),
    ([_HELD_OUT, _HELD_OUT, _HELD_OUT, _FRESH, _HELD_OUT], {'max_episodes': 200}, 100),
  ],
)
def test_a_run_ends_when_it_is_done(farm, trials, options, ends):
  farm = farm(trials, **{'max_episodes': 100} | options)
  for _ in range(ends):
    assert not farm.supervisor.done
    farm.train(1)
  assert farm.supervisor.done


@pytest.mark.parametrize(
  ('episodes', 'tried'), [(100, [20, 40, 60, 80, 100]), (90, [20, 40, 60, 80, 90])]
)
def test_the_last_policy_is_tried_once_and_saved(farm, episodes, tried):
  farm = farm(max_episodes=episodes)
  farm.train(1, blocks=episodes)
  farm.supervisor.finish()
  assert farm.trial_episodes == tried
  assert farm.saved[-1][0] == 10 * episodes


@pytest.mark.parametrize('resumed', [False, True])
def test_a_run_ends_with_the_policy_that_passed(farm, resumed):
  busy = farm([_WON, _WON, _LOST], reports=False)
  busy.train(1, blocks=65)  # trials at 20, 40 and 60
  for _ in range(3):
    busy.report()  # the last is of a trainer that went on meanwhile
  busy.supervisor.finish()
  assert busy.trial_episodes == [20, 40, 60]
  number, trees, progress = busy.saved[-1]
  assert (number, trees['policy']) == (650, {'updates': 400})
  if resumed:
    busy = farm()
    busy.trainer.train(65)
    busy.supervisor.restore(json.loads(json.dumps(progress)), trees['policy'])
    busy.supervisor.finish()
    assert busy.saved[-1][1:] == (trees, progress)
  assert busy.supervisor.done
  assert busy.supervisor.criteria.success == 1.0


def test_a_run_that_was_stopped_is_saved_and_not_tried(farm):
  farm = farm()
  farm.train(1, blocks=25)
  farm.supervisor.finish()
  assert farm.trial_episodes == [20]
  assert [row[0] for row in farm.saved] == [250]


@pytest.mark.parametrize('episodes', [20, 30])
def test_a_run_that_diverged_is_neither_tried_nor_saved(farm, episodes):
  farm = farm()
  farm.train(1, blocks=episodes - 1)
  farm.trainer.diverged = True
  with pytest.raises(Diverged):
    farm.train(1)
  assert (len(farm.tried), farm.saved) == (episodes > 20, [])


def test_a_trial_that_was_not_reported_is_asked_for_again(farm):
  busy = farm(reports=False)
  busy.train(1, blocks=65)  # trials at 20, 40 and 60
  busy.report()
  busy.supervisor.save()
  assert busy.saved[-1][2]['next'] == [40, 90]
  busy.report()
  busy.report()
  busy.supervisor.save()
  assert busy.saved[-1][2]['next'] == [80, 90]


def test_a_run_goes_on_where_it_was_saved(farm):
  trials = [_LOST, _WON, _WON, _LOST]
  whole = farm(trials)
  whole.train(1, blocks=45)
  whole.supervisor.save()
  number, trees, progress = whole.saved[-1]
  summary = whole.supervisor.summary()
  assert (number, progress['metrics_bytes']) == (450, 123)
  assert trees == {'run': 'arrays', 'policy': {'updates': 450}}
  whole.train(1, blocks=46)

  resumed = farm(trials[2:])  # later
  resumed.trainer.train(45)
  resumed.supervisor.restore(json.loads(json.dumps(progress)), None)
  assert resumed.supervisor.summary() == summary
  resumed.train(1, blocks=46)
  assert resumed.trial_episodes == [60, 80]
  assert resumed.tried == whole.tried[2:]
  assert [row[0] for row in resumed.saved] == [row[0] for row in whole.saved[2:]]
  assert resumed.supervisor.criteria == whole.supervisor.criteria
  assert resumed.supervisor.criteria[1:4] == (40, 40.0, 40)


def test_checkpoints_may_come_more_often_from_now_on(farm):
  whole = farm(checkpoint_every=500)
  whole.train(1, blocks=45)
  whole.supervisor.save()
  progress = json.loads(json.dumps(whole.saved[-1][2]))
  resumed = farm(checkpoint_every=20)
  resumed.trainer.train(45)
  resumed.supervisor.restore(progress, None)
  resumed.train(1, blocks=40)
  assert [row[0] for row in resumed.saved] == [600, 800]


def test_the_summary(farm):
  farm = farm([_LOST, _WON, _WON])
  farm.train(2, blocks=31)
  assert farm.supervisor.summary() == {
    'env_steps': 620,
    'updates': 620,
    'episodes': 62,
    'episodes_to_100': 40,
    'wall_s_to_100': 40.0,
    'episodes_to_100_paper': 40,
    'success': 1.0,
    'return': -1.0,
    'seconds': 62.0,
    'updates_per_s': 10.0,
    'env_steps_per_s': 10.0,
    'updates_per_step': 1.0,
    'dropped': 0,
  }
