"""Crops and light, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents.qtopt import augment

_OPTIONS = augment.Options(0.125, (0.5, 1.5), (0.5, 1.5))
_SAME = augment.Draw(jnp.zeros(2), jnp.float32(0), jnp.float32(1), jnp.float32(1))


def _image(height=6, width=8, seed=0):
  random = np.random.default_rng(seed)
  return jnp.asarray(random.integers(0, 256, [height, width, 3], np.uint8))


def _relit(pixels, **changes):
  image = jnp.asarray(np.array(pixels, np.uint8).reshape(1, -1, 3))
  new = _SAME._replace(**{k: jnp.float32(v) for k, v in changes.items()})
  return augment.relight(new, image)[0].tolist()


def test_no_change_is_none(variant):
  image = _image()
  assert (variant(augment.relight)(_SAME, image) == image).all()


def test_brightness():
  # 0.11 of 255 is 28.05; 250 + 28.05 is cut at 255.
  assert _relit([[0, 100, 250]], brightness=0.11) == [[28, 128, 255]]
  assert _relit([[0, 100, 250]], brightness=-0.11) == [[0, 72, 222]]


def test_contrast():
  # About the mean of each channel, here 100, 50 and 10.
  pixels = [[80, 50, 10], [120, 50, 10]]
  assert _relit(pixels, contrast=1.5) == [[70, 50, 10], [130, 50, 10]]
  assert _relit(pixels, contrast=0.5) == [[90, 50, 10], [110, 50, 10]]


def test_saturation():
  # S = (200 - 100) / 200 = 1/2. Halved: the least is 200 (1 - 1/4), the others follow.
  assert _relit([[200, 100, 150]], saturation=0.5) == [[200, 150, 175]]
  assert _relit([[200, 100, 150]], saturation=1.5) == [[200, 50, 125]]
  # S is at most 1: here it would be 9/8.
  assert _relit([[200, 50, 125]], saturation=1.5) == [[200, 0, 100]]
  assert _relit([[70, 70, 70], [0, 0, 0]], saturation=1.5) == [[70, 70, 70], [0, 0, 0]]


def test_crop(variant):
  # Room for 3 rows and 5 columns: 0.5 of them is row 1, column 2.
  image = _image()
  crop = variant(lambda x, at: augment.crop(x, at, 4))
  assert (crop(image, jnp.array([0.5, 0.5])) == image[1:5, 2:6]).all()
  assert (crop(image, jnp.array([0.0, 0.99])) == image[0:4, 4:8]).all()


def test_every_crop_is_as_likely():
  # 3 x 5 places; the image says where it was cut.
  rows, columns = jnp.meshgrid(jnp.arange(6), jnp.arange(8), indexing='ij')
  image = jnp.stack([rows, columns, rows], axis=2).astype(jnp.uint8)
  keys = jax.random.split(jax.random.key(0), 3000)
  anchors = jax.vmap(lambda k: augment.draw(_OPTIONS, k).anchor)(keys)
  cut = jax.vmap(lambda a: augment.crop(image, a, 4))(anchors)
  counts = np.bincount(np.asarray(cut[:, 0, 0, 0]) * 5 + np.asarray(cut[:, 0, 0, 1]))
  assert counts.shape == (15,)
  assert abs(counts / 3000 - 1 / 15).max() < 0.02


def test_centre():
  image = _image(512, 640)
  assert (augment.centre(image, 472) == image[20:492, 84:556]).all()
  assert (augment.centre(image[:64, :64], 64) == image[:64, :64]).all()


def test_too_small_an_image_is_refused():
  with pytest.raises(ValueError, match='^the image has 6 x 8 pixels, fewer than 7$'):
    augment.centre(_image(), 7)


def test_draws_lie_within_the_options():
  keys = jax.random.split(jax.random.key(1), 2000)
  draw = jax.vmap(lambda key: augment.draw(_OPTIONS, key))(keys)
  ranges = {'brightness': (-0.125, 0.125), 'contrast': (0.5, 1.5)}
  ranges['saturation'] = ranges['contrast']
  for name, (low, high) in ranges.items():
    values = np.asarray(getattr(draw, name))
    assert low <= values.min() < low + 0.01
    assert high - 0.01 < values.max() <= high
  together = np.corrcoef([draw.brightness, draw.contrast, draw.saturation])
  assert abs(together - np.eye(3)).max() < 0.07
