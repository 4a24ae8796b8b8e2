"""Guided policy search from the command line: lock step, pairs, and what goes wrong."""

import functools
import os
import shutil
import signal
import threading
import time

import jax
import numpy as np
import pytest

from armfarm.agents.gps import linear_gaussian
from armfarm.configs import gps as configs
from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import guided
from armfarm.launchers import pairs
from armfarm.launchers import policy

_SMALL = {  # reach_torque with two instances to train on, in iterations of 4 rollouts
  'task.episode_steps': 8,
  'instances.train': '(0,1)',
  'instances.validate': '(2,)',
  'instances.test': '(3,)',
  'agent.hidden': '(8,)',
  'agent.local.steps': 8,
  'agent.local.rollouts': 2,
  'agent.local.remembered': 4,
  'agent.local.gaussians': 2,
  'replay.batch_size': 16,
  'run.updates_per_iteration': 20,
  'run.inner_iterations': 2,
  'run.max_episodes': 8,
  'run.evaluate_every': 4,
  'run.checkpoint_every': 4,
}


@pytest.fixture
def launch(farm):
  """Starts a small run; as `farm.launch`, of nothing but these numbers."""
  return functools.partial(_start, farm)


def _start(farm, workdir, *arguments, config='configs/gps.py:reach_torque', **numbers):
  numbers = {name.replace('__', '.'): x for name, x in numbers.items()}
  overrides = [f'--config.{name}={x}' for name, x in {**_SMALL, **numbers}.items()]
  flags = [f'--config={config}', '--nopictures', f'--workdir={workdir}']
  return farm.start(*flags, *overrides, *arguments)


@pytest.fixture
def run(launch):
  def finish(*arguments, **numbers):
    process = launch(*arguments, **numbers)
    assert process.wait() == 0, process.err
    return process

  return finish


def _without_clocks(rows):
  shares = [name for row in rows for name in row if 'utilization' in name]
  clocks = ('seconds', 'age_s', *shares)
  return [{name: x for name, x in row.items() if name not in clocks} for row in rows]


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(farm, run, left):
  whole, stopped = left('whole'), left('stopped')
  run(whole.workdir)
  summary = whole.read('summary.json')
  counters = {'episodes': 8, 'env_steps': 64, 'updates': 2 * 2 * 20}
  assert {name: summary[name] for name in counters} == counters
  assert (summary['agent'], summary['task']) == ('gps', 'reach_torque')
  episodes = whole.rows('episode')
  assert [row['instance'] for row in episodes] == [0, 0, 1, 1] * 2
  assert [row['iteration'] for row in episodes] == [0] * 4 + [1] * 4
  run(stopped.workdir, run__max_episodes=4)
  process = run(stopped.workdir)
  assert 'Going on at episode 4' in process.err
  assert _without_clocks(stopped.rows()) == _without_clocks(whole.rows())
  ends = [jax.tree_util.tree_leaves_with_path(x.tree()) for x in (whole, stopped)]
  for (path, leaf), (_, twin) in zip(*ends, strict=True):
    if 'time' not in jax.tree_util.keystr(path):
      np.testing.assert_array_equal(leaf, twin, err_msg=jax.tree_util.keystr(path))
  path = whole.workdir / 'shown_{}.npz'
  flags = '--nopictures', f'--workdir={whole.workdir}', f'--record={path}'
  shown = farm.start(*flags, module='evaluate')
  assert shown.wait() == 0, shown.err
  assert 'policy after  80 updates, 8 episodes' in shown.out
  _check_that_robots_do_what_they_were_shown(path)
  path = whole.workdir / 'demonstration.npz'
  assert policy.record(policy.load(whole.workdir), str(path), seed=1) == [path]
  # Who begins with the demonstration does what it shows.
  config = configs.get_config('reach_torque,demonstration')
  config.agent.local.steps = 8
  numbers = {**config.agent.initial.to_dict(), 'path': str(path)}
  options = guided.local_options(config)
  controller = guided.make_controller(numbers, build.make_task(config), options)
  with np.load(path) as shown:
    states, actions = shown['observation'][:, :32], shown['action']
  followed = linear_gaussian.mean_action(controller, states)
  np.testing.assert_allclose(followed, actions, atol=1e-5)


def _check_that_robots_do_what_they_were_shown(path):
  config = configs.get_config('reach_torque,demonstration')
  config.task.episode_steps = config.agent.local.steps = 8
  config.instances.train = (0, 1)
  config.agent.initial.path = str(path)
  robot = guided.make_robot(config, build.make_task(config), 0)
  followed = []
  for number, controller in enumerate(robot.controllers):
    with np.load(str(path).format(number)) as shown:
      states, actions = shown['observation'][:, :32], shown['action']
    followed.append(linear_gaussian.mean_action(controller, states))
    np.testing.assert_allclose(followed[-1], actions, atol=1e-5)
  assert np.abs(followed[0] - followed[1]).max() > 0.01


_TAUGHT = {  # what a run needs that goes on from another
  'agent__local__algorithm': 'mdgps',
  'agent__local__on_policy': True,
}


def test_a_run_goes_on_from_the_policy_of_another(launch, run, left):
  first, second = left('first'), left('second')
  run(first.workdir, run__max_episodes=4)
  numbers = {**_TAUGHT, 'agent__taught_by': first.workdir}
  process = run(second.workdir, **numbers, run__max_episodes=4)
  assert f'Going on from the policy of {first.workdir}' in process.err
  # BADMM learns twice in an iteration, as it was told, mirror descent once.
  assert first.read('summary.json')['updates'] == 2 * 20
  assert second.read('summary.json')['updates'] == 20
  before, after = (place.rows('evaluation') for place in (first, second))
  assert before[0]['total'] != before[-1]['total']
  np.testing.assert_allclose(after[0]['total'], before[-1]['total'], rtol=1e-5)
  _check_that_another_kind_is_refused(first.workdir, left('third').workdir)
  shutil.rmtree(first.workdir)  # now it has its own
  process = run(second.workdir, **numbers)
  assert 'Going on at episode 4' in process.err
  process = launch(left('third').workdir, **numbers)
  assert process.wait() == 2
  assert f'agent.taught_by: {first.workdir} holds no run' in process.err


def _check_that_another_kind_is_refused(teacher, workdir):
  config = configs.get_config('reach_torque')
  config.agent.taught_by = str(teacher)
  with pytest.raises(app.UserError, match=r'agent.hidden is \(40, 40\), but'):
    policy.taught(config, workdir)
  config.agent.hidden = (8,)
  config.agent.min_deviation = 0.5
  with pytest.raises(app.UserError, match='agent.min_deviation is 0.5, but 0.001'):
    policy.taught(config, workdir)


@pytest.mark.reverb
def test_a_pair_that_is_killed_comes_back_with_its_memory(unmeasured_farm, left):
  farm, place = unmeasured_farm, left()
  process = _start(
    farm,
    place.workdir,
    '--runtime=async',
    '--replay=reverb',
    run__collectors=2,
    run__max_episodes=100_000,
  )
  pid = place.workdir / 'pairs' / '00.pid'

  def saved(count):
    return lambda: _newest(place, collector=0)['iteration'] >= count

  farm.wait_for(saved(2), 'three iterations of the first pair')
  victim = pid.read_text()
  os.kill(int(victim), signal.SIGKILL)
  seen = _newest(place, collector=0)
  farm.wait_for(lambda: pid.read_text() not in ('', victim), 'another')
  farm.wait_for(lambda: _newest(place, collector=0)['episode'] > seen['episode'], 'it')
  assert _newest(place, collector=0)['iteration'] >= seen['iteration'] - 1 >= 1
  process.signal(signal.SIGINT)
  assert process.wait() == 130
  assert process.err.count('pair 0 died with code -9; replaced') == 1
  episodes = [(row['collector'], row['episode']) for row in place.rows('episode')]
  assert len(episodes) == len(set(episodes))
  learner = place.rows('learner')[-1]
  assert learner['updates'] > 0 and learner['staleness'] >= 0
  assert 0 < learner['utilization_1'] <= 1
  assert len(list(place.workdir.glob('pairs/0*/*/manifest.json'))) >= 2


def _newest(place, collector):
  rows = [row for row in place.rows('episode') if row['collector'] == collector]
  return rows[-1] if rows else {'iteration': -1, 'episode': -1}


@pytest.mark.parametrize(
  ('flags', 'numbers', 'says'),
  [
    ([], {'run__collectors': 3}, 'run.collectors is 3, but there are 2 instances'),
    ([], {'instances__test': '()'}, 'instances.test is (): give some, each once'),
    ([], {'agent__local__steps': 9}, 'agent.local.steps is 9, but an episode has 8'),
    ([], {'agent__initial__kind': 'pid'}, "no initial controller 'pid': choose one of"),
    (
      [],
      {'config': 'configs/gps.py:reach_torque,demonstration'},
      "agent.initial.path is 'demonstration.npz', which holds no demonstration",
    ),
    ([], {'agent__taught_by': 'nowhere'}, 'set on_policy to True, and algorithm'),
    ([], {'agent__taught_by': 'nowhere', **_TAUGHT}, 'agent.taught_by: nowhere holds'),
    (
      [],
      {'config': 'configs/gps.py:peg', **_TAUGHT, 'task__perturbation': 0.1},
      'set agent.local.remembered to 2, the rollouts of one, not 4',
    ),
    ([], {'agent__local__optimizer': 'ilqr'}, "optimizer is 'ilqr'; choose one of"),
    ([], {'agent__local__pi2__epsilon': 9.0, 'agent__local__optimizer': 'pi2'}, 'log'),
    (['--runtime=fused'], {}, 'controllers are improved on a CPU: take sync or async'),
    ([], {'config': 'configs/gps.py:reach'}, 'no config gps.py:reach; choose peg'),
  ],
)
def test_numbers_that_do_not_fit(launch, left, flags, numbers, says):
  place = left()
  process = launch(place.workdir, *flags, **numbers)
  assert process.wait() == 2
  (line,) = process.err.splitlines()
  assert line.startswith('armfarm: ') and says in line
  assert not place.workdir.exists()


@pytest.mark.parametrize('given', [None, 'elsewhere'])
def test_pairs_share_what_they_compile(monkeypatch, tmp_path, given):
  changed = {}
  monkeypatch.setattr(jax.config, 'update', changed.__setitem__)
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  if given:
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', given)
  pairs.share_compiled(tmp_path)
  folder = changed.get('jax_compilation_cache_dir')
  assert folder == (None if given else str(tmp_path / 'compiled'))


class _Turn:
  """A pair that takes its turn in a thread, until told to end it."""

  def __init__(self, workdir, stop=None):
    self.began, self.end = threading.Event(), threading.Event()
    arguments = workdir, stop or threading.Event()
    self._thread = threading.Thread(target=self._work, args=arguments, daemon=True)
    self._thread.start()

  def _work(self, workdir, stop):
    with pairs.turn_to_compile(workdir, stop):
      self.began.set()
      assert self.end.wait(60.0)

  def over(self):
    self.end.set()
    self._thread.join()


def test_one_pair_compiles_and_the_others_then_load_together(tmp_path):
  pairs.pid_path(tmp_path, 0)
  first = _Turn(tmp_path)
  assert first.began.wait(60.0)
  others = [_Turn(tmp_path), _Turn(tmp_path)]
  time.sleep(0.5)
  assert not any(other.began.is_set() for other in others)
  first.over()
  assert all(other.began.wait(60.0) for other in others)
  for other in others:
    other.over()


def test_who_is_told_to_stop_waits_for_no_turn(tmp_path):
  pairs.pid_path(tmp_path, 0)
  first = _Turn(tmp_path)
  assert first.began.wait(60.0)
  stop = threading.Event()
  other = _Turn(tmp_path, stop)
  stop.set()
  assert other.began.wait(60.0)
  other.over()
  first.over()
