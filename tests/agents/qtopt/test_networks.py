"""The Q-functions: sizes, halves that join, and numbers small enough for a hand."""

import functools
import math

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types
from armfarm.agents.networks import Normalization
from armfarm.agents.qtopt import networks

_SPEC = types.Spec(observation_size=2, action_size=8)  # gripper status and height


def _make(kind, parts, spec=_SPEC, hidden=(8, 8), normalization='none'):
  return networks.make(kind, parts, spec, hidden, Normalization(normalization))


def _shapes(kind, network, spec=_SPEC):
  blank, action = networks.blank(kind, spec), jnp.zeros([1, spec.action_size])
  init = functools.partial(network.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), blank, action)


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _multiplications(jaxpr):
  """Counts multiply-accumulates of the products and convolutions of a program."""
  total = 0
  for equation in jaxpr.eqns:
    total += sum(_multiplications(sub) for sub in _inner(equation))
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      weights = equation.invars[1].aval.shape
      output = equation.outvars[0].aval.shape
      total += math.prod(output) * math.prod(weights) // weights[-1]
  return total


def _inner(equation):
  values = equation.params.values()
  return [value.jaxpr for value in values if hasattr(value, 'jaxpr')]


def _cost(network, variables, method, *arguments):
  apply = functools.partial(network.apply, train=False, method=method)
  return _multiplications(jax.make_jaxpr(apply)(variables, *arguments).jaxpr)


def test_the_published_network(layout):
  # 1,242,817 is what the code published with the paper counts ("over 1.2M", section 1).
  network = _make('grasping472', layout.parts)
  shapes = _shapes('grasping472', network)
  assert _count(shapes['params']) == 1_242_817
  assert _count(shapes['batch_stats']) == 2_944
  head = {k: v for k, v in shapes['params'].items() if k != 'tower'}
  assert _count(head) == 620_609
  leaves = flax.traverse_util.flatten_dict(shapes['params'])
  convolutions = {path[0] for path, x in leaves.items() if x.ndim == 4}
  counts = [
    sum(p[0] == t and x.ndim == 4 for p, x in leaves.items()) for t in ('tower', 'head')
  ]
  assert convolutions == {'tower', 'head'}
  assert counts == [7, 9]  # E: 7 before the action enters, 9 after


def test_the_cost_of_the_published_network(layout):
  network = _make('grasping472', layout.parts)
  shapes, blank = _shapes('grasping472', network), networks.blank('grasping472', _SPEC)
  embed = functools.partial(network.apply, train=False, method='embed')
  embedding = jax.eval_shape(embed, shapes, blank)
  assert embedding.features.shape == (1, 27, 27, 64)
  once = _cost(network, shapes, 'embed', blank)
  each = _cost(network, shapes, 'score', embedding, jnp.zeros([1, 8]))
  assert round(once / 1e9, 2) == 4.22
  assert round(each / 1e9, 3) == 0.173


def test_the_small_network_is_cheap(layout):
  network = _make('grasping64', layout.parts)
  shapes, blank = _shapes('grasping64', network), networks.blank('grasping64', _SPEC)
  embed = functools.partial(network.apply, train=False, method='embed')
  embedding = jax.eval_shape(embed, shapes, blank)
  each = _cost(network, shapes, 'score', embedding, jnp.zeros([1, 8]))
  many = _cost(network, shapes, 'score', embedding, jnp.zeros([64, 8]))
  assert each <= 0.2e6
  assert many == 64 * each
  assert _cost(network, shapes, 'embed', blank) <= 3e6


def test_weights_begin_as_in_the_paper(layout):
  # Truncated at two standard deviations of 0.01, which leaves 0.88 of the deviation.
  network, blank = (
    _make('grasping64', layout.parts),
    networks.blank('grasping64', _SPEC),
  )
  init = jax.jit(functools.partial(network.init, train=False))
  params = init(jax.random.key(0), blank, jnp.zeros([1, 8]))['params']
  leaves = flax.traverse_util.flatten_dict(params)
  kernels = [x.ravel() for path, x in leaves.items() if path[-1] == 'kernel']
  weights = np.concatenate(kernels)
  assert abs(weights).max() <= 0.02
  np.testing.assert_allclose(weights.std(), 0.0088, rtol=0.02)


@pytest.fixture(scope='module', params=['grasping64', 'mlp', 'mlp-batch'])
def case(request, layout):
  """A network, scattered variables, and observations [4 ...]."""
  kind, _, normalization = request.param.partition('-')
  network = _make(kind, layout.parts, normalization=normalization or 'none')
  shapes, random = _shapes(kind, network), np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: jnp.asarray(random.uniform(0.1, 0.3, x.shape), x.dtype), shapes
  )
  numbers = jnp.asarray(random.normal(size=[4, 2]), jnp.float32)
  if kind == 'mlp':
    return network, variables, numbers
  pixels = random.integers(0, 256, [4, 64, 64, 3], np.uint8)
  return network, variables, networks.Observation(jnp.asarray(pixels), numbers)


def test_the_halves_join(case):
  # One embedding serves many actions: the same as the state repeated.
  network, variables, observation = case
  actions = jax.random.uniform(jax.random.key(0), [4, 8])
  one = jax.tree.map(lambda x: x[:1], observation)
  repeated = jax.tree.map(lambda x: jnp.repeat(x, 4, axis=0), one)

  @jax.jit
  def apply(variables):
    apply = functools.partial(network.apply, variables, train=False)
    scored = apply(apply(one, method='embed'), actions, method='score')
    return apply(repeated, actions), scored

  whole, scored = apply(variables)
  np.testing.assert_allclose(scored, whole, rtol=2e-5)
  assert len(np.unique(np.asarray(whole))) == 4


def test_the_state_matters(case):
  network, variables, observation = case
  apply = jax.jit(functools.partial(network.apply, train=False))
  logits = apply(variables, observation, jnp.zeros([4, 8]))
  assert len(np.unique(np.asarray(logits))) == 4


def test_image_only(layout):
  # Table 7: a state without numbers. The layers that they would have had are gone.
  spec = types.Spec(observation_size=0, action_size=8)
  network = _make('grasping472', layout.parts, spec)
  assert _count(_shapes('grasping472', network, spec)['params']) == 1_242_817 - 2 * 512


def test_mlp(variant):
  # s = 1, a = 2: relu(3*1 + 1 + 0.5*2, -(1) + 0*2) = (5, 0); 2*5 + 4*0 - 7 = 3.
  def dense(kernel, **bias):
    return {'kernel': jnp.array(kernel), **bias}

  params = {
    'of_state': dense([[3.0, -1.0]], bias=jnp.array([1.0, 0.0])),
    'of_action': dense([[0.5, 0.0]]),
    'last': dense([[2.0], [4.0]], bias=jnp.array([-7.0])),
  }
  network = _make('mlp', (1,), types.Spec(1, 1), hidden=(2,))
  apply = variant(lambda s, a: network.apply({'params': params}, s, a, False))
  assert apply(jnp.array([[1.0]]), jnp.array([[2.0]])).tolist() == [3.0]


def test_floats_are_no_images(layout):
  network = _make('grasping64', layout.parts)
  image = networks.Observation(jnp.zeros([1, 64, 64, 3]), jnp.zeros([1, 2]))
  with pytest.raises(AssertionError, match='uint8'):
    network.init(jax.random.key(0), image, jnp.zeros([1, 8]), train=False)


@pytest.mark.parametrize(
  ('change', 'error'),
  [
    (
      {'kind': 'x'},
      "^network is 'x'; .*'mlp', 'things', 'grasping64', 'grasping472'.*$",
    ),
    ({'normalization': 'x'}, "^normalization is 'x'; .*$"),
    ({'hidden': ()}, '^hidden is empty; .*$'),
  ],
)
def test_impossible_networks_are_refused(layout, change, error):
  with pytest.raises(ValueError, match=error):
    _make(**{'kind': 'mlp', 'parts': layout.parts, **change})


# Things.


@pytest.fixture(name='things', scope='module')
def _things():
  """A critic of three things, its variables, and `observation, action -> logits`."""
  spec = types.Spec(observation_size=6 + 3 * 12, action_size=8)
  network = _make('things', (3, 2, 1, 1, 1), spec)
  zeros = networks.blank('things', spec), jnp.zeros([1, 8])
  variables = network.init(jax.random.key(0), *zeros, train=False)
  variables = jax.tree.map(lambda x: 3.0 * x, variables)  # further from a constant
  return jax.jit(functools.partial(network.apply, variables, train=False))


def _scene(turn=0.0, flipped=False, order=(0, 1, 2), count=3):
  """Returns an observation [1 O] and an action [1 A] of the same things as ever.

  Args:
    turn: of all that there is about the gripper, rad.
    flipped: whether boxes are told by other axes of theirs.
    order: of the things.
    count: how many there are; the others are nought.
  """
  random = np.random.default_rng(3)
  c, s = math.cos(turn), math.sin(turn)
  about = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
  rows = np.zeros([3, 12])
  for row in rows[:count]:
    place, edges = random.normal(size=3) / 20, random.uniform(0.01, 0.04, 3)
    axes, _ = np.linalg.qr(random.normal(size=[3, 3]))
    axes *= np.linalg.det(axes)
    if flipped:  # x becomes y, y becomes -x
      axes = np.stack([axes[:, 1], -axes[:, 0], axes[:, 2]], axis=1)
      edges = edges[[1, 0, 2]]
    row[:] = [*about @ place, *(about @ axes)[:, :2].ravel(), *edges]
  gripper = [0.0, 0.0, math.sin(turn), math.cos(turn), 1.0, 0.1]
  way = about @ random.normal(size=3)
  action = [*way, 0.6, 0.8, 0.0, 1.0, 0.0]
  observation = np.concatenate([gripper, *rows[list(order)]])
  return jnp.float32(observation)[None], jnp.float32(action)[None]


@pytest.mark.parametrize(
  'changes', [{'order': (2, 0, 1)}, {'flipped': True}], ids=['order', 'axes']
)
def test_things_are_what_they_are_however_they_are_told(things, changes):
  before, after = things(*_scene()), things(*_scene(**changes))
  assert abs(before[0] - things(*_scene(count=1))[0]) > 1e-4
  np.testing.assert_allclose(before, after, rtol=1e-5)


def _in_a_mirror(observation, action, x, y):
  """Returns what [1 O], [1 A] become where signs `x` and `y` turn the world's axes."""
  one = 1.0
  gripper = [x, y, y, x, one, one]  # a sine goes with y, a cosine with x
  thing = [x, y, one, x, x, y, y, one, one, one, one, one]
  signs = jnp.array([[*gripper, *3 * thing]])
  return signs * observation, jnp.array([[x, y, one, x * y, *4 * [one]]]) * action


def _elsewhere(scene):
  observation, action = scene
  return observation.at[:, :2].set(jnp.array([[0.05, -0.02]])), action


@pytest.mark.parametrize(('x', 'y'), [(-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)])
def test_mirrors_change_nothing(things, x, y):
  scene = _elsewhere(_scene(turn=0.7))
  before = things(*scene)
  other_place = scene[0].at[0, 0].set(0.1)
  assert abs(before[0] - things(other_place, scene[1])[0]) > 1e-4
  np.testing.assert_allclose(before, things(*_in_a_mirror(*scene, x, y)), rtol=1e-5)


def test_fingers_are_alike(things):
  observation, action = _elsewhere(_scene(turn=0.7))
  other = observation.at[:, 2:4].multiply(-1.0)
  np.testing.assert_allclose(
    things(observation, action), things(other, action), rtol=1e-5
  )


def test_things_are_seen_from_the_gripper():
  observation, action = _scene(turn=0.7)
  other, same_way = _scene()
  rows = [x[:, 6:].reshape(1, 3, 12) for x in (observation, other)]
  turns = [x[:, 2:4] for x in (observation, other)]
  seen = [networks.seen_from(*pair) for pair in zip(turns, rows, strict=True)]
  np.testing.assert_allclose(*seen, atol=1e-6)
  np.testing.assert_allclose(
    networks.turned(turns[0], action[:, :2]), same_way[:, :2], atol=1e-6
  )


def test_the_box_of_a_thing_by_hand():
  # 1 cm away along y, axes y, -x, z, half edges 1, 2 and 3 cm: R diag(e) R' is
  # diag(2, 1, 3) cm. Seen by a gripper turned by 90 degrees: along x, diag(1, 2, 3).
  row = jnp.float32([0, 0.01, 0, 0, -1, 1, 0, 0, 0, 0.01, 0.02, 0.03])[None, None]
  seen = networks.seen_from(jnp.float32([[1.0, 0.0]]), row)[0, 0]
  expected = [0.01, 0, 0, 0.01, 0, 0, 0.02, 0, 0.03]
  np.testing.assert_allclose(seen, np.array(expected) / 0.05, atol=1e-6)


def test_the_nearest_things_count(monkeypatch, things):
  del things
  observation, action = _scene()
  row = jnp.float32([3.0, 0, 0, 1, 0, 0, 1, 0, 0, 0.01, 0.01, 0.01])[None]
  more = jnp.concatenate([observation, row], axis=1)
  monkeypatch.setattr(networks, '_NEAREST', 3)
  network = _make('things', (3, 2, 1, 1, 1), types.Spec(more.shape[1], 8))
  variables = network.init(jax.random.key(0), more, action, train=False)
  logits = [network.apply(variables, x, action, False) for x in (observation, more)]
  np.testing.assert_allclose(*logits)


def test_where_there_is_nothing_nothing_is_to_be_had(things):
  assert things(*_scene(count=0)) == -10.0


def test_other_observations_have_no_things():
  with pytest.raises(ValueError, match='there are 12 numbers each beside 6, but 20'):
    _make('things', (3, 2, 1, 1, 1), types.Spec(20, 8))


@pytest.mark.parametrize('parts', [(7,), (3, 1, 1), (2, 2, 1)])
def test_other_actions_have_no_mirrors(parts):
  with pytest.raises(ValueError, match='mirrors turn x, y, z and one angle'):
    _make('things', parts, types.Spec(18, sum(parts)))
