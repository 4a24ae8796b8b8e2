"""What a camera sees of a simulation, in bytes, without a display.

Letters: [H W] pixels, [S] numbers beside an image; others as in `task.py`.
"""

from __future__ import annotations

import atexit
import threading
from typing import Any, NamedTuple

import mujoco
import numpy as np

_FLAGS = (
  mujoco.mjtRndFlag.mjRND_SHADOW,
  mujoco.mjtRndFlag.mjRND_REFLECTION,
  mujoco.mjtRndFlag.mjRND_SKYBOX,
)  # each costs more than all the rest
_PLANE = (0.72, 0.75, 0.79, 1.0)


class View(NamedTuple):
  """Which pictures a task asks for.

  Attributes:
    camera: its name in the model.
    height: H, pixels.
    width: W, pixels.
  """

  camera: str
  height: int
  width: int


class Observation(NamedTuple):
  """What a camera sees, and what is known besides.

  Attributes:
    image: uint8, [B H W 3].
    state: [B S].
  """

  image: Any
  state: Any


def blank(view: View | None, size: int) -> Observation | None:
  """Returns a black image with S = `size` numbers, or None without a view."""
  if view is None:
    return None
  image = np.zeros([view.height, view.width, 3], np.uint8)
  return Observation(image, np.zeros(size, np.float32))


class Marks(NamedTuple):
  """Points in a picture that the simulation knows nothing of, [S] of them.

  Attributes:
    site: name of the site that they are seen from.
    offsets: from there, along the world's axes, [S 3], m.
    colors: red, green, blue and opacity, [S 4].
    radii: [S], m.
  """

  site: str
  offsets: np.ndarray
  colors: np.ndarray
  radii: np.ndarray


def mark(scene: mujoco.MjvScene, data: mujoco.MjData, marks: Marks) -> None:
  """Adds marks to a scene that shows some data; those it has no room for are left out.

  Args:
    scene: updated already, which removes marks.
    data: says where the site is.
    marks: to add.
  """
  points = data.site(marks.site).xpos + marks.offsets
  sphere, upright = mujoco.mjtGeom.mjGEOM_SPHERE, np.eye(3).ravel()
  for point, color, radius in zip(points, marks.colors, marks.radii, strict=True):
    if scene.ngeom == scene.maxgeom:
      return
    size, rgba = np.full(3, radius), color.astype(np.float32)
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], sphere, size, point, upright, rgba)
    scene.ngeom += 1


def prepare(scene: mujoco.MjSpec) -> None:
  """Makes a scene quick to render on a processor.

  Curves are coarse, nothing is smoothed, the camera's own light is the only one, and
  planes are one piece of one colour: their grid would take half of the time.
  """
  quality = scene.visual.quality
  quality.offsamples = 0
  quality.numslices, quality.numstacks, quality.numquads = 8, 4, 1
  quality.shadowsize = 256
  for light in scene.lights:
    light.active = False
  scene.visual.headlight.diffuse = (0.7, 0.7, 0.7)
  for geom in scene.geoms:
    if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
      geom.material, geom.rgba = '', _PLANE
      geom.size[2] = geom.size[0]  # a plane's third size is that of its grid


class Film:
  """Takes pictures of a model's states, in any thread: OpenGL's contexts stay in one.

  Each thread that asks for pictures has a renderer, and takes it along when it ends.
  """

  def __init__(self, model: mujoco.MjModel, view: View):
    """Keeps the model, whose fields may change between two pictures."""
    self._model = model
    self._view = view
    self._own = threading.local()

  def take(self, data: mujoco.MjData) -> np.ndarray:
    """Takes a picture, [H W 3], uint8, of data whose positions are up to date."""
    renderer = getattr(self._own, 'renderer', None)
    if renderer is None:
      height, width = self._view[1:]
      self._own.renderer = renderer = mujoco.Renderer(self._model, height, width)
      atexit.register(self.close)  # before MuJoCo leaves OpenGL
    renderer.update_scene(data, self._view.camera)
    for flag in _FLAGS:  # which every update sets again
      renderer.scene.flags[flag] = False
    return renderer.render()

  def close(self) -> None:
    """Frees this thread's renderer, if there is one."""
    renderer = self._own.__dict__.pop('renderer', None)
    if renderer is not None:
      atexit.unregister(self.close)
      renderer.close()
