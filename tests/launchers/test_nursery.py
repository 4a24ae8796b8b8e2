"""What forks the workers of a farm, from the launcher's side and on a farm."""

import json
from multiprocessing.connection import Pipe
import signal
import subprocess

import pytest

from armfarm.launchers import crew
from armfarm.launchers import nursery
from armfarm.launchers.app import UserError


class _Forks:
  """Plays the process that forks."""

  def __init__(self, pipe):
    self._pipe = pipe

  def tell(self, pid, code=None):
    self._pipe.send_bytes(json.dumps([pid, code]).encode())

  def asked(self):
    return json.loads(self._pipe.recv_bytes())

  def die(self):
    self._pipe.close()


@pytest.fixture
def both():
  """A nursery, and who forks for it."""
  ours, theirs = Pipe()
  return nursery.Nursery(ours), _Forks(theirs)


def test_a_worker_is_asked_for_by_its_role(both):
  workers, forks = both
  forks.tell(7)
  assert workers.start('collector', '--number=3').pid == 7
  assert forks.asked() == ['collector', ['--number=3']]


def test_ends_are_told_to_whom_they_concern(both):
  workers, forks = both
  forks.tell(7)
  first = workers.start('collector')
  forks.tell(7, 1)  # on its way while the next one is asked for
  forks.tell(8)
  second = workers.start('collector')
  assert (first.poll(), first.returncode, second.poll()) == (1, 1, None)
  forks.tell(8, -9)
  assert second.wait(1.0) == -9


def test_a_worker_that_cannot_be_started_is_told_with_the_reason(both):
  workers, forks = both
  forks.tell('Cannot allocate memory')
  with pytest.raises(UserError, match='no collector .*Cannot allocate memory'):
    workers.start('collector')


def test_waiting_has_an_end(both):
  workers, forks = both
  forks.tell(7)
  with pytest.raises(subprocess.TimeoutExpired):
    workers.start('collector').wait(0.05)


def test_a_lost_nursery_is_the_end_of_its_workers(both):
  workers, forks = both
  forks.tell(7)
  worker = workers.start('collector')
  forks.die()
  assert worker.poll() == -signal.SIGKILL
  crew.end(worker)  # sends no signal to whoever may have that number now
  with pytest.raises(UserError, match='run this again'):
    workers.start('collector')
