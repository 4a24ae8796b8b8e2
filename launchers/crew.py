"""Who runs the workers of an asynchronous run: threads here, or processes.

What is said of collectors here and of their episodes holds for other workers that have
numbers as well, and for what these number.
"""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Protocol

from armfarm.launchers.app import UserError
from armfarm.workers.collector import Stop

_JOIN = 30.0  # s that a worker may take to end
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_DEATHS = 3  # of one collector in a row, after which the run gives up
_PARENT = 'ARMFARM_PARENT'  # tells a role's process who started it


class Threads:
  """Threads that end together, and whose faults are not lost."""

  def __init__(self) -> None:
    self._stop = threading.Event()
    self._threads: list[threading.Thread] = []
    self._faults: list[BaseException] = []

  def start(self, name: str, work: Callable[[Stop], None]) -> None:
    """Runs `work(stop)` in a thread."""
    thread = threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
    self._threads.append(thread)
    thread.start()

  def check(self) -> None:
    """Raises what a thread died of."""
    if self._faults:
      raise self._faults[0]

  def __enter__(self) -> Threads:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._stop.set()
    for thread in self._threads:
      thread.join(_JOIN)

  def _guard(self, work: Callable[[Stop], None]) -> None:
    try:
      work(self._stop)
    except BaseException as error:
      self._faults.append(error)


class Process(Protocol):
  """A process that was started: a `subprocess.Popen`, or like it."""

  def poll(self) -> int | None: ...

  def wait(self, timeout: float | None = None) -> int: ...

  def send_signal(self, number: int, /) -> None: ...

  def kill(self) -> None: ...


class Start(Protocol):
  """What starts `armfarm.launchers.<role>`, as `start_role` does."""

  def __call__(self, role: str, *arguments: str) -> Process: ...


class Crew(Protocol):
  """Whoever runs collectors; as a context, ends them all."""

  def hire(self, number: int, first_episode: int) -> None:
    """Starts a collector."""

  def check(self, next_episode: Callable[[int], int]) -> None:
    """Replaces collectors that died, or raises what they died of."""

  def __enter__(self) -> Crew: ...

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None: ...


class ThreadCrew:
  """Collectors as threads of this process; one that dies ends the run.

  Args:
    make: returns what a collector does until it is told to stop, given its number and
      its first episode.
  """

  def __init__(self, make: Callable[[int, int], Callable[[Stop], None]]):
    self._threads = Threads()
    self._make = make

  def hire(self, number: int, first_episode: int) -> None:
    """See `Crew`."""
    self._threads.start(f'collector {number}', self._make(number, first_episode))

  def check(self, next_episode: Callable[[int], int]) -> None:
    """See `Crew`."""
    self._threads.check()

  def __enter__(self) -> ThreadCrew:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._threads.__exit__(kind, error, trace)


class ProcessCrew:
  """Collectors as processes of their own, which reach replay by its address.

  A collector that dies is replaced. Its successor leaves out as many episode numbers
  as the dead one may have used for blocks that are still on their way.

  Args:
    role: the launcher that a worker of some number is.
    workdir: of the run, where the config is.
    address: of the replay server.
    margin: blocks that may be on their way, in steps.
    warn: told in one line of each replacement.
    check_server: raises if the replay server is gone.
    start: starts a worker.
  """

  def __init__(
    self,
    role: Callable[[int], str],
    workdir: pathlib.Path,
    address: str,
    margin: int,
    warn: Callable[[str], None],
    check_server: Callable[[], None],
    start: Start,
  ):
    self._role = role
    self._arguments = [f'--workdir={workdir}', f'--address={address}']
    self._margin = margin
    self._warn = warn
    self._check_server = check_server
    self._start = start
    self._processes: dict[int, Process] = {}
    self._hired: dict[int, int] = {}  # first episode of the last one of a number
    self._deaths: dict[int, int] = {}  # in a row, without an episode between

  def hire(self, number: int, first_episode: int) -> None:
    """See `Crew`."""
    self._hired[number] = first_episode
    self._processes[number] = self._start(
      self._role(number),
      *self._arguments,
      f'--number={number}',
      f'--first_episode={first_episode}',
    )

  def check(self, next_episode: Callable[[int], int]) -> None:
    """See `Crew`."""
    self._check_server()
    for number, process in list(self._processes.items()):
      code = process.poll()
      if code is not None:
        self._replace(number, code, next_episode(number))

  def _replace(self, number: int, code: int, next_episode: int) -> None:
    worked = next_episode > self._hired[number]
    self._deaths[number] = 1 if worked else self._deaths.get(number, 0) + 1
    name = f'{self._role(number).replace("_", " ")} {number}'
    if self._deaths[number] >= _DEATHS:
      raise UserError(
        f'{name} died {_DEATHS} times without an episode, last with code {code}: mend'
        ' what it says above, the same command goes on'
      )
    self.hire(number, max(next_episode, self._hired[number]) + self._margin)
    self._warn(f'{name} died with code {code}; replaced')

  def __enter__(self) -> ProcessCrew:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    end(*self._processes.values())


def start_role(role: str, *arguments: str) -> subprocess.Popen[bytes]:
  """Starts `armfarm.launchers.<role>` as a process that ends with this one."""
  command = [sys.executable, '-m', f'armfarm.launchers.{role}', *arguments]
  environment = {**os.environ, **role_environment()}
  # A session of its own: Ctrl-C reaches this process alone, which then ends the others.
  return subprocess.Popen(command, start_new_session=True, env=environment)


def role_environment() -> dict[str, str]:
  """Returns what the environment of a role that this process starts has to say."""
  parent = {_PARENT: str(os.getpid())}
  return {'CUDA_VISIBLE_DEVICES': '', 'JAX_PLATFORMS': 'cpu', **parent}


def end(*processes: Process) -> None:
  """Asks processes to end, all at once, and sees to it."""
  for process in processes:
    process.send_signal(signal.SIGTERM)
  deadline = time.monotonic() + _JOIN
  for process in processes:
    try:
      process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()


def end_with_parent() -> None:
  """Has this process killed at once when the one that started it is gone.

  Nothing is lost with it, and it may hang: Reverb waits for a lost server for ever.
  """
  # Told, not looked up: it may be gone before this process gets to look.
  parent = int(os.environ.get(_PARENT, os.getppid()))
  ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:
    os._exit(1)
