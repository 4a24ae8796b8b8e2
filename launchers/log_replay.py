"""One job of log replay as a process of its own; started by other launchers."""

from __future__ import annotations

import pathlib

from absl import flags
from ml_collections import ConfigDict

from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import crew
from armfarm.launchers import offpolicy
from armfarm.launchers import transport
from armfarm.launchers import workdir

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
_ADDRESS = flags.DEFINE_string('address', None, 'Of the replay server.', required=True)
_NUMBER = flags.DEFINE_integer('number', None, 'Of this worker.', required=True)
_FIRST = flags.DEFINE_integer('first_episode', 0, 'Number of the first visit.')


def main(argv: list[str]) -> None:
  """Replays until told to stop or left alone."""
  del argv
  crew.end_with_parent()
  stop = app.stop_on_signals()
  config = ConfigDict(workdir.read_config(pathlib.Path(_WORKDIR.value))['config'])
  parts = build.make_parts(config)
  shapes = transport.templates(parts)
  connect = transport.load_reverb().ReverbReplay
  replay = connect(_ADDRESS.value, shapes, table=offpolicy.OFFLINE)
  if not transport.wait_unless(stop, replay.wait_until_ready):
    return
  job = offpolicy.make_log_replay(parts, replay, _NUMBER.value, _FIRST.value)
  with transport.lost_in_a_line():
    job.run(stop)
  replay.close()


if __name__ == '__main__':
  app.run(main)
