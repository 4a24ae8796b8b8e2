"""Small runs from the command line to their summary, in every runtime."""

import json
import math
import types

import pytest

from armfarm.configs import naf
from armfarm.launchers import build
from armfarm.replay import memory
from armfarm.replay.types import Published
from armfarm.workers import pacing

_SUMMARY = {
  'task': str,
  'agent': str,
  'seed': int,
  'runtime': str,
  'replay': str,
  'collectors': int,
  'finished': bool,
  'episodes': int,
  'env_steps': int,
  'updates': int,
  'episodes_to_100': (int, type(None)),
  'episodes_to_100_paper': (int, type(None)),
  'wall_s_to_100': (float, type(None)),
  'success': float,
  'return': float,
  'seconds': float,
  'updates_per_s': float,
  'env_steps_per_s': float,
  'updates_per_step': float,
}
_WARMUP = 100  # steps


def without_clocks(rows):
  clocks = ('seconds', 'age_s')
  return [{name: x for name, x in row.items() if name not in clocks} for row in rows]


@pytest.fixture(scope='module')
def plain(farm, tmp_path_factory):
  """The workdir of a sync run of 10 episodes with replay in memory."""
  workdir = tmp_path_factory.mktemp('plain') / 'run'
  farm.run(workdir)
  return workdir


def test_what_a_run_leaves(plain, left):
  run = left(plain)
  summary = run.read('summary.json')
  assert {name: type(summary[name]) for name in _SUMMARY if name in summary}.keys() == (
    _SUMMARY.keys()
  )
  assert all(isinstance(summary[name], kind) for name, kind in _SUMMARY.items())
  said = [summary[name] for name in ('task', 'agent', 'seed', 'runtime', 'replay')]
  assert said == ['reach', 'naf', 0, 'sync', 'memory']
  counters = {'env_steps': 300, 'updates': 300 - _WARMUP, 'episodes': 10}
  assert {name: summary[name] for name in counters} == counters == run.counters()
  assert summary['updates_per_step'] == 1.0
  assert summary['finished']
  assert summary['updates_per_s'] == pytest.approx(200 / summary['seconds'])
  assert list((run.workdir / 'tensorboard').iterdir())
  assert run.whole()


def test_the_rows_of_a_run(plain, left):
  run = left(plain)
  episodes, trials = run.rows('episode'), run.rows('evaluation')
  assert [row['env_steps'] for row in episodes] == [30 * (n + 1) for n in range(10)]
  assert {row['steps'] for row in episodes} == {30}
  assert all(row['version'] >= 1 and row['age_updates'] >= 0 for row in episodes)
  assert all(row['age_s'] >= 0 for row in episodes)
  assert all(math.isfinite(row['total']) for row in episodes)
  assert [row['episodes'] for row in trials] == [5, 10]
  assert [row['updates'] for row in run.rows('learner')] == [50, 200]


def test_the_config_that_was_written_makes_the_same_run(farm, plain, left, tmp_path):
  config = tmp_path / 'again.py'
  content = json.loads((plain / 'config.json').read_text())['config']
  config.write_text(
    'from ml_collections import ConfigDict\n'
    f'def get_config():\n  return ConfigDict({content!r})\n'
  )
  run = left()
  flags = [f'--config={config.name}', '--nopictures', f'--workdir={run.workdir}']
  process = farm.start(*flags, folder=tmp_path)
  assert process.wait() == 0, process.err
  assert without_clocks(run.rows()) == without_clocks(left(plain).rows())


@pytest.mark.reverb
def test_reverb_changes_no_bit_of_a_run(farm, plain, left):
  run = left()
  farm.run(run.workdir, '--replay=reverb')
  assert without_clocks(run.rows()) == without_clocks(left(plain).rows())


def test_a_run_that_is_over_stays_so(farm, plain, left):
  run = left(plain)
  before = run.rows()
  assert 'updates, steps' in farm.run(run.workdir).out
  assert run.rows() == before


def test_two_collectors_in_lock_step(farm, left):
  run = left()
  farm.run(run.workdir, run__collectors=2)
  assert [row['collector'] for row in run.rows('episode')] == [0, 1] * 5
  totals = [row['total'] for row in run.rows('episode')]
  assert len(set(totals)) == len(totals)
  assert run.counters()['updates'] == run.counters()['env_steps'] - _WARMUP


@pytest.mark.parametrize('ratio', [0.5, 2])
def test_the_ratio_is_exact_in_lock_step(farm, left, ratio):
  run = left()
  farm.run(run.workdir, run__updates_per_step=ratio)
  steps = run.counters()['env_steps'] - _WARMUP
  assert run.counters()['updates'] == ratio * steps


@pytest.mark.parametrize(
  'replay',
  [
    'memory',
    pytest.param('reverb', marks=pytest.mark.reverb),
    pytest.param('reverb_process', marks=pytest.mark.reverb),
  ],
)
def test_an_asynchronous_run(request, left, replay):
  # What has all the processes has all the lines.
  whole = replay == 'reverb_process'
  farm = request.getfixturevalue('farm' if whole else 'unmeasured_farm')
  run = left()
  flags = ['--runtime=async', f'--replay={replay}']
  process = farm.run(run.workdir, *flags, run__collectors=2, run__max_episodes=20)
  assert 'Traceback' not in process.err
  summary, episodes = run.read('summary.json'), run.rows('episode')
  assert summary['updates_per_step'] == pytest.approx(1.0, rel=0.05)
  assert summary['dropped'] == 0
  assert len(episodes) == summary['episodes'] >= 20
  assert all(row['version'] >= 1 and row['age_s'] >= 0 for row in episodes)
  # A version stands for the updates behind it, and none acts before it is there.
  assert all(row['age_updates'] >= 0 for row in episodes)
  assert episodes[-1]['version'] > 1
  origins = run.origins()
  assert len(origins) == len(set(origins)) == summary['env_steps']
  assert run.rows('evaluation')[-1]['episodes'] == summary['episodes']


@pytest.mark.reverb
def test_a_config_may_compute(farm, left, tmp_path):
  # JAX has threads then, and what has threads cannot be forked.
  path = tmp_path / 'config.py'
  path.write_text(
    'from armfarm.configs import naf\n'
    'import jax.numpy as jnp\n'
    'def get_config():\n'
    '  config = naf.get_config("reach")\n'
    '  config.agent.learning_rate = float(jnp.exp(jnp.log(1e-3)))\n'
    '  return config\n'
  )
  run, flags = left(), ['--runtime=async', '--replay=reverb']
  farm.run(run.workdir, *flags, config=path, run__max_episodes=5)
  assert run.read('summary.json')['episodes'] >= 5


def test_a_paced_collector_keeps_its_beat(monkeypatch):
  clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
  clock.sleep = lambda seconds: setattr(clock, 'now', clock.now + seconds)
  monkeypatch.setattr(pacing, 'time', clock)
  config = naf.get_config('reach')
  config.agent.hidden, config.run.pace = (8, 8), 5.0
  parts = build.make_parts(config)
  replay = memory.MemoryReplay(1)
  replay.publish(Published(1, 0.0, build.variables_template(parts)))
  build.make_collector(parts, replay, 0).collect()
  assert clock.now == pytest.approx(9 / (5 * 20))  # ten steps, the first at once


def test_a_paced_run_keeps_rates_and_logs_the_ratio(farm, left):
  run = left()
  farm.run(run.workdir, '--runtime=async', run__pace=5, run__max_episodes=15)
  ratios = [row['updates_per_step'] for row in run.rows('learner')]
  # 100 updates for 20 steps, or less where the machine does not keep up.
  assert 0 < ratios[-1] <= 5.5
  assert ratios[-1] != 1.0
