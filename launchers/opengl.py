"""Chooses how MuJoCo draws without a display.

MuJoCo reads `MUJOCO_GL` once, when it is imported, and cannot even be imported where
the library named there is missing. So `choose` has to run before that import.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_VARIABLE = 'MUJOCO_GL'
# What each way to draw loads: one library of every row.
_LIBRARIES = {
  'egl': (('libEGL.so.1',), ('libOpenGL.so.0', 'libGL.so.1')),
  'osmesa': (('libOSMesa.so.8', 'libOSMesa.so.6'),),
}
_NEED_NOTHING = (
  *('disable', 'disabled', 'off', 'false', '0'),
  *('enable', 'enabled', 'on', 'true', '1', 'glfw', 'glx'),
)


def choose() -> None:
  """Sets `MUJOCO_GL` to what this machine can load, unless it is set already.

  EGL goes before OSMesa, which knows no graphics card. Without either, a window
  system is left to MuJoCo, and drawing is disabled where there is none.

  Raises:
    SystemExit: it is set to what MuJoCo could not be imported with.
  """
  if platform.system() != 'Linux':
    return
  value = os.environ.get(_VARIABLE, '').lower().strip()
  if value in _NEED_NOTHING or (value in _LIBRARIES and _is_here(value)):
    return
  if value:
    choices = ', '.join((*filter(_is_here, _LIBRARIES), 'glfw', 'disable'))
    print(f'{_VARIABLE} is {value}: here it can be {choices}', file=sys.stderr)
    sys.exit(2)
  found = next(filter(_is_here, _LIBRARIES), None)
  if found:
    os.environ[_VARIABLE] = found
  elif not os.environ.get('DISPLAY'):
    os.environ[_VARIABLE] = 'disable'


def _is_here(name: str) -> bool:
  """Whether a way to draw can be had; loading OSMesa takes a fifth of a second."""
  return all(map(_loads_any, _LIBRARIES[name]))


def _loads_any(libraries: tuple[str, ...]) -> bool:
  return any(_loads(library) for library in libraries)


def _loads(library: str) -> bool:
  try:
    ctypes.CDLL(library)
  except OSError:
    return False
  return True
