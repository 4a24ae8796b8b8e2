"""How every launcher starts and fails: one line, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Callable
import difflib
import errno
from importlib import resources
import os
import pathlib
import re
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from absl import app
from absl import flags
from absl import logging
from flax import traverse_util
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

INTERRUPTED = 130  # the shell's code for a program ended by Ctrl-C


class UserError(Exception):
  """Something the user can mend: what was wrong and what to do, in one line."""


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
  """Parses the flags, runs `main` and turns user errors into one line."""

  def guarded(argv: list[str]) -> int | None:
    logging.set_verbosity(logging.FATAL)  # errors of libraries come as exceptions
    try:
      return main(argv)
    except (UserError, MemoryError) as error:
      return fail(error)
    except Exception as error:
      if not of_full_disk(error):
        raise
      return fail('the disk is full: make room, and the same command goes on')

  try:
    argv = with_config_path(sys.argv)
  except UserError as error:
    sys.exit(fail(error))
  app.run(guarded, argv=argv, flags_parser=parse)
  raise AssertionError('app.run does not return')


def fail(error: BaseException | str) -> int:
  """Says what was wrong in one line; returns the exit code."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  print(f'armfarm: {lines[-1] if lines else type(error).__name__}', file=sys.stderr)
  return 2


def of_full_disk(error: BaseException | None) -> bool:
  """Returns whether this error, or one that it came of, is that of a full disk."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
      return True
    if 'No space left on device' in str(error):  # of libraries that speak for C++
      return True
    error = error.__cause__ or error.__context__
  return False


def note(text: str) -> None:
  """Tells the user something in one line."""
  print(f'armfarm: {text}', file=sys.stderr)


def parse(argv: list[str]) -> list[str]:
  """Parses flags; whatever is wrong with them, or the config, ends the program."""
  try:
    return flags.FLAGS(argv)
  except Exception as error:
    sys.exit(fail(explain(error, argv)))


def explain(error: Exception, argv: list[str]) -> str:
  """Says what was wrong with flags, better than their library does."""
  known, override = overridable(argv), r'--?config\.([\w.]+)'
  for name in re.findall(f'^{override}', '\n'.join(argv), re.MULTILINE):
    if known and name not in known:
      near = difflib.get_close_matches(name, known, 1, 0.0)[0]
      return f'there is no number {name} in the config: is it --config.{near}?'
  if wrong := re.match(f'flag {override}=(.*?): ', str(error)):
    kind, default = type(known[wrong[1]]).__name__, known[wrong[1]]
    return f'--config.{wrong[1]}={wrong[2]} is no {kind}: give one as {default} is'
  if missing := re.match(r'flag --(\w+)=None: ', str(error)):
    return f'--{missing[1]} is missing: give it; --help says what it is'
  if isinstance(error, flags.DuplicateFlagError):
    return '--config is given twice: give it once'
  last = str(error).strip().rpartition('\n')[2].removeprefix('ValueError: ')
  cause = '' if isinstance(error, flags.Error) else 'the config cannot be read: '
  return cause + last


def overridable(argv: list[str]) -> dict[str, Any]:
  """Returns every name in the config that `argv` asks for, with its value."""
  paths = re.findall('^--config=(.*)', '\n'.join(argv), re.MULTILINE)
  try:
    config = config_flags.ConfigFileFlagParser('config').parse(paths[-1])
    return traverse_util.flatten_dict(config.to_dict(), sep='.')
  except Exception:  # there is no config to be had, and somebody says so already
    return {}


def no_arguments(argv: list[str]) -> None:
  """Raises UserError for whatever stands on the command line and is no flag."""
  if argv[1:]:
    raise UserError(f'unknown argument {argv[1]}: flags start with --')


def check_sections(config: ConfigDict) -> None:
  """Raises UserError unless a config has all that a run is made of."""
  for name in ('task', 'agent', 'replay', 'run'):
    if name not in config:
      raise UserError(f'the config has no {name}, so it cannot run: add its numbers')


def with_config_path(argv: list[str]) -> list[str]:
  """Lets `--config=configs/naf.py:reach` work in any folder, by the installed one.

  Nor does it matter whether it is one argument or two, or begins with a single dash.
  """
  rest, words = iter(argv), []
  for word in rest:
    flag, equals, value = word.partition('=')
    if flag in ('-config', '--config'):
      word = f'--config={config_path(value if equals else next(rest, ""))}'
    words.append(word)
  return words


def config_path(value: str) -> str:
  """Returns the value of `--config`, pointing at the installed file if need be.

  Raises:
    UserError: there is no such file, here or installed.
  """
  path, colon, which = value.partition(':')
  if pathlib.Path(path).is_file():
    return value
  folder = pathlib.Path(str(resources.files('armfarm.configs')))
  systems = set(folder.glob('[!_]*.py')) - {folder / 'tasks.py'}
  names = sorted(f'configs/{file.name}' for file in systems)
  if path not in names:
    choices = ', '.join(names)
    raise UserError(f'there is no config file {path}; take your own or {choices}')
  return f'{folder.parent / path}{colon}{which}'


def exit_on_interrupt() -> None:
  """Lets Ctrl-C end a program that has nothing to save, wherever it is.

  An exception would do, but libraries swallow it in callbacks and destructors.
  """

  def handle(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    sys.stderr.write('armfarm: interrupted\n')
    sys.stderr.flush()
    os._exit(INTERRUPTED)

  signal.signal(signal.SIGINT, handle)


def stop_on_signals() -> threading.Event:
  """Returns an event that Ctrl-C and SIGTERM set; a second of these ends at once."""
  stop = threading.Event()

  def handle(number: int, frame: FrameType | None) -> None:
    del frame
    stop.set()
    signal.signal(number, signal.SIG_DFL)

  signal.signal(signal.SIGINT, handle)
  signal.signal(signal.SIGTERM, handle)
  return stop
