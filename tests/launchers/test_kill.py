"""Runs that are killed, at any moment, go on as if nothing had happened."""

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

_ENDLESS = 100_000  # episodes
# Blocks that do not divide an episode: checkpoints come in the middle of one.
_NUMBERS = {
  'run__checkpoint_every': 2,
  'run__block_steps': 7,
  'replay__capacity': 4900,
}
_CLOCKS = ('seconds', 'age_s')  # what differs between two runs of the same numbers


@pytest.fixture
def farm(unmeasured_farm):
  return unmeasured_farm


def new_checkpoint(farm, left, before):
  """Waits until a checkpoint was committed that is not among those before."""
  farm.wait_for(lambda: set(left.checkpoints()) - before, 'a new checkpoint')


def die(farm, left, process, moment, chance):
  """Kills a process at a random moment: 'start', 'run' or 'save'."""
  if moment == 'start':
    time.sleep(chance.uniform(0.0, 3.0))
    return process.kill()
  new_checkpoint(farm, left, set(left.checkpoints()))
  if moment == 'save':
    farm.wait_for(left.unfinished, 'a checkpoint in the making')
  time.sleep(chance.uniform(0.0, 0.1 if moment == 'save' else 0.8))
  return process.kill()


def no_less(counters, before):
  return all(counters[name] >= before[name] for name in before)


def without_clocks(rows):
  return [{name: row[name] for name in row if name not in _CLOCKS} for row in rows]


def same_state(one, other):
  """Asserts that two checkpoints hold the same to the bit, but for clocks."""
  leaves, others = (jax.tree_util.tree_leaves_with_path(x) for x in (one, other))
  assert [path for path, _ in leaves] == [path for path, _ in others]
  for (path, leaf), (_, twin) in zip(leaves, others, strict=True):
    name = jax.tree_util.keystr(path)
    if not re.search(r"\['(time|age)'\]$", name):
      assert np.asarray(leaf).tobytes() == np.asarray(twin).tobytes(), name


def test_a_run_killed_at_20_moments_ends_as_if_it_had_not_been(farm, left):
  killed, whole = left('killed'), left('whole')
  chance = random.Random(0)
  torn = 0
  for moment in ['run', 'save', 'start', 'save'] * 5:
    before = killed.counters()
    process = farm.launch(killed.workdir, run__max_episodes=_ENDLESS, **_NUMBERS)
    die(farm, killed, process, moment, chance)
    torn += bool(killed.unfinished())
    assert killed.whole()
    assert no_less(killed.counters(), before)
  assert torn  # else no kill hit a checkpoint that was being saved
  end = killed.counters()['episodes'] + 3
  for run in (killed, whole):
    farm.run(run.workdir, run__max_episodes=end, **_NUMBERS)
  assert not killed.unfinished()
  origins = killed.origins()
  assert len(origins) == len(set(origins)) == killed.counters()['env_steps']
  assert [row['episode'] for row in killed.rows('episode')] == list(range(end))
  assert killed.counters() == whole.counters()
  assert without_clocks(killed.rows()) == without_clocks(whole.rows())
  same_state(killed.tree(), whole.tree())


def test_who_goes_on_acts_by_what_was_learned(farm, left):
  run, flags = left(), ('--runtime=async', '--replay=memory')
  farm.run(run.workdir, *flags, run__collectors=2)
  before = run.rows('episode')
  farm.run(run.workdir, *flags, run__collectors=2, run__max_episodes=20)
  after = run.rows('episode')[len(before) :]
  assert min(row['version'] for row in after) > 100
  state = run.tree()
  process = farm.run(run.workdir, *flags, run__collectors=2, run__max_episodes=20)
  assert 'Going on at episode' in process.err  # and at its end
  same_state(state, run.tree())


def check_once(left):
  """Asserts that nothing is stored twice, and everything in order."""
  origins = left.origins()
  assert len(origins) == len(set(origins)) == left.counters()['env_steps']
  for number in range(2):
    mine = [origin for origin in origins if origin[0] == number]
    assert mine == sorted(mine)
    rows = [row for row in left.rows('episode') if row['collector'] == number]
    episodes = [row['episode'] for row in rows]
    assert episodes == sorted(set(episodes))


def launch_async(farm, left, replay='--replay=reverb', **numbers):
  return farm.launch(
    left.workdir,
    '--runtime=async',
    replay,
    run__collectors=2,
    **{**_NUMBERS, 'run__max_episodes': _ENDLESS, **numbers},
  )


def gone(farm, left, role='collector'):
  """Waits until no process of a role is left."""
  farm.wait_for(lambda: not left.processes(role), f'{role}s to end')


@pytest.mark.reverb
def test_an_asynchronous_run_killed_3_times_stores_nothing_twice(farm, left):
  run, chance = left(), random.Random(1)
  for moment in ('save', 'run', 'save'):
    before = run.counters()
    process = launch_async(farm, run)
    die(farm, run, process, moment, chance)
    assert run.whole()
    assert no_less(run.counters(), before)
    check_once(run)
    gone(farm, run)
    assert 'Traceback' not in process.err
  end = run.counters()['episodes'] + 2
  process = launch_async(farm, run, run__max_episodes=end)
  assert process.wait() == 0, process.err
  assert run.read('summary.json')['dropped'] == 0  # no collector repeats an episode
  check_once(run)
  gone(farm, run)


@pytest.mark.reverb
@pytest.mark.parametrize('replay', ['reverb', 'reverb_process'])
def test_young_children_do_not_outlive_their_parent(farm, left, replay):
  run = left()
  process = launch_async(farm, run, f'--replay={replay}')
  role = 'collector' if replay == 'reverb' else 'replay_server'
  farm.wait_for(lambda: run.processes(role), f'a {role}')
  process.kill()  # while its child still begins
  gone(farm, run, role)


@pytest.mark.reverb
def test_a_collector_that_is_killed_is_replaced(farm, left):
  run = left()
  process = launch_async(farm, run, replay__capacity=14_000)  # a slow machine's
  farm.wait_for(lambda: {0, 1} <= working(run), 'episodes of both collectors')
  victim = run.processes()[0]
  os.kill(victim, signal.SIGKILL)
  replaced = re.compile(r'collector (\d) died with code -9; replaced')
  number = int(farm.wait_for(lambda: replaced.search(process.err), 'a successor')[1])
  before = run.counters()['env_steps']
  farm.wait_for(lambda: seen_since(run, number, before), 'episodes of the successor')
  process.signal(signal.SIGTERM)
  assert process.wait() == 130, process.err
  assert not run.processes()  # it ended them before itself
  check_once(run)


@pytest.mark.reverb
def test_a_run_whose_nursery_is_killed_says_one_line(farm, left):
  run = left()
  process = launch_async(farm, run)
  worker = farm.wait_for(run.processes, 'a collector')[0]
  os.kill(parent_of(worker), signal.SIGKILL)
  assert process.wait() == 2
  assert process.err.splitlines()[-1].startswith('armfarm: who starts workers is gone')
  assert 'Traceback' not in process.err
  gone(farm, run)


def parent_of(pid):
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  return int(re.search(r'PPid:\s*(\d+)', status)[1])


@pytest.mark.reverb
def test_a_run_whose_processes_are_all_told_to_end_is_saved(farm, left):
  run = left()
  process = launch_async(farm, run)
  farm.wait_for(lambda: {0, 1} <= working(run), 'episodes of both collectors')
  workers = run.processes()
  for pid in (parent_of(workers[0]), process.pid, *workers):  # as `systemctl stop` does
    os.kill(pid, signal.SIGTERM)
  assert process.wait() == 130, process.err
  assert run.whole()
  check_once(run)
  gone(farm, run)


@pytest.mark.reverb
def test_a_lost_replay_server_ends_the_run_in_one_line(farm, left):
  run = left()
  process = launch_async(farm, run, '--replay=reverb_process')
  farm.wait_for(lambda: working(run), 'an episode')
  os.kill(run.processes('replay_server')[0], signal.SIGKILL)
  assert process.wait() == 2
  assert re.match('armfarm: the replay server .*: run this again', process.err_line)
  assert 'Traceback' not in process.err
  gone(farm, run)


def working(left):
  """Returns the collectors whose episodes arrived."""
  return {row['collector'] for row in left.rows('episode')}


def seen_since(left, number, env_steps):
  """Returns whether a collector's episodes arrived, well after a step count."""
  rows = [row for row in left.rows('episode') if row['collector'] == number]
  gaps = [b['episode'] - a['episode'] for a, b in zip(rows, rows[1:], strict=False)]
  return bool(rows) and rows[-1]['env_steps'] > env_steps and max(gaps, default=0) > 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_at_a_checkpoint_to_go_on_from(farm, left, number):
  run = left()
  process = farm.launch(
    run.workdir, run__max_episodes=_ENDLESS, run__checkpoint_every=2
  )
  new_checkpoint(farm, run, set())
  process.signal(number)
  assert process.wait() == 130
  assert 'Traceback' not in process.err
  assert str(run.workdir) in process.out.splitlines()[-1]
  counters = run.counters()
  assert run.whole()
  assert run.read('summary.json')['env_steps'] == counters['env_steps']
  assert not run.read('summary.json')['finished']
  end = counters['episodes'] + 2
  process = farm.run(run.workdir, run__max_episodes=end, run__checkpoint_every=2)
  assert f'Going on at episode {counters["episodes"]}' in process.err
  assert [row['episode'] for row in run.rows('episode')] == list(range(end))
  assert run.read('summary.json')['finished']


@pytest.mark.parametrize(
  'program', ['launchers.local', 'launchers.evaluate', 'experiments.reach']
)
def test_an_interrupt_while_it_imports_says_nothing(tmp_path, unmeasured, program):
  (tmp_path / 'flax.py').write_text(
    'import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n'
  )
  ended = subprocess.run(
    [sys.executable, '-m', f'armfarm.{program}'],
    env={**unmeasured, 'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert (ended.returncode, ended.stderr) == (-signal.SIGINT, '')


def test_an_interrupt_while_pictures_are_drawn_says_one_line(farm, left):
  run = left()
  process = farm.launch(run.workdir, '--pictures', run__max_episodes=2)
  farm.wait_for((run.workdir / 'curve.png').exists, 'the curve')  # the film is longer
  process.signal(signal.SIGINT)
  assert process.wait() == 130
  assert process.err.splitlines()[-1] == 'armfarm: interrupted'
  assert run.read('summary.json')['finished']


def test_an_interrupted_evaluation_says_one_line(farm, left):
  run = left()
  farm.run(run.workdir, run__max_episodes=2)
  flags = [f'--workdir={run.workdir}', '--episodes=20000', '--nopictures']
  process = farm.start(*flags, module='evaluate')
  time.sleep(4)  # long past its start, long before its end
  process.signal(signal.SIGINT)
  assert process.wait() == 130
  assert process.err == 'armfarm: interrupted\n'
