"""Logs to learn grasping from: what they hold, parts of them, and their rows."""

import numpy as np
import pytest

pytest.importorskip('array_record')

from armfarm.configs import qtopt
from armfarm.experiments import grasp_logs
from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.replay import log
from armfarm.replay import types

_STEPS = 120  # some eight episodes of the script


@pytest.fixture(autouse=True)
def _folder(parsed, monkeypatch, tmp_path):
  monkeypatch.setattr(grasp_logs, 'folder', lambda name: tmp_path / name)


@pytest.fixture(name='parts', scope='module')
def _parts():
  return build.make_parts(qtopt.get_config('grasp_state'))


@pytest.fixture(name='step')
def _step(parts):
  return grasp_logs.one_step(parts)


@pytest.fixture(name='write')
def _write(tmp_path, step):
  """Writes a complete log of episodes of some lengths, a file for each."""

  def write(name, lengths):
    writer = log.EpisodeLog(tmp_path / name, collector=0)
    for number, length in enumerate(lengths):
      block = types.block_template(step.items, length)
      transition = block.items.transition
      action = transition.action.copy()
      action[:, 2] = np.arange(length) + number
      transition = transition._replace(
        action=action, discount=(np.arange(length) < length - 1).astype(np.float32)
      )
      origin = block.items.origin._replace(
        episode=np.full(length, number, np.int32),
        step=np.arange(length, dtype=np.int32),
      )
      success = block.success.copy()
      success[-1] = number % 2
      writer.add(block._replace(items=types.Item(transition, origin), success=success))
      writer.commit()
    grasp_logs.complete(tmp_path / name, step)
    return tmp_path / name

  return write


def test_the_script_is_logged(parts, step, tmp_path):
  untrained = build.variables_template(parts)
  path = tmp_path / 'scripted'
  (tmp_path / '.scripted').mkdir()  # of a process that was killed
  (tmp_path / '.scripted' / 'rest').write_text('')
  found = grasp_logs.collect(parts, untrained, path, _STEPS)
  assert found == grasp_logs.figures(path)
  assert not (tmp_path / '.scripted').exists()
  assert not (path / 'rest').exists()
  whole = [e for file in log.files(path) for e in grasp_logs.episodes(file, step)]
  # The last episode was under way.
  assert _STEPS - 20 < found.transitions == sum(len(e.success) for e in whole) <= _STEPS
  assert found.episodes == len(whole) > 3
  # Down at first, up at last, and that in every episode.
  assert found.height[2] < -0.4 and found.height[-2] > 0.4
  numbers = {row.metric: row.value for row in grasp_logs.log_rows('scripted')}
  assert numbers['env_steps'] == found.transitions
  assert numbers['z_at_step_03'] == found.height[2]


def test_what_a_log_holds(write, step):
  found = grasp_logs.measure(write('farm', [2, 3]), step)
  assert (found.episodes, found.transitions, found.success) == (2, 5, 0.5)
  assert found.height == [0.5, 1.5, 3.0]
  assert found.deviation == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(('transitions', 'episodes'), [(1, 1), (3, 1), (4, 2), (9, 3)])
def test_a_part_is_the_first_files(write, step, transitions, episodes):
  whole = write('farm', [3, 3, 3, 3])
  for _ in range(2):  # the second time it is there
    part = grasp_logs.part(whole, transitions, step)
    assert grasp_logs.figures(part).episodes == episodes
    names = [path.name for path in log.files(part)]
    assert names == [path.name for path in log.files(whole)][:episodes]


def test_a_part_of_all_is_the_whole(write, step):
  whole = write('farm', [3, 3])
  assert grasp_logs.part(whole, 6, step) == whole


def test_a_log_that_is_not_complete_is_refused(tmp_path):
  with pytest.raises(app.UserError, match='farm is no complete log: run python -m'):
    grasp_logs.figures(tmp_path / 'farm')
