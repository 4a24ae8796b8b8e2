"""Who watches the processes of a run, and who may run in a folder."""

import types

import pytest

from armfarm.launchers import crew
from armfarm.launchers import transport
from armfarm.launchers import workdir
from armfarm.launchers.app import UserError


class _Process:
  """A process whose exit code a test sets."""

  def __init__(self):
    self.returncode = None

  def poll(self):
    return self.returncode


@pytest.fixture
def hired():
  """The processes that were started, each with its arguments."""
  return []


@pytest.fixture
def processes(hired, tmp_path):
  def start(role, *arguments):
    assert role == 'collector'
    hired.append((_Process(), dict(x[2:].split('=') for x in arguments)))
    return hired[-1][0]

  def nothing(*_):
    pass

  return crew.ProcessCrew(
    lambda _: 'collector', tmp_path, '127.0.0.1:1', 100, nothing, nothing, start
  )


def _kill(hired):
  hired[-1][0].returncode = -9


def test_a_successor_leaves_out_what_may_be_on_its_way(processes, hired):
  processes.hire(0, 0)
  for seen, first in [(7, 107), (7, 207), (300, 400)]:  # episodes that arrived
    _kill(hired)
    processes.check(lambda _, seen=seen: seen)
    assert hired[-1][1]['first_episode'] == str(first)


def test_a_collector_that_never_works_is_given_up(processes, hired):
  processes.hire(0, 0)
  for _ in range(2):
    _kill(hired)
    processes.check(lambda _: 0)
  _kill(hired)
  with pytest.raises(UserError, match='collector 0 died 3 times .* code -9'):
    processes.check(lambda _: 0)


def test_a_server_that_died_is_told():
  server = _Process()
  opened = transport.Opened(types.SimpleNamespace(), '127.0.0.1:1', {}, server)
  opened.check()
  server.returncode = 1
  with pytest.raises(UserError, match='server died with code 1'):
    opened.check()


def test_one_process_at_a_time(tmp_path):
  with workdir.locked(tmp_path):
    second = workdir.locked(tmp_path)
    with pytest.raises(UserError, match='in use by another process'):
      second.__enter__()
  with workdir.locked(tmp_path):
    pass


def test_a_start_that_was_cut_short_may_be_repeated(tmp_path):
  for name in ('config.json.tmp', '.lock'):
    (tmp_path / name).touch()
  with workdir.opened(tmp_path, {'seed': 0}, {'runtime': 'sync'}):
    assert workdir.read_config(tmp_path)['config'] == {'seed': 0}


def test_a_start_that_is_refused_changes_nothing(tmp_path):
  first, second = ({'run': {'max_episodes': n}} for n in (100, 7))  # may be changed
  with workdir.opened(tmp_path, first, {}):
    with pytest.raises(UserError, match='in use by another process'):
      workdir.opened(tmp_path, second, {}).__enter__()
    assert workdir.read_config(tmp_path)['config'] == first
  with workdir.opened(tmp_path, second, {}):
    assert workdir.read_config(tmp_path)['config'] == second
