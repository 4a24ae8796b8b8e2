"""How every launcher starts and fails: one line, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
import pathlib
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

from absl import app
from absl import flags
from absl import logging

INTERRUPTED = 130  # the shell's code for a program ended by Ctrl-C


class UserError(Exception):
  """Something the user can mend: what was wrong and what to do, in one line."""


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
  """Parses the flags, runs `main` and turns user errors into one line."""

  def guarded(argv: list[str]) -> int | None:
    logging.set_verbosity(logging.ERROR)  # what libraries tell of themselves
    try:
      return main(argv)
    except UserError as error:
      return fail(error)

  app.run(guarded, argv=with_config_path(sys.argv), flags_parser=parse)
  raise AssertionError('app.run does not return')


def fail(error: BaseException | str) -> int:
  """Says what was wrong in one line; returns the exit code."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  print(f'armfarm: {lines[-1] if lines else type(error).__name__}', file=sys.stderr)
  return 2


def parse(argv: list[str]) -> list[str]:
  """Parses flags; whatever is wrong with them ends the program."""
  try:
    return flags.FLAGS(argv)
  except (flags.Error, OSError, ValueError, TypeError, AttributeError) as error:
    sys.exit(fail(error))
  except (KeyError, ImportError, SyntaxError) as error:
    sys.exit(fail(f'the config cannot be read: {error}'))


def no_arguments(argv: list[str]) -> None:
  """Raises UserError for whatever stands on the command line and is no flag."""
  if argv[1:]:
    raise UserError(f'unknown argument {argv[1]}: flags start with --')


def with_config_path(argv: list[str]) -> list[str]:
  """Lets `--config=configs/naf.py:reach` work in any folder, by the installed one."""
  prefix = '--config='
  return [
    prefix + config_path(argument.removeprefix(prefix))
    if argument.startswith(prefix)
    else argument
    for argument in argv
  ]


def config_path(value: str) -> str:
  """Returns the value of `--config`, pointing at the installed file if need be."""
  path, colon, which = value.partition(':')
  folder = resources.files('armfarm.configs')
  installed = pathlib.Path(str(folder)) / pathlib.Path(path).name
  if pathlib.Path(path).exists() or not installed.exists():
    return value
  return f'{installed}{colon}{which}'


def stop_on_signals() -> threading.Event:
  """Returns an event that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once."""
  stop = threading.Event()

  def handle(number: int, frame: FrameType | None) -> None:
    del frame
    stop.set()
    signal.signal(number, signal.SIG_DFL)

  signal.signal(signal.SIGINT, handle)
  signal.signal(signal.SIGTERM, handle)
  return stop
