"""Launchers as processes, without their seconds of imports, and what they left behind.

Runs here are as small as runs can be: short episodes, tiny networks, few targets.
"""

import contextlib
import copy
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import zlib

import orbax.checkpoint as ocp
import pytest

from armfarm.agents.types import Spec
from armfarm.replay import types

_FOLDER = pathlib.Path(__file__).parent
_LIMIT = 240.0  # s that anything may take: machines are slow, but not dead
_SPEC = Spec(observation_size=20, action_size=7)  # of reach
_SMALL = {
  'task.episode_steps': 30,
  'agent.hidden': '(8,8)',
  'replay.capacity': 5000,
  'replay.batch_size': 16,
  'run.warmup_steps': 100,
  'run.publish_every': 10,
  'run.evaluate_every': 5,
  'run.held_out_episodes': 3,
  'run.fresh_episodes': 2,
  'run.checkpoint_every': 100,
  'run.max_episodes': 10,
}


def wait_for(condition, what):
  """Polls until a condition is truthy; returns its value."""
  deadline = time.monotonic() + _LIMIT
  while not (found := condition()):
    assert time.monotonic() < deadline, f'waited {_LIMIT:.0f} s for {what}'
    time.sleep(0.005)
  return found


class Process:
  """A launcher that was started.

  Attributes:
    pid: process id.
  """

  def __init__(self, pid, log):
    self.pid = pid
    self._log = log

  def signal(self, number):
    """Sends a signal."""
    os.kill(self.pid, number)

  def kill(self):
    """Ends it at once, and waits until it is gone."""
    self.signal(signal.SIGKILL)
    assert self.wait() == -signal.SIGKILL, 'it had ended by itself: ' + self.err

  @property
  def code(self):
    """Its exit code, or None while it runs."""
    path = pathlib.Path(self._log + '.code')
    return int(path.read_text()) if path.exists() else None

  def wait(self):
    """Waits for its end; returns its exit code."""
    wait_for(lambda: self.code is not None, f'process {self.pid} to end')
    return self.code

  @property
  def out(self):
    """What it wrote to stdout."""
    return pathlib.Path(self._log + '.out').read_text()

  @property
  def err(self):
    """What it wrote to stderr."""
    return pathlib.Path(self._log + '.err').read_text()

  @property
  def err_line(self):
    """The last line that is its own; Reverb's begin with a bracket."""
    return [x for x in self.err.splitlines() if not x.startswith('[')][-1]


class Farm:
  """Starts launchers."""

  wait_for = staticmethod(wait_for)

  def __init__(self, folder):
    self._folder = folder
    self._logs = itertools.count()
    self._unset = []
    shared = {
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
      'OPENBLAS_NUM_THREADS': '1',
    }
    self._zygote = subprocess.Popen(
      [sys.executable, str(_FOLDER / 'zygote.py')],
      env={**os.environ, **shared},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def start(self, *arguments, module='local', folder='/', environment=None):
    """Starts a launcher with the arguments as they are."""
    log = str(self._folder / f'{next(self._logs):03d}')
    request = {
      'module': f'armfarm.launchers.{module}',
      'arguments': [str(argument) for argument in arguments],
      'folder': str(folder),
      'log': log,
      'environment': environment or {},
      'unset': self._unset,
    }
    self._zygote.stdin.write(json.dumps(request) + '\n')
    self._zygote.stdin.flush()
    return Process(int(self._zygote.stdout.readline()), log)

  def launch(self, workdir, *arguments, config='configs/naf.py:reach', **numbers):
    """Starts a small run; `run__pace=1` overrides `run.pace`."""
    numbers = {name.replace('__', '.'): x for name, x in numbers.items()}
    overrides = [f'--config.{name}={x}' for name, x in {**_SMALL, **numbers}.items()]
    flags = [f'--config={config}', '--nopictures', f'--workdir={workdir}']
    return self.start(*flags, *overrides, *arguments)

  def run(self, workdir, *arguments, **numbers):
    """As `launch`, and waits for its good end."""
    process = self.launch(workdir, *arguments, **numbers)
    assert process.wait() == 0, process.err
    return process

  def unmeasured(self, environment):
    """Returns it for lines that other tests measure, with less in the environment."""
    twin = copy.copy(self)
    twin._unset = sorted(set(os.environ) - set(environment))
    return twin

  def close(self):
    """Ends everything that still runs."""
    self._zygote.communicate()


class Left:
  """What a run left in its workdir."""

  def __init__(self, workdir):
    self.workdir = workdir

  def checkpoints(self):
    """Returns the paths of the committed checkpoints, the oldest first."""
    return sorted(
      path.parent for path in self.workdir.glob('checkpoints/*/manifest.json')
    )

  def unfinished(self):
    """Returns the paths of the checkpoints without a manifest."""
    return set(self.workdir.glob('checkpoints/*')) - set(self.checkpoints())

  def progress(self):
    """Returns the progress in the newest manifest."""
    return json.loads((self.checkpoints()[-1] / 'manifest.json').read_text())[
      'progress'
    ]

  def counters(self):
    """Returns the counters in the newest manifest; zeros before there is one."""
    if not self.checkpoints():
      return {'env_steps': 0, 'updates': 0, 'episodes': 0}
    return self.progress()['trainer']['counters']

  def tree(self):
    """Returns the arrays of the newest checkpoint as nested dicts."""
    return ocp.StandardCheckpointer().restore(self.checkpoints()[-1].absolute() / 'run')

  def whole(self):
    """Returns whether every file of the newest checkpoint is as its manifest says."""
    path = self.checkpoints()[-1]
    files = json.loads((path / 'manifest.json').read_text())['files']
    contents = {name: (path / name).read_bytes() for name in files}
    found = {name: [len(x), zlib.crc32(x)] for name, x in contents.items()}
    return bool(files) and found == files

  def origins(self):
    """Returns the origins of the items in memory, the oldest first."""
    memory = self.tree()['trainer']['memory']
    rows = memory['rows']['origin']['int32']
    assert memory['added'] <= len(rows)
    origin = types.Origin(*rows[: memory['added']].T)
    return list(zip(*(column.tolist() for column in origin), strict=True))

  def processes(self, role='collector'):
    """Returns the ids of the processes of one role that run for it."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
      try:
        words = path.read_bytes().decode().replace('\0', ' ').split()
      except OSError:
        continue  # it has ended meanwhile
      if {f'--workdir={self.workdir}', f'armfarm.launchers.{role}'} <= set(words):
        found.append(int(path.parent.name))
    return found

  def rows(self, kind=None):
    """Returns the rows of metrics.jsonl, of one kind or all."""
    path = self.workdir / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith('\n')]
    return [row for row in rows if kind in (None, row['kind'])]

  def read(self, name):
    """Returns a JSON file."""
    return json.loads((self.workdir / name).read_text())


@pytest.fixture(scope='session')
def one_farm(tmp_path_factory):
  with contextlib.closing(Farm(tmp_path_factory.mktemp('farm'))) as farm:
    yield farm


@pytest.fixture(scope='session')
def farm(one_farm):
  return one_farm


@pytest.fixture(scope='session')
def unmeasured_farm(one_farm, unmeasured):
  return one_farm.unmeasured(unmeasured)


@pytest.fixture
def left(tmp_path):
  """Makes a `Left` of a name."""
  return lambda name='run': Left(tmp_path / name)
