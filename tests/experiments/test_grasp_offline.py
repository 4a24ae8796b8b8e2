"""Learning from logs: every variant is a run that can start, and none runs twice."""

import re

import pytest

pytest.importorskip('grain')

from armfarm.experiments import grasp_logs
from armfarm.experiments import grasp_offline as offline
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments.rows import Source
from armfarm.launchers import build

_ALL = [(study, name) for study, found in offline.STUDIES.items() for name in found]
_LENGTH = 15  # transitions of an episode


@pytest.fixture(autouse=True)
def _logs(parsed, monkeypatch, tmp_path):
  """Logs of which one knows how long they are."""
  monkeypatch.setattr(grasp_logs, 'folder', lambda name: tmp_path / name)
  for name in grasp_logs.LOGS:
    (tmp_path / name).mkdir()

  def part(path, transitions, step):
    assert step.items.transition.action.shape == (8,)
    chosen = path.with_name(f'{path.name}-{transitions}')
    chosen.mkdir(exist_ok=True)
    return chosen

  def figures(path):
    count = int((re.findall(r'-(\d+)$', path.name) or [180_000])[0])
    return grasp_logs.Figures(count // _LENGTH, count, 0.3, [], [], 'unknown', 'here')

  monkeypatch.setattr(grasp_logs, 'part', part)
  monkeypatch.setattr(grasp_logs, 'figures', figures)


@pytest.mark.parametrize(('study', 'name'), _ALL)
def test_every_variant_can_start(read_config, study, name):
  config = read_config(offline.make_job(study, name, 1))
  build.make_parts(config)
  variant = offline.STUDIES[study][name]
  assert config.seed == 1
  assert config.log.replay.count(',') == len(variant.logs) - 1
  # All of the log is in memory before the first update, and stays there.
  logged, capacity = config.run.warmup_steps, config.replay.capacity
  steps = config.run.max_episodes * _LENGTH
  updates = (steps - logged) * config.run.updates_per_step
  assert updates == pytest.approx(300_000 if variant.joint else 150_000, rel=1e-3)
  assert logged < capacity
  assert (config.joint.offline_updates < updates) == variant.joint


def test_runs_are_shared_where_studies_ask_for_the_same(different_runs):
  count = different_runs(offline.make_job(study, name, 0) for study, name in _ALL)
  assert count == len(_ALL) - 2  # of `automatic` and of `learned`


@pytest.mark.parametrize('study', offline.STUDIES)
def test_the_page_waits_for_every_variant(study):
  planned = {name for _, name, _ in results.STORIES[study].planned}
  assert planned == set(offline.STUDIES[study])


def test_rows_say_how_much_was_logged(monkeypatch):
  job = offline.make_job('grasp_offline_mix', 'more-of-both', 0)
  source = Source('command', 'unknown', 'machine')
  row = jobs._row(job, source, 'grasp_state', ('success', 90.0, '%'), {})
  monkeypatch.setattr(jobs, 'summary_rows', lambda *_: [row])
  last = offline.collect(job, source)[-1]
  assert (last.metric, last.value, last.unit) == ('logged', 154_000.0, 'steps')
