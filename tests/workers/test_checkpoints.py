"""Checkpoints: whole or not there, and what comes back is what went in."""

import json
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.workers import checkpoints as files


class _Pair(NamedTuple):
  left: object
  right: object


_TREE = {
  'float64': np.array([0.1, np.pi, np.nan, -0.0]),
  'float32': jnp.float32([[1 / 3]]),
  'scalars': _Pair(np.int64(2**40 + 1), np.float64(0.1)),
  'python': [3, 0.1, True],
  'small': (np.uint8([255]), np.bool_(True), jnp.int32(7)),
  'keys': jax.random.key_data(jax.random.key(0)),
}


@pytest.fixture
def warnings():
  return []


@pytest.fixture
def checkpoints(tmp_path, warnings):
  return files.Checkpoints(tmp_path / 'checkpoints', warnings.append)


def _save(checkpoints, *numbers):
  for number in numbers:
    tree = {'run': {'number': np.full(3, number)}, 'policy': {'weight': np.ones(2)}}
    checkpoints.save(number, tree, {'number': number})


def _names(directory):
  return sorted(int(path.name) for path in directory.iterdir())


def test_all_comes_back_to_the_bit(checkpoints):
  checkpoints.save(1, {'run': _TREE}, {'list': [1, None, 0.1]})
  path, progress = checkpoints.read()
  tree = checkpoints.tree(path, 'run', _TREE)
  assert progress == {'list': [1, None, 0.1]}
  assert jax.tree.structure(tree) == jax.tree.structure(_TREE)
  for value, like in zip(jax.tree.leaves(tree), jax.tree.leaves(_TREE), strict=True):
    assert value.dtype == np.asarray(like).dtype
    assert np.asarray(value).tobytes() == np.asarray(like).tobytes()


def test_the_last_two_are_kept(checkpoints, tmp_path):
  kept = []
  for number in (5, 20, 100, 1000):
    _save(checkpoints, number)
    kept.append(_names(tmp_path / 'checkpoints'))
  assert kept == [[5], [5, 20], [20, 100], [100, 1000]]
  path, progress = checkpoints.read()
  assert progress == {'number': 1000}
  template = {'number': np.zeros(3, int)}
  found = checkpoints.tree(path, 'run', template)['number']
  np.testing.assert_array_equal(found, [1000] * 3)


def test_there_may_be_none(checkpoints, warnings):
  assert checkpoints.read() is None
  assert not warnings


def test_a_number_may_be_saved_again_and_the_last_one_counts(checkpoints, tmp_path):
  kept = []
  for count in range(12):
    checkpoints.save(7, {'run': {'number': np.zeros(3)}}, {'number': count})
    assert checkpoints.read()[1] == {'number': count}
    names = (path.name for path in (tmp_path / 'checkpoints').iterdir())
    kept.append(sorted(name.removeprefix(f'{0:011d}') for name in names))
  assert kept[:3] == [['7'], ['7', '7.001'], ['7.001', '7.002']]
  assert kept[-1] == ['7.010', '7.011']
  _save(checkpoints, 8)
  assert checkpoints.read()[1] == {'number': 8}


def _largest(path):
  return max((p for p in path.rglob('*') if p.is_file()), key=os.path.getsize)


def _flip(path):
  data = bytearray(_largest(path / 'run').read_bytes())
  data[len(data) // 2] ^= 1
  _largest(path / 'run').write_bytes(data)


def _cut(path):
  os.truncate(_largest(path / 'policy'), 1)


def _remove(path):
  _largest(path / 'run').unlink()


def _manifest(text):
  return lambda path: (path / 'manifest.json').write_text(text)


_DAMAGES = {
  'a bit': _flip,
  'a cut': _cut,
  'a missing file': _remove,
  'no manifest': _manifest(''),
  'half a manifest': _manifest('{"progress": {"number"'),
  'an empty manifest': _manifest('{}'),
  'another manifest': _manifest('null'),
}


@pytest.mark.parametrize('damage', _DAMAGES.values(), ids=list(_DAMAGES))
def test_a_damaged_one_is_passed_over(checkpoints, warnings, tmp_path, damage):
  _save(checkpoints, 1, 2)
  damage(tmp_path / 'checkpoints' / f'{2:012d}')
  path, progress = checkpoints.read()
  assert progress == {'number': 1}
  (warning,) = warnings
  assert 'checkpoint 000000000002 cannot be used' in warning
  assert '\n' not in warning
  damage(path)
  assert checkpoints.read() is None
  assert len(warnings) == 3


def test_a_run_that_went_back_leaves_no_future(checkpoints, tmp_path, warnings):
  _save(checkpoints, 1, 3)
  _flip(tmp_path / 'checkpoints' / f'{3:012d}')
  path, _ = checkpoints.read()
  checkpoints.go_back(path)
  _save(checkpoints, 2, 3)
  assert _names(tmp_path / 'checkpoints') == [2, 3]
  assert checkpoints.read()[1] == {'number': 3}
  assert len(warnings) == 1


@pytest.mark.parametrize('clean', [True, False])
def test_what_was_not_committed_makes_room(checkpoints, tmp_path, monkeypatch, clean):
  _save(checkpoints, 1)

  def killed(path, content):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(files, 'write_json', killed)
    with pytest.raises(KeyboardInterrupt):
      _save(checkpoints, 2)
  assert _names(tmp_path / 'checkpoints') == [1, 2]
  assert checkpoints.read()[1] == {'number': 1}
  if clean:
    checkpoints.clean()
    assert _names(tmp_path / 'checkpoints') == [1]
  _save(checkpoints, 2)
  assert checkpoints.read()[1] == {'number': 2}


@pytest.mark.parametrize(
  'template',
  [
    {'number': np.zeros(4, int)},
    {'number': np.zeros(3, np.float32)},
    {'other': np.zeros(3, int)},
    {'number': np.zeros(3, int), 'other': np.zeros(3, int)},
  ],
  ids=['shape', 'type', 'name', 'more'],
)
def test_something_else_is_refused(checkpoints, template):
  _save(checkpoints, 1)
  path, _ = checkpoints.read()
  with pytest.raises(ValueError, match='is .*, not '):
    checkpoints.tree(path, 'run', template)


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'summary.json'
  files.write_json(path, {'a': 1})
  with pytest.raises(TypeError):
    files.write_json(path, {'b': [2] * 1000, 'c': object()})
  assert json.loads(path.read_text()) == {'a': 1}

  def killed(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(files.os, 'fsync', killed)
    with pytest.raises(KeyboardInterrupt):
      files.write_json(path, {'b': 2})
  assert json.loads(path.read_text()) == {'a': 1}
  with path.open() as reader:  # has the old one open, and keeps it
    files.write_json(path, {'b': 2})
    assert json.load(reader) == {'a': 1}
  assert json.loads(path.read_text()) == {'b': 2}
