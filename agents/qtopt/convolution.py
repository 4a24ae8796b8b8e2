"""Convolutions that learn as fast inside a loop as outside it.

On a CPU, XLA leaves to a library what has its images' channels last. Other convolutions
it brings into this order outside of loops, and computes slowly inside of them
(https://github.com/jax-ml/jax/issues/12868). JAX's gradients of a convolution are such
others, and updates are made in loops: here are the same gradients, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import math
from typing import Any

import chex
import jax
from jax import lax

Pair = tuple[int, int]
Padding = tuple[Pair, ...]  # before and after, along H and W


def convolve(
  images: chex.Array, kernel: chex.Array, strides: Any, padding: Any, **plain: Any
) -> chex.Array:
  """Returns the convolution of images [B H W F] and a kernel [h w F G], [B H' W' G].

  Args:
    images: to convolve.
    kernel: its weights.
    strides: along H and W.
    padding: 'SAME', 'VALID', or before and after along H and W.
    **plain: what `flax.linen.Conv` says beside this; no dilation and no groups here.

  Raises:
    ValueError: there is one of these, or no such padding.
  """
  strides = tuple(strides)
  if isinstance(padding, str):
    padding = _amounts(padding, images.shape[1:3], kernel.shape[:2], strides)
  dilated = set(plain.get('lhs_dilation') or ()) | set(plain.get('rhs_dilation') or ())
  if dilated - {1} or plain.get('feature_group_count', 1) != 1:
    raise ValueError('a convolution here has no dilation and no groups')
  return _convolve(images, kernel, strides, tuple(map(tuple, padding)))


def _amounts(
  kind: str, pixels: Sequence[int], sides: Sequence[int], strides: Pair
) -> list[Pair]:
  if kind not in ('SAME', 'VALID'):
    raise ValueError(f"padding is {kind!r}; choose 'SAME' or 'VALID', or amounts")
  found = []
  for pixel, side, stride in zip(pixels, sides, strides, strict=True):
    whole = (math.ceil(pixel / stride) - 1) * stride + side - pixel
    around = max(0, whole) if kind == 'SAME' else 0
    found.append((around // 2, around - around // 2))
  return found


def _in_order(
  images: chex.Array,
  kernel: chex.Array,
  padding: Sequence[Pair],
  strides: Pair = (1, 1),
  lhs_dilation: Pair | None = None,
  rhs_dilation: Pair | None = None,
) -> chex.Array:
  return lax.conv_general_dilated(
    images,
    kernel,
    strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(
  images: chex.Array, kernel: chex.Array, strides: Pair, padding: Padding
) -> chex.Array:
  return _in_order(images, kernel, padding, strides)


def _forward(
  images: chex.Array, kernel: chex.Array, strides: Pair, padding: Padding
) -> tuple[chex.Array, tuple[chex.Array, chex.Array]]:
  return _convolve(images, kernel, strides, padding), (images, kernel)


def _backward(
  strides: Pair,
  padding: Padding,
  inputs: tuple[chex.Array, chex.Array],
  gradient: chex.Array,
) -> tuple[chex.Array, chex.Array]:
  images, kernel = inputs
  of_image, of_weight = [], []
  for axis, (before, _) in enumerate(padding):
    pixels, side = images.shape[1 + axis], kernel.shape[axis]
    spread = (gradient.shape[1 + axis] - 1) * strides[axis] + 1
    rest = pixels - spread + before
    of_image.append((side - 1 - before, rest))
    of_weight.append((before, side - 1 - rest))
  # What a pixel meets: the gradient, spread out by the strides, and the kernel turned.
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  of_images = _in_order(gradient, turned, of_image, lhs_dilation=strides)
  # What a weight meets: the images, of which channels take the place of the batch.
  channels, across = images.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
  of_kernel = _in_order(channels, across, of_weight, rhs_dilation=strides)
  return of_images, of_kernel.transpose(1, 2, 0, 3)


_convolve.defvjp(_forward, _backward)
