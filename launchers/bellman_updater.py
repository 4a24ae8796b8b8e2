"""One Bellman updater of a run as a process of its own; started by other launchers."""

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
from armfarm.workers.bellman_updater import Seams

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
_ADDRESS = flags.DEFINE_string('address', None, 'Of the replay server.', required=True)
_NUMBER = flags.DEFINE_integer('number', None, 'Of this worker.', required=True)
_FIRST = flags.DEFINE_integer('first_episode', 0, 'Number of the first batch.')


def main(argv: list[str]) -> None:
  """Labels until told to stop or left alone."""
  del argv
  crew.end_with_parent()
  stop = app.stop_on_signals()
  config = ConfigDict(workdir.read_config(pathlib.Path(_WORKDIR.value))['config'])
  parts = build.make_parts(config)
  shapes, connect = transport.templates(parts), transport.load_reverb().ReverbReplay
  variables = connect(_ADDRESS.value, shapes)
  if not transport.wait_unless(stop, variables.wait_until_ready):
    return
  queues = [
    connect(_ADDRESS.value, shapes, table=name)
    for name in (offpolicy.cast(config).raw_of(_NUMBER.value), offpolicy.TRAIN)
  ]
  seams = Seams(variables, *queues)
  updater = offpolicy.make_updater(parts, seams, _NUMBER.value, _FIRST.value)
  with transport.lost_in_a_line():
    updater.run(stop)
  for replay in seams:
    replay.close()


if __name__ == '__main__':
  app.run(main)
