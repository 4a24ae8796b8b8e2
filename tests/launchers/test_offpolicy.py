"""Runs that log, replay what was logged, and have Bellman updaters."""

import os
import pathlib
import re
import signal
import time

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

pytest.importorskip('array_record')
pytest.importorskip('grain')

from armfarm import agents
from armfarm.agents import types as agent_types
from armfarm.configs import naf
from armfarm.configs import qtopt
from armfarm.launchers import build
from armfarm.launchers import offpolicy
from armfarm.launchers.app import UserError
from armfarm.replay import packing
from armfarm.replay import types

# NAF's labels are its transitions: quick to compile, and the farm is the same.
_CONFIG = """
from armfarm.configs import naf, qtopt

def get_config(which='reach'):
  config = naf.get_config(which)
  config.log, config.labels = qtopt.log(), qtopt.labels()
  config.joint = qtopt.joint()
  return config
"""
_JOINT = {'joint__offline_updates': 100, 'joint__updates': 300, 'labels__batch': 16}


@pytest.fixture(name='config')
def _config(tmp_path):
  path = tmp_path / 'config.py'
  path.write_text(_CONFIG)
  return path


@pytest.fixture(name='log', scope='session')
def _log(farm, tmp_path_factory):
  """A log of ten episodes, left by a run in lock step."""
  folder = tmp_path_factory.mktemp('log')
  (folder / 'config.py').write_text(_CONFIG)
  log = folder / 'log'
  farm.run(folder / 'run', config=folder / 'config.py', log__record=log)
  return log


def _numbers(**changes):
  config = naf.get_config('reach')
  config.log, config.labels, config.joint = qtopt.log(), qtopt.labels(), qtopt.joint()
  config.update_from_flattened_dict(changes)
  return config


def test_everyone_has_a_number():
  config = _numbers(**{'run.collectors': 2, 'log.jobs': 3, 'labels.updaters': 1})
  assert offpolicy.cast(config) == offpolicy.Cast(2, 0, 1)  # there is no log to replay
  config.log.replay = 'a,b'
  who = offpolicy.cast(config)
  roles = ['collector'] * 2 + ['log_replay'] * 3 + ['bellman_updater']
  assert [who.role(number) for number in range(who.everyone)] == roles
  assert who.queues == ['offline', 'raw-0', 'train']
  assert who._replace(updaters=3).raw == ['raw-0', 'raw-1', 'raw-2']
  assert who._replace(updaters=3).raw_of(6) == 'raw-1'
  assert offpolicy.folders(config) == [pathlib.Path('a'), pathlib.Path('b')]


def test_other_systems_have_collectors_alone():
  config = naf.get_config('reach')
  assert offpolicy.cast(config) == offpolicy.Cast(1, 0, 0)
  offpolicy.check(config)
  assert offpolicy.offline_updates(config) == 0


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'log.replay': '/nowhere'}, 'log.replay is /nowhere, which is no folder'),
    ({'joint.offline_updates': 5}, 'offline_updates is 5: give log.replay, too'),
    ({'joint.balance': (11.0, 6.0)}, 'give two above 0, rising'),
    ({'joint.end': 2.0}, 'give 0 to 1'),
    (
      {'labels.updaters': 1, 'labels.batch': 300_000},
      'labels.batch is 300000: use a capacity of at least that',
    ),
  ],
)
def test_what_does_not_fit_is_told(changes, message):
  with pytest.raises(ValueError, match=message):
    offpolicy.check(_numbers(**changes))


def test_a_log_without_its_libraries_is_told(monkeypatch):
  monkeypatch.setattr(offpolicy, '_LIBRARIES', ('array_record', 'no_such_library'))
  offpolicy.check(_numbers())
  with pytest.raises(ValueError, match=r"a log needs .*: pip install 'armfarm\[log\]'"):
    offpolicy.check(_numbers(**{'log.record': 'a'}))


@pytest.mark.parametrize(
  ('runtime', 'changes', 'message'),
  [
    ('fused', {'log.record': 'a'}, '--runtime=fused has no log'),
    ('fused', {'log.replay': 'a'}, '--runtime=fused has no log'),
    ('async', {'log.replay': 'a'}, 'give labels.updaters, 1 or more, or take sync'),
  ],
)
def test_what_a_runtime_has_no_place_for_is_told(runtime, changes, message):
  with pytest.raises(UserError, match=message):
    offpolicy.check_runtime(_numbers(**changes), runtime)
  offpolicy.check_runtime(_numbers(**changes), 'sync')


@pytest.mark.parametrize('runtime', ['sync', 'fused'])
def test_updaters_are_of_asynchronous_runs(runtime):
  config = _numbers(**{'labels.updaters': 2})
  with pytest.raises(UserError, match=f'is 2, and --runtime={runtime} has none'):
    offpolicy.check_runtime(config, runtime)
  offpolicy.check_runtime(config, 'async')


def test_labels_travel_as_updates_take_them():
  spec = agent_types.Spec(observation_size=3, action_size=2)
  numbers = naf.agent('mlp').to_dict()
  del numbers['name']
  entry = agents.AGENTS['naf']
  agent = entry.make(spec, entry.Config(**numbers), None)
  item = types.item_template(spec)
  labelled = offpolicy.label_template(agent, item)
  assert labelled.transition.observation.shape == (3,)
  work = offpolicy.raw_template(item, 5)
  assert work.items.action.shape == (5, 2)
  assert work.part.dtype == np.int32


def _supervised(**changes):
  """Returns the parts of a run of the baseline, without its agent."""
  config = qtopt.get_config('grasp_state,supervised')
  config.run, config.replay = naf.run(), naf.replay()
  config.update_from_flattened_dict(changes)
  task = build.make_task(config)
  keys = build.Keys(*jax.random.split(jax.random.key(0), 3))
  return build.Parts(config, task, None, keys)


def test_the_baseline_learns_from_ways_to_a_grasp():
  parts = _supervised()
  memory = offpolicy.make_memory(parts)
  items = types.block_template(parts.item, 4).items
  items.transition.action[:, 2] = [-1.0, -0.5, 0.0, 1.0]
  items.transition.action[:, 4] = 1.0  # it does not turn
  items.transition.action[2, 5] = 1.0  # closes
  items.transition.reward[:] = [-0.05, -0.05, -0.05, 1.0]
  items.transition.discount[:] = [1, 1, 1, 0]
  items.origin.step[:] = range(4)
  memory.add(items)
  assert len(memory) == 3
  told = packing.unpack(memory.item.transition, memory.sample(200))
  ways = np.unique(told.action, axis=0)
  np.testing.assert_allclose(ways[:, 2], [-1.5 / 4, -0.5 / 4, 0.0], atol=1e-6)
  assert (told.reward == 1).all()
  assert not told.discount.any()


def test_the_baseline_has_no_use_for_updaters():
  config = _supervised(**{'labels.updaters': 2}).config
  with pytest.raises(ValueError, match='no labels to compute: give labels.updaters=0'):
    offpolicy.check(config)


def test_what_was_logged_is_replayed(farm, left, config, log):
  run = left()
  files = sorted(path.name for path in log.iterdir())
  assert files == ['0000-00000000-00000009.array_record', 'run.json']
  farm.run(run.workdir, config=config, log__replay=log, **_JOINT)
  rows = run.rows('learner')
  assert rows[0]['on_policy'] == 0.0  # by the log alone
  assert rows[-1]['on_policy_wanted'] > 0.01
  episodes = run.rows('episode')
  assert {row['collector'] for row in episodes} == {0}
  assert episodes[0]['version'] > 80  # published a little before
  assert 0 < len(episodes) < 10 <= run.counters()['episodes']


def test_a_run_with_a_log_goes_on_as_if_it_had_not_been_stopped(
  farm, left, config, log
):
  stopped, whole = left('stopped'), left('whole')
  numbers = {**_JOINT, 'log__replay': log, 'config': config}
  for run, ends in ((stopped, (5, 8)), (whole, (8,))):
    for end in ends:
      farm.run(
        run.workdir,
        run__max_episodes=end,
        run__block_steps=7,
        run__checkpoint_every=5,
        **numbers,
      )
  assert stopped.counters() == whole.counters()
  memories = [run.tree()['trainer']['memory'] for run in (stopped, whole)]
  for name in ('online', 'offline'):
    rows, twins = (memory[name]['rows']['transition'] for memory in memories)
    np.testing.assert_array_equal(rows['float32'], twins['float32'])


def test_a_log_belongs_to_one_run(tmp_path):
  config = _numbers(**{'log.record': str(tmp_path / 'log')})
  offpolicy.check_log(config, tmp_path / 'run')
  assert not (tmp_path / 'log').exists()
  offpolicy.claim_log(config, tmp_path / 'run')
  offpolicy.check_log(config, tmp_path / 'run')
  with pytest.raises(UserError, match='is the log of .*run: choose another'):
    offpolicy.check_log(config, tmp_path / 'other')
  (tmp_path / 'log' / 'run.json').write_text('{')
  with pytest.raises(UserError, match='choose another'):
    offpolicy.check_log(config, tmp_path / 'run')


def test_a_log_that_is_not_there_is_told_in_a_line(farm, left, config, tmp_path):
  process = farm.launch(left().workdir, config=config, log__replay=tmp_path / 'no')
  assert process.wait() == 2
  assert 'no, which is no folder: give one of a log' in process.err
  (tmp_path / 'empty').mkdir()
  process = farm.launch(left().workdir, config=config, log__replay=tmp_path / 'empty')
  assert process.wait() == 2
  assert process.err.count('\n') == 1
  assert 'no episode, and 0 damaged files' in process.err


def test_updaters_as_threads_and_a_run_that_goes_on(farm, left, config, log):
  run = left()
  numbers = {**_JOINT, 'labels__updaters': 2, 'log__replay': log, 'config': config}
  before = 0
  for end in (10, 16):
    process = farm.run(run.workdir, '--runtime=async', run__max_episodes=end, **numbers)
    assert 'died' not in process.err
    counters = run.counters()
    assert counters['episodes'] >= end
    assert counters['updates'] > before
    before = counters['updates']
    origins = _origins(run)
    assert len(origins) == len(set(origins)) == counters['env_steps']
  assert run.read('summary.json')['dropped'] == 0
  last = run.rows('learner')[-1]
  names = {'version_spread', 'label_uses', 'on_policy', 'updates_per_transition'}
  assert names <= set(last)


@pytest.mark.reverb
def test_an_updater_process_that_is_killed_loses_nothing(farm, left, config):
  run = left()
  process = farm.launch(
    run.workdir,
    '--runtime=async',
    '--replay=reverb',
    config=config,
    run__max_episodes=100_000,
    run__checkpoint_every=4,
    labels__updaters=2,
    labels__period=0.2,
    labels__batch=16,
  )
  farm.wait_for(lambda: run.rows('episode'), 'an episode of a collector')
  victim = run.processes('bellman_updater')[0]
  os.kill(victim, signal.SIGKILL)
  replaced = re.compile(r'bellman updater (\d) died with code -9; replaced')
  number = int(farm.wait_for(lambda: replaced.search(process.err), 'a successor')[1])
  assert number in (1, 2)  # behind the collector
  before = run.counters()['updates']
  farm.wait_for(lambda: run.counters()['updates'] > before + 50, 'more updates')
  process.signal(signal.SIGTERM)
  asked = time.monotonic()
  assert process.wait() == 130, process.err
  assert time.monotonic() - asked < 29.0  # after 30 s it kills who does not end
  assert not run.processes('bellman_updater')
  origins = _origins(run)
  assert len(origins) == len(set(origins)) == run.counters()['env_steps']
  assert run.progress()['trainer']['dropped'] == 0


def _origins(left):
  """Where all raw transitions come from that the memory of a run holds."""
  found = []
  for ring in left.tree()['trainer']['memory']['raw'].values():
    rows = ring['rows']['origin']['int32'][: int(ring['added'])]
    found += [tuple(row) for row in rows.tolist()]
  return found


def test_numbers_of_a_config_are_read_as_json_has_them():
  """A worker's process gets lists where there were tuples."""
  config = ConfigDict({'joint': {**qtopt.joint().to_dict(), 'balance': [6.0, 11.0]}})
  assert offpolicy.balancer(config) == (6.0, 11.0)
