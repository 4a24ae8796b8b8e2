"""The compiler's option, on whichever JAX is installed."""

from importlib import resources
import time

import jax
import jax.numpy as jnp
import mujoco
from mujoco import mjx
import numpy as np
import pytest

from armfarm.envs import compiler

_OFF = {'xla_cpu_use_fusion_emitters': False}
_NO_SHARDY = {'jax_use_shardy_partitioner': False}
_BATCH = 64
_SECONDS = 0.05  # 0.7 s at fault, 0.001 s cured


@pytest.mark.parametrize(
  ('version', 'backend', 'options'),
  [
    ('0.7.0', 'cpu', {}),
    ('0.7.1', 'cpu', _OFF),
    ('0.9.0.1', 'cpu', _OFF),
    ('0.10.2', 'cpu', _OFF),
    ('0.10.3.dev20260101+abc', 'cpu', _OFF),
    ('0.11.0', 'cpu', {}),
    ('0.11.2', 'cpu', {}),
    ('0.12.0.1', 'cpu', {}),
    ('1.0.0', 'cpu', {}),
    ('0.10.2', 'gpu', {}),
    ('0.10.2', 'tpu', {}),
  ],
)
def test_who_is_given_the_option(version, backend, options):
  assert compiler.options(version, backend) == options


@pytest.mark.parametrize(
  ('version', 'settings'),
  [
    ('0.7.1', {}),
    ('0.10.2', {}),
    ('0.11.0', _NO_SHARDY),
    ('0.11.2', _NO_SHARDY),
    ('0.12.0.1', _NO_SHARDY),
  ],
)
def test_who_maps_without_shardy(version, settings):
  assert compiler.settings(version) == settings


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='the option is for a CPU')
def test_this_jax_knows_the_option_if_it_is_given_it():
  compiled = jax.jit(lambda x: x + 1.0, compiler_options=_OFF)
  if compiler.options(jax.__version__, 'cpu'):
    assert compiled(1.0) == 2.0
  else:
    with pytest.raises(jax.errors.JaxRuntimeError, match='No such compile option'):
      compiled(1.0)


def test_jit_gives_the_option(monkeypatch):
  given = {}
  monkeypatch.setattr(jax, 'jit', lambda function, **options: given.update(options))
  compiler.jit(abs)
  backend = jax.default_backend()
  assert given == {'compiler_options': compiler.options(jax.__version__, backend)}


def test_arguments_of_jit_are_passed_on():
  compiled = compiler.jit(lambda x, n: x + n, static_argnums=1, donate_argnums=0)
  given = jnp.ones(3)
  np.testing.assert_array_equal(compiled(given, 2), [3.0, 3.0, 3.0])
  assert given.is_deleted()


@pytest.fixture
def kinematics():
  """The arm's joint angles -> places of its bodies, batched, to be compiled."""
  xml = (resources.files('armfarm.envs') / 'assets' / 'arm.xml').read_text()
  model = mjx.put_model(mujoco.MjModel.from_xml_string(xml))
  data = mjx.make_data(model)

  def places(angles):
    with jax.numpy_rank_promotion('allow'):  # MJX relies on it
      return mjx.kinematics(model, data.replace(qpos=angles)).xpos

  return jax.vmap(places)


@pytest.mark.usefixtures('optimized')
def test_the_kinematics_of_an_arm_are_not_a_thousand_times_too_slow(kinematics):
  compiled = compiler.jit(kinematics)
  angles = jnp.linspace(-1.0, 1.0, 7 * _BATCH).reshape(_BATCH, 7)
  places = compiled(angles)
  seconds = []
  for _ in range(5):
    began = time.perf_counter()
    compiled(angles).block_until_ready()
    seconds.append(time.perf_counter() - began)
  assert np.isfinite(places).all()
  assert min(seconds) < _SECONDS
