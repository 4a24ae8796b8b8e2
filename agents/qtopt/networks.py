"""The Q-functions of QT-Opt, in two halves: once a state, and once an action of it.

  Q(s, a) = sigmoid(score(embed(s), a))

CEM asks for the values of many actions of one state. `embed` is what need not be asked
twice; an embedding of one state, [1 ...], is scored with any number of actions. Letters
as in `armfarm.agents.types`, and [S] numbers beside the image, [H W] its pixels,
[h w F] features of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import itertools
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from armfarm.agents import networks
from armfarm.agents import types
from armfarm.agents.qtopt import convolution

# Kalashnikov et al. 2018, E: "truncated normal random variables (sigma = .01)".
_kernel_init = nn.initializers.truncated_normal(0.01)
_Conv = functools.partial(
  nn.Conv, kernel_init=_kernel_init, conv_general_dilated=convolution.convolve
)

Norm = Callable[..., nn.Module]

_THING, _STATUS = 12, 6  # numbers of each thing in an observation, and of the gripper
_NEAREST = 4  # things that a critic of things looks at
_LENGTH = 0.05  # m, for inputs of the size of one
_GRIPPER = (10.0, 10.0, 1.0, 1.0, 1.0, 10.0)  # 1/m or one, likewise
_NO_HOPE = -10.0  # a logit, where there is nothing
_DOUBT = -3.0  # a logit to begin with: what CEM finds to hope for has to be learned


class Observation(NamedTuple):
  """What a camera and the gripper say; any tuple with these two names will do.

  Attributes:
    image: uint8, [B H W 3].
    state: numbers beside it (gripper status, height), [B S].
  """

  image: chex.Array
  state: chex.Array


class Embedding(NamedTuple):
  """What the image critics compute once a state.

  Attributes:
    features: of the image, [B h w F].
    state: of the numbers beside it, before any nonlinearity, [B F].
  """

  features: chex.Array
  state: chex.Array


class Convolution(nn.Module):
  """A convolution, batch normalisation and ReLU."""

  features: int
  kernel: int
  norm: Norm
  stride: int = 1
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps images [B H W F] to images."""
    sides = self.kernel, self.kernel
    strides = self.stride, self.stride
    x = _Conv(self.features, sides, strides, self.padding, use_bias=False)(x)
    return nn.relu(self.norm(use_running_average=not train)(x))


class Dense(nn.Module):
  """A fully connected layer, batch normalisation and ReLU."""

  features: int
  norm: Norm

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps [B F] to [B F]."""
    x = nn.Dense(self.features, use_bias=False, kernel_init=_kernel_init)(x)
    return nn.relu(self.norm(use_running_average=not train)(x))


def pool(x: chex.Array, size: int) -> chex.Array:
  """The maxima of squares of `size` pixels, [B h w F]."""
  window = 1, size, size, 1
  return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, 'SAME')


def logit(x: chex.Array, norm: Norm, train: bool) -> chex.Array:
  """Two layers of 64 units and a logit, [B], of features [B h w F]."""
  x = x.reshape(x.shape[0], -1)
  for _ in range(2):
    x = Dense(64, norm)(x, train)
  return nn.Dense(1, kernel_init=_kernel_init)(x)[:, 0]


class Tower472(nn.Module):
  """The seven convolutions before the action enters."""

  norm: Norm

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps images [B 472 472 3] to features [B 27 27 64]."""
    # The published network has a bias here that normalisation subtracts again.
    x = _Conv(64, (6, 6), (2, 2))(x)
    x = self.norm(use_running_average=not train, use_scale=False)(x)
    x = pool(nn.relu(x), 3)  # 79 x 79
    for _ in range(6):
      x = Convolution(64, 5, self.norm)(x, train)
    return pool(x, 3)  # 27 x 27


class Head472(nn.Module):
  """The nine convolutions after the action entered, and two full layers."""

  norm: Norm

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps features [B 27 27 64] to logits [B]."""
    for _ in range(6):
      x = Convolution(64, 3, self.norm)(x, train)
    x = pool(x, 2)  # 14 x 14
    for _ in range(3):
      x = Convolution(64, 3, self.norm, padding='VALID')(x, train)
    return logit(x, self.norm, train)  # of 8 x 8


class Tower64(nn.Module):
  """Three convolutions, the last without a nonlinearity: the action shifts it."""

  norm: Norm

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps images [B 64 64 3] to features [B 8 8 32]."""
    # Strides, not pools: on a CPU the gradient of pooling took as long as all the rest.
    x = Convolution(16, 8, self.norm, stride=4)(x, train)  # 16 x 16
    x = Convolution(32, 3, self.norm, stride=2)(x, train)  # 8 x 8
    return _Conv(32, (3, 3), use_bias=False)(x)


class Head64(nn.Module):
  """Two convolutions and two full layers, 0.1 MMAC an action."""

  norm: Norm

  @nn.compact
  def __call__(self, x: chex.Array, train: bool) -> chex.Array:
    """Maps features [B 8 8 32] to logits [B]."""
    x = nn.relu(self.norm(use_running_average=not train)(x))
    x = Convolution(16, 3, self.norm, stride=2)(x, train)  # 4 x 4
    x = Convolution(32, 3, self.norm, padding='VALID')(x, train)  # 2 x 2
    return logit(x, self.norm, train)


class Context(nn.Module):
  """Joins the action and the numbers beside the image, each by a layer of its own.

  As published, each of these layers has a bias, and only their sum is normalised.
  """

  parts: Sequence[int]
  state_size: int
  widths: tuple[int, int]
  norm: Norm

  def setup(self) -> None:
    layer = functools.partial(nn.Dense, self.widths[0], kernel_init=_kernel_init)
    self.of_action = [layer() for _ in self.parts]
    self.of_state = [layer() for _ in range(self.state_size)]
    self.norm_sum = self.norm(use_scale=False)
    self.last = Dense(self.widths[1], self.norm)

  def embed(self, state: chex.Array) -> chex.Array:
    """The layers of the state [B S], summed, before any nonlinearity, [B F]."""
    total = jnp.zeros([state.shape[0], self.widths[0]])
    for i, layer in enumerate(self.of_state):
      total += layer(state[:, i : i + 1])
    return total

  def __call__(self, state: chex.Array, action: chex.Array, train: bool) -> chex.Array:
    """Maps an embedded state and actions [B A] to what is added to an image, [B F]."""
    ends, total = list(itertools.accumulate(self.parts))[:-1], state
    for layer, part in zip(
      self.of_action, jnp.split(action, ends, axis=1), strict=True
    ):
      total = total + layer(part)
    total = self.norm_sum(total, use_running_average=not train)
    return self.last(nn.relu(total), train)


class ImageCritic(nn.Module):
  """Q(s, a) of an image and numbers beside it (Kalashnikov et al. 2018, E)."""

  tower: nn.Module
  context: nn.Module
  head: nn.Module

  def __call__(
    self, observation: Observation, action: chex.Array, train: bool
  ) -> chex.Array:
    """Maps observations and actions [B A] to logits [B]."""
    return self.score(self.embed(observation, train), action, train)

  def embed(self, observation: Observation, train: bool) -> Embedding:
    """What is computed once a state."""
    chex.assert_rank([observation.image, observation.state], [4, 2])
    chex.assert_type(observation.image, jnp.uint8)
    image = observation.image.astype(jnp.float32) / 255.0
    return Embedding(self.tower(image, train), self.context.embed(observation.state))

  def score(self, embedding: Embedding, action: chex.Array, train: bool) -> chex.Array:
    """Maps embeddings, or one, and actions [B A] to logits [B]."""
    chex.assert_rank(action, 2)
    context = self.context(embedding.state, action, train)
    return self.head(embedding.features + context[:, None, None], train)


class StateCritic(nn.Module):
  """Q(s, a) of numbers: a perceptron of (s, a), whose first layer is linear in each."""

  hidden: Sequence[int]
  normalization: networks.Normalization

  def setup(self) -> None:
    biased = self.normalization.kind != 'batch'  # it would subtract them again
    layer = functools.partial(nn.Dense, kernel_init=networks.hidden_init)
    norm = functools.partial(networks.Normalize, self.normalization)
    self.inputs = norm(use_bias=False)
    self.of_state = layer(self.hidden[0], use_bias=biased)
    self.of_action = layer(self.hidden[0], use_bias=False)
    self.norms = [norm() for _ in self.hidden]
    self.layers = [layer(width, use_bias=biased) for width in self.hidden[1:]]
    self.last = nn.Dense(1, kernel_init=networks.last_init)

  def __call__(
    self, observation: chex.Array, action: chex.Array, train: bool
  ) -> chex.Array:
    """Maps observations [B O] and actions [B A] to logits [B]."""
    return self.score(self.embed(observation, train), action, train)

  def embed(self, observation: chex.Array, train: bool) -> chex.Array:
    """What is computed once a state: its share of the first layer, [B H]."""
    chex.assert_rank(observation, 2)
    if self.normalization.kind == 'batch':  # as in `networks.Torso`
      observation = self.inputs(observation, train)
    return self.of_state(observation)

  def score(self, embedding: chex.Array, action: chex.Array, train: bool) -> chex.Array:
    """Maps embeddings, or one, and actions [B A] to logits [B]."""
    chex.assert_rank([embedding, action], 2)
    h = nn.relu(self.norms[0](embedding + self.of_action(action), train))
    for layer, norm in zip(self.layers, self.norms[1:], strict=True):
      h = nn.relu(norm(layer(h), train))
    return self.last(h)[:, 0]


class Things(NamedTuple):
  """What the critic of things computes once a state.

  Attributes:
    shares: of the first layer, for each thing, [B K H].
    there: whether there is such a thing, [B K].
    turn: sine and cosine of the gripper's heading in the mirror, [B 2].
    mirror: signs of the world's x and y in the mirror, [B 2].
  """

  shares: chex.Array
  there: chex.Array
  turn: chex.Array
  mirror: chex.Array


class ThingCritic(nn.Module):
  """Q(s, a) of a gripper over some things: that of the thing that promises most.

    Q(s, a) = max_i f(thing_i, gripper, a)

  with one perceptron f for the things nearest the gripper, so that their order means
  nothing. All is seen from the gripper: its heading turns what lies there and the
  action's way along x and y, and the box around a thing is the matrix R diag(e) R',
  half edges e along axes R, which knows no first axis and no sign. Nor does it matter
  which finger is which, or in which quarter of the bin this happens: mirrors make one
  of all four.

  The observation is that of `grasp_state`: the tip from the bin's middle (2), sine and
  cosine of the heading (2), status and height (2), and 12 numbers of each thing.
  """

  hidden: Sequence[int]

  def setup(self) -> None:
    layer = functools.partial(nn.Dense, kernel_init=networks.hidden_init)
    self.of_state = layer(self.hidden[0])
    self.of_action = layer(self.hidden[0], use_bias=False)
    self.layers = [layer(width) for width in self.hidden[1:]]
    doubt = nn.initializers.constant(_DOUBT)
    self.last = nn.Dense(1, kernel_init=networks.last_init, bias_init=doubt)

  def __call__(
    self, observation: chex.Array, action: chex.Array, train: bool
  ) -> chex.Array:
    """Maps observations [B O] and actions [B A] to logits [B]."""
    return self.score(self.embed(observation, train), action, train)

  def embed(self, observation: chex.Array, train: bool) -> Things:
    """What is computed once a state."""
    del train  # nothing is normalised
    chex.assert_rank(observation, 2)
    gripper, things = observation[:, :_STATUS], observation[:, _STATUS:]
    things = things.reshape(len(observation), -1, _THING)
    mirror, gripper, things = mirrored(gripper, things)
    turn = gripper[:, 2:4]
    distance = jnp.sum(things[..., :2] ** 2, axis=2)
    distance = jnp.where(things[..., 9] > 0.0, distance, jnp.inf)
    _, chosen = jax.lax.top_k(-distance, min(_NEAREST, things.shape[1]))
    things = jnp.take_along_axis(things, chosen[..., None], axis=1)
    seen = seen_from(turn, things)
    gripper = gripper * jnp.array([_GRIPPER])
    around = jnp.broadcast_to(gripper[:, None], (*seen.shape[:2], _STATUS))
    shares = self.of_state(jnp.concatenate([seen, around], axis=2))
    return Things(shares, things[..., 9] > 0.0, turn, mirror)

  def score(self, embedding: Things, action: chex.Array, train: bool) -> chex.Array:
    """Maps embeddings, or one, and actions [B A] to logits [B]."""
    del train
    chex.assert_rank(action, 2)
    mirror = embedding.mirror
    way = turned(embedding.turn, mirror * action[:, :2])
    sine = jnp.prod(mirror, axis=1, keepdims=True) * action[:, 3:4]
    action = jnp.concatenate([way, action[:, 2:3], sine, action[:, 4:]], axis=1)
    h = nn.relu(embedding.shares + self.of_action(action)[:, None])
    for layer in self.layers:
      h = nn.relu(layer(h))
    logits = jnp.where(embedding.there, self.last(h)[..., 0], -jnp.inf)
    return jnp.maximum(jnp.max(logits, axis=1), _NO_HOPE)


def mirrored(
  gripper: chex.Array, things: chex.Array
) -> tuple[chex.Array, chex.Array, chex.Array]:
  """Returns a scene in those mirrors in which its gripper is where x, y >= 0.

  Args:
    gripper: numbers of the gripper, [B 6].
    things: of things, [B K 12].

  Returns:
    The signs of x and y [B 2], and numbers as those given [B 6] and [B K 12], with the
    heading of that finger, of the two, for which its cosine is not negative.
  """
  signs = jnp.where(gripper[:, :2] < 0.0, -1.0, 1.0)
  x, y = signs[:, :1], signs[:, 1:]
  turn = gripper[:, 2:4] * jnp.concatenate([y, x], axis=1)
  turn = jnp.where(turn[:, 1:] < 0.0, -turn, turn)
  gripper = jnp.concatenate([jnp.abs(gripper[:, :2]), turn, gripper[:, 4:]], axis=1)
  one = jnp.ones_like(x)
  of_thing = jnp.concatenate([x, y, one, x, x, y, y, *[one] * 5], axis=1)
  return signs, gripper, things * of_thing[:, None]


def turned(turn: chex.Array, way: chex.Array) -> chex.Array:
  """Returns ways in the plane [B 2] as a gripper of some heading sees them, [B 2].

  Args:
    turn: sine and cosine of the heading, [B 2], or [1 2] for all.
    way: [B 2].
  """
  sine, cosine = turn[..., 0], turn[..., 1]
  x, y = way[..., 0], way[..., 1]
  return jnp.stack([cosine * x + sine * y, cosine * y - sine * x], axis=-1)


def seen_from(turn: chex.Array, things: chex.Array) -> chex.Array:
  """Returns places and boxes of things [B K 12] as a gripper sees them, [B K 9]."""
  turn = turn[:, None]
  place = turned(turn, things[..., :2])
  axes = things[..., 3:9].reshape(*things.shape[:2], 3, 2)  # two columns of R
  third = jnp.cross(axes[..., 0], axes[..., 1])
  axes = jnp.concatenate([axes, third[..., None]], axis=-1)
  flat = turned(turn[..., None, :], jnp.swapaxes(axes[..., :2, :], -1, -2))
  axes = jnp.concatenate([jnp.swapaxes(flat, -1, -2), axes[..., 2:, :]], axis=-2)
  box = jnp.einsum('bkie,bke,bkje->bkij', axes, things[..., 9:], axes)
  rows, columns = jnp.triu_indices(3)
  parts = [place, things[..., 2:3], box[..., rows, columns]]
  return jnp.concatenate(parts, axis=-1) / _LENGTH


IMAGE_SIZES = {'grasping64': 64, 'grasping472': 472}
"""Names of the image critics -> H = W of what they see."""

NETWORKS = ('mlp', 'things', *IMAGE_SIZES)


def make(
  kind: str,
  parts: Sequence[int],
  spec: types.Spec,
  hidden: Sequence[int],
  normalization: networks.Normalization,
) -> ImageCritic | StateCritic | ThingCritic:
  """Builds a Q-function.

  Args:
    kind: one of `NETWORKS`.
    parts: sizes of the parts of the action.
    spec: of the boundary; for an image critic, O counts the numbers beside the image.
    hidden: widths of the hidden layers; image critics ignore them.
    normalization: of the MLP; image critics know batch normalisation only.

  Raises:
    ValueError: a name is unknown, a network of layers has no hidden one, or things are
      not seen and acted on as in grasping.
  """
  networks.check_normalization(normalization)
  if kind in ('mlp', 'things') and not hidden:
    raise ValueError('hidden is empty; choose at least one layer')
  if kind == 'mlp':
    return StateCritic(tuple(hidden), normalization)
  if kind == 'things':
    if tuple(parts[:2]) != (3, 2):
      raise ValueError(
        f"network is 'things', whose mirrors turn x, y, z and one angle, but the parts"
        f' of the action are {tuple(parts)}'
      )
    size = spec.observation_size - _STATUS
    if size <= 0 or size % _THING:
      raise ValueError(
        f"network is 'things', of which there are {_THING} numbers each beside"
        f' {_STATUS}, but {spec.observation_size} are observed'
      )
    return ThingCritic(tuple(hidden))
  if kind not in NETWORKS:
    raise ValueError(f'network is {kind!r}; choose one of {NETWORKS}')
  tower, head, widths, momentum = {
    'grasping64': (Tower64, Head64, (64, 32), 0.99),
    'grasping472': (Tower472, Head472, (256, 64), 0.9997),
  }[kind]
  norm = functools.partial(
    nn.BatchNorm,
    momentum=momentum,
    epsilon=1e-3,
    axis_name=normalization.axis_name,
  )
  context = Context(tuple(parts), spec.observation_size, widths, norm)
  return ImageCritic(tower(norm), context, head(norm))


def blank(kind: str, spec: types.Spec) -> Any:
  """Returns an observation to begin with, [1 ...]."""
  numbers = jnp.zeros([1, spec.observation_size])
  if kind not in IMAGE_SIZES:
    return numbers
  side = IMAGE_SIZES[kind]
  return Observation(jnp.zeros([1, side, side, 3], jnp.uint8), numbers)
