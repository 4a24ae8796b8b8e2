"""The workers of guided policy search, from the parts of a run."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import functools
import os
import pathlib
import time
from typing import IO, Any

import jax

from armfarm.agents.gps import agent as gps
from armfarm.launchers import app
from armfarm.launchers import build
from armfarm.launchers import guided
from armfarm.launchers.app import UserError
from armfarm.replay import types
from armfarm.workers import pair
from armfarm.workers.checkpoints import Checkpoints
from armfarm.workers.collector import Stop
from armfarm.workers.global_worker import GlobalWorker
from armfarm.workers.lessons import Memory
from armfarm.workers.local_worker import LocalWorker
from armfarm.workers.parameter_server import ParameterServer

_LOOK = 0.1  # s between two looks at whether it is one's turn


def make_server(parts: build.Parts, replay: types.Replay) -> ParameterServer:
  """Builds the parameter server."""
  every = parts.config.run.publish_every
  return ParameterServer(parts.agent, replay, every, parts.keys.trainer)


def pid_path(workdir: pathlib.Path, number: int) -> pathlib.Path:
  """Returns the file that tells the process id of a pair; its folder is made."""
  folder = workdir / 'pairs'
  folder.mkdir(exist_ok=True)
  return folder / f'{number:02d}.pid'


def share_compiled(folder: pathlib.Path) -> None:
  """Has JAX keep what it compiles for the pairs that come later, unless it does."""
  if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  jax.config.update('jax_compilation_cache_dir', str(folder.absolute() / 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


@contextlib.contextmanager
def turn_to_compile(workdir: pathlib.Path, stop: Stop) -> Iterator[None]:
  """Lets one pair of a run go first: those that wait load what it has compiled.

  Args:
    workdir: of the run; the pid of a pair is there.
    stop: ends the wait. So does the end of who is waited for, however it came.
  """
  with (workdir / 'pairs' / 'compiling').open('w') as file:
    first = _locked(file, fcntl.LOCK_EX)
    while not (first or stop.is_set() or _locked(file, fcntl.LOCK_SH)):
      time.sleep(_LOOK)
    yield


def _locked(file: IO[str], kind: int) -> bool:
  try:
    fcntl.flock(file, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def make_local(
  parts: build.Parts, memory: Memory, number: int, first: int = 0
) -> LocalWorker:
  """Builds a local worker; `first` is its first instance in the memory."""
  config = parts.config
  robot = guided.make_robot(config, parts.own_task, number, first)
  key = jax.random.clone(parts.keys.collectors)
  options = guided.local_options(config)
  return LocalWorker(parts.agent, options, robot, memory, key)


def make_locals(parts: build.Parts, memory: Memory) -> list[LocalWorker]:
  """Builds the local workers of all robots, which share a memory."""
  share = guided.share_of(parts.config)
  numbers = range(parts.config.run.collectors)
  return [make_local(parts, memory, number, number * share) for number in numbers]


def make_pair(
  parts: build.Parts, seams: pair.Seams, workdir: pathlib.Path, number: int, first: int
) -> pair.Pair:
  """Builds a pair, as it was when it last saved itself, and ready.

  Args:
    parts: of the run.
    seams: to the parameter server.
    workdir: of the run; the pair saves itself there.
    number: of the robot.
    first: number of its first rollout, at least.
  """
  config, agent = parts.config, parts.agent
  memory = guided.make_memory(config, parts.own_task, robots=1)
  local = make_local(parts, memory, number)
  key = jax.random.fold_in(parts.keys.collectors, config.run.collectors)
  teacher = GlobalWorker(agent, memory, config.replay.batch_size, number, key)
  gradients_per_s = config.run.gradients_per_s * (config.run.pace or 1.0)
  kept = Checkpoints(workdir / 'pairs' / f'{number:02d}', app.note)
  save = functools.partial(_save, kept)
  made = pair.Pair(local, teacher, memory, seams, gradients_per_s, save)
  _restore(made, kept)
  made.skip_to(first)
  learner = jax.jit(agent.init)(jax.random.key(0))
  made.prepare(gps.portable(learner))
  return made


def _save(kept: Checkpoints, state: dict[str, Any]) -> None:
  kept.save(int(state['local']['episode']), {'pair': state}, {})


def _restore(made: pair.Pair, kept: Checkpoints) -> None:
  kept.clean()
  found = kept.read()
  if found is None:
    return
  path, _ = found
  try:
    made.restore(kept.tree(path, 'pair', made.state()))
  except (ValueError, TypeError, KeyError) as error:
    raise UserError(f'{path} does not fit the config ({error}): remove it') from error
