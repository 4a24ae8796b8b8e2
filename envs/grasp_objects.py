"""Objects to grasp: a few primitives stuck together, no two of them alike.

Kalashnikov et al. 2018 scale down models of a collection, and grasp household things;
here boxes, capsules and spheres are drawn from a seed, so that there are as many as one
likes and nothing is to be fetched. Most are not convex. Their sizes, masses and
frictions differ, and so do the shapes of any two seeds.

A scene has places for some of them, free bodies of P geometries. What an episode puts
there is rows of its model, copied from one in which MuJoCo has compiled all objects.
Letters as in `task.py`, and [N] objects, [P] primitives of one, [K] places in a scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

PRIMITIVES = 5  # P, of an object with the most
NONE = -1  # the number of the object that is not there

_SPHERE, _CAPSULE, _BOX = (
  mujoco.mjtGeom.mjGEOM_SPHERE,
  mujoco.mjtGeom.mjGEOM_CAPSULE,
  mujoco.mjtGeom.mjGEOM_BOX,
)
_KINDS = (_BOX, _BOX, _CAPSULE, _SPHERE)  # boxes twice as often
_OVERLAP = 0.9  # of where two primitives would just touch
_DOFS = 6  # of a free body
_CUBE_COLOR = np.array([0.85, 0.6, 0.25])
_RIGHT_ANGLES = ((1, 0, 0, 0), (0.5**0.5, 0.5**0.5, 0, 0), (0.5**0.5, 0, 0.5**0.5, 0))

# What differs between two objects' rows of a compiled model.
_OF_GEOMS = (
  *('geom_type', 'geom_contype', 'geom_conaffinity', 'geom_size', 'geom_pos'),
  *('geom_quat', 'geom_rbound', 'geom_friction', 'geom_rgba'),
)
_OF_BODIES = (
  *('body_mass', 'body_inertia', 'body_subtreemass', 'body_invweight0'),
  'body_gravcomp',
)
_OF_DOFS = ('dof_invweight0', 'dof_M0', 'dof_length')


class Ranges(NamedTuple):
  """What objects are drawn from, uniformly, lowest and highest.

  Attributes:
    radius: of the sphere around an object, m.
    mass: kg.
    friction: coefficient of sliding.
  """

  radius: tuple[float, float]
  mass: tuple[float, float]
  friction: tuple[float, float]


class Primitive(NamedTuple):
  """A part of an object.

  Attributes:
    kind: box, capsule or sphere, of `mujoco.mjtGeom`.
    size: as MuJoCo's `geom_size`, [3], m.
    place: in the object's frame, [3], m.
    turn: quaternion in the object's frame, [4].
  """

  kind: mujoco.mjtGeom
  size: np.ndarray
  place: np.ndarray
  turn: np.ndarray


class Thing(NamedTuple):
  """One object.

  Attributes:
    parts: one to `PRIMITIVES`.
    mass: kg.
    friction: coefficient of sliding.
    color: red, green and blue, [3].
  """

  parts: tuple[Primitive, ...]
  mass: float
  friction: float
  color: np.ndarray


class Library(NamedTuple):
  """Rows of a compiled model for each object, and last for none.

  Attributes:
    geoms: field -> [N+1 P ...].
    bodies: field -> [N+1 ...].
    dofs: field -> [N+1 6 ...].
    center: middle of the bounding box, in the body's frame, [N+1 3], m.
    extent: half its edges, nought for none, [N+1 3], m.
    size: N.
  """

  geoms: dict[str, np.ndarray]
  bodies: dict[str, np.ndarray]
  dofs: dict[str, np.ndarray]
  center: np.ndarray
  extent: np.ndarray

  @property
  def size(self) -> int:
    """N."""
    return len(self.extent) - 1

  @property
  def radius(self) -> np.ndarray:
    """Of the sphere about the body's origin that holds the box, [N+1], m."""
    return np.linalg.norm(np.abs(self.center) + self.extent, axis=-1)


def draw(ranges: Ranges, rng: np.random.Generator) -> Thing:
  """Draws one object."""
  parts: list[Primitive] = []
  for _ in range(rng.integers(2, PRIMITIVES + 1)):
    part = _draw_part(rng)
    parts.append(_stuck(part, parts[rng.integers(len(parts))], rng) if parts else part)
  return Thing(
    _scaled(parts, rng.uniform(*ranges.radius)),
    mass=rng.uniform(*ranges.mass),
    friction=rng.uniform(*ranges.friction),
    color=rng.uniform(0.2, 0.95, 3),
  )


def cube(edge: float, mass: float, friction: float) -> Thing:
  """Returns a cube, m, kg and a coefficient."""
  half, nowhere = np.full(3, edge / 2), np.zeros(3)
  part = Primitive(_BOX, half, nowhere, np.array(_RIGHT_ANGLES[0], float))
  return Thing((part,), mass, friction, _CUBE_COLOR)


def _draw_part(rng: np.random.Generator) -> Primitive:
  """Draws a primitive at the origin, its size relative to the others'."""
  kind = _KINDS[rng.integers(len(_KINDS))]
  size = {
    _SPHERE: np.array([rng.uniform(0.5, 1.0), 0.0, 0.0]),
    _CAPSULE: np.array([rng.uniform(0.3, 0.7), rng.uniform(0.5, 2.0), 0.0]),
    _BOX: rng.uniform(0.35, 1.5, 3),
  }[kind]
  turn = np.array(_RIGHT_ANGLES[rng.integers(len(_RIGHT_ANGLES))], float)
  return Primitive(kind, size, np.zeros(3), turn)


def _stuck(part: Primitive, other: Primitive, rng: np.random.Generator) -> Primitive:
  """Returns a primitive that sticks in one side of another, somewhat off its middle."""
  axis = rng.integers(3)
  own, reach = half_extent(part), half_extent(other)
  offset = rng.uniform(-0.8, 0.8, 3) * reach
  offset[axis] = rng.choice([-1, 1]) * _OVERLAP * (own + reach)[axis]
  return part._replace(place=other.place + offset)


def _scaled(parts: Sequence[Primitive], radius: float) -> tuple[Primitive, ...]:
  """Returns the parts with their bounding box in the middle, and of that size."""
  low = np.min([part.place - half_extent(part) for part in parts], axis=0)
  high = np.max([part.place + half_extent(part) for part in parts], axis=0)
  scale = radius / np.linalg.norm((high - low) / 2)
  center = (low + high) / 2
  return tuple(
    part._replace(size=scale * part.size, place=scale * (part.place - center))
    for part in parts
  )


def half_extent(part: Primitive) -> np.ndarray:
  """Half the edges of the box around a primitive, along its object's axes, [3]."""
  matrix = np.zeros(9)
  mujoco.mju_quat2Mat(matrix, part.turn)
  if part.kind == _BOX:
    return np.abs(matrix.reshape(3, 3)) @ part.size
  along = np.abs(matrix.reshape(3, 3)[:, 2])  # nought for a sphere
  return part.size[0] + part.size[1] * along


def compile_things(things: Sequence[Thing], mask: int) -> Library:
  """Lets MuJoCo compute what a scene needs of each object.

  Args:
    things: [N].
    mask: `contype` and `conaffinity` of all their primitives.
  """
  spec = mujoco.MjSpec()
  spec.compiler.alignfree = True  # a body's frame is that of its principal axes
  for thing in things:
    add_body(spec, thing, mask)
  model = spec.compile()
  count = len(things)
  geoms = {name: _rows(model, name, count, PRIMITIVES) for name in _OF_GEOMS}
  for name in ('geom_contype', 'geom_conaffinity', 'geom_rgba'):
    geoms[name][-1] = 0  # it touches nothing, is not seen,
  bodies = {name: _rows(model, name, count) for name in _OF_BODIES}
  bodies['body_gravcomp'][-1] = 1.0  # and does not fall
  dofs = {name: _rows(model, name, count, _DOFS) for name in _OF_DOFS}
  return Library(geoms, bodies, dofs, *_boxes(model, count))


def add_body(spec: mujoco.MjSpec, thing: Thing, mask: int, name: str = '') -> None:
  """Adds an object to a scene, as a free body of `PRIMITIVES` geometries."""
  body = spec.worldbody.add_body(name=name)
  body.add_freejoint()
  volume = sum(_volume(part) for part in thing.parts)
  for part in thing.parts:
    body.add_geom(
      type=part.kind,
      size=part.size,
      pos=part.place,
      quat=part.turn,
      mass=thing.mass * _volume(part) / volume,
      friction=(thing.friction, 0.005, 0.0001),
      rgba=(*thing.color, 1.0),
      contype=mask,
      conaffinity=mask,
      group=2,
    )
  for _ in range(PRIMITIVES - len(thing.parts)):  # within the first, and touch nothing
    body.add_geom(
      type=_SPHERE,
      size=(1e-3, 0, 0),
      pos=thing.parts[0].place,
      mass=0,
      rgba=(0, 0, 0, 0),
      contype=0,
      conaffinity=0,
      group=2,
    )


def _volume(part: Primitive) -> float:
  a, b, c = part.size
  if part.kind == _BOX:
    return 8 * a * b * c
  return np.pi * a**2 * (4 / 3 * a + 2 * b)  # a sphere's b is nought


def _rows(model: mujoco.MjModel, name: str, count: int, *each: int) -> np.ndarray:
  """A field for every object, and for none what it is for the last one, [N+1 ...]."""
  every = getattr(model, name)
  if name in _OF_BODIES:
    every = every[1:]  # the first is the world
  rows = every.reshape(count, *each, *every.shape[1:])
  return np.concatenate([rows, rows[-1:]])


def _boxes(model: mujoco.MjModel, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns center and half edges of the objects' boxes in their frames, [N+1 3]."""
  kinds = [mujoco.mjtGeom(kind) for kind in model.geom_type]
  geoms = zip(kinds, model.geom_size, model.geom_pos, model.geom_quat, strict=True)
  half = np.stack([half_extent(Primitive(*geom)) for geom in geoms])
  low, high = model.geom_pos - half, model.geom_pos + half
  lowest = low.reshape(count, PRIMITIVES, 3).min(axis=1)
  highest = high.reshape(count, PRIMITIVES, 3).max(axis=1)
  boxes = np.stack([(lowest + highest) / 2, (highest - lowest) / 2])
  center, extent = np.pad(boxes, ((0, 0), (0, 1), (0, 0)))
  return center, extent
