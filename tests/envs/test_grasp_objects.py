"""Objects to grasp: how they differ, and that a scene has them as MuJoCo compiles them.

Letters: [N] objects, [P] points.
"""

import itertools
import re

import mujoco
import numpy as np
import pytest

from armfarm.envs import grasp
from armfarm.envs import grasp_objects as objects
from armfarm.envs import grasp_scene
from armfarm.envs import host

_OPENING = 0.08  # m, between the open fingers
# Of what a compiled model says of other shapes: what is unused, or where things begin.
_UNUSED = {'geom_aabb', 'geom_sameframe', 'cam_poscom0', 'light_poscom0'}
_BEGIN = {'body_pos', 'body_quat', 'qpos0', 'qpos_spring', 'key_qpos'}


@pytest.fixture(scope='module')
def both(numbers):
  """The objects to learn with, and those to test with."""
  known = grasp.Numbers(**numbers['grasp_state'])
  return grasp._things(known), grasp._things(known._replace(unseen=True))


def _shape(thing):
  """What stays of an object wherever it lies and whatever it weighs: sorted lengths."""
  places = np.stack([part.place for part in thing.parts])
  pairs = np.linalg.norm(places[:, None] - places, axis=-1)
  sizes = np.stack([part.size for part in thing.parts])
  return np.concatenate([np.sort(pairs[np.triu_indices(len(places), 1)]), *sizes])


def test_there_are_enough(both):
  train, test = both
  assert len(train) >= 200
  assert len(test) >= 50


def test_no_shape_is_shared(both):
  train, test = ([_shape(thing) for thing in things] for things in both)
  closest = min(
    np.abs(np.sort(one) - np.sort(other)).max()
    for one, other in itertools.product(train, test)
    if len(one) == len(other)
  )
  assert closest > 5e-4  # m: of any two, some length differs by half a millimetre


def test_they_differ_in_parts_size_mass_and_friction(both):
  for things in both:
    assert {len(thing.parts) for thing in things} == {2, 3, 4, 5}
    assert {part.kind for thing in things for part in thing.parts} == set(
      objects._KINDS
    )
    for values, low, high in (
      ([thing.mass for thing in things], 0.03, 0.15),
      ([thing.friction for thing in things], 1.0, 1.6),
    ):
      assert low <= min(values) < low + 0.1 * (high - low)
      assert high - 0.1 * (high - low) < max(values) <= high


def _points(thing, rng, count):
  """Points in the box around an object, [P 3], and whether they are in it, [P]."""
  low = np.min([part.place - objects.half_extent(part) for part in thing.parts], axis=0)
  points = rng.uniform(low, -low, (count, 3))  # the box is in the middle
  inside = np.zeros(count, bool)
  for part in thing.parts:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, part.turn)
    own = (points - part.place) @ matrix.reshape(3, 3)
    if part.kind == mujoco.mjtGeom.mjGEOM_BOX:
      inside |= (np.abs(own) <= part.size).all(axis=1)
    else:  # a sphere's second size is nought
      own[:, 2] -= np.clip(own[:, 2], -part.size[1], part.size[1])
      inside |= np.linalg.norm(own, axis=1) <= part.size[0]
  return points, inside


def test_they_are_of_their_size_and_fit_between_the_fingers(both):
  for thing in itertools.chain(*both):
    half = np.max([part.place + objects.half_extent(part) for part in thing.parts], 0)
    assert 0.03 - 1e-9 <= np.linalg.norm(half) <= 0.045 + 1e-9
    assert 2 * half.min() < 0.75 * _OPENING


def test_most_are_not_convex(both):
  rng = np.random.default_rng(0)
  convex = []
  for thing in both[1]:
    points, inside = _points(thing, rng, 1000)
    own = points[inside]
    middles = (own[: len(own) // 2] + own[len(own) // 2 : len(own) // 2 * 2]) / 2
    distances = np.linalg.norm(middles[:, None] - points[~inside], axis=-1).min(axis=1)
    closest = np.linalg.norm(middles[:, None] - own, axis=-1).min(axis=1)
    convex.append((distances < closest).mean() < 0.03)
  assert np.mean(convex) < 0.3


def test_the_same_seed_draws_the_same():
  ranges = objects.Ranges((0.03, 0.045), (0.03, 0.15), (0.7, 1.2))
  one, same, other = (
    _shape(objects.draw(ranges, np.random.default_rng(seed))) for seed in (3, 3, 4)
  )
  np.testing.assert_array_equal(one, same)
  assert not np.array_equal(one, other)


def test_a_scene_has_them_as_if_compiled_with_them(both, numbers):
  task = grasp.make(**numbers['grasp_state'])
  body = host.Host(task)
  chosen = np.array([7, 3, 99, 0, 239, 50, 51, 52, 53, 54])
  body.restore(body.state() | {'goal': chosen.astype(float), 'running': np.bool_(True)})
  things = [both[0][i] for i in chosen]
  size = np.array(numbers['grasp_state']['bin_size'])
  height = numbers['grasp_state']['wall_height']
  expected = grasp_scene.build(size, height, things, places=10).model
  body._model.body_subtreemass[0] = expected.body_subtreemass[0]  # nobody asks
  differ = set()
  for name in dir(expected):
    value = getattr(expected, name)
    if isinstance(value, np.ndarray) and not re.search('bvh|^_', name):
      same = np.allclose(getattr(body._model, name), value, rtol=1e-9, atol=1e-15)
      differ |= set() if same else {name}
  assert differ <= _UNUSED | _BEGIN


def test_what_is_not_there_is_not_seen_and_touches_nothing(numbers):
  task = grasp.make(**numbers['grasp_state'])
  rows = task.fields(np.full(10, -1.0))
  assert not rows['geom_rgba'][1].any()
  assert not rows['geom_contype'][1].any()
  assert not rows['geom_conaffinity'][1].any()
  assert (rows['body_gravcomp'][1] == 1).all()
