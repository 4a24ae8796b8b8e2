"""What holds in every test: strict ranks, keys used once, headless rendering.

Programs are compiled in haste, here and in the processes that tests start: most run
for less time than their optimisation takes. The fixture `optimized` is for the others.
The emitter that `compiler` turns off for some is slow to compile, and off for all. What
one process of the test run compiled, the others load.

Tests marked `reverb` are skipped where Reverb is not installed.
"""

import gc
import importlib.util
import os
import shutil
import tempfile

os.environ.setdefault('MUJOCO_GL', 'egl')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # as launchers have it
os.environ.setdefault('NPROC', '1')

import jax
import pytest

from armfarm.envs import compiler

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)

_NO_REVERB = importlib.util.find_spec('reverb') is None

gc.set_threshold(100_000, 50, 100)  # tracing makes many objects, and few that circle

_COMPILED = 'JAX_COMPILATION_CACHE_DIR'


def _is_worker(config):
  return hasattr(config, 'workerinput')  # of pytest-xdist


def pytest_configure(config):
  # Before anything compiles, and before there are processes to inherit it.
  if not _is_worker(config):
    os.environ[_COMPILED] = tempfile.mkdtemp(prefix='armfarm-compiled-')
    os.environ.setdefault('XLA_FLAGS', compiler.flags(jax.__version__))
  jax.config.update('jax_compilation_cache_dir', os.environ[_COMPILED])


def pytest_unconfigure(config):
  if not _is_worker(config):
    shutil.rmtree(os.environ[_COMPILED], ignore_errors=True)


@pytest.fixture(scope='session')
def unmeasured():
  """The environment of a process whose lines other tests have measured."""
  return {k: v for k, v in os.environ.items() if not k.startswith(('COV_', 'COVERAGE'))}


@pytest.fixture
def optimized():
  """Has programs compiled as users have them."""
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)


def pytest_runtest_setup(item):
  if _NO_REVERB and item.get_closest_marker('reverb'):
    pytest.skip('Reverb is not installed')
