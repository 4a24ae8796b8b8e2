"""The gradients of convolutions, held to JAX's, and in the order that is fast."""

import functools

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.qtopt import convolution

_ORDER = 'NHWC', 'HWIO', 'NHWC'
_PLAIN = functools.partial(lax.conv_general_dilated, dimension_numbers=_ORDER)


def _drawn(shape, seed):
  return jax.random.normal(jax.random.key(seed), shape)


def _loss(convolve, strides, padding, images, kernel):
  out = convolve(images, kernel, strides, padding)
  return jnp.sum(out * _drawn(out.shape, 2))


@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((0, 2), (1, 0))])
@pytest.mark.parametrize('strides', [(1, 1), (2, 3)])
@pytest.mark.parametrize(('size', 'side'), [((9, 12), (3, 4)), ((7, 7), (5, 2))])
def test_gradients_are_those_of_jax(padding, strides, size, side):
  inputs = _drawn((2, *size, 3), 0), _drawn((*side, 3, 5), 1)
  found, right = (
    jax.value_and_grad(
      functools.partial(_loss, convolve, strides, padding), argnums=(0, 1)
    )(*inputs)
    for convolve in (convolution.convolve, _PLAIN)
  )
  for value, other in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
    np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-4)


def _orders(jaxpr):
  """Yields the places of batch, channels and pixels in each convolution."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'conv_general_dilated':
      yield equation.params['dimension_numbers']
    for value in equation.params.values():
      yield from _orders(value.jaxpr) if hasattr(value, 'jaxpr') else ()


def test_channels_are_last_in_every_gradient():
  inputs = jnp.zeros([2, 8, 8, 3]), jnp.zeros([3, 3, 3, 4])
  last = lax.conv_dimension_numbers(inputs[0].shape, inputs[1].shape, _ORDER)
  for convolve, in_order in ((convolution.convolve, True), (_PLAIN, False)):
    loss = functools.partial(_loss, convolve, (2, 2), 'SAME')
    found = list(_orders(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(*inputs).jaxpr))
    assert len(found) == 3
    assert (set(found) == {last}) == in_order


def test_flax_takes_it_for_its_own():
  images = _drawn((2, 8, 8, 3), 0)
  own, plain = (
    nn.Conv(4, (3, 3), 2, **given)
    for given in ({'conv_general_dilated': convolution.convolve}, {})
  )
  variables = plain.init(jax.random.key(1), images)
  found, right = own.apply(variables, images), plain.apply(variables, images)
  np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize('given', [{'kernel_dilation': 2}, {'feature_group_count': 3}])
def test_what_it_does_not_do_is_refused(given):
  layer = nn.Conv(3, (3, 3), conv_general_dilated=convolution.convolve, **given)
  with pytest.raises(ValueError, match='no dilation and no groups'):
    layer.init(jax.random.key(0), jnp.zeros([1, 8, 8, 3]))


def test_unknown_padding_is_refused():
  images, kernel = jnp.zeros([1, 8, 8, 3]), jnp.zeros([3, 3, 3, 4])
  with pytest.raises(ValueError, match="'SAME' or 'VALID', or amounts"):
    convolution.convolve(images, kernel, (1, 1), 'SAME_LOWER')
