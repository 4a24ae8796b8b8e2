"""A nursery: it forks the workers of a farm, so that imports are paid for once.

Most of a worker's start is imports: Reverb needs TensorFlow. A nursery is a copy of the
launcher from before the first computation, with all imports behind it, and each worker
is a fork of that. Forking is safe only while JAX has no device and no threads: a
launcher opens its nursery before it does anything else.

Between the two go JSON pairs: to the nursery [role, arguments]; back [process id, None]
for a worker that began, [reason, None] for one that could not, [process id, exit code]
for one that ended.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import gc
import json
import math
from multiprocessing.connection import Connection
from multiprocessing.connection import Pipe
import os
import runpy
import signal
import subprocess
import sys
import time
from typing import NoReturn

from absl import flags
import jax
import setproctitle

from armfarm.launchers import crew
from armfarm.launchers.app import UserError

_LOOK = 0.02  # s between two looks at who has ended


class Nursery:
  """The launcher's side of a nursery.

  Args:
    pipe: to the process that forks.
  """

  def __init__(self, pipe: Connection):
    self._pipe = pipe
    self._codes: dict[int, int] = {}
    self._lost = False

  def start(self, role: str, *arguments: str) -> Child:
    """Starts `armfarm.launchers.<role>`, as `crew.start_role` does.

    Raises:
      UserError: the process that forks is gone, or cannot.
    """
    try:
      _send(self._pipe, role, arguments)
      while (message := _receive(self._pipe))[1] is not None:
        self._note(*message)
    except (EOFError, OSError) as error:
      raise UserError('who starts workers is gone: run this again') from error
    began = message[0]
    if not isinstance(began, int):
      raise UserError(f'no {role} can be started ({began}): run this again')
    return Child(self, began)

  def code(self, pid: int) -> int | None:
    """Returns the exit code of a worker; None while it works."""
    try:
      while self._pipe.poll():
        self._note(*_receive(self._pipe))
    except (EOFError, OSError):
      self._lost = True
    # Workers end with the nursery: `crew.end_with_parent`.
    return self._codes.get(pid, -signal.SIGKILL if self._lost else None)

  def _note(self, pid: int, code: int) -> None:
    self._codes[pid] = code


class Child:
  """A worker of a nursery, with what a crew needs of `subprocess.Popen`.

  Attributes:
    pid: process id.
    returncode: exit code, None until `poll` or `wait` found that it has ended.
  """

  def __init__(self, nursery: Nursery, pid: int):
    self.pid = pid
    self.returncode: int | None = None
    self._nursery = nursery

  def poll(self) -> int | None:
    """Returns the exit code, None while it works."""
    if self.returncode is None:
      self.returncode = self._nursery.code(self.pid)
    return self.returncode

  def wait(self, timeout: float | None = None) -> int:
    """Waits for its end and returns its exit code.

    Raises:
      subprocess.TimeoutExpired: it took longer than so many seconds.
    """
    limit = math.inf if timeout is None else timeout
    deadline = time.monotonic() + limit
    while (code := self.poll()) is None:
      if time.monotonic() > deadline:
        raise subprocess.TimeoutExpired(str(self.pid), limit)
      time.sleep(_LOOK)
    return code

  def send_signal(self, number: int) -> None:
    """Sends a signal, if it still works."""
    if self.poll() is None:
      with contextlib.suppress(ProcessLookupError):
        os.kill(self.pid, number)

  def kill(self) -> None:
    """Ends it at once."""
    self.send_signal(signal.SIGKILL)


def possible() -> bool:
  """Returns whether this process may still fork: whether it has one thread."""
  return len(os.listdir('/proc/self/task')) == 1


@contextlib.contextmanager
def opened() -> Iterator[Nursery]:
  """Opens a nursery; its workers end with it.

  It forks: in the copies this does not yield, but raises SystemExit when their work is
  done, so that whoever calls this must have nothing to clean up.
  """
  ours, theirs = Pipe()
  pid = os.fork()
  if not pid:
    ours.close()
    _serve(theirs)
  theirs.close()
  try:
    yield Nursery(ours)
  finally:
    ours.close()
    os.waitpid(pid, 0)


def _serve(pipe: Connection) -> NoReturn:
  """Forks until the launcher is gone; in the copies, works."""
  # Ctrl-C reaches the launcher alone, which then ends the others. Some signal to all.
  os.setsid()
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  setproctitle.setproctitle(f'{sys.executable} -m {__name__}')
  os.environ.update(crew.role_environment())
  jax.config.update('jax_platforms', 'cpu')  # the environment was read long ago
  gc.freeze()  # copies share what lasts
  if asked := _asked_of_copy(pipe):
    _become(*asked)
  sys.exit()


def _asked_of_copy(pipe: Connection) -> tuple[str, list[str]] | None:
  """Forks for every request; in the copy returns it, and None when there is no more."""
  children: set[int] = set()
  with contextlib.suppress(EOFError, OSError):  # the launcher is gone
    while not (asked := _forked(pipe, children)):
      pass
    return asked
  return None


def _forked(pipe: Connection, children: set[int]) -> tuple[str, list[str]] | None:
  """Forks for the next request, which only the copy returns.

  While there is none, it tells of children that ended.
  """
  while not pipe.poll(_LOOK):
    _tell_of_ended(children, pipe)
  role, arguments = _receive(pipe)
  pid = _fork(pipe)
  if pid == 0:
    pipe.close()
    return role, arguments
  if pid is not None:
    children.add(pid)
    _send(pipe, pid, None)
  return None


def _fork(pipe: Connection) -> int | None:
  """Forks as `os.fork` does; where the system has no room, says so."""
  try:
    return os.fork()
  except OSError as error:
    _send(pipe, error.strerror, None)
    return None


def _tell_of_ended(children: set[int], pipe: Connection) -> None:
  for child in list(children):
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
      children.remove(pid)
      _send(pipe, pid, os.waitstatus_to_exitcode(status))


def _become(role: str, arguments: list[str]) -> None:
  """Runs a role as `python -m` does, in place of the launcher."""
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  for flag in flags.FLAGS.get_flags_for_module(sys.argv[0]):
    delattr(flags.FLAGS, flag.name)  # a role has its own of the same names
  module = f'armfarm.launchers.{role}'
  setproctitle.setproctitle(' '.join([sys.executable, '-m', module, *arguments]))
  sys.argv[1:] = arguments
  runpy.run_module(module, run_name='__main__', alter_sys=True)


def _send(pipe: Connection, first: object, second: object) -> None:
  pipe.send_bytes(json.dumps([first, second]).encode())


def _receive(pipe: Connection) -> tuple:
  return tuple(json.loads(pipe.recv_bytes()))
