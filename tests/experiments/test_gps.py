"""What the figures of guided policy search are made from."""

from absl import flags
import numpy as np
import pytest

from armfarm.experiments import gps_faults
from armfarm.experiments import gps_reach
from armfarm.workers import records


def _cost(*values):
  steps = np.arange(len(values), dtype=float)
  return gps_reach.Cost(40 * steps, 7 * steps, np.array(values, float))


def test_the_threshold_is_nine_tenths_of_the_drop_of_the_median_run():
  costs = [_cost(50, 9), _cost(12, 4, 2), _cost(100, 1)]  # by their ends: 9, 2, 1
  assert gps_reach.threshold(costs) == pytest.approx(12 - 0.9 * 10)


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


def test_every_variant_is_a_run_of_its_own():
  flags.FLAGS.mark_as_parsed()
  jobs = [gps_reach.make_job(agent, 1) for agent in ('gps', 'agps', 'adgps-8')]
  assert len({job.workdir for job in jobs}) == 3
  assert [job.variant for job in jobs] == ['sync', 'async', 'async']
  assert '--config.run.collectors=8' in jobs[2].arguments
  assert '--replay=reverb' in jobs[1].arguments
