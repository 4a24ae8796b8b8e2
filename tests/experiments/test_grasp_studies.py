"""Ablations of QT-Opt: every variant is a run that can start, and none runs twice."""

import pytest

from armfarm.experiments import grasp_studies as studies
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.experiments.rows import Source
from armfarm.launchers import build

pytestmark = pytest.mark.usefixtures('parsed')

_ALL = [(study, name) for study, found in studies.STUDIES.items() for name in found]


@pytest.mark.parametrize(('study', 'name'), _ALL)
def test_every_variant_can_start(read_config, study, name):
  variant = studies.STUDIES[study][name]
  config = read_config(studies.make_job(study, name, 1))
  build.make_parts(config)
  assert (config.seed, config.agent.name) == (1, variant.agent)
  # More robots bring more experience to as many updates.
  episodes, steps = config.run.max_episodes, config.run.warmup_steps
  assert episodes == round(5_000 * variant.robots)
  assert steps == round(20_000 * variant.robots)
  updates = episodes * config.run.updates_per_step
  assert updates == pytest.approx(10_000, rel=1e-4)


def test_runs_are_shared_where_studies_ask_for_the_same(different_runs):
  count = different_runs(studies.make_job(study, name, 0) for study, name in _ALL)
  assert count == len(_ALL) - 5  # `base` is in five, `double` in two


@pytest.mark.parametrize('study', studies.STUDIES)
def test_the_page_waits_for_every_variant(study):
  expected = {(v.agent, name) for name, v in studies.STUDIES[study].items()}
  assert {(a, name) for a, name, _ in results.STORIES[study].planned} == expected


def test_success_half_way(monkeypatch):
  job = studies.make_job('grasp_mdp', 'scripted-end', 0)
  source = Source('command', 'unknown', 'machine')
  row = jobs._row(job, source, 'grasp_state', ('success_after_500', 0.0, '%'), {})
  curve = [row._replace(value=float(10 * i)) for i in range(1, 11)]
  monkeypatch.setattr(jobs, 'curve_rows', lambda *_: curve)
  monkeypatch.setattr(jobs, 'summary_rows', lambda *_: [])
  half = studies.collect(job, source)[0]
  assert (half.metric, half.value, half.paper_value) == ('success_at_half', 50.0, 75.0)
