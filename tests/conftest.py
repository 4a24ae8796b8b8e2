"""What holds in every test: strict ranks, keys used once, headless rendering.

Programs are compiled in haste, here and in the processes that tests start: most run
for less time than their optimisation takes. The fixture `optimized` is for the others.

Tests marked `reverb` are skipped where Reverb is not installed.
"""

import importlib.util
import os
import shutil
import tempfile

os.environ.setdefault('MUJOCO_GL', 'egl')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)

_NO_REVERB = importlib.util.find_spec('reverb') is None

_COMPILED = tempfile.mkdtemp(prefix='armfarm-compiled-')


def pytest_configure():
  # Before anything compiles: what several tests compile, one of them does.
  jax.config.update('jax_compilation_cache_dir', _COMPILED)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def pytest_unconfigure():
  shutil.rmtree(_COMPILED, ignore_errors=True)


@pytest.fixture
def optimized():
  """Has programs compiled as users have them."""
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)


def pytest_runtest_setup(item):
  if _NO_REVERB and item.get_closest_marker('reverb'):
    pytest.skip('Reverb is not installed')
