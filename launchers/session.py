"""One run, from its workdir to its summary, whatever the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import functools
import pathlib
import platform
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from armfarm.launchers import build
from armfarm.launchers import crew
from armfarm.launchers import guided
from armfarm.launchers import offpolicy
from armfarm.launchers import pairs
from armfarm.launchers import policy
from armfarm.launchers import runtimes
from armfarm.launchers import transport
from armfarm.launchers import workdir as workdirs
from armfarm.launchers.app import UserError
from armfarm.workers import bellman_updater
from armfarm.workers import pair
from armfarm.workers.checkpoints import Checkpoints
from armfarm.workers.checkpoints import write_json
from armfarm.workers.collector import Stop
from armfarm.workers.parameter_server import ParameterServer
from armfarm.workers.records import Progress
from armfarm.workers.records import ProgressLine
from armfarm.workers.records import Records
from armfarm.workers.supervisor import Supervisor
from armfarm.workers.trainer import Diverged

RUNTIMES = ('sync', 'async', 'fused')


class Launch(NamedTuple):
  """How a run is launched; it goes on the same way.

  Attributes:
    runtime: one of `RUNTIMES`.
    replay: one of `transport.KINDS`.
  """

  runtime: str
  replay: str


class Session(NamedTuple):
  """What a run consists of while it runs."""

  runtime: runtimes.Runtime
  supervisor: Supervisor
  checkpoints: Checkpoints
  records: Records
  progress: Progress


def run(
  config: ConfigDict,
  launch: Launch,
  workdir: pathlib.Path,
  stop: Stop,
  progress: Progress | None = None,
  start: crew.Start = crew.start_role,
) -> bool:
  """Runs until the config's end is reached, or until told to stop.

  Args:
    config: of the run.
    launch: how to run it.
    workdir: its folder; a run that is there goes on.
    stop: ends the run early, after a checkpoint.
    progress: where to show how it goes, by default a line on stderr.
    start: starts the farm's processes.

  Returns:
    Whether the run reached its end.

  Raises:
    UserError: the config, the folder or the learning went wrong.
  """
  parts = build.make_parts(config)
  if launch.runtime == 'fused':
    check_fused(parts, launch)
  transport.check(launch.replay)
  offpolicy.check_runtime(config, launch.runtime)
  offpolicy.check_log(config, workdir)
  taught = policy.taught(config, workdir)
  progress = progress or ProgressLine()
  with (
    workdirs.opened(workdir, config, launch._asdict()),
    opened(parts, launch, workdir, progress, start) as session,
    transport.lost_in_a_line(),
  ):
    if taught is not None:
      assert isinstance(session.runtime.trainer, ParameterServer)
      session.runtime.trainer.adopt(taught)
    try:
      session.supervisor.begin()
      session.runtime.run(session.supervisor, stop)
      session.supervisor.finish()
    except Diverged as error:
      raise UserError(f'{error}; {kept(workdir, session.checkpoints)}') from error
    finished = session.supervisor.done
    summary = summarize(config, launch, session.supervisor, finished)
    write_json(workdir / 'summary.json', summary)
  if finished:
    print(table(summary))
  else:
    print(f'Stopped at a checkpoint; the same command goes on with {workdir}.')
  return finished


def kept(workdir: pathlib.Path, checkpoints: Checkpoints) -> str:
  """Says what there is of a run that cannot go on."""
  if checkpoints.read() is None:
    return 'nothing was saved before'
  return f'what was learned before is in {workdir / "checkpoints"}'


def check_fused(parts: build.Parts, launch: Launch) -> None:
  """Raises UserError if the parts cannot be made one program."""
  if build.is_guided(parts.config):
    raise UserError('local controllers are improved on a CPU: take sync or async')
  if launch.replay != 'memory':
    raise UserError(
      f'--runtime=fused keeps experience on the device: leave out'
      f' --replay={launch.replay}'
    )
  build.fused_memory(parts)


@contextlib.contextmanager
def opened(
  parts: build.Parts,
  launch: Launch,
  workdir: pathlib.Path,
  progress: Progress,
  start: crew.Start,
) -> Iterator[Session]:
  """Puts a run together, and where it was before; takes it apart at the end."""
  offpolicy.claim_log(parts.config, workdir)
  checkpoints = Checkpoints(workdir / 'checkpoints', progress.note)
  checkpoints.clean()
  found = checkpoints.read()
  if found:
    checkpoints.go_back(found[0])
  elif any((workdir / 'checkpoints').iterdir()):
    raise UserError(
      f'{workdir} has no checkpoint that can be used: restore one, or choose another'
      ' --workdir'
    )
  position = found[1]['metrics_bytes'] if found else 0
  env_steps = found[1]['trainer']['counters']['env_steps'] if found else 0
  with contextlib.ExitStack() as stack:
    replay = stack.enter_context(transport.opened(launch.replay, parts, workdir, start))
    runtime = make_runtime(parts, launch, workdir, replay, progress, start)
    records = Records(workdir, position, env_steps)
    stack.callback(records.close)
    supervisor = Supervisor(
      runtime.trainer,
      build.supervisor_options(parts.config),
      submit=runtime.submit,
      arrays=runtime.arrays,
      checkpoints=checkpoints,
      records=records,
      progress=progress,
    )
    session = Session(runtime, supervisor, checkpoints, records, progress)
    if found:
      resume(session, *found)
    yield session


def make_runtime(
  parts: build.Parts,
  launch: Launch,
  workdir: pathlib.Path,
  replay: transport.Opened,
  progress: Progress,
  start: crew.Start,
) -> runtimes.Runtime:
  """Builds the runtime that a launch names."""
  is_guided = build.is_guided(parts.config)
  if launch.runtime == 'sync':
    sync = runtimes.GuidedSync if is_guided else runtimes.Sync
    return sync(parts, replay.replay)
  if launch.runtime == 'fused':
    progress.note('Compiling arms, replay and learner into one program.')
    return runtimes.Fused(parts)
  if is_guided:
    learner = runtimes.served(parts, replay.replay, replay.others[guided.GRADIENTS])
  elif offpolicy.cast(parts.config).updaters:
    learner = runtimes.labelled(parts, replay.replay, replay.others)
  else:
    rate = runtimes.paced if parts.config.run.pace else runtimes.limited
    learner = rate(parts, replay.replay)
  staff = make_crew(parts, workdir, replay, progress, start)
  return runtimes.Async(parts, learner, staff)


def make_crew(
  parts: build.Parts,
  workdir: pathlib.Path,
  replay: transport.Opened,
  progress: Progress,
  start: crew.Start,
) -> crew.Crew:
  """Builds who runs the collectors, or the pairs of guided policy search."""
  if replay.address is None:
    make = functools.partial(make_worker, parts, workdir, replay)
    return crew.ThreadCrew(make)
  if build.is_guided(parts.config):
    role, margin = _pair, 1
  else:
    blocks = parts.config.replay.max_blocks + 8
    role = offpolicy.cast(parts.config).role
    margin = blocks * parts.config.run.block_steps
  return crew.ProcessCrew(
    role, workdir, replay.address, margin, progress.note, replay.check, start
  )


def make_worker(
  parts: build.Parts,
  workdir: pathlib.Path,
  replay: transport.Opened,
  number: int,
  first: int,
) -> Callable[[Stop], None]:
  """Builds a worker that is a thread here; returns what it does until it is to stop."""
  others = replay.others
  if build.is_guided(parts.config):
    seams = pair.Seams(replay.replay, others[guided.GRADIENTS])
    return pairs.make_pair(parts, seams, workdir, number, first).run
  role = offpolicy.cast(parts.config).role(number)
  if role == 'log_replay':
    source = others[offpolicy.OFFLINE]
    return offpolicy.make_log_replay(parts, source, number, first).run
  if role == 'bellman_updater':
    raw = offpolicy.cast(parts.config).raw_of(number)
    queues = others[raw], others[offpolicy.TRAIN]
    to_replay = bellman_updater.Seams(replay.replay, *queues)
    return offpolicy.make_updater(parts, to_replay, number, first).run
  return build.make_collector(parts, replay.replay, number, first).run


def _pair(number: int) -> str:
  del number  # every worker of guided policy search is one
  return 'pair'


def resume(session: Session, path: pathlib.Path, progress: dict[str, Any]) -> None:
  """Goes on from a checkpoint."""
  runtime, supervisor = session.runtime, session.supervisor
  try:
    arrays = session.checkpoints.tree(path, 'run', runtime.arrays())
    runtime.restore(arrays, progress)
    acting = session.checkpoints.tree(path, 'policy', runtime.trainer.variables())
    supervisor.restore(progress, acting)
  except (ValueError, TypeError, KeyError) as error:
    raise UserError(
      f'{path} does not fit the config ({error}): give the config it was made with, or'
      ' another --workdir'
    ) from error
  counters = runtime.trainer.counters
  session.progress.note(
    f'Going on at episode {counters.episodes}, {counters.updates} updates.'
  )


def summarize(
  config: ConfigDict, launch: Launch, supervisor: Supervisor, finished: bool
) -> dict[str, Any]:
  """Returns what `summary.json` holds."""
  return {
    'finished': finished,
    'task': config.task.get('id', config.task.name),
    'agent': config.agent.name,
    'seed': config.seed,
    **launch._asdict(),
    'collectors': config.run.collectors,
    **supervisor.summary(),
    'jax': jax.__version__,
    'python': platform.python_version(),
    'platform': jax.default_backend(),
  }


def table(summary: dict[str, Any]) -> str:
  """Returns the outcome as lines for people."""
  seconds = summary['wall_s_to_100']
  episodes = {
    name: 'not reached' if summary[name] is None else str(summary[name])
    for name in ('episodes_to_100', 'episodes_to_100_paper')
  }
  rows = {
    'task, agent': f'{summary["task"]}, {summary["agent"]}',
    'success, held-out episodes': f'{100 * summary["success"]:.0f} %',
    'return': f'{summary["return"]:.2f}',
    'episodes to 100 %': episodes['episodes_to_100'],
    "episodes to 100 %, paper's criterion": episodes['episodes_to_100_paper'],
    'training to 100 %': 'not reached' if seconds is None else f'{seconds:.1f} s',
    'updates, steps': f'{summary["updates"]}, {summary["env_steps"]}',
    'updates/s, steps/s': (
      f'{summary["updates_per_s"]:.0f}, {summary["env_steps_per_s"]:.0f}'
    ),
  }
  width = max(map(len, rows))
  return '\n'.join(f'  {name.ljust(width)}  {value}' for name, value in rows.items())
