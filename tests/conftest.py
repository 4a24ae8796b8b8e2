"""What holds in every test: strict ranks, keys used once, headless rendering.

Tests marked `reverb` are skipped where Reverb is not installed.
"""

import importlib.util
import os

os.environ.setdefault('MUJOCO_GL', 'egl')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)

_NO_REVERB = importlib.util.find_spec('reverb') is None


def pytest_runtest_setup(item):
  if _NO_REVERB and item.get_closest_marker('reverb'):
    pytest.skip('Reverb is not installed')
