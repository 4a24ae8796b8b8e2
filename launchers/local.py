"""Runs a config on this machine, from the first step to the pictures.

  python -m armfarm.launchers.local --config=configs/naf.py:reach --workdir=runs/reach

A run that is started again on its workdir goes on where its last checkpoint was.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib

from absl import flags
from ml_collections import config_flags

from armfarm.envs import compiler
from armfarm.launchers import app
from armfarm.launchers import crew
from armfarm.launchers import nursery
from armfarm.launchers import policy
from armfarm.launchers import session
from armfarm.launchers import transport

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'configs/SYSTEM.py:TASK; any number in it by --config.x.y=…'
)
_RUNTIME = flags.DEFINE_enum(
  'runtime',
  'sync',
  session.RUNTIMES,
  'Lock step, everyone as fast as they go, or all in one program.',
)
_REPLAY = flags.DEFINE_enum(
  'replay', 'memory', transport.KINDS, 'Where experience passes through.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
_PICTURES = flags.DEFINE_boolean(
  'pictures', True, 'Draw the curve and film the policy.'
)

flags.mark_flag_as_required('config')


def main(argv: list[str]) -> int:
  """Runs, and returns the exit code."""
  app.no_arguments(argv)
  app.check_sections(_CONFIG.value)
  launch = session.Launch(_RUNTIME.value, _REPLAY.value)
  devices = _CONFIG.value.run.get('devices', 1)
  if launch.runtime == 'fused' and devices > 1:
    compiler.prepare_devices(devices)
  workdir = pathlib.Path(_WORKDIR.value)
  with farm(launch) as start:
    stop = app.stop_on_signals()
    finished = session.run(_CONFIG.value, launch, workdir, stop, start=start)
  if not finished:
    return app.INTERRUPTED
  if _PICTURES.value:
    app.exit_on_interrupt()
    policy.draw(workdir)
  return 0


@contextlib.contextmanager
def farm(launch: session.Launch) -> Iterator[crew.Start]:
  """Opens what starts the processes of a farm, if there are to be any."""
  every = launch.runtime == 'async' and launch.replay == 'reverb'
  server = launch.runtime != 'fused' and launch.replay == 'reverb_process'
  if not (every or server):
    yield crew.start_role
    return
  transport.check(launch.replay)  # imports Reverb, once for all
  if not nursery.possible():  # a config of the user's has computed
    yield crew.start_role
    return
  with nursery.opened() as workers:
    yield workers.start


if __name__ == '__main__':
  app.run(main)
