"""What the figures of guided policy search are made from."""

import json
import os
import signal
import subprocess
import sys
import threading

from absl import flags
from absl.testing import flagsaver
import jax
import numpy as np
import pytest

from armfarm.agents.gps import local
from armfarm.configs import tasks
from armfarm.experiments import gps_faults
from armfarm.experiments import gps_peg
from armfarm.experiments import gps_reach
from armfarm.experiments import gps_schedule
from armfarm.experiments import jobs
from armfarm.experiments import rows
from armfarm.launchers import build
from armfarm.launchers import guided
from armfarm.launchers import pairs
from armfarm.launchers import policy
from armfarm.workers import records


def _cost(*values):
  steps = np.arange(len(values), dtype=float)
  return gps_reach.Cost(40 * steps, 7 * steps, np.array(values, float))


def test_the_threshold_is_nine_tenths_of_the_drop_of_the_median_run():
  costs = map(np.array, ([50, 9], [12, 4, 2], [100, 1]))  # by their ends: 9, 2, 1
  assert gps_reach.threshold(costs) == pytest.approx(12 - 0.9 * 10)


def test_runs_of_another_machine_are_read_from_the_rows(tmp_path):
  row = rows.Row(
    'gps_reach',
    'reach_torque',
    'gps',
    'sync',
    0,
    '',
    0,
    '',
    None,
    'make',
    'abcdef0',
    'm',
  )
  numbers = {'success': 100.0, 'return_after_000080': -3.0, 'return_after_000000': -9.0}
  recorded = [row._replace(metric=name, value=x) for name, x in numbers.items()]
  recorded += [x._replace(agent='adgps-4') for x in recorded]
  rows.merge(tmp_path, [*recorded, recorded[1]._replace(seed=2, value=-4.0)])
  found = gps_reach.recorded(tmp_path)
  assert {seed: cost.tolist() for seed, cost in found.items()} == {0: [9, 3], 2: [4]}
  assert gps_reach.recorded(tmp_path / 'nowhere') == {}


def test_where_the_threshold_was_reached_first():
  curve = _cost(12, 4, 2.5, 8, 2)
  assert curve.reached(3.0) == (80.0, 14.0)
  assert curve.reached(1.0) == (None, None)


def test_rates_before_and_after_the_faults():
  seen = [
    {'seconds': 10.0, 'rollouts': [1, 0, 0, 1]},
    {'seconds': 20.0, 'rollouts': [11, 10, 20, 21]},
    {'seconds': 40.0, 'rollouts': [21, 12, 60, 57]},
  ]
  before, after = gps_faults.rates(seen)
  assert before == [1.0, 1.0, 2.0, 2.0]
  assert after == [0.5, 0.1, 2.0, 1.8]


def test_rollouts_are_counted_by_robot(tmp_path):
  lines = ['{"kind": "episode", "collector": 2}\n'] * 3
  lines += ['{"kind": "evaluation"}\n', '{"kind": "episode", "collector": 0}\n']
  (tmp_path / 'metrics.jsonl').write_text(''.join(lines) + '{"kind": "episo')
  assert gps_faults.counts(tmp_path)['rollouts'] == [1, 0, 3, 0]
  assert records.read(tmp_path / 'nothing', 'episode') == []


@pytest.mark.parametrize('its', [True, False])
def test_only_pairs_of_the_run_are_disturbed(tmp_path, its):
  flags.FLAGS.mark_as_parsed()
  job = gps_faults.make_job(0)._replace(workdir=tmp_path)
  words = ['cat', f'--workdir={tmp_path}'] if its else ['cat', '-']
  program = ['-c', 'import time; print(flush=True); time.sleep(60)', *words]
  process = subprocess.Popen([sys.executable, *program], stdout=subprocess.PIPE)
  process.stdout.readline()  # until then, it is not yet what it will be
  pairs.pid_path(tmp_path, 1).write_text(str(process.pid))
  gps_faults._signal(job, 1, signal.SIGTERM)
  if not its:
    process.kill()
  assert process.wait() == (-signal.SIGTERM if its else -signal.SIGKILL)


def test_nothing_is_disturbed_when_the_run_is_over(tmp_path):
  flags.FLAGS.mark_as_parsed()
  over = threading.Event()
  over.set()
  gps_faults.disturb(gps_faults.make_job(0)._replace(workdir=tmp_path), over)
  assert not (tmp_path / 'faults.json').exists()


def test_the_processors_that_a_run_takes_are_measured(tmp_path):
  flags.FLAGS.mark_as_parsed()
  job = gps_reach.make_job('gps', 0)._replace(workdir=tmp_path / 'run')
  over = threading.Event()
  thread = threading.Thread(target=gps_reach.measure, args=(job, over))
  thread.start()
  busy = 'import time\nwhile time.process_time() < 1.0: pass'
  subprocess.run([sys.executable, '-c', busy], check=True)
  over.set()
  thread.join()
  cores = len(os.sched_getaffinity(0))
  assert (
    0.2 / cores < json.loads((tmp_path / 'run.cpu.json').read_text()) <= 1.1 / cores
  )


def test_every_variant_is_a_run_of_its_own():
  flags.FLAGS.mark_as_parsed()
  jobs = [gps_reach.make_job(agent, 1) for agent in ('gps', 'agps', 'adgps-8')]
  assert len({job.workdir for job in jobs}) == 3
  assert [job.variant for job in jobs] == ['sync', 'async', 'async']
  assert '--config.run.collectors=8' in jobs[2].arguments
  assert '--replay=reverb' in jobs[1].arguments


@pytest.fixture
def peg(tmp_path):
  """A finished run of two iterations, with one instance and with two rollouts each."""
  flags.FLAGS.mark_as_parsed()
  rollouts = [(0, 3.0, 0.4), (0, 1.0, 0.3), (1, 30.0, 0.04), (1, 11.0, np.nan)]
  told = [
    {'kind': 'episode', 'instance': 0, 'held': iteration} | row
    for iteration, cost, distance in rollouts
    for row in [{'iteration': iteration, 'total': -cost, 'distance': distance}]
  ]
  tried = [[0.5, 0.5], [0.1, 0.06], [0.05, 0.01]]
  told += [{'kind': 'evaluation', 'distances': distances} for distances in tried]
  told += [{'kind': 'learner', 'rollbacks': 0.0}, {'kind': 'learner', 'rollbacks': 2.0}]
  text = ''.join(json.dumps(row) + '\n' for row in told)
  (tmp_path / 'metrics.jsonl').write_text(text)
  summary = {'finished': True, 'task': 'peg', 'episodes': 4, 'updates': 2}
  (tmp_path / 'summary.json').write_text(json.dumps(summary))
  return tmp_path


def test_the_peg_is_judged_by_rollouts_or_by_trials(peg):
  alone = gps_peg.distances(peg, taught=False)
  np.testing.assert_array_equal(alone, [[0.4, 0.3], [0.04, np.nan]])
  taught = gps_peg.distances(peg, taught=True)
  np.testing.assert_array_equal(taught, [[0.5, 0.5], [0.1, 0.06], [0.05, 0.01]])


def test_failures_with_the_peg_are_counted(peg):
  assert gps_peg.failures(peg) == {
    'not_finite': 1,
    'diverged': 1,  # 20.5 and 2
    'anchors_kept': 1,
    'rollbacks': 2,
  }


def test_the_rows_of_the_peg(peg, monkeypatch):
  monkeypatch.setattr(gps_peg, '_MOMENTS', ((10, 1), (5, -1)))
  job = gps_peg.make_job('mdgps', 3)._replace(workdir=peg)
  found = gps_peg.collect(job, rows.Source('python', 'unknown', 'a processor'))
  numbers = {row.metric: row.value for row in found}
  assert all(row.unit == '%' for row in found if 'within' in row.metric)
  assert (numbers['within_10_cm_at_1'], numbers['within_5_cm']) == (100.0, 100.0)
  assert (numbers['exceptions'], numbers['rollbacks']) == (0, 2)
  curves = {row.metric: row.value for row in found if row.point}
  assert len(curves) == 3 * 3
  assert curves['within_5_cm_at_iteration_000001'] == 0.0
  assert curves['within_2_cm_at_iteration_000002'] == 50.0


def test_thirty_iterations_of_each_algorithm_on_the_peg():
  flags.FLAGS.mark_as_parsed()
  lqr, pi2 = (gps_peg.make_job(agent, 1).arguments for agent in ('lqr', 'pi2'))
  assert '--config.run.max_episodes=600' in lqr
  assert '--config.agent.local.algorithm=trajectory' in lqr
  assert '--config.run.max_episodes=3600' in pi2
  assert '--config.run.evaluate_every=120' in pi2
  inner = '--config.run.inner_iterations={}'.format
  assert inner(1) in lqr
  assert inner(4) in gps_peg.make_job('badmm', 1).arguments


def test_every_robot_was_shown_its_own_hole():
  for number, y in enumerate(tasks.peg().holes_y):
    with np.load(f'docs/demonstrations/peg_{number}.npz') as file:
      last, actions = file['observation'][-1], file['action']
    assert actions.shape == (tasks.peg().episode_steps, 7)
    np.testing.assert_allclose(last[32:34], [tasks.peg().hole_x, y], atol=1e-6)
    assert np.linalg.norm(last[14:17] - last[32:35]) < 0.05  # the tip is in


def test_the_second_phase_goes_on_from_the_first(parsed, read_config):
  first, second = (gps_schedule.make_job(x, 2) for x in ('badmm-pi2', 'mdgps-pi2'))
  begun, gone_on = read_config(first), read_config(second)
  assert gone_on.agent.taught_by == str(first.workdir) != str(second.workdir)
  assert begun.agent.taught_by == '' and begun.task.perturbation == 0.0
  assert (begun.run.max_episodes, gone_on.run.max_episodes) == (480, 1920)
  assert (begun.replay.iterations, gone_on.replay.iterations) == (1, 16)
  local.check(guided.local_options(begun))
  local.check(guided.local_options(gone_on))
  assert guided.EACH in begun.agent.initial.path


@pytest.mark.parametrize(
  ('agents', 'expected'),
  [
    ([], ['badmm-pi2', 'badmm-pi2', 'mdgps-pi2', 'mdgps-pi2']),
    (['mdgps-pi2', 'badmm-pi2'], ['badmm-pi2', 'badmm-pi2', 'mdgps-pi2', 'mdgps-pi2']),
    (['mdgps-pi2'], ['mdgps-pi2', 'mdgps-pi2']),
  ],
)
def test_phases_run_one_after_the_other(parsed, monkeypatch, agents, expected):
  ran = []
  monkeypatch.setattr(jobs, 'run_all', lambda queue, _: ran.extend(queue))
  with flagsaver.flagsaver(agents=agents, seeds=2):
    assert gps_schedule.main(['']) == 0
  assert [job.agent for job in ran] == expected
  assert [job.seed for job in ran] == [0, 1] * (len(ran) // 2)


def test_a_policy_is_tried_with_the_block_displaced(parsed, read_config):
  config = read_config(gps_schedule.make_job('badmm-pi2', 0))
  loaded = policy.Loaded(build.make_parts(config), None, {})
  found = gps_schedule.displaced(loaded, 0.05).parts
  assert (config.task.perturbation, found.config.task.perturbation) == (0.0, 0.05)
  reset = jax.jit(found.trial_task.reset)
  x = [float(reset(jax.random.key(seed)).goal[0]) for seed in range(8)]
  assert 0.02 < np.ptp(x) <= 0.1
