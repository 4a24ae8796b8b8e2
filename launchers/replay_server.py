"""The replay server of a run as a process of its own; started by other launchers."""

from __future__ import annotations

import pathlib
import time

from absl import flags
from ml_collections import ConfigDict

from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import crew
from armfarm.launchers import transport
from armfarm.launchers import workdir

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
_PORT = flags.DEFINE_integer('port', None, 'Port on 127.0.0.1.', required=True)


def main(argv: list[str]) -> None:
  """Serves until told to stop or left alone."""
  del argv
  crew.end_with_parent()
  stop = app.stop_on_signals()
  config = ConfigDict(workdir.read_config(pathlib.Path(_WORKDIR.value))['config'])
  parts = build.make_parts(config)
  max_blocks = config.replay.max_blocks
  reverb_replay = transport.load_reverb()
  server = reverb_replay.serve(transport.templates(parts), max_blocks, _PORT.value)
  while not stop.is_set():
    time.sleep(0.2)
  server.stop()


if __name__ == '__main__':
  app.run(main)
