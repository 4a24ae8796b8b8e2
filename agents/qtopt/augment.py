"""Images as they enter training: random crops, and light that changes.

Kalashnikov et al. 2018, D.1: the same changes for s and s', and a crop from the centre
without any where the policy acts. Bytes in, bytes out. Letters as in
`armfarm.agents.types`, and [H W] pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Options(NamedTuple):
  """Ranges that changes are drawn from, uniformly.

  Attributes:
    brightness: largest share of the full scale that is added or taken away.
    contrast: factors of a pixel's distance from the image's mean, lowest and highest.
    saturation: factors of the colours' saturation, lowest and highest.
  """

  brightness: float
  contrast: tuple[float, float]
  saturation: tuple[float, float]


class Draw(NamedTuple):
  """Changes that were drawn.

  Attributes:
    anchor: of the crop, as a share of the room there is, in [0, 1), [2].
    brightness: added, of the full scale, [].
    contrast: factor, [].
    saturation: factor, [].
  """

  anchor: chex.Array
  brightness: chex.Array
  contrast: chex.Array
  saturation: chex.Array


def draw(options: Options, key: chex.PRNGKey) -> Draw:
  """Draws changes for one transition; the key is consumed."""
  keys = jax.random.split(key, 4)
  limit = options.brightness
  ranges = (-limit, limit), options.contrast, options.saturation
  light = (
    jax.random.uniform(k, [], minval=low, maxval=high)
    for k, (low, high) in zip(keys[1:], ranges, strict=True)
  )
  return Draw(jax.random.uniform(keys[0], [2]), *light)


def apply(changes: Draw, image: chex.Array, side: int) -> chex.Array:
  """Crops and relights an image.

  Args:
    changes: that were drawn.
    image: uint8, [H W 3].
    side: of the crop, pixels; at most H and W.

  Returns:
    uint8, [side side 3].
  """
  return relight(changes, crop(image, changes.anchor, side))


def crop(image: chex.Array, anchor: chex.Array, side: int) -> chex.Array:
  """Cuts a square out of an image.

  Args:
    image: [H W 3].
    anchor: share of the room that is left above and to the left, in [0, 1), [2].
    side: of the square, pixels.

  Raises:
    ValueError: the image is smaller than that.
  """
  chex.assert_rank([image, anchor], [3, 1])
  height, width, channels = image.shape
  if min(height, width) < side:
    raise ValueError(f'the image has {height} x {width} pixels, fewer than {side}')
  room = jnp.array([height - side, width - side]) + 1
  top, left = jnp.floor(anchor * room).astype(jnp.int32)
  return jax.lax.dynamic_slice(image, (top, left, 0), (side, side, channels))


def centre(image: chex.Array, side: int) -> chex.Array:
  """Cuts a square out of the middle of an image [H W 3], [side side 3]."""
  return crop(image, jnp.full([2], 0.5), side)


def relight(changes: Draw, image: chex.Array) -> chex.Array:
  """Changes brightness, contrast and saturation, in that order, [H W 3] uint8.

  Contrast is about the mean of each channel, saturation that of hue, saturation and
  value: with V and v the largest and smallest channel of a pixel, S = (V - v) / V.
  """
  chex.assert_rank(image, 3)
  chex.assert_type(image, jnp.uint8)
  x = image.astype(jnp.float32) / 255.0 + changes.brightness
  mean = jnp.mean(x, axis=(0, 1), keepdims=True)
  x = jnp.clip(mean + changes.contrast * (x - mean), 0.0, 1.0)
  value = jnp.max(x, axis=2, keepdims=True)
  spread = value - jnp.min(x, axis=2, keepdims=True)
  # S grows by the factor, and to 1 at most: 1 / S = value / spread.
  most = jnp.where(spread > 0.0, value / jnp.where(spread > 0.0, spread, 1.0), 1.0)
  x = value - jnp.minimum(changes.saturation, most) * (value - x)
  return jnp.round(255.0 * x).astype(jnp.uint8)
