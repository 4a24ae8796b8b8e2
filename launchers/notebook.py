"""What a notebook shows of a run; IPython is there wherever notebooks are."""

from __future__ import annotations

import math
import pathlib
import time

from IPython import display

from armfarm.launchers import pictures
from armfarm.launchers import policy

_TEXT_PERIOD = 0.5  # s between two lines
_WIDTH = 720  # pixels of a picture in a cell


class LiveCurve:
  """A learning curve that grows in a cell while a run learns, below a line on it.

  It is a `workers.records.Progress`, to be given to `session.run`.

  Args:
    workdir: of the run.
    period: s between two curves.
  """

  def __init__(self, workdir: pathlib.Path, period: float = 5.0):
    self._workdir = workdir
    self._period = period
    self._told = self._drawn = -math.inf  # when, on the monotonic clock
    self._line = display.DisplayHandle()
    self._curve = display.DisplayHandle()
    self._line.display(display.Pretty('The first steps compile ...'))
    self._curve.display(display.Pretty(''))

  def show(self, text: str) -> None:
    """See `records.Progress`."""
    now = time.monotonic()
    if now - self._told >= _TEXT_PERIOD:
      self._told = now
      self._line.update(display.Pretty(text))
    if now - self._drawn >= self._period:
      self.draw()

  def note(self, text: str) -> None:
    """See `records.Progress`."""
    print(text)

  def draw(self) -> None:
    """Draws the curve as it is now."""
    self._drawn = time.monotonic()
    picture = pictures.draw_curve(self._workdir).read_bytes()
    self._curve.update(display.Image(picture, width=_WIDTH))


def show_film(workdir: pathlib.Path, episodes: int = 5, seed: int = 0) -> None:
  """Films the policy of a run and shows the film, or says why that cannot be.

  Args:
    workdir: of the run.
    episodes: to film, each with a target of its own.
    seed: decides the targets.
  """
  path = workdir / 'videos' / 'policy.mp4'
  try:
    policy.film(policy.load(workdir), path, episodes, seed)
  except pictures.CannotDraw as error:
    print(error)
    return
  attributes = 'controls autoplay loop muted'
  display.display(display.Video(path, embed=True, html_attributes=attributes))
