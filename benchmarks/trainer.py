"""How much of the bare update's speed the trainer keeps.

  python benchmarks/trainer.py

Prints updates per second of the trainer's loop, fed through replay as in a run, by a
thread in memory and by a process over Reverb, with sampling, publishing and metrics; of
the same updates bare in a scan, their minibatches given; and of the replay memory's
sampler alone. The ratio is the trainer's rate over the smaller of the two others. All
take turns in one process, round by round, so that a change of the machine's speed meets
them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import functools
import itertools
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.configs import naf
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import build
from armfarm.launchers import transport
from armfarm.launchers.crew import Threads
from armfarm.replay import ring
from armfarm.replay import types
from armfarm.workers.collector import Stop
from armfarm.workers.trainer import Trainer

_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Rounds; the medians are printed.')
_FEED = flags.DEFINE_string('feed', '', 'Only feed the Reverb server at this address.')
_UPDATES = flags.DEFINE_integer('updates', 1000, 'Updates in a round.')


def blocks(parts: build.Parts) -> Any:
  """Yields blocks of random steps, in episodes as long as the task's."""
  rng = np.random.default_rng(0)
  length, steps = parts.config.run.block_steps, parts.task.episode_steps
  for start in itertools.count(0, length):
    at = start + np.arange(length)
    items = jax.tree.map(
      lambda x: rng.normal(size=(length, *x.shape)).astype(x.dtype), parts.item
    )
    step = (at % steps).astype(np.int32)
    transition = items.transition._replace(
      discount=np.ones(length, np.float32),
      truncation=(step == steps - 1).astype(np.float32),
    )
    episode = (at // steps).astype(np.int32)
    origin = types.Origin(np.zeros(length, np.int32), episode, step)
    yield types.Block(
      types.Item(transition, origin),
      version=np.ones(length, np.int32),
      age=np.zeros(length, np.float32),
      success=np.zeros(length, bool),
    )


def feed(parts: build.Parts, replay: types.Replay, stop: Stop) -> None:
  """Writes blocks as a collector does, as fast as there is room."""
  writer = replay.writer()
  source = blocks(parts)
  while not stop.is_set():
    if writer.flush(0.1):
      writer.insert(next(source))
  writer.close()


@contextlib.contextmanager
def feeder(parts: build.Parts, opened: transport.Opened) -> Iterator[None]:
  """Feeds replay as a run does: from a thread in memory, from a process over Reverb."""
  if opened.address is None:
    with Threads() as threads:
      threads.start('feeder', functools.partial(feed, parts, opened.replay))
      yield
    return
  process = subprocess.Popen([sys.executable, __file__, f'--feed={opened.address}'])
  try:
    yield
  finally:
    process.kill()
    process.wait()


class Loop:
  """The trainer as a run has it, fed through replay."""

  def __init__(self, parts: build.Parts, replay: types.Replay):
    self._trainer: Trainer = build.make_trainer(parts, replay)
    self._replay = replay

  def run(self, updates: int) -> None:
    """Takes blocks until so many updates are made."""
    until = self._trainer.counters.updates + updates
    while self._trainer.counters.updates < until:
      block = self._replay.take(10.0)
      assert block is not None
      self._trainer.advance(block)
    self._trainer.metrics()


def bare_update(parts: build.Parts) -> Callable[[int], None]:
  """Returns a function that makes updates on given minibatches, in scans."""
  per_call = build.trainer_options(parts.config).updates_per_call
  batch = parts.config.replay.batch_size
  rng = np.random.default_rng(0)
  batches = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=(per_call, batch, *x.shape)), x.dtype),
    parts.item.transition,
  )

  def scan(learner: Any, key: Any) -> Any:
    keys = jax.random.split(key, per_call)
    return jax.lax.scan(
      lambda s, x: parts.agent.update(s, *x), learner, (batches, keys)
    )

  compiled = jax.jit(scan, donate_argnums=0)
  learner, keys = jax.jit(parts.agent.init)(jax.random.key(0)), jax.random.key(1)
  state = [learner]

  def run(updates: int) -> None:
    for _ in range(updates // per_call):
      state[0], metrics = compiled(state[0], keys)
    jax.block_until_ready(metrics)

  return run


def bare_sampler(parts: build.Parts) -> Callable[[int], None]:
  """Returns a function that draws minibatches from a full memory, as many in a call."""
  per_call = build.trainer_options(parts.config).updates_per_call
  memory = ring.Ring(parts.item, parts.config.replay.capacity, seed=0)
  source = blocks(parts)
  while len(memory) < parts.config.replay.capacity:
    memory.add(next(source).items)

  def run(updates: int) -> None:
    for _ in range(updates // per_call):
      memory.sample(per_call * parts.config.replay.batch_size)

  return run


def rates(
  functions: dict[str, Callable[[int], None]], updates: int, rounds: int
) -> dict[str, list[float]]:
  """Times functions in turn; returns the updates per second of each round."""
  found: dict[str, list[float]] = {name: [] for name in functions}
  for _, (name, run) in itertools.product(range(rounds + 1), functions.items()):
    began = time.perf_counter()
    run(updates)
    found[name].append(updates / (time.perf_counter() - began))
  return {name: values[1:] for name, values in found.items()}  # the first compiles


def compare(kind: str, parts: build.Parts) -> dict[str, float]:
  """Returns the rates with one kind of replay, updates/s, and their ratio."""
  with (
    tempfile.TemporaryDirectory() as folder,
    transport.opened(kind, parts, pathlib.Path(folder)) as opened,
    feeder(parts, opened),
  ):
    functions = {
      'trainer_rate': Loop(parts, opened.replay).run,
      'update_rate': bare_update(parts),
      'sampler_rate': bare_sampler(parts),
    }
    found = rates(functions, _UPDATES.value, _ROUNDS.value)
  ceilings = map(min, found['update_rate'], found['sampler_rate'])
  pairs = zip(found['trainer_rate'], ceilings, strict=True)
  ratio = statistics.median(own / ceiling for own, ceiling in pairs)
  return {name: statistics.median(x) for name, x in found.items()} | {'ratio': ratio}


def main(argv: list[str]) -> None:
  """Prints a line for each kind of replay, and records the numbers."""
  del argv
  config = naf.get_config('reach')
  config.run.warmup_steps = config.run.block_steps
  parts = build.make_parts(config)
  if _FEED.value:
    reverb_replay, shapes = transport.load_reverb(), transport.templates(parts)
    replay = reverb_replay.ReverbReplay(_FEED.value, shapes)
    return feed(parts, replay, threading.Event())
  source = rows.Source('python benchmarks/trainer.py', rows.commit(), rows.machine())
  for kind in ('memory', 'reverb'):
    found = compare(kind, parts)
    print(kind, ', '.join(f'{name} {value:,.2f}' for name, value in found.items()))
    rows.merge(
      results.folder(),
      [
        rows.Row('trainer', 'reach', 'naf', kind, 0, *row, None, *source)
        for row in ((name, round(x, 3), _unit(name)) for name, x in found.items())
      ],
    )


def _unit(name: str) -> str:
  return '' if name == 'ratio' else 'updates/s'


if __name__ == '__main__':
  app.run(main)
