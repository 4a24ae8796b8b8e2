"""Grasping any object from a bin with the 7-DoF arm and a gripper of two fingers.

The MDP of "QT-Opt: Scalable Deep Reinforcement Learning for Vision-Based Robotic
Manipulation" by Kalashnikov et al. (https://arxiv.org/abs/1806.10293), appendix D, in
simulation. Objects of `grasp_objects.py` fall into the bin and come to rest; then the
arm has some 20 steps. The action is a = (t, r, close, open, terminate):

  t   how the gripper moves, three parts of the longest way of a step
  r   sine and cosine, of any length, of the angle that it turns about the vertical, of
      which a step does what it can
  close, open, terminate    commands, given by a number above 1/2

Each step costs, but for the last, which pays 1 if the gripper holds something above a
height and else 0: both fingers touch something there, where there is nothing but what
they brought. The last one is that of the command to terminate or, where there is no
such command, of a closed gripper that goes on rising above that height (algorithm 2),
and in any case the last that the limit allows: it is part of the MDP, and cuts nothing.

An observation says of every object in the bin where it is, how it lies and what box is
around it, in no order, and never which one to take; or it is an image. Letters as in
`task.py`, with G = K places for objects, each with the number of its object or -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.envs import camera
from armfarm.envs import cartesian
from armfarm.envs import grasp_objects as objects
from armfarm.envs import grasp_scene
from armfarm.envs import task

_SUBSTEPS = 40  # of 0.005 s: a command takes 0.2 s
_SETTLING = 160  # physics steps, 0.8 s, in which what was dropped comes to rest
_MAX_HEADING = np.deg2rad(100.0)  # either way: every grasp of two fingers, and more
_CLOSE, _OPEN, _TERMINATE = 5, 6, 7  # of the action
_GIVEN = 0.5  # of a command
_SEED = 0  # of all objects
_GAP = 2e-4  # m, between cubes side by side


class Numbers(NamedTuple):
  """The numbers of a grasping task, from `configs/tasks.py`.

  Attributes:
    bin_size: along x and y, inside, [2], m.
    wall_height: of the bin, m.
    margin: of the middle between the fingers from the walls, m.
    floor: least height of the fingers' tips over the bin's bottom, m.
    ceiling: their greatest height, m.
    step_size: how far an action of one moves the gripper along an axis, m.
    max_turn: of the gripper in a step, rad.
    train_objects: how many there are to learn with.
    test_objects: how many others there are to test with.
    unseen: whether it is those.
    in_bin: fewest and most objects in the bin, [2].
    radius: of the sphere around an object, lowest and highest, m.
    mass: of an object, lowest and highest, kg.
    friction: of an object, lowest and highest; not below that of the gripper.
    lift_height: of the fingers' tips, above which a grasp counts, m.
    step_reward: of every step but the last; not positive.
    learned_termination: whether there is a command to terminate.
    observes_gripper: whether the gripper's status and height are observed.
    image_size: height and width of an image from over the arm's shoulder, pixels, that
      is observed in place of all poses; () for no image.
    episode_steps: at most, of 0.2 s.
    observes_objects: how many poses are observed, those nearest the tips where there
      are more; None for as many as there can be in the bin.
    blocks: rows and columns of a puzzle of cubes that lies in the bin in place of
      objects, [2]; () for objects.
    block_edge: of a cube, m.
  """

  bin_size: Sequence[float]
  wall_height: float
  margin: float
  floor: float
  ceiling: float
  step_size: float
  max_turn: float
  train_objects: int
  test_objects: int
  unseen: bool
  in_bin: Sequence[int]
  radius: tuple[float, float]
  mass: tuple[float, float]
  friction: tuple[float, float]
  lift_height: float
  step_reward: float
  learned_termination: bool
  observes_gripper: bool
  image_size: Sequence[int]
  episode_steps: int
  observes_objects: int | None = None
  blocks: Sequence[int] = ()
  block_edge: float = 0.05

  @property
  def observed(self) -> int:
    """How many poses are observed."""
    return self.in_bin[1] if self.observes_objects is None else self.observes_objects


class _Grasp(NamedTuple):
  """One grasping task; its methods are the functions of `Task`.

  Attributes:
    numbers: see there.
    mover: see there.
    scene: see there.
    cells: see there.
  """

  numbers: Numbers
  mover: cartesian.Mover
  scene: grasp_scene.Scene
  cells: grasp_scene.Cells

  def reset(self, key: chex.PRNGKey) -> task.Start:
    key_count, key_which, key_poses = jax.random.split(key, 3)
    parked = jnp.asarray(self.scene.parked)
    places = len(parked)
    fewest, most = self.numbers.in_bin
    present = jnp.arange(places) < jax.random.randint(key_count, (), fewest, most + 1)
    which = jax.random.permutation(key_which, self.scene.library.size)[:places]
    which = jnp.where(present, which, objects.NONE)
    arrange = self._packed if self.numbers.blocks else self._dropped
    poses = jnp.where(present[:, None], arrange(which, key_poses), parked)
    qpos = jnp.concatenate([jnp.asarray(self.scene.home), poses.ravel()])
    velocities = jnp.zeros(len(qpos) - places)  # a quaternion has four numbers
    return task.Start(qpos, velocities, which.astype(qpos.dtype))

  def fields(self, goal: task.Array) -> task.Fields:
    which = goal.astype(int)
    library, rows = self.scene.library, self.scene.rows
    kinds = (
      (rows.geoms, library.geoms),
      (rows.bodies, library.bodies),
      (rows.dofs, library.dofs),
    )
    return {
      name: (where, values[which])
      for where, each in kinds
      for name, values in each.items()
    }

  def control(self, data: task.Data, action: task.Array) -> task.Array:
    most = self.numbers.max_turn
    turn = np.clip(np.arctan2(action[..., 3], action[..., 4]), -most, most)
    motion = self.numbers.step_size * action[..., :3]
    velocity = self.mover.velocity(data, motion, turn)
    close, opens = action[..., _CLOSE], action[..., _OPEN]
    kept = self._is_closed(data) & (opens <= _GIVEN)
    closed = np.where(close >= opens, kept | (close > _GIVEN), kept)
    force = self.scene.rows.force * np.where(closed, 1.0, -1.0)
    return np.concatenate([velocity, np.stack([force, force], axis=-1)], axis=-1)

  def observe(self, data: task.Data, goal: task.Array) -> task.Array:
    tip, heading = self.mover.position(data), self.mover.heading(data)
    turned = np.stack([np.sin(heading), np.cos(heading)], axis=-1)
    parts = [tip[..., :2] - grasp_scene.CENTER, turned, self.status(data, goal)]
    which, library = goal.astype(int), self.scene.library
    bodies = self.scene.rows.bodies
    matrices = data.xmat[..., bodies, :].reshape(*which.shape, 3, 3)
    offsets = (matrices * library.center[which][..., None, :]).sum(axis=-1)
    each = (
      data.xpos[..., bodies, :] + offsets - tip[..., None, :],
      matrices[..., :2].reshape(*which.shape, 6),
      library.extent[which],
    )
    there = (which != objects.NONE)[..., None]
    rows = np.where(there, np.concatenate(each, axis=-1), 0.0)
    rows = _nearest(rows, there[..., 0], self.numbers.observed)
    parts.append(rows.reshape(*goal.shape[:-1], -1))
    return np.concatenate(parts, axis=-1).astype(np.float32)

  def status(self, data: task.Data, goal: task.Array) -> task.Array:
    """What is observed beside an image: the gripper, [B 2], or nothing, [B 0]."""
    del goal
    closed = np.where(self._is_closed(data), 1.0, 0.0)
    status = np.stack([closed, self.mover.position(data)[..., 2]], axis=-1)
    return status.astype(np.float32)[..., : 2 * self.numbers.observes_gripper]

  def reward(self, data: task.Data, goal: task.Array, action: task.Array) -> task.Array:
    del data, goal
    return np.full(action.shape[:-1], self.numbers.step_reward, np.float32)

  def final_reward(self, data: task.Data, goal: task.Array) -> task.Array:
    return self.success(data, goal).astype(np.float32)

  def success(self, data: task.Data, goal: task.Array) -> task.Array:
    del goal
    return (data.sensordata > 0).all(axis=-1) & self._is_high(data)

  def terminated(
    self, data: task.Data, goal: task.Array, action: task.Array
  ) -> task.Array:
    del goal
    if self.numbers.learned_termination:
      return action[..., _TERMINATE] > _GIVEN
    return self._is_closed(data) & self._is_high(data) & (action[..., 2] > 0)

  def _dropped(self, which: chex.Array, key: chex.PRNGKey) -> chex.Array:
    """Poses from which objects [K] fall, each in a cell of its own, [K 7]."""
    key_cells, key_shift, key_turn = jax.random.split(key, 3)
    middles, half = map(jnp.asarray, self.cells)
    radius = jnp.asarray(self.scene.library.radius)[which]
    chosen = jax.random.permutation(key_cells, len(middles))[: len(which)]
    room = jnp.maximum(half[None] - radius[:, None], 0.0)
    shift = jax.random.uniform(key_shift, room.shape, minval=-room, maxval=room)
    place = middles[chosen] + jnp.pad(shift, ((0, 0), (0, 1)))
    turn = jax.random.normal(key_turn, (len(which), 4))
    turn /= jnp.sqrt(jnp.sum(turn**2, axis=1, keepdims=True))
    return jnp.concatenate([place, turn], axis=1)

  def _packed(self, which: chex.Array, key: chex.PRNGKey) -> chex.Array:
    """Poses of cubes [K], side by side in a rectangle that lies anywhere, [K 7]."""
    del which  # they are all alike
    key_place, key_turn = jax.random.split(key)
    edge = self.numbers.block_edge + _GAP
    counts = np.array(self.numbers.blocks)
    grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing='ij'), axis=-1)
    offsets = jnp.asarray(edge * (grid.reshape(-1, 2) - (counts - 1) / 2))
    room = np.asarray(self.numbers.bin_size) / 2 - edge * np.linalg.norm(counts) / 2
    middle = jax.random.uniform(key_place, (2,), minval=-room, maxval=room)
    turn = jax.random.uniform(key_turn, (), maxval=jnp.pi / 2)
    sine, cosine = jnp.sin(turn), jnp.cos(turn)
    across = offsets @ jnp.array([[cosine, sine], [-sine, cosine]])
    place = jnp.asarray(grasp_scene.CENTER)[None] + middle[None] + across
    height = jnp.full((len(place), 1), edge / 2)
    quaternion = jnp.array([jnp.cos(turn / 2), 0.0, 0.0, jnp.sin(turn / 2)])
    turned = jnp.broadcast_to(quaternion[None], (len(place), 4))
    return jnp.concatenate([place, height, turned], axis=1)

  def _is_closed(self, data: task.Data) -> task.Array:
    """Whether the gripper was last told to close, [B]."""
    return data.ctrl[..., self.scene.rows.finger] > 0

  def _is_high(self, data: task.Data) -> task.Array:
    return self.mover.position(data)[..., 2] > self.numbers.lift_height


def _nearest(rows: task.Array, there: task.Array, count: int) -> task.Array:
  """Returns the rows of so many objects, those nearest the tips; nought for none.

  Args:
    rows: what is observed of each, beginning with its place from the tips, [B K 12].
    there: whether there is something, [B K].
    count: how many.

  Returns:
    [B count 12], those that are there in the order that they had.
  """
  missing = count - rows.shape[-2]
  if missing >= 0:
    return np.pad(rows, (*[(0, 0)] * (rows.ndim - 2), (0, missing), (0, 0)))
  distance = np.where(there, np.linalg.norm(rows[..., :3], axis=-1), np.inf)
  chosen = np.sort(np.argsort(distance, axis=-1)[..., :count], axis=-1)
  return np.take_along_axis(rows, chosen[..., None], axis=-2)


def make(**numbers: Any) -> task.Task:
  """Builds `grasp_state`, or `grasp` with images; the numbers are in `configs`.

  Args:
    **numbers: those of `Numbers`.

  Returns:
    The task, for native MuJoCo, with O = 4 + 2 + 12 K in the world's axes: the tips of
    the fingers from the bin's middle (2, m), sine and cosine of the gripper's heading
    (2); where it is observed, whether it was last told to close (1) and the height of
    the tips (1, m); for each of K objects the middle of its box from the tips (3, m),
    that box's first two axes (6, row by row) and half its edges (3, m), all nought
    where there is none. With images, O is 2 or 0: the gripper's status and height. A =
    8, or 7 without the command to terminate.

  Raises:
    TypeError: a number is missing or unknown.
    ValueError: a number is out of its range.
  """
  checked = _checked(Numbers(**numbers))
  places, size = checked.in_bin[1], np.asarray(checked.bin_size, np.float64)
  cells = grasp_scene.cells(size, 2 * checked.radius[1], places)
  view, things = _view(checked.image_size), _things(checked)
  scene = grasp_scene.build(
    size, checked.wall_height, things, places, quick=view is not None
  )
  model = scene.model
  half = size / 2 - checked.margin
  low, high = grasp_scene.CENTER - half, grasp_scene.CENTER + half
  bounds = cartesian.bounds(
    (*low, checked.floor), (*high, checked.ceiling), _MAX_HEADING
  )
  period = _SUBSTEPS * model.opt.timestep
  mover = cartesian.find(model, bounds, grasp_scene.TIP, period)
  functions = _Grasp(checked, mover, scene, cells)
  return task.Task(
    name='grasp' if view else 'grasp_state',
    model=model,
    substeps=_SUBSTEPS,
    episode_steps=checked.episode_steps,
    observation_size=2 * checked.observes_gripper
    + (0 if view else 4 + 12 * checked.observed),
    action_size=7 + checked.learned_termination,
    reset=functions.reset,
    control=functions.control,
    observe=functions.status if view else functions.observe,
    reward=functions.reward,
    success=functions.success,
    terminated=functions.terminated,
    final_reward=functions.final_reward,
    fields=functions.fields,
    settling=_SETTLING,
    view=view,
  )


def _view(image_size: Sequence[int]) -> camera.View | None:
  """Raises ValueError unless it is () or a height and a width in pixels."""
  if not len(image_size):
    return None
  if len(image_size) != 2 or not all(0 < pixels <= 960 for pixels in image_size):
    raise ValueError(f'image_size is {image_size}: give height and width, up to 960')
  return camera.View(grasp_scene.SHOULDER, *image_size)


def _things(numbers: Numbers) -> list[objects.Thing]:
  """The objects to learn with, or those that are drawn after them, or cubes."""
  if numbers.blocks:
    mass, friction = map(np.mean, (numbers.mass, numbers.friction))
    cube = objects.cube(numbers.block_edge, float(mass), float(friction))
    return [cube] * int(np.prod(numbers.blocks))
  ranges = objects.Ranges(numbers.radius, numbers.mass, numbers.friction)
  rng = np.random.default_rng(_SEED)
  split = numbers.train_objects
  every = [objects.draw(ranges, rng) for _ in range(split + numbers.test_objects)]
  return every[split:] if numbers.unseen else every[:split]


def _checked(numbers: Numbers) -> Numbers:
  """Raises ValueError for a number out of its range, or not fitting the others."""
  for name in ('wall_height', 'floor', 'step_size', 'max_turn', 'episode_steps'):
    task.require_positive(name, getattr(numbers, name))
  task.require_not_negative('margin', numbers.margin)
  task.require_not_negative('minus step_reward', -numbers.step_reward)
  for name in ('bin_size', 'radius', 'mass', 'friction', 'in_bin'):
    _check_pair(name, getattr(numbers, name), rising=name != 'bin_size')
  if numbers.friction[0] < grasp_scene.FRICTION:
    least = grasp_scene.FRICTION
    raise ValueError(f'friction is {numbers.friction}: give at least {least}')
  heights = numbers.wall_height, numbers.lift_height, numbers.ceiling
  if not heights[0] < heights[1] < heights[2] < np.inf:
    names = 'wall_height, lift_height and ceiling'
    raise ValueError(f'{names} are {heights}: give finite ones, rising')
  available = numbers.test_objects if numbers.unseen else numbers.train_objects
  if numbers.blocks:
    _check_blocks(numbers)
  elif numbers.in_bin[1] > available:
    raise ValueError(f'in_bin is {numbers.in_bin}: give at most {available}, all')
  if numbers.observed < 1:
    raise ValueError(f'observes_objects is {numbers.observed}: give at least 1')
  return numbers


def _check_blocks(numbers: Numbers) -> None:
  """Raises ValueError unless there are whole blocks, all in the bin, which has room."""
  _check_pair('blocks', numbers.blocks, rising=False)
  task.require_positive('block_edge', numbers.block_edge)
  count = int(np.prod(numbers.blocks))
  if tuple(numbers.in_bin) != (count, count):
    raise ValueError(f'in_bin is {numbers.in_bin}: give {(count, count)}, all blocks')
  across = numbers.block_edge * np.linalg.norm(numbers.blocks)
  if not across < min(numbers.bin_size):
    raise ValueError(f'blocks are {across:.2f} m across: give fewer, or smaller ones')


def _check_pair(name: str, pair: Sequence[float], rising: bool) -> None:
  array = np.asarray(pair, np.float64)
  if array.shape != (2,) or not (np.isfinite(array) & (array > 0)).all():
    raise ValueError(f'{name} is {pair}: give two finite numbers above 0')
  if rising and array[0] > array[1]:
    raise ValueError(f'{name} is {pair}: give the lower one first')
