"""What a cell shows while a run learns."""

import json

from IPython import display
import pytest

from armfarm.launchers import notebook


class _Clock:
  now = 100.0

  def monotonic(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = _Clock()
  monkeypatch.setattr(notebook, 'time', clock)
  return clock


@pytest.fixture
def shown(monkeypatch):
  """What was displayed, in order: texts, and 'png' for a picture."""
  found = []

  def show(handle, content):
    del handle
    image = isinstance(content, display.Image)
    found.append(content.format if image else content.data)

  for name in ('display', 'update'):
    monkeypatch.setattr(display.DisplayHandle, name, show)
  return found


def test_a_cell_shows_lines_often_and_curves_now_and_then(shown, clock, tmp_path):
  row = {'kind': 'evaluation', 'episodes': 20, 'updates': 9, 'seconds': 1.5}
  row |= {'success': 0.5, 'total': -3.0}
  (tmp_path / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
  live = notebook.LiveCurve(tmp_path, period=2.0)
  shown.clear()
  for number in range(10):
    live.show(str(number))
    clock.now += 0.25
  live.draw()
  assert shown == ['0', 'png', '2', '4', '6', '8', 'png', 'png']
