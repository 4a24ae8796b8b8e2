"""Rows: what they must hold, and how files of them grow."""

import json
import subprocess

import pytest

from armfarm.experiments import rows

_ROW = rows.Row(
  name='reach',
  task='reach',
  agent='naf',
  variant='sync',
  seed=0,
  metric='success',
  value=100.0,
  unit='%',
  paper_value=100.0,
  command='python -m armfarm.launchers.local',
  commit='abc1234+',
  machine='a processor, 2 cores',
)


def test_rows_are_merged_sorted_and_read_back(tmp_path):
  second = _ROW._replace(seed=1, value=None)
  other = _ROW._replace(name='door')
  paths = rows.merge(tmp_path, [second, other, _ROW])
  assert sorted(path.name for path in paths) == ['door.json', 'reach.json']
  assert rows.read_all(tmp_path) == {'door': [other], 'reach': [_ROW, second]}
  text = (tmp_path / 'reach.json').read_text()
  rows.merge(tmp_path, [_ROW])
  assert (tmp_path / 'reach.json').read_text() == text
  assert len(text.splitlines()) == 4  # a row a line, in brackets
  again = _ROW._replace(value=95.0, commit='def5678', command='another')
  rows.merge(tmp_path, [again])
  assert rows.read(tmp_path / 'reach.json') == [again, second]


@pytest.mark.parametrize('field', ['agent', 'variant', 'metric'])
def test_rows_of_other_runs_stay(tmp_path, field):
  rows.merge(tmp_path, [_ROW])
  rows.merge(tmp_path, [_ROW._replace(**{field: 'other'})])
  assert len(rows.read(tmp_path / 'reach.json')) == 2


def test_a_shorter_curve_replaces_a_longer_one(tmp_path):
  curve = [_ROW._replace(metric=f'{rows.CURVE}{n:06d}') for n in (20, 40, 60)]
  others = [row._replace(seed=1) for row in curve]
  rows.merge(tmp_path, [_ROW, *curve, *others])
  rows.merge(tmp_path, curve[:1])
  expected = sorted([_ROW, curve[0], *others], key=lambda row: row.key)
  assert rows.read(tmp_path / 'reach.json') == expected


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('name', '../reach'),
    ('agent', ''),
    ('metric', 'Success'),
    ('task', None),
    ('seed', 0.0),
    ('seed', True),
    ('seed', -1),
    ('value', float('nan')),
    ('value', '100'),
    ('paper_value', float('inf')),
    ('unit', None),
    ('command', ''),
    ('machine', 'two\nlines'),
    ('commit', 'main'),
  ],
)
def test_a_wrong_row_changes_nothing(tmp_path, field, value):
  with pytest.raises(ValueError, match=field):
    rows.merge(tmp_path, [_ROW, _ROW._replace(**{field: value})])
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'content',
  [
    [{'name': 'reach'}],
    [_ROW._replace(name='door')._asdict()],
    [_ROW._replace(seed='0')._asdict()],
    [{**_ROW._asdict(), 'host': 'mine'}],
  ],
)
def test_a_wrong_file_is_refused(tmp_path, content):
  path = tmp_path / 'reach.json'
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r'reach\.json|seed'):
    rows.read(path)


def test_the_commit_is_marked_when_sources_differ(tmp_path):
  assert rows.commit(tmp_path) == 'unknown'

  def git(*arguments):
    identity = ['-c', 'user.name=a', '-c', 'user.email=a@b.c']
    command = ['git', *identity, *arguments]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

  git('init')
  (tmp_path / 'code.py').write_text('')
  git('add', '.')
  git('commit', '-m', 'one')
  clean = rows.commit(tmp_path)
  assert len(clean) >= 7
  rows.merge(tmp_path / 'docs' / 'results', [_ROW])
  (tmp_path / 'README.md').write_text('results')
  assert rows.commit(tmp_path) == clean
  (tmp_path / 'code.py').write_text('changed')
  assert rows.commit(tmp_path) == f'{clean}+'
  assert rows.commit(tmp_path / 'docs') == f'{clean}+'
  rows.check(_ROW._replace(commit=f'{clean}+', machine=rows.machine()))
