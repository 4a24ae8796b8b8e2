"""One pair of guided policy search as a process of its own; started by others."""

from __future__ import annotations

import os
import pathlib

from absl import flags
from ml_collections import ConfigDict

from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import crew
from armfarm.launchers import guided
from armfarm.launchers import pairs
from armfarm.launchers import transport
from armfarm.launchers import workdir
from armfarm.workers.pair import Seams

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
_ADDRESS = flags.DEFINE_string('address', None, 'Of the replay server.', required=True)
_NUMBER = flags.DEFINE_integer('number', None, 'Of this pair.', required=True)
_FIRST = flags.DEFINE_integer('first_episode', 0, 'Number of the first rollout.')


def main(argv: list[str]) -> None:
  """Works until told to stop or left alone."""
  del argv
  crew.end_with_parent()
  stop = app.stop_on_signals()
  folder = pathlib.Path(_WORKDIR.value)
  pairs.pid_path(folder, _NUMBER.value).write_text(str(os.getpid()))
  pairs.share_compiled(folder)
  with pairs.turn_to_compile(folder, stop):
    config = ConfigDict(workdir.read_config(folder)['config'])
    parts = build.make_parts(config)
    shapes, connect = transport.templates(parts), transport.load_reverb().ReverbReplay
    reports = connect(_ADDRESS.value, shapes)
    if not transport.wait_unless(stop, reports.wait_until_ready):
      return
    gradients = connect(_ADDRESS.value, shapes, table=guided.GRADIENTS)
    seams = Seams(reports, gradients)
    pair = pairs.make_pair(parts, seams, folder, _NUMBER.value, _FIRST.value)
  with transport.lost_in_a_line():
    pair.run(stop)
  gradients.close()
  reports.close()


if __name__ == '__main__':
  app.run(main)
