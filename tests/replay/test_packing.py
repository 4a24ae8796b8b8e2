"""Packing: what goes in comes out, on the host and traced."""

import jax
import numpy as np
import pytest

from armfarm.replay import packing

_TREE = {
  'picture': np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
  'pair': (np.arange(3, dtype=np.int32), np.linspace(0, 1, 6, dtype=np.float32)),
  'position': np.linspace(2, 3, 9, dtype=np.float32).reshape(3, 3),
}
_STEPS = jax.tree.map(lambda x: x.reshape(3, -1), _TREE)  # [3 ...]


@pytest.mark.parametrize('compiled', [False, True])
def test_steps_are_one_array_a_dtype_and_come_back(compiled):
  pack = jax.jit(packing.pack) if compiled else packing.pack
  packed = pack(_STEPS)
  found = {name: (x.dtype.name, x.shape) for name, x in packed.items()}
  assert found == {
    'uint8': ('uint8', (3, 4)),
    'int32': ('int32', (3, 1)),
    'float32': ('float32', (3, 5)),
  }
  one = jax.tree.map(lambda x: x[0], _STEPS)
  unpacked = packing.unpack(one, packed)
  jax.tree.map(np.testing.assert_array_equal, unpacked, _STEPS)


def test_one_of_a_kind_comes_back_to_its_shapes():
  template = jax.eval_shape(lambda: _TREE)
  packed = jax.jit(packing.pack_one)(_TREE)
  assert {name: x.shape for name, x in packed.items()} == {
    'uint8': (1, 12),
    'int32': (1, 3),
    'float32': (1, 15),
  }
  unpacked = jax.jit(lambda x: packing.unpack_one(template, x))(packed)
  jax.tree.map(np.testing.assert_array_equal, unpacked, _TREE)
