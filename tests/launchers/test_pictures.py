"""Curves and films, and machines that cannot draw."""

import functools
import json
import os
import re
import subprocess
import sys

import imageio_ffmpeg
import jax
import numpy as np
from PIL import Image
import pytest

from armfarm.envs import reach
from armfarm.envs.camera import Marks
from armfarm.launchers import opengl
from armfarm.launchers import pictures

_NUMBERS = {
  'distance_weight': 10.0,
  'control_weight': 0.01,
  'huber_delta': 0.1,
  'speed': 0.5,
  'cube_center': (0.5, 0.0, 0.5),
  'cube_edge': 0.2,
  'success_distance': 0.05,
}


def _metrics(workdir, successes):
  """Writes a run with an evaluation every 20 episodes, and a line cut short."""
  rows = []
  for episode in range(1, 20 * len(successes) + 1):
    rows.append({'kind': 'episode', 'total': -100.0 + episode, 'success': False})
    if episode % 20 == 0:
      success = successes[episode // 20 - 1]
      row = {'kind': 'evaluation', 'episodes': episode, 'success': success}
      rows.append({**row, 'updates': 10 * episode, 'seconds': 0.5, 'total': -50.0})
  lines = [json.dumps(row) + '\n' for row in rows]
  (workdir / 'metrics.jsonl').write_text(''.join(lines) + '{"kind": "episo')


@pytest.mark.parametrize(
  ('successes', 'solved_at'),
  [
    ([0.5, 1.0, 0.95, 1.0, 1.0, 1.0], 80),
    ([1.0, 1.0], 20),
    ([0.0, 1.0], None),
    ([1.0, 0.95, 1.0], None),
    ([], None),
  ],
)
def test_a_curve_shows_the_run(tmp_path, successes, solved_at):
  _metrics(tmp_path, successes)
  curve = pictures.read_curve(tmp_path)
  np.testing.assert_array_equal(curve.success, successes)
  assert len(curve.totals) == 20 * len(successes)
  assert curve.solved_at == solved_at
  path = pictures.draw_curve(tmp_path)
  assert path == tmp_path / 'curve.png'
  assert np.asarray(Image.open(path)).std() > 5  # not one colour
  assert sorted(p.name for p in tmp_path.iterdir()) == ['curve.png', 'metrics.jsonl']


def test_late_evaluations_are_put_in_order(tmp_path):
  row = {'kind': 'evaluation', 'updates': 0, 'seconds': 0.0, 'total': 0.0}
  rows = [
    {**row, 'episodes': episodes, 'success': success}
    for episodes, success in ((40, 1.0), (20, 0.5), (60, 1.0))
  ]
  (tmp_path / 'metrics.jsonl').write_text(
    ''.join(json.dumps(row) + '\n' for row in rows)
  )
  assert pictures.read_curve(tmp_path).solved_at == 40


def _opengl_is_missing():
  try:
    pictures.check_opengl()
  except pictures.CannotDraw as error:
    return f'{error}: {error.__cause__!r}'
  return ''


@pytest.fixture
def drawable():
  reason = _opengl_is_missing()
  if reason:
    pytest.skip(reason)


def _decoded(path, shape):
  """Returns what a player sees: frames, and a description of the stream."""
  command = [imageio_ffmpeg.get_ffmpeg_exe(), '-i', str(path), '-f', 'rawvideo']
  command += ['-pix_fmt', 'rgb24', '-']
  done = subprocess.run(command, capture_output=True, check=True)
  (stream,) = re.findall('Video: h264.*', done.stderr.decode())
  return np.frombuffer(done.stdout, np.uint8).reshape(-1, *shape, 3), stream


@pytest.mark.parametrize(
  ('success_distance', 'frames_each'),
  [
    (1e-6, 1 + 24),  # never: to the time limit
    (5.0, 1 + 20),  # always: a second, at 20 Hz
  ],
)
def test_a_film_shows_every_target(drawable, tmp_path, success_distance, frames_each):
  task = reach.make(
    **_NUMBERS | {'success_distance': success_distance}, episode_steps=24
  )
  seen = []

  def policy(observation):
    seen.append(observation[17:])
    return np.full(7, 0.3)

  stage = pictures.stage(task, width=120, height=90)
  path = tmp_path / 'videos' / 'policy.mp4'
  keys = jax.random.split(jax.random.key(0), 2)
  assert pictures.film(stage, policy, keys, path) == path
  assert [p.name for p in path.parent.iterdir()] == ['policy.mp4']
  assert len(np.unique(seen, axis=0)) == 2
  frames, stream = _decoded(path, (90, 120))
  assert all(part in stream for part in ('yuv420p', '120x90', ' 20 fps'))
  assert len(frames) == 2 * frames_each
  moved = np.abs(frames[1].astype(int) - frames[frames_each - 1]).max(-1) > 40
  assert moved[:60].mean() > 0.01  # above the caption


def _think(marks, observation):
  del observation
  return pictures.Thought('Q 0.93', marks)


def test_a_film_shows_what_a_policy_thinks(drawable, tmp_path):
  task = reach.make(**_NUMBERS, episode_steps=1)
  white, radii = np.array([[1.0, 1, 1, 1]]), np.array([0.1])
  films = []
  for height in (0.0, 0.4):
    marks = Marks('end_effector', np.array([[0, 0, height]]), white, radii)
    stage = pictures.stage(task, width=120, height=90)
    keys = jax.random.split(jax.random.key(0), 1)
    path = tmp_path / f'{height}.mp4'
    pictures.film(
      stage, lambda _: np.zeros(7), keys, path, functools.partial(_think, marks)
    )
    films.append(_decoded(path, (90, 120))[0])
  apart = np.abs(films[0].astype(int) - films[1]).max(-1) > 60
  assert (apart.mean(axis=(1, 2)) > 0.01).all()  # before the step, and after it


def test_a_film_of_a_fast_task_keeps_its_speed(drawable, tmp_path):
  task = reach.make(**_NUMBERS, episode_steps=24)._replace(substeps=2)  # at 100 Hz
  path = tmp_path / 'a.mp4'
  keys = jax.random.split(jax.random.key(0), 2)
  stage = pictures.stage(task, width=120, height=90)
  pictures.film(stage, lambda _: np.full(7, 0.3), keys, path)
  frames, stream = _decoded(path, (90, 120))
  assert ' 25 fps' in stream
  assert len(frames) == 2 * (1 + 24 // 4)


def test_a_film_leaves_the_task_as_it_was(drawable, tmp_path):
  task = reach.make(**_NUMBERS, episode_steps=1)
  before = task.model.vis.quality.shadowsize
  keys = jax.random.split(jax.random.key(0), 1)
  stage = pictures.stage(task)
  pictures.film(stage, lambda _: np.zeros(7), keys, tmp_path / 'a.mp4')
  assert task.model.vis.quality.shadowsize == before


def test_a_film_that_fails_leaves_the_old_one(drawable, tmp_path):
  task = reach.make(**_NUMBERS, episode_steps=1)
  path = tmp_path / 'a.mp4'
  path.write_text('old')
  keys = jax.random.split(jax.random.key(0), 1)
  with pytest.raises(ValueError, match='outside'):
    pictures.film(pictures.stage(task), lambda _: np.full(7, 2.0), keys, path)
  with pytest.raises(ValueError, match='no_view'):
    unseen = pictures.stage(task, camera='no_view')
    pictures.film(unseen, lambda _: np.zeros(7), keys, path)
  assert path.read_text() == 'old'


def test_the_caption_says_when_the_target_is_reached():
  frame = np.full((360, 480, 3), 128, np.uint8)
  plain, reached = (pictures._captioned(frame, 'target 1 of 5', s) for s in (0, 1))
  for captioned in (plain, reached):
    changed = np.argwhere((captioned != frame).any(-1))
    assert changed.min(0)[0] > 300
    assert changed.max(0)[1] < 300

  def green(picture):
    return (picture[..., 1].astype(int) - picture[..., 0] > 30).sum()

  assert green(plain) == 0
  assert green(reached) > 100


@pytest.mark.parametrize(
  ('loadable', 'display', 'expected'),
  [
    ('libEGL.so.1 libOpenGL.so.0 libOSMesa.so.8', ':0', 'egl'),
    ('libEGL.so.1 libGL.so.1', '', 'egl'),
    ('libEGL.so.1 libOSMesa.so.8', '', 'osmesa'),
    ('libOSMesa.so.6', ':0', 'osmesa'),
    ('libEGL.so.1', ':0', None),
    ('libGL.so.1', '', 'disable'),
  ],
)
def test_opengl_is_chosen(monkeypatch, loadable, display, expected):
  monkeypatch.setattr(opengl.platform, 'system', lambda: 'Linux')
  monkeypatch.setattr(opengl, '_loads', lambda library: library in loadable.split())
  monkeypatch.setenv('DISPLAY', display)
  monkeypatch.delenv('MUJOCO_GL', raising=False)
  opengl.choose()
  assert os.environ.get('MUJOCO_GL') == expected
  monkeypatch.setenv('MUJOCO_GL', 'glfw')
  opengl.choose()
  assert os.environ['MUJOCO_GL'] == 'glfw'


@pytest.mark.parametrize('value', ['foo', 'osmesa'])
def test_what_mujoco_cannot_be_imported_with_is_refused(monkeypatch, capsys, value):
  monkeypatch.setattr(opengl.platform, 'system', lambda: 'Linux')
  monkeypatch.setattr(
    opengl, '_loads', lambda library: library in ('libEGL.so.1', 'libGL.so.1')
  )
  monkeypatch.setenv('MUJOCO_GL', value)
  with pytest.raises(SystemExit) as stopped:
    opengl.choose()
  assert stopped.value.code == 2
  found = 'here it can be egl, glfw, disable'
  assert capsys.readouterr().err == f'MUJOCO_GL is {value}: {found}\n'


_FILM = """
from armfarm.launchers import opengl
opengl.choose()
import pathlib
import jax
import numpy as np
from armfarm.envs import reach
from armfarm.launchers import pictures
task = reach.make(distance_weight=1.0, control_weight=0.0, huber_delta=0.1, speed=0.5,
                  cube_center=(0.5, 0.0, 0.5), cube_edge=0.2, success_distance=0.05,
                  episode_steps=150)
keys = jax.random.split(jax.random.key(0), 1)
try:
  stage = pictures.stage(task)
  pictures.film(stage, lambda _: np.zeros(7), keys, pathlib.Path('film.mp4'))
except pictures.CannotDraw as error:
  print(error)
"""


def test_without_opengl_it_says_what_to_install(tmp_path):
  libraries = (
    tmp_path / 'libraries'
  )  # the loader finds these first and cannot load them
  environment = {**os.environ, 'MUJOCO_GL': '', 'DISPLAY': ''}
  environment['LD_LIBRARY_PATH'] = str(libraries)
  libraries.mkdir()
  for name in ('libEGL.so.1', 'libOSMesa.so.8', 'libOSMesa.so.6'):
    (libraries / name).touch()
  done = subprocess.run(
    [sys.executable, '-c', _FILM],
    env=environment,
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  (line,) = done.stdout.splitlines()
  assert 'apt-get install libegl1 libgl1' in line
  assert not (tmp_path / 'film.mp4').exists()
