"""The one place that knows what XLA's compilers get wrong.

JAX 0.7.1 to 0.10.2 bring an emitter of fused loops for the CPU that computes the
kinematics of a serial arm a thousand times too slowly, and that walks a whole array to
update a slice of it in place. It can be turned off for one compiled function at a time;
JAX 0.11 is cured and refuses the option.

JAX 0.11 in turn crashes where a mapped function is given an array without elements, of
which MJX has dozens: XLA folds it into a constant and loses its sharding, and Shardy
then reads past the end of an empty list of shardings. The partitioner before Shardy, to
be chosen for a whole process, does not.
"""

from __future__ import annotations

from collections.abc import Callable
import os
import re
from typing import Any

import jax

_FIRST, _CURED = (0, 7, 1), (0, 11, 0)
_SHARDY_CRASHES = (0, 11, 0)


def options(version: str, backend: str) -> dict[str, bool]:
  """Returns the compiler options that a version of JAX needs on a backend."""
  if backend == 'cpu' and _FIRST <= _numbers(version) < _CURED:
    return {'xla_cpu_use_fusion_emitters': False}
  return {}


def flags(version: str) -> str:
  """Returns the same for a whole process on a CPU, as words of `XLA_FLAGS`."""
  chosen = options(version, 'cpu')
  return ' '.join(f'--{name}={str(value).lower()}' for name, value in chosen.items())


def settings(version: str) -> dict[str, bool]:
  """Returns what a version of JAX must be set to before it maps over devices."""
  crashes = _numbers(version) >= _SHARDY_CRASHES
  return {'jax_use_shardy_partitioner': False} if crashes else {}


def jit(function: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
  """Compiles as `jax.jit` does, without the emitter where it is at fault.

  Args:
    function: to be compiled, with slices updated in place or MuJoCo's kinematics in it.
    **arguments: as for `jax.jit`.
  """
  chosen = options(jax.__version__, jax.default_backend())
  return jax.jit(function, compiler_options=chosen, **arguments)


def prepare_devices(count: int) -> None:
  """Readies programs that are mapped over devices, and virtual CPU devices for them.

  To be called before JAX computes anything. `jax.pmap` takes no compiler options: here
  they are set for the whole process. Accelerators get the same partitioner, no more.
  """
  for name, value in settings(jax.__version__).items():
    jax.config.update(name, value)
  jax.config.update('jax_num_cpu_devices', count)
  given = os.environ.get('XLA_FLAGS', '')
  os.environ['XLA_FLAGS'] = f'{given} {flags(jax.__version__)}'.strip()


def _numbers(version: str) -> tuple[int, ...]:
  return tuple(int(number) for number in re.findall(r'\d+', version)[:3])
