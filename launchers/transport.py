"""Opening replay: in this process, over Reverb here, or over a Reverb server apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import pathlib
from typing import Any

from ml_collections import ConfigDict
import portpicker

from armfarm.launchers import build
from armfarm.launchers import crew
from armfarm.launchers import guided
from armfarm.launchers import offpolicy
from armfarm.launchers.app import UserError
from armfarm.replay import memory
from armfarm.replay import types
from armfarm.workers.collector import Stop

KINDS = ('memory', 'reverb', 'reverb_process')
_PATIENCE = 2.0  # s between two looks at whether a server that starts is alive
_LOOKS = 30


def load_reverb() -> Any:
  """Returns `armfarm.replay.reverb_replay`.

  Raises:
    UserError: Reverb is not installed.
  """
  try:
    from armfarm.replay import reverb_replay
  except ImportError as error:
    raise UserError(
      f'Reverb cannot be imported ({error.name or error}): take --replay=memory, or'
      ' the environment of `make venv`, which has it'
    ) from error
  return reverb_replay


def check(kind: str) -> None:
  """Raises UserError if replay of this kind cannot be opened here."""
  if kind != 'memory':
    load_reverb()


def templates(parts: build.Parts) -> Any:
  """Returns what both ends of a Reverb server must agree on."""
  return load_reverb().Templates(*build.templates(parts))


def queues(config: ConfigDict) -> list[str]:
  """Returns the names of the queues of a run beside `online`."""
  if build.is_guided(config):
    return [guided.GRADIENTS]
  return offpolicy.cast(config).queues


class Opened:
  """Replay as the trainer sees it, and where other processes find it.

  Attributes:
    replay: the queue `online`, and the variables.
    address: of the server, None where there is none.
    others: the other queues, by name.
  """

  def __init__(
    self,
    replay: types.Replay,
    address: str | None,
    others: Mapping[str, types.Replay],
    server: crew.Process | None = None,
  ):
    self.replay = replay
    self.address = address
    self.others = others
    self._server = server

  def check(self) -> None:
    """Raises UserError if a server of its own has died."""
    code = None if self._server is None else self._server.poll()
    if code is not None:
      raise UserError(f'the replay server died with code {code}: run this again')


@contextlib.contextmanager
def opened(
  kind: str,
  parts: build.Parts,
  workdir: pathlib.Path,
  start: crew.Start = crew.start_role,
) -> Iterator[Opened]:
  """Opens replay for a run, and closes it.

  Args:
    kind: one of `KINDS`.
    parts: of the run.
    workdir: of the run, for a server apart.
    start: starts that server.

  Raises:
    UserError: Reverb is asked for and not installed.
  """
  max_blocks = parts.config.replay.max_blocks
  names = queues(parts.config)
  if kind == 'memory':
    others = {name: memory.MemoryReplay(max_blocks) for name in names}
    yield Opened(memory.MemoryReplay(max_blocks), None, others)
    return
  reverb_replay, shapes = load_reverb(), templates(parts)
  with contextlib.ExitStack() as stack:
    apart = None
    if kind == 'reverb':
      server = reverb_replay.serve(shapes, max_blocks, None)
      address = f'127.0.0.1:{server.port}'
    else:
      server, port = None, portpicker.pick_unused_port()
      address = f'127.0.0.1:{port}'
      apart = start('replay_server', f'--workdir={workdir}', f'--port={port}')
      stack.callback(crew.end, apart)
    replay = reverb_replay.ReverbReplay(address, shapes, server)
    stack.callback(replay.close)
    others = {
      name: reverb_replay.ReverbReplay(address, shapes, table=name) for name in names
    }
    opened = Opened(replay, address, others, apart)
    wait_for_server(opened, replay.wait_until_ready)
    yield opened


@contextlib.contextmanager
def lost_in_a_line() -> Iterator[None]:
  """Raises UserError where the replay server is gone."""
  try:
    yield
  except ConnectionError as error:
    raise UserError(f'the replay server is gone ({error}): run this again') from error


def wait_unless(stop: Stop, wait: Callable[[float], None]) -> bool:
  """Waits for a server to answer, until told to stop; returns whether it did."""
  while not stop.is_set():
    with contextlib.suppress(TimeoutError):
      wait(_PATIENCE)
      return True
  return False


def wait_for_server(opened: Opened, wait: Callable[[float], None]) -> None:
  """Waits for the server to answer.

  Raises:
    UserError: it died, or takes too long.
  """
  for _ in range(_LOOKS):
    opened.check()
    with contextlib.suppress(TimeoutError):
      return wait(_PATIENCE)
  raise UserError(f'no replay server answered at {opened.address}: run this again')
