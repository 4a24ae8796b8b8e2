"""Films: whose, and what they are."""

import json
import pathlib

import numpy as np
from PIL import Image
import pytest

from armfarm.experiments import films
from armfarm.experiments import results
from armfarm.launchers import app
from armfarm.launchers import pictures
from armfarm.launchers import policy

_OLD = ('figure4_reach.naf-7.webp', 'figure4_reach_2.naf-7.webp')


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Makes a run of NAF on reach, given a seed and what its summary says."""
  monkeypatch.chdir(tmp_path)
  pathlib.Path('docs/results').mkdir(parents=True)

  def make(seed, **summary):
    folder = pathlib.Path(f'runs/experiments/figure4/reach-naf-{seed}')
    folder.mkdir(parents=True)
    (folder / 'summary.json').write_text(json.dumps(summary))

  return make


def _mp4(loaded, path, episodes, seed):
  del loaded, episodes, seed
  frames = np.random.default_rng(0).integers(0, 255, (40, 60, 80, 3), np.uint8)
  pictures._encode(iter(frames), path, hertz=20)


def test_only_a_run_that_learned_is_filmed(run, parsed):
  run(0, finished=True, success=0.95)
  run(2, finished=False, success=1.0)
  assert list(films.learned('reach')) == []
  run(3, finished=True, success=1.0)
  assert [(job.agent, job.seed) for job in films.learned('reach')] == [('naf', 3)]


def test_a_film_moves_and_takes_the_place_of_the_old_one(run, parsed, monkeypatch):
  run(3, finished=True, success=1.0)
  for name in _OLD:
    (results.folder() / name).touch()
  monkeypatch.setattr(policy, 'load', lambda workdir: workdir)
  monkeypatch.setattr(policy, 'film', _mp4)
  (job,) = films.learned('reach')
  path = films.film(job)
  names = {path.name for path in results.folder().iterdir()}
  assert names == {_OLD[1], path.name} == {_OLD[1], 'figure4_reach.naf-3.webp'}
  with Image.open(path) as film:
    assert film.n_frames == 20  # of 40, at half the rate
    assert film.size == (320, 240)


def test_where_nothing_can_be_drawn_the_old_film_stays(run, parsed, monkeypatch):
  def film(*args, **numbers):
    raise pictures.CannotDraw('no OpenGL')

  run(3, finished=True, success=1.0)
  (results.folder() / _OLD[0]).touch()
  monkeypatch.setattr(policy, 'load', lambda workdir: workdir)
  monkeypatch.setattr(policy, 'film', film)
  (job,) = films.learned('reach')
  with pytest.raises(app.UserError, match='no OpenGL'):
    films.film(job)
  assert [path.name for path in results.folder().iterdir()] == [_OLD[0]]
