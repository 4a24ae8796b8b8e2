"""Logs, log replay and Bellman updaters, from the parts of a run.

A config says with `log` where episodes are recorded and which are replayed, with
`labels` who computes targets, and with `joint` how experience is mixed. Workers have
numbers: collectors first, then jobs of log replay, then Bellman updaters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import importlib.util
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from ml_collections import ConfigDict
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.agents.qtopt import actions
from armfarm.agents.qtopt import scripted
from armfarm.agents.qtopt import supervised
from armfarm.launchers import app
from armfarm.launchers import guided
from armfarm.launchers.app import UserError
from armfarm.replay import ring
from armfarm.replay import types
from armfarm.replay.parts import Parts as MemoryParts
from armfarm.workers import bellman_updater
from armfarm.workers import experience
from armfarm.workers import hindsight
from armfarm.workers import joint
from armfarm.workers import trainer
from armfarm.workers.checkpoints import write_json
from armfarm.workers.labelled_trainer import LabelledTrainer
from armfarm.workers.labelled_trainer import Sources

if TYPE_CHECKING:
  from armfarm.envs.foreign import Foreign
  from armfarm.envs.task import Task
  from armfarm.launchers.build import Parts
  from armfarm.workers.log_replay import LogReplay

_LIBRARIES = ('array_record', 'grain')
_OWNER = 'run.json'  # in the folder of a log
OFFLINE, TRAIN = 'offline', 'train'  # queues beside `online` and those of updaters


class Cast(NamedTuple):
  """How many workers there are of each kind."""

  collectors: int
  jobs: int
  updaters: int

  def role(self, number: int) -> str:
    """Returns the launcher that a worker of this number is."""
    if number < self.collectors:
      return 'collector'
    if number < self.collectors + self.jobs:
      return 'log_replay'
    return 'bellman_updater'

  @property
  def first_job(self) -> int:
    """The number of the first job of log replay."""
    return self.collectors

  @property
  def first_updater(self) -> int:
    """The number of the first Bellman updater."""
    return self.collectors + self.jobs

  @property
  def everyone(self) -> int:
    """How many there are in all."""
    return self.collectors + self.jobs + self.updaters

  @property
  def queues(self) -> list[str]:
    """The queues that they need, beside `online`."""
    return [OFFLINE] * bool(self.jobs) + [*self.raw, TRAIN] * bool(self.updaters)

  @property
  def raw(self) -> list[str]:
    """The queue to each Bellman updater."""
    return [f'raw-{place}' for place in range(self.updaters)]

  def raw_of(self, number: int) -> str:
    """Returns the queue to the Bellman updater of this number."""
    return self.raw[number - self.first_updater]


def cast(config: ConfigDict) -> Cast:
  """Returns who works in a run."""
  jobs = config.log.jobs if folders(config) else 0
  updaters = config.labels.updaters if 'labels' in config else 0
  return Cast(config.run.collectors, jobs, updaters)


def folders(config: ConfigDict) -> list[pathlib.Path]:
  """Returns the folders of the logs that are replayed."""
  names = config.log.replay if 'log' in config else ''
  return [pathlib.Path(name) for name in names.split(',') if name]


def offline_updates(config: ConfigDict) -> int:
  """Returns how many updates are made before collectors begin."""
  return config.joint.offline_updates if 'joint' in config else 0


def check(config: ConfigDict) -> None:
  """Raises ValueError unless logs are there, and the numbers fit each other."""
  logs = bool(folders(config) or log_folder(config))
  if logs and not all(map(importlib.util.find_spec, _LIBRARIES)):
    names = ' and '.join(_LIBRARIES)
    raise ValueError(f"a log needs {names}: pip install 'armfarm[log]'")
  for folder in folders(config):
    if not folder.is_dir():
      raise ValueError(f'log.replay is {folder}, which is no folder: give one of a log')
  if cast(config).updaters and config.labels.batch > config.replay.capacity:
    raise ValueError(
      f'replay.capacity is {config.replay.capacity} and labels.batch is'
      f' {config.labels.batch}: use a capacity of at least that'
    )
  if config.agent.name == 'supervised' and cast(config).updaters:
    raise ValueError('the baseline has no labels to compute: give labels.updaters=0')
  if 'joint' in config:
    joint.check(ramp(config), balancer(config))
    if config.joint.offline_updates and not folders(config):
      raise ValueError(
        f'joint.offline_updates is {config.joint.offline_updates}: give log.replay, too'
      )


def check_runtime(config: ConfigDict, runtime: str) -> None:
  """Raises UserError if a runtime has no place for what the config asks for."""
  if runtime == 'fused' and (folders(config) or log_folder(config)):
    raise UserError('--runtime=fused has no log: take sync or async')
  updaters = cast(config).updaters
  if runtime != 'async' and updaters:
    raise UserError(
      f'labels.updaters is {updaters}, and --runtime={runtime} has none: take async, or'
      ' give 0'
    )
  if runtime == 'async' and folders(config) and not updaters:
    raise UserError(
      '--runtime=async replays a log for Bellman updaters: give'
      ' labels.updaters, 1 or more, or take sync'
    )


def ramp(config: ConfigDict) -> joint.Ramp:
  """Returns the share of on-policy examples."""
  numbers = config.joint
  return joint.Ramp(numbers.start, numbers.end, numbers.updates)


def balancer(config: ConfigDict) -> joint.Balancer:
  """Returns how many updates a transition is worth."""
  return joint.Balancer(*config.joint.balance)


def with_script(
  config: ConfigDict, agent: agent_types.Agent, task: Task | Foreign
) -> agent_types.Agent:
  """Returns the agent of a config whose first experience is the scripted policy's.

  Raises:
    TypeError: a number is missing, or is none of its.
    ValueError: the action is not one that it can take.
  """
  own = config.agent.get('critic', config.agent)
  layout = actions.layout(task.action_size, own.angles, tuple(own.commands))
  options = guided.fill(scripted.Options, config.scripted.to_dict())
  end = scripted.End(config.run.scripted_updates, config.run.scripted_success)
  return scripted.begins(agent, layout, options, end)


# What travels.


def raw_template(item: types.Item, batch: int) -> types.Work:
  """Returns work for an updater, zeros, with the shapes and types that travel."""
  items = _rows(item.transition, batch)
  number = np.zeros(batch, np.int32)
  return types.Work(number, items, number, number)


def label_template(agent: Any, item: types.Item) -> types.Labelled:
  """Returns one labelled transition, zeros, with the shapes and types that travel."""
  key = jax.random.key(0)
  learner = jax.eval_shape(agent.init, key)
  variables = jax.eval_shape(agent.variables, learner)
  transitions = _rows(item.transition, 1)
  examples, _ = jax.eval_shape(agent.label, variables, (), transitions, key)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), examples)
  return types.Labelled(zeros, np.int32(0))


def queues(parts: Parts, block: types.Block) -> dict[str, Any]:
  """Returns what travels beside `online`, zeros, by queue."""
  who = cast(parts.config)
  found: dict[str, Any] = {}
  if who.jobs:
    found[OFFLINE] = block
  if who.updaters:
    batch = parts.config.labels.batch
    work = raw_template(parts.item, batch)
    labelled = _rows(label_template(parts.agent, parts.item), batch)
    found |= dict.fromkeys(who.raw, work)
    found[TRAIN] = work._replace(items=labelled)
  return found


def _rows(tree: Any, count: int) -> Any:
  return jax.tree.map(lambda x: np.zeros((count, *np.shape(x)), x.dtype), tree)


# Who works.


def make_updater(
  parts: Parts, seams: bellman_updater.Seams, number: int, first: int
) -> bellman_updater.BellmanUpdater:
  """Builds a Bellman updater.

  Args:
    parts: of the run.
    seams: to replay.
    number: of this worker.
    first: number of its first batch.
  """
  who = cast(parts.config)
  place = number - who.first_updater
  beat = bellman_updater.staggered(parts.config.labels.period, place, who.updaters)
  key = jax.random.fold_in(parts.keys.trainer, who.first_updater)
  return bellman_updater.BellmanUpdater(
    parts.agent, seams, beat, number=number, key=key, first=first
  )


def make_log_replay(
  parts: Parts, replay: types.Replay, number: int, first: int = 0
) -> LogReplay:
  """Builds a job of log replay.

  Args:
    parts: of the run.
    replay: the queue that it feeds.
    number: of this worker.
    first: number of its first visit.

  Raises:
    UserError: the log has no episode that can be read.
  """
  from armfarm.workers import log_replay  # grain takes seconds to import

  config, who = parts.config, cast(parts.config)
  block = types.block_template(parts.item, 1)
  try:
    episodes = log_replay.Episodes(
      folders(config),
      jax.tree.map(lambda x: x[0], block),
      seed=config.seed,
      job=number - who.first_job,
      jobs=who.jobs,
      first=first,
      note=app.note,
    )
  except log_replay.NothingToReplay as error:
    raise UserError(f'{error}: give log.replay the folder of a log') from error
  return log_replay.LogReplay(episodes, replay, config.run.block_steps, number)


def logged(config: ConfigDict, replay: types.Replay, number: int) -> types.Replay:
  """Returns replay for a collector, which logs what passes if that is asked for."""
  folder = log_folder(config)
  if folder is None:
    return replay
  from armfarm.replay import log  # may not be installed

  return log.LoggedReplay(replay, log.EpisodeLog(folder, number))


def check_log(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Raises UserError if what a run is to log belongs to another run.

  Episodes have numbers of their run, and two runs would take each other's for theirs.
  """
  folder = log_folder(config)
  if folder is None or not (folder / _OWNER).exists():
    return
  try:
    found = json.loads((folder / _OWNER).read_text())['workdir']
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f'log.record is {folder}, {error}: choose another') from error
  if found != os.path.relpath(workdir, folder):
    raise UserError(
      f'log.record is {folder}, which is the log of {folder / found}: choose another'
    )


def claim_log(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Makes the folder of a run's log, and notes whose it is.

  Raises:
    UserError: it cannot be made.
  """
  folder = log_folder(config)
  if folder is None:
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _OWNER, {'workdir': os.path.relpath(workdir, folder)})
  except OSError as error:
    raise UserError(
      f'log.record is {folder}, which cannot be written ({error.strerror}): choose'
      ' another'
    ) from error


def log_folder(config: ConfigDict) -> pathlib.Path | None:
  """Returns where a run logs, None where it does not."""
  folder = config.log.record if 'log' in config else ''
  return pathlib.Path(folder) if folder else None


# What is remembered.


def capacities(config: ConfigDict) -> dict[str, int]:
  """Returns how many transitions each part of a memory keeps."""
  capacity = config.replay.capacity
  jobs = cast(config).jobs
  return {experience.ONLINE: capacity, experience.OFFLINE: capacity if jobs else 1}


def make_memory(parts: Parts) -> types.Memory:
  """Builds the memory of a trainer that labels for itself."""
  config, who = parts.config, cast(parts.config)
  tells = config.agent.name == 'supervised'
  model = baseline(parts) if tells else None
  item = told_template(parts.item, model) if model else parts.item
  memory: types.Memory
  if who.jobs:
    memory = make_mixture(parts, item, config.seed)
  else:
    memory = ring.Ring(item, config.replay.capacity, config.seed)
  if model is None:
    return memory
  return hindsight.Hindsight(
    memory,
    jax.jit(functools.partial(supervised.hindsight, model)),
    parts.item,
    collectors=who.first_updater,
    episode_steps=parts.task.episode_steps,
  )


def baseline(parts: Parts) -> supervised.Model:
  """Builds what tells the supervised baseline of episodes."""
  numbers = parts.config.agent.to_dict()
  del numbers['name']
  spec = agent_types.Spec(parts.task.observation_size, parts.task.action_size)
  return supervised.build(spec, guided.fill(supervised.Config, numbers))


def told_template(item: types.Item, model: supervised.Model) -> types.Item:
  """Returns an item with a way in place of its action."""
  way = np.zeros(model.critic.spec.action_size, np.float32)
  return item._replace(transition=item.transition._replace(action=way))


def make_mixture(parts: Parts, item: Any, seed: int) -> experience.Mixture:
  """Builds a memory of two parts, of whatever items."""
  config = parts.config
  options = experience.Options(
    ramp(config),
    config.joint.offline_updates,
    config.replay.batch_size,
    config.run.collectors,
  )
  return experience.Mixture(MemoryParts(item, capacities(config), seed), options)


def make_labelling(
  parts: Parts, work: Sequence[types.Replay], train: types.Replay
) -> experience.Labelling:
  """Builds the memory that Bellman updaters label.

  Args:
    parts: of the run.
    work: the queues to the updaters.
    train: the queue from them.
  """
  config = parts.config
  labelled = label_template(parts.agent, parts.item)
  return experience.Labelling(
    MemoryParts(parts.item, capacities(config), config.seed + 1),
    make_mixture(parts, labelled, config.seed),
    work=work,
    train=train,
    batch=config.labels.batch,
    uses=config.labels.uses,
  )


def make_trainer(
  parts: Parts,
  options: trainer.Options,
  online: types.Replay,
  others: Mapping[str, types.Replay],
) -> LabelledTrainer:
  """Builds the trainer of a farm with Bellman updaters.

  Args:
    parts: of the run.
    options: of the trainer.
    online: the queue of the collectors, and the variables.
    others: the other queues, by name.
  """
  config = parts.config
  work = [others[name] for name in cast(config).raw]
  memory = make_labelling(parts, work, others[TRAIN])
  learns = parts.agent._replace(label=agent_types.identity)  # it takes labelled ones
  replayed = others.get(OFFLINE)
  return LabelledTrainer(
    trainer.Trainer(learns, memory, online, options, parts.keys.trainer),
    memory,
    Sources(online, replayed),
    balancer(config),
    offline_updates=config.joint.offline_updates,
    free_transitions=0 if replayed else options.warmup_steps,
    batch_size=options.batch_size,
  )
