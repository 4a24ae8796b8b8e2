"""Pages: what they say, and that those in the repository are up to date."""

import pathlib

import numpy as np
from PIL import Image
import pytest

from armfarm.experiments import results
from armfarm.experiments import rows

_ROOT = pathlib.Path(__file__).parents[2]
_RESULTS = _ROOT / 'docs' / 'results'


def _row(agent, seed, metric, value, unit='episodes', paper_value=None):
  return rows.Row(
    name='reach',
    task='reach',
    agent=agent,
    variant='sync',
    seed=seed,
    metric=metric,
    value=value,
    unit=unit,
    paper_value=paper_value,
    command=f'python -m run {agent} {seed}',
    commit='abc1234',
    machine='a processor',
  )


@pytest.fixture
def content():
  content = [
    _row('naf', seed, 'episodes_to_100', value, paper_value=3600.0)
    for seed, value in enumerate([160.0, 120.0, 400.0])
  ]
  content += [
    _row('ddpg', seed, 'episodes_to_100', value, paper_value=3200.0)
    for seed, value in enumerate([200.0, None, None])
  ]
  content += [_row('naf', seed, 'success', 100.0, '%') for seed in range(3)]
  content += [
    _row('naf', seed, f'{rows.CURVE}{episodes:06d}', 20.0 * seed, '%')
    for seed in range(2)
    for episodes in (20, 40)
  ]
  return content


def test_a_table_has_medians_ranges_and_the_papers_values(content):
  lines = results.table(content, ['success', 'episodes_to_100']).splitlines()
  assert lines[:6] == [
    '|  | NAF | DDPG |',
    '| --- | --- | --- |',
    '| seeds | 3 | 3 |',
    '| success at the end | 100 % |  |',
    '| episodes to 100 % | 160 (120 – 400) | not reached (200 – not reached) |',
    '| — in the paper | 3600 | 3200 |',
  ]


def test_variants_are_told_apart(content):
  other = [row._replace(variant='async-4-reverb') for row in content]
  assert results.table(content + other, []).splitlines()[0] == (
    '|  | NAF, sync | NAF, async 4 reverb | DDPG, sync | DDPG, async 4 reverb |'
  )


def test_a_page_says_how_to_repeat_it(content):
  page = results.page({'reach': content})
  for part in ('python -m run naf 0\n', 'abc1234', 'a processor', '(reach.png)'):
    assert page.count(part) == 1
  assert rows.CURVE not in page
  assert 'reach.png' not in results.page({'reach': content[:3]})


def test_a_page_shows_the_films_of_its_experiments(content):
  films = [pathlib.Path(f'{name}.naf-1.webp') for name in ('reach', 'reach_async')]
  page = results.page({'reach': content}, films)
  assert page.count('.webp') == 1
  assert '![A policy of naf, seed 1](reach.naf-1.webp)' in page


def test_the_readme_shows_headlines_alone(content):
  content = [*content, _row('naf', 0, 'updates_per_s', 1234.0, 'updates/s')]
  block = results.block({'reach': content})
  assert '| episodes to 100 % |' in block
  assert 'docs/results/reach.png' in block
  assert '1234' not in block
  assert '1234' in results.page({'reach': content})


def test_only_the_part_between_the_marks_changes():
  text = 'a\n<!-- results -->\nold\n<!-- /results -->\nb\n'
  once = results.filled(text, 'new')
  assert once == 'a\n<!-- results -->\n\nnew\n\n<!-- /results -->\nb\n'
  assert results.filled(once, 'new') == once


@pytest.mark.parametrize(
  'text',
  [
    '',
    '<!-- results -->',
    '<!-- /results --><!-- results -->',
    '<!-- results --><!-- results --><!-- /results -->',
    '<!-- results --><!-- /results --><!-- /results -->',
  ],
)
def test_a_readme_without_marks_is_left_alone(text):
  with pytest.raises(ValueError, match='README'):
    results.filled(text, 'new')


def test_a_curve_is_straight_between_trials_and_held_where_its_run_ended():
  part = [
    _row('naf', 0, f'{rows.CURVE}{episodes:06d}', value, '%')
    for episodes, value in ((20, 50.0), (40, 100.0))
  ]
  part += [
    _row('naf', 1, f'{rows.CURVE}{episodes:06d}', value, '%')
    for episodes, value in ((20, 0.0), (60, 40.0), (80, 60.0))
  ]
  axes = results.figure.Figure().subplots()
  results._draw_system(axes, 'NAF', part, 80, 'red')
  (line,) = axes.get_lines()
  expected = [[20, 25], [40, 60], [60, 70], [80, 80]]
  np.testing.assert_array_equal(line.get_xydata(), expected)


def test_plots_are_drawn_where_there_are_curves(tmp_path, content):
  results.draw(content[:3], tmp_path / 'none.png')
  assert list(tmp_path.iterdir()) == []
  results.draw(content, tmp_path / 'reach.png')
  assert np.asarray(Image.open(tmp_path / 'reach.png')).std() > 5


def test_the_pages_in_the_repository_are_up_to_date():
  found = rows.read_all(_RESULTS)
  films = results.films(_RESULTS)
  assert (_RESULTS / 'README.md').read_text() == results.page(found, films)
  readme = (_ROOT / 'README.md').read_text()
  assert results.filled(readme, results.block(found)) == readme
  for name, content in found.items():
    has_curve = any(row.curve for row in content)
    assert (_RESULTS / f'{name}.png').exists() == has_curve
