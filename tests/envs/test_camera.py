"""Tasks with a camera: what it sees, in a single body and in a batch."""

from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from armfarm.envs import camera
from armfarm.envs import grasp
from armfarm.envs import grasp_objects
from armfarm.envs import grasp_scene
from armfarm.envs import host
from armfarm.workers import evaluator

pytestmark = pytest.mark.usefixtures('opengl')

_DOWN = np.array([0, 0, -1.0, 0, 1, 0, 0, 0])


def _keys(size):
  return jax.random.split(jax.random.key(0), size)


@pytest.fixture(scope='module')
def make(numbers):
  return lambda **other: grasp.make(**numbers['grasp'] | other)


@pytest.fixture(scope='module')
def task(make):
  return make()


@pytest.fixture
def body(task):
  body = host.Host(task)
  yield body
  body.close()


def test_an_image_shows_objects_of_their_colors(body):
  image = body.reset(jax.random.key(1)).image.astype(int)
  which = np.asarray(body.state()['goal'], int)
  colors = body._task.fields(which.astype(float))['geom_rgba'][1][:, 0, :3]
  found = 0
  for number, color in zip(which, colors, strict=True):
    if number == grasp_objects.NONE:
      continue
    hue = color / np.linalg.norm(color)  # whatever the light does to it
    seen = image / np.linalg.norm(image, axis=-1, keepdims=True)
    found += ((np.abs(seen - hue) < 0.04).all(axis=-1)).sum() >= 3
  assert found >= 0.6 * (which != grasp_objects.NONE).sum()  # some lie behind others


def test_an_image_follows_the_gripper(body):
  before = body.reset(jax.random.key(1)).image
  np.testing.assert_array_equal(body.observe().image, before)
  after = body.step(_DOWN).observation.image
  changed = (before != after).any(axis=-1)
  assert 0.01 < changed.mean() < 0.5
  assert not changed[:, :5].any()  # the scene's edge stands still


def test_a_batch_sees_what_single_bodies_do(task):
  batch, single = host.HostBatch(task, 3, threads=1), host.Host(task)
  together = batch.reset(_keys(3))
  later = batch.step(np.stack([_DOWN] * 2), ids=[0, 2]).observation
  for row, key in enumerate(_keys(3)):
    alone = single.reset(key)
    np.testing.assert_array_equal(together.image[row], alone.image)
    np.testing.assert_array_equal(together.state[row], alone.state)
    if row != 1:
      after = single.step(_DOWN).observation
      np.testing.assert_array_equal(later.image[row // 2], after.image)
  batch.close()
  single.close()
  assert batch.step(_DOWN[None], ids=[1]).observation.image.any()  # makes another
  batch.close()


def test_seeing_changes_nothing_but_the_observation(task, numbers):
  blind = host.Host(grasp.make(**numbers['grasp_state']))
  body = host.Host(task)
  known, seen = blind.reset(jax.random.key(2)), body.reset(jax.random.key(2))
  np.testing.assert_array_equal(seen.state, known[4:6])
  for action in np.random.default_rng(0).uniform(-1, 0.4, (8, 8)):
    one, other = body.step(action), blind.step(action)
    np.testing.assert_array_equal(one.observation.state, other.observation[4:6])
    assert one[1:] == other[1:]
  body.close()


def test_images_of_the_papers_size(make):
  body = host.Host(make(image_size=(512, 640), observes_gripper=False))
  seen = body.reset(jax.random.key(0))
  assert seen.image.shape == (512, 640, 3)
  assert seen.state.shape == (0,)
  body.close()


def test_rendering_is_quick(task, body):
  quality = task.model.vis.quality
  assert (quality.offsamples, quality.numslices, quality.numstacks) == (0, 8, 4)
  body.reset(jax.random.key(0))
  flags = body._film._own.renderer.scene.flags
  assert not flags[mujoco.mjtRndFlag.mjRND_SHADOW]
  assert not flags[mujoco.mjtRndFlag.mjRND_REFLECTION]


@pytest.mark.parametrize('size', [(72,), (72, 0), (72, 72, 3), (1000, 72)])
def test_impossible_images_are_refused(make, size):
  with pytest.raises(ValueError, match='image_size is .*: give height and width'):
    make(image_size=size)


def test_marks_are_in_the_picture_that_asks_for_them(body):
  body.reset(jax.random.key(0))
  red = np.array([[1.0, 0, 0, 1], [1, 0, 0, 1]])
  places, radii = np.array([[0.0, 0.0, -0.1], [0.1, 0.0, 0.0]]), np.full(2, 0.02)
  marks = camera.Marks(grasp_scene.TIP, places, red, radii)
  pictures = [body.render('over_view', 80, 60, m) for m in (None, marks, None)]
  np.testing.assert_array_equal(pictures[0], pictures[2])
  changed = np.abs(pictures[1].astype(int) - pictures[0]).max(-1) > 60
  assert 10 < changed.sum() < 1000


def test_threads_see_alike(body):
  first = body.reset(jax.random.key(1)).image
  with futures.ThreadPoolExecutor(1) as other:
    second = other.submit(body.observe).result()
    np.testing.assert_array_equal(body.observe().image, first)
    third = other.submit(body.observe).result()
  for image in (second.image, third.image, body.observe().image):
    np.testing.assert_array_equal(image, first)


class _Agent(NamedTuple):
  act: Any


def test_a_policy_is_tried_on_images(make):
  """It closes where it sees anything, so that all go on with closed hands."""

  def act(variables, observation, key):
    del variables, key
    bright = (observation.image > 100).any()
    return jnp.zeros(8).at[jnp.array([4, 5])].set(jnp.array([1.0, bright]))

  batch = host.HostBatch(make(episode_steps=2), 2, threads=1)
  rolled = evaluator.rollout(_Agent(act), batch, {}, _keys(2))
  np.testing.assert_allclose(rolled.totals, -0.05)
  assert rolled.observations.image.shape == (2, 72, 72, 3)
  assert rolled.observations.state[:, 0].tolist() == [1.0, 1.0]
