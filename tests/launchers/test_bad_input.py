"""What users can get wrong: one line, exit code 2, no traceback, nothing damaged."""

import json
import os
import re
import shutil
import subprocess
import sys

from ml_collections import ConfigDict
import pytest

from armfarm.configs import naf
from armfarm.configs import qtopt
from armfarm.envs import jaco
from armfarm.launchers import build
from armfarm.launchers.app import UserError

_CONFIG = '--config=configs/naf.py:reach'

# Flags, and what the line must say. {} is the folder of the test.
_FLAGS = [
  (['--config=configs/nope.py:reach'], 'no config file configs/nope.py; .*naf.py'),
  (['--config=/nope/naf.py:reach'], 'no config file /nope/naf.py; .*naf.py'),
  (['--config={}/broken.py'], "cannot be read: name 'nonsense' is not defined"),
  (['--config=configs/naf.py:walk'], 'no config naf.py:walk; choose reach or'),
  (['--config=configs/naf.py:gym/'], 'no config naf.py:gym/; .*gym/ID,linear'),
  (['--config=configs/naf.py:gym/Nope-v0'], 'Gymnasium cannot make Nope-v0: .*Nope'),
  (['--config=configs/ddpg.py:gym/CartPole-v1'], 'actions of Discrete.*: choose one'),
  (['--config=configs/naf.py:grasp'], 'grasp shows images, which naf cannot see'),
  (['--config=configs/ddpg.py:reach,linear'], 'no config ddpg.py:reach,linear; choose'),
  ([_CONFIG, '--config.agent.taw=1'], 'no number agent.taw.* --config.agent.tau'),
  ([_CONFIG, '--config.agnet.tau=1'], 'no number agnet.tau.* --config.agent.tau'),
  ([_CONFIG, '--config.nope=1'], 'no number nope in the config: is it --config'),
  ([_CONFIG, '--config.agent=1'], 'no number agent in the config: is it --config'),
  ([_CONFIG, '--config.agent.tau=abc'], 'agent.tau=abc is no float: give one as 0'),
  ([_CONFIG, '--config.run.collectors=1.5'], 'collectors=1.5 is no int: give one as 1'),
  ([_CONFIG, '--config.run.stop_when_solved=7'], '=7 is no bool: give one as True'),
  ([_CONFIG, '--config.agent.hidden=abc'], r"agent.hidden is \('abc',\): give widths"),
  (
    [_CONFIG, '--config.agent.hidden=(8,-1)'],
    r'agent.hidden is \(8, -1\): give widths',
  ),
  ([_CONFIG, _CONFIG, '--config.seed=1'], '--config is given twice: give it once'),
  ([_CONFIG, '--runtime=asink'], '--runtime=asink: .*sync|async'),
  ([_CONFIG, '--replay=reverbb'], '--replay=reverbb: .*memory|reverb|reverb_process'),
  ([_CONFIG, '--wrokdir=/x'], "flag 'wrokdir'. Did you mean: workdir"),
  ([_CONFIG, 'stray'], 'unknown argument stray: flags start with --'),
  ([_CONFIG, '--workdir={}/file'], 'file cannot be written .*: choose another'),
  ([_CONFIG, '--workdir={}/file/run'], 'run cannot be written .*: choose another'),
  ([_CONFIG, '--workdir=/proc/run'], 'run cannot be written .*: choose another'),
  ([_CONFIG, '--workdir={}'], 'is not empty and holds no run: choose another'),
  ([], '--config is missing: give it'),
  (['--config', 'configs/nope.py:reach'], 'no config file configs/nope.py; .*naf.py'),
  (['-config=configs/nope.py:reach'], 'no config file configs/nope.py; .*naf.py'),
  (
    ['--config', 'configs/naf.py:reach', '--config.agent.taw', '1'],
    'no number agent.taw.* --config.agent.tau',
  ),
  (
    ['-config', 'configs/naf.py:reach', '-config.agent.tau=abc'],
    'agent.tau=abc is no float: give one as 0',
  ),
]

_NUMBERS = [
  ('seed', -1, 'give 0 to'),
  ('seed', 2**70, 'give 0 to'),
  ('task.name', 'walk', "no task 'walk': choose one of reach"),
  ('task.episode_steps', 0, 'give a finite number above 0'),
  ('task.cube_center', '(0.1,0.2)', 'give three finite numbers in m'),
  ('agent.name', 'sac', "no agent 'sac': choose one of naf, ddpg"),
  ('agent.network', 'x', "choose one of .*'linear'"),
  ('agent.normalization', 'x', "choose one of .*'batch'"),
  ('agent.tau', -0.1, 'give 0 to 1'),
  ('agent.gamma', 'nan', 'give 0 to 1'),
  ('agent.learning_rate', -1, 'give at least 0'),
  ('replay.capacity', 0, 'give at least 1'),
  ('replay.capacity', 9, 'run.block_steps is 10: use a capacity of at least that'),
  ('replay.batch_size', -1, 'give at least 1'),
  ('run.collectors', 0, 'give at least 1'),
  ('run.block_steps', 0, 'give at least 1'),
  ('run.updates_per_step', -1, 'give 0.001 to 1000'),
  ('run.updates_per_step', 'nan', 'give 0.001 to 1000'),
  ('run.updates_per_step', 0.15, 'is 3/2 updates: set block_steps to a multiple of 20'),
  ('run.pace', 'nan', 'give 0 to 1000'),
  ('run.max_episodes', 0, 'give at least 1'),
  ('run.evaluate_every', -5, 'give at least 1'),
  ('run.checkpoint_every', 0, 'give at least 1'),
]


def line(process):
  """Asserts that a process ended as bad input ends it; returns what it said."""
  assert process.wait() == 2, process.err
  lines = [x for x in process.err.splitlines() if not x.startswith('episode ')]
  assert len(lines) == 1, process.err
  assert lines[0].startswith('armfarm: ')
  assert process.out == ''
  return lines[0]


def contents(folder):
  """Returns what is in every file below a folder, and the folders."""
  paths = sorted(folder.rglob('*'))
  return {path: path.read_bytes() if path.is_file() else None for path in paths}


def matches(pattern, text):
  """Asserts that a text holds a pattern."""
  assert re.search(pattern, text), text


@pytest.mark.parametrize(('flags', 'says'), _FLAGS)
def test_wrong_flags(farm, tmp_path, flags, says):
  (tmp_path / 'file').touch()
  (tmp_path / 'broken.py').write_text('nonsense\n')
  before = contents(tmp_path)
  flags = [flag.format(tmp_path) for flag in flags]
  if not any(flag.startswith('--workdir') for flag in flags):
    flags.insert(0, f'--workdir={tmp_path}/run')
  matches(says, line(farm.start(*flags)))
  assert contents(tmp_path) == before


def test_no_workdir(farm):
  assert line(farm.start(_CONFIG)).startswith('armfarm: --workdir is missing: give it')


@pytest.mark.parametrize(('name', 'value', 'says'), _NUMBERS)
def test_numbers_that_make_no_sense(farm, left, name, value, says):
  run = left()
  process = farm.launch(run.workdir, **{name.replace('.', '__'): value})
  matches(says, line(process))
  assert not run.workdir.exists()


def test_more_than_fits_into_memory(farm, left):
  process = farm.launch(left().workdir, replay__capacity=10**12)
  matches('Unable to allocate .* for an array', line(process))


@pytest.fixture(scope='module')
def finished(farm, tmp_path_factory):
  """The workdir of a run of 8 episodes, with two checkpoints."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  farm.run(workdir, run__max_episodes=8, run__checkpoint_every=4)
  return workdir


@pytest.fixture
def copy(finished, left):
  """A copy of that run, to be damaged."""
  run = left()
  shutil.copytree(finished, run.workdir)
  return run


@pytest.mark.parametrize(
  ('flags', 'numbers', 'says'),
  [
    ([], {'seed': 3}, 'with seed=0, not 3'),
    ([], {'task__speed': 0.25}, 'with task.speed=0.5, not 0.25'),
    ([], {'agent__hidden': '(9,9)'}, r'agent.hidden=\[8, 8\], not \[9, 9\]'),
    ([], {'config': 'configs/ddpg.py:reach'}, 'agent.name=naf, not ddpg'),
    ([], {'config': 'configs/naf.py:reach,linear'}, 'agent.network=mlp, not linear'),
    (['--runtime=async'], {}, 'runtime=sync, not async'),
    pytest.param(
      ['--replay=reverb'],
      {},
      'replay=memory, not reverb',
      marks=pytest.mark.reverb,
    ),
  ],
)
def test_the_workdir_of_another_run(farm, copy, flags, numbers, says):
  before = contents(copy.workdir)
  said = line(farm.launch(copy.workdir, *flags, **numbers))
  matches(says, said)
  matches('choose another --workdir', said)
  assert contents(copy.workdir) == before


@pytest.mark.parametrize('text', ['{', '[]', '{"config": {}}', '\xff'])
def test_a_config_file_of_a_run_that_cannot_be_read(farm, copy, text):
  (copy.workdir / 'config.json').write_bytes(text.encode('latin-1'))
  before = contents(copy.workdir)
  matches(
    'config.json (cannot be read|is not of a run)', line(farm.launch(copy.workdir))
  )
  assert contents(copy.workdir) == before


@pytest.mark.parametrize(
  ('name', 'value', 'given'),
  [
    ('agent.hidden', [9, 9], '(9,9)'),
    ('run.collectors', 2, '2'),
    ('replay.capacity', 6000, '6000'),
    ('agent.network', 'linear', 'linear'),
  ],
)
def test_a_checkpoint_of_another_config(farm, copy, name, value, given):
  content = copy.read('config.json')
  section, key = name.split('.')
  content['config'][section][key] = value
  (copy.workdir / 'config.json').write_text(json.dumps(content))
  process = farm.launch(copy.workdir, **{f'{section}__{key}': given})
  matches('does not fit the config', line(process))
  assert copy.whole()
  assert len(copy.rows('episode')) == 8


def damage(path, how):
  """Damages a checkpoint."""
  data = max((path / 'run').rglob('*'), key=lambda x: x.is_file() and x.stat().st_size)
  if how == 'flipped':
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
  else:
    (path / 'manifest.json').write_text(how)


@pytest.mark.parametrize('how', ['flipped', '{"progress":'])  # more in tests/workers
def test_a_damaged_checkpoint_is_passed_over(farm, copy, how):
  damage(copy.checkpoints()[-1], how)
  process = farm.run(copy.workdir, run__max_episodes=8, run__checkpoint_every=4)
  said = [x for x in process.err.splitlines() if not x.startswith('episode ')]
  assert len(said) == 2, process.err
  matches(r'checkpoint 0+240 cannot be used \(.*\); trying an older one', said[0])
  matches('Going on at episode 4, ', said[1])
  assert copy.whole()
  assert [row['episode'] for row in copy.rows('episode')] == list(range(8))


def test_no_checkpoint_that_is_whole(farm, copy):
  for path in copy.checkpoints():
    damage(path, 'flipped')
  before = contents(copy.workdir)
  process = farm.launch(copy.workdir, run__max_episodes=8, run__checkpoint_every=4)
  assert process.wait() == 2
  assert 'Traceback' not in process.err
  matches('armfarm: .* has no checkpoint that can be used: ', process.err)
  assert contents(copy.workdir) == before


@pytest.mark.parametrize(
  'numbers',
  [
    {'agent__learning_rate': 1e30},
    {'task__distance_weight': 1e38},
    {'agent__learning_rate': 1e38, 'run__block_steps': 1, 'run__publish_every': 1},
  ],
)
def test_a_loss_that_is_not_finite(farm, left, numbers):
  run = left()
  process = farm.launch(run.workdir, run__checkpoint_every=1, **numbers)
  said = line(process)
  matches(r'after \d+ updates \(\d+ episodes\)', said)
  matches(str(run.workdir / 'checkpoints'), said)
  assert run.whole()
  assert not run.unfinished()
  assert run.counters()['updates'] <= 20


def test_a_loss_that_is_not_finite_before_anything_was_saved(farm, left):
  process = farm.launch(left().workdir, agent__learning_rate=1e30)
  matches('nothing was saved before', line(process))


@pytest.mark.parametrize('seed', [-1, 2**70])
def test_a_seed_of_an_evaluation_that_makes_no_sense(farm, finished, seed):
  flags = [f'--workdir={finished}', f'--seed={seed}', '--nopictures']
  matches(f'--seed={seed}: .*', line(farm.start(*flags, module='evaluate')))


@pytest.fixture
def evaluation(farm):
  """Starts an evaluation of a workdir."""

  def start(run, *flags):
    workdir = f'--workdir={run.workdir}'
    return farm.start(workdir, '--episodes=2', *flags, module='evaluate')

  return start


def said_last(process):
  """Asserts that a process ended as bad input ends it; returns its last line."""
  assert process.wait() == 2, process.err
  assert 'Traceback' not in process.err
  return process.err.splitlines()[-1]


def test_an_evaluation_without_a_checkpoint_that_is_whole(evaluation, copy):
  for path in copy.checkpoints():
    damage(path, 'flipped')
  matches('no checkpoint that can be used', said_last(evaluation(copy)))


def test_an_evaluation_with_nowhere_to_draw(evaluation, copy):
  (copy.workdir / 'curve.png').mkdir()  # for root, too, no file to be written
  matches(r'^armfarm: no picture can .*: take --nop', said_last(evaluation(copy)))


def test_an_evaluation_with_metrics_that_cannot_be_read(evaluation, copy):
  (copy.workdir / 'metrics.jsonl').write_text('{"kind\n')
  matches(r'^armfarm: .*/metrics.jsonl cannot be', said_last(evaluation(copy)))


def test_without_reverb(farm, left, tmp_path):
  (tmp_path / 'reverb.py').write_text("raise ImportError('none', name='reverb')\n")
  run = left()
  path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
  environment = {**os.environ, 'PYTHONPATH': path}
  command = [
    sys.executable,
    '-m',
    'armfarm.launchers.local',
    _CONFIG,
    '--replay=reverb',
  ]
  ended = subprocess.run(
    [*command, f'--workdir={run.workdir}'],
    env=environment,
    capture_output=True,
    text=True,
  )
  assert (ended.returncode, ended.stdout) == (2, '')
  assert ended.stderr.startswith('armfarm: Reverb cannot be imported (reverb): take ')
  assert ended.stderr.count('\n') == 1
  assert not run.workdir.exists()


def test_a_task_whose_package_is_missing_names_it(monkeypatch):
  monkeypatch.setattr(jaco.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'^dm_control has .*: pip install dm-control$'):
    build.make_parts(naf.get_config('pick_place'))


def test_a_config_that_lacks_a_number_names_it():
  config = ConfigDict(qtopt.get_config('grasp_few').to_dict())
  del config.run.scripted_success
  with pytest.raises(UserError, match='has no scripted_success, as one of another'):
    build.make_parts(config)


def test_what_is_wrong_with_us_is_no_error_of_theirs():
  with pytest.raises(AttributeError, match='nope'), build.user_errors():
    _ = build.nope
