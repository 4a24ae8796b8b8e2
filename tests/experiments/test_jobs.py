"""Experiments: what they run, what they skip, what they record."""

import json
import pathlib
import sys
import threading
import time

from absl import flags
from absl.testing import flagsaver
import pytest

from armfarm.experiments import figure4
from armfarm.experiments import figure5
from armfarm.experiments import jobs
from armfarm.experiments import reach
from armfarm.experiments import reach_async
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import app

_SUMMARY = {
  'finished': True,
  'task': 'reach',
  'success': 1.0,
  'return': -11.5,
  'episodes': 220,
  'env_steps': 33_000,
  'updates': 31_500,
  'updates_per_s': 1500.5,
  'updates_per_step': 0.98,
  'episodes_to_100': 180,
  'episodes_to_100_paper': None,
  'wall_s_to_100': 20.5,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('README.md').write_text('<!-- results --><!-- /results -->')
  monkeypatch.setattr(app, 'stop_on_signals', threading.Event)
  flags.FLAGS.mark_as_parsed()
  folders = {'runs': 'runs', 'results': 'rows', 'readme': 'README.md'}
  with flagsaver.as_parsed(**folders):
    yield tmp_path


@pytest.fixture
def launched(monkeypatch):
  """Commands that were run; each leaves what a run leaves."""
  commands = []

  def call(command, stop):
    commands.append(command[1:])
    workdir = pathlib.Path(command[-1].removeprefix('--workdir='))
    _leave(workdir, _SUMMARY)
    return 0

  monkeypatch.setattr(jobs, 'call', call)
  return commands


def _leave(workdir, summary):
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / 'summary.json').write_text(json.dumps(summary))
  config = {'config': {'run': {'updates_per_step': 1.0}}, 'launch': {}}
  (workdir / 'config.json').write_text(json.dumps(config))
  evaluations = [
    {
      'kind': 'evaluation',
      'episodes': n,
      'updates': 100 * n,
      'seconds': n / 8,
      'success': n / 40,
      'total': -1.0,
    }
    for n in (20, 40)
  ]
  text = ''.join(json.dumps(row) + '\n' for row in evaluations)
  (workdir / 'metrics.jsonl').write_text(text)


def _numbers(found):
  return {row.metric: (row.value, row.unit, row.paper_value) for row in found}


def test_only_what_is_not_finished_is_run(folder, launched):
  _leave(folder / 'runs/reach/naf-0', _SUMMARY)
  _leave(folder / 'runs/reach/naf-1', {**_SUMMARY, 'finished': False})
  with flagsaver.as_parsed(seeds='2', agents='naf,linear-naf'):
    assert reach.main(['']) == 0
    assert len(launched) == 3
    assert reach.main(['']) == 0
  assert len(launched) == 3  # nothing is left to do
  assert [
    '-m',
    'armfarm.launchers.local',
    '--config=configs/naf.py:reach,linear',
    '--config.seed=1',
    '--runtime=sync',
    '--nopictures',
    '--workdir=runs/reach/linear-naf-1',
  ] in launched
  found = rows.read(folder / 'rows' / 'reach.json')
  assert {(row.agent, row.seed) for row in found} == {
    (agent, seed) for agent in ('naf', 'linear-naf') for seed in (0, 1)
  }
  assert 'Linear-NAF' in pathlib.Path('README.md').read_text()
  assert pathlib.Path('rows/reach.png').exists()


def test_no_run_is_started_too_late(folder, launched):
  _leave(folder / 'runs/reach/naf-0', _SUMMARY)
  with flagsaver.as_parsed(seeds='2', agents='naf', limit_minutes='0'):
    assert reach.main(['']) == 1
  assert launched == []
  assert {row.seed for row in rows.read(folder / 'rows' / 'reach.json')} == {0}


def test_a_run_that_fails_does_not_stop_the_others(folder, monkeypatch, capsys):
  monkeypatch.setattr(jobs, 'call', lambda command, stop: 2)
  with flagsaver.as_parsed(seeds='2', agents='naf'):
    assert reach.main(['']) == 1
    assert reach.main(['']) == 1  # each goes on where it was
  errors = capsys.readouterr().err
  for seed in (0, 1):
    assert pathlib.Path(f'runs/reach/naf-{seed}.failures.txt').read_text() == '2\n2\n'
    assert f'runs/reach/naf-{seed}: ended with code 2' in errors
    assert f'not finished: runs/reach/naf-{seed}' in errors


def test_an_interrupt_stops_everything(folder, monkeypatch):
  count = []

  def call(command, stop):
    count.append(command)
    return app.INTERRUPTED

  monkeypatch.setattr(jobs, 'call', call)
  assert reach.main(['']) == app.INTERRUPTED
  assert len(count) == 1
  assert not list(folder.rglob('*.failures.txt'))


def test_who_is_told_to_stop_tells_the_job(tmp_path):
  stop, ready = threading.Event(), tmp_path / 'ready'
  program = (
    'import pathlib, signal, sys, time\n'
    'signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n'
    f'pathlib.Path({str(ready)!r}).touch()\n'
    'time.sleep(60)\n'
  )

  def tell():
    while not ready.exists():
      time.sleep(0.01)
    stop.set()

  threading.Thread(target=tell).start()
  assert jobs.call([sys.executable, '-c', program], stop) == 7


def test_what_is_done_beside_a_job_ends_with_it(folder, launched):
  told = []

  def meanwhile(job, over):
    told.append((job.seed, over.wait(30.0)))

  queue = [reach.make_job('naf', seed) for seed in range(2)]
  assert jobs.run_all(queue, reach.collect, meanwhile) == 0
  assert told == [(0, True), (1, True)]


def test_the_rows_of_figure_4(folder, launched):
  with flagsaver.as_parsed(seeds='1', agents='ddpg'):
    reach.main([''])
  found = rows.read(folder / 'rows' / 'reach.json')
  assert _numbers(found) == {
    'max_success': (100.0, '%', 100.0),
    'success': (100.0, '%', None),
    'return': (-11.5, '', None),
    'episodes_to_100': (180.0, 'episodes', 3200.0),
    'episodes_to_100_paper': (None, 'episodes', 3200.0),
    'wall_s_to_100': (20.5, 's', None),
    'env_steps': (33_000.0, 'steps', None),
    'updates': (31_500.0, 'updates', None),
    'updates_per_s': (1500.5, 'updates/s', None),
    'success_after_000020': (50.0, '%', None),
    'success_after_000040': (100.0, '%', None),
  }
  command = 'python -m armfarm.launchers.local --config=configs/ddpg.py:reach'
  assert all(row.command.startswith(command) for row in found)
  assert {row.machine for row in found} == {rows.machine()}


def test_the_rows_of_the_farm(folder, launched):
  with flagsaver.as_parsed(seeds='1'):
    reach_async.main([''])
  found = rows.read(folder / 'rows' / 'reach_async.json')
  assert {row.variant for row in found} == {'async-4-memory', 'async-4-reverb'}
  numbers = _numbers(found)
  assert numbers['updates_per_step'] == (0.98, 'updates/step', None)
  assert numbers['updates_per_step_set'] == (1.0, 'updates/step', None)
  assert '--config.run.collectors=4' in launched[0]
  assert '--replay=reverb' in launched[1]


def test_a_name_that_is_not_there_is_refused(folder, launched):
  with (
    flagsaver.as_parsed(agents='naf,sac'),
    pytest.raises(app.UserError, match="no 'sac' here: choose from naf, ddpg"),
  ):
    figure4.main([''])
  assert launched == []


@pytest.mark.parametrize(
  ('main', 'given'),
  [
    (reach_async.main, {'agents': 'naf'}),
    (reach.main, {'tasks': 'reach'}),
    (figure5.main, {'agents': 'naf'}),
    (figure4.main, {'studies': 'loss'}),
  ],
)
def test_a_flag_for_other_experiments_is_refused(folder, launched, main, given):
  with (
    flagsaver.as_parsed(**given),
    pytest.raises(app.UserError, match='--(.*) is for other experiments'),
  ):
    main([''])
  assert launched == []


@pytest.mark.parametrize(
  ('task', 'agent', 'episodes'),
  [
    ('reach', 'naf', 4600),
    ('door_pull', 'ddpg', 18_000),
    ('door_pull', 'linear-naf', 18_000),  # N/A in the paper
    ('pick_place', 'linear-naf', 15_000),
  ],
)
def test_a_run_of_figure_4_may_take_what_the_paper_took(task, agent, episodes):
  assert figure4.max_episodes(task, agent) == episodes


def test_the_queue_of_figure_4(folder, launched):
  with flagsaver.as_parsed(seeds='1', tasks='reach,door_pull'):
    figure4.main([''])
  names = [command[-1].split('/')[-1] for command in launched]
  agents = ('naf', 'ddpg', 'linear-naf')
  tasks = ('reach', 'door_pull')
  assert names == [f'{task}-{agent}-0' for agent in agents for task in tasks]
  assert '--config=configs/naf.py:door_pull,linear' in launched[-1]
  assert '--config.agent.normalization=batch' in launched[-1]
  found = _numbers(
    row
    for row in rows.read(folder / 'rows' / 'figure4_door_pull.json')
    if row.agent == 'linear-naf'
  )
  assert found['success'] == (100.0, '%', None)
  assert found['max_success'] == (100.0, '%', 5.0)
  assert found['episodes_to_100'][2] is None
  page = pathlib.Path('README.md').read_text()
  assert '**Still open:** NAF, sync: 2 of 3 seeds; DDPG' in page


def test_the_best_evaluation_need_not_be_the_last(folder):
  job = figure4.make_job('reach', 'naf', 0)
  _leave(job.workdir, _SUMMARY)
  curve = jobs.curve_rows(job, rows.Source('python', 'unknown', 'a processor'))
  values = [
    row._replace(value=value) for row, value in zip(curve, (95.0, 70.0), strict=True)
  ]
  best = jobs.best_row(values, 100.0)
  assert (best.metric, best.value, best.paper_value) == ('max_success', 95.0, 100.0)


@pytest.mark.parametrize(
  ('variant', 'ratio', 'episodes', 'kinds'),
  [
    ('sync-8', '0.625', 1600, {'success_at_update_', 'return_at_update_'}),
    ('async-1', '5.0', 200, {'success_at_second_'}),
  ],
)
def test_the_runs_of_figure_5(folder, launched, variant, ratio, episodes, kinds):
  job = figure5.make_job('reach', variant, 1)
  assert f'--config.run.updates_per_step={ratio}' in job.arguments
  assert f'--config.run.max_episodes={episodes}' in job.arguments
  assert f'--config.run.evaluate_every={episodes // 20}' in job.arguments
  _leave(job.workdir, _SUMMARY)
  source = rows.Source('python', 'unknown', 'a processor')
  found = figure5.collect(job, source)
  assert {row.point[0] for row in found if row.point} == kinds
  numbers = _numbers(found)
  assert numbers['updates_per_step_set'] == (1.0, 'updates/step', None)
  assert numbers['updates_to_100'] == (None, 'updates', None)


def test_results_are_written_from_rows_alone(folder, launched):
  with flagsaver.as_parsed(seeds='1', agents='naf'):
    reach.main([''])
  texts = [p.read_bytes() for p in sorted((folder / 'rows').iterdir())]
  for path in (folder / 'rows').iterdir():
    path.unlink() if path.suffix != '.json' else None
  results.main([''])
  assert [p.read_bytes() for p in sorted((folder / 'rows').iterdir())] == texts
