"""How much of MuJoCo's own speed the bodies of a task keep.

  python benchmarks/bodies.py

  mjx     a control step of 1,024 instances, observation and reward included, against
          `mjx.step` alone in a scan
  native  a control step of 64 instances on one thread against `mujoco.batch` alone;
          native_door is the same of a door task
  trap    a control step of 64 instances on MJX in updates of NAF, which no compiler
          should make many: JAX 0.7.1 to 0.10 do without `envs/compiler.py`
  replay  blocks a second through each replay, from a thread to this one

Each pair takes turns in one process, round by round, so that a change of the machine's
speed meets both alike.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import itertools
import pathlib
import statistics
import tempfile
import time
from typing import Any, NamedTuple

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
from mujoco import batch as mujoco_batch
import numpy as np

from armfarm.configs import naf
from armfarm.envs import compiler
from armfarm.envs import host
from armfarm.envs import mjx
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import build
from armfarm.launchers import transport
from armfarm.launchers.crew import Threads
from armfarm.replay import types
from armfarm.workers.collector import Stop

_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Rounds; the medians are printed.')
_MANY, _SOME = 1024, 64
_STEPS = 150  # in a native round

Timed = Callable[[], None]


class Number(NamedTuple):
  """What was measured of a task."""

  task: str
  variant: str
  metric: str
  value: float
  unit: str


def seconds(functions: dict[str, Timed]) -> dict[str, list[float]]:
  """Times functions in turn; returns the seconds of each round."""
  found: dict[str, list[float]] = {name: [] for name in functions}
  for _, (name, run) in itertools.product(range(_ROUNDS.value + 1), functions.items()):
    began = time.perf_counter()
    run()
    found[name].append(time.perf_counter() - began)
  return {name: values[1:] for name, values in found.items()}  # the first compiles


def blocking(function: Callable[..., Any], *arguments: Any) -> Timed:
  """Returns a function that waits for the result of another."""
  return lambda: jax.block_until_ready(function(*arguments)) and None


def mjx_steps(parts: build.Parts, size: int) -> dict[str, Timed]:
  """Returns a control step on our body, and the same physics by MJX alone."""
  body = mjx.AutoReset(mjx.Mjx(parts.own_task), parts.task.episode_steps)
  state = compiler.jit(body.reset)(jax.random.split(jax.random.key(0), size))
  actions = jnp.zeros((size, parts.task.action_size))
  from mujoco import mjx as library  # after our own, which silences its remarks

  model = library.put_model(parts.own_task.model, impl='jax')

  def alone(data: Any) -> Any:
    with jax.numpy_rank_promotion('allow'):
      step = functools.partial(library.step, model)
      return jax.lax.scan(lambda d, _: (step(d), None), data, length=10)[0]

  return {
    'body': blocking(compiler.jit(body.step), state, actions),
    'alone': blocking(compiler.jit(jax.vmap(alone)), state.pipeline_state),
  }


def native_steps(parts: build.Parts, size: int) -> dict[str, Timed]:
  """Returns a control step on our batch, and the same physics by MuJoCo's alone."""
  task = parts.own_task
  endless = task._replace(episode_steps=1_000_000)
  body = host.HostBatch(endless, size, threads=1)
  alone = mujoco_batch.Batch(task.model, size, 1, persistent=True)
  keys = jax.random.split(jax.random.key(0), size)
  actions = np.zeros((size, task.action_size))

  def ours() -> None:
    for _ in range(_STEPS):
      body.step(actions)

  def theirs() -> None:
    for _ in range(_STEPS):
      alone.step(nstep=task.substeps)

  body.reset(keys)
  alone.reset(keyframe=0)
  return {'body': ours, 'alone': theirs}


def update(parts: build.Parts) -> Timed:
  """Returns one update of the agent."""
  batch = parts.config.replay.batch_size
  examples = jax.tree.map(
    lambda x: jnp.zeros((batch, *x.shape), x.dtype), parts.item.transition
  )
  learner = jax.jit(parts.agent.init)(jax.random.key(0))
  return blocking(jax.jit(parts.agent.update), learner, examples, jax.random.key(0))


def through(kind: str, parts: build.Parts, count: int) -> float:
  """Returns the blocks a second that pass through a replay."""
  with (
    tempfile.TemporaryDirectory() as folder,
    transport.opened(kind, parts, pathlib.Path(folder)) as opened,
    Threads() as threads,
  ):
    block = types.block_template(parts.item, parts.config.run.block_steps)
    threads.start('writer', functools.partial(write, opened.replay, block))
    opened.replay.take(30.0)
    began = time.perf_counter()
    for _ in range(count):
      assert opened.replay.take(30.0) is not None
    return count / (time.perf_counter() - began)


def write(replay: types.Replay, block: types.Block, stop: Stop) -> None:
  """Writes a block again and again."""
  writer = replay.writer()
  while not stop.is_set():
    if writer.flush(0.1):
      writer.insert(block)
  writer.close()


def ratio(found: dict[str, list[float]], over: str, under: str) -> float:
  """Returns the median of the rounds' ratios of two times."""
  pairs = zip(found[over], found[under], strict=True)
  return statistics.median(a / b for a, b in pairs)


def native_numbers(task: str, variant: str) -> list[Number]:
  """Measures a task on native MuJoCo."""
  found = seconds(native_steps(build.make_parts(naf.get_config(task)), _SOME))
  rate = _STEPS * _SOME / statistics.median(found['body'])
  return [
    Number(task, variant, 'ratio', ratio(found, 'alone', 'body'), ''),
    Number(task, variant, 'step_rate', rate, 'steps/s'),
  ]


def mjx_numbers(task: str) -> list[Number]:
  """Measures a task on MJX."""
  parts = build.make_parts(naf.get_config(task))
  many = seconds(mjx_steps(parts, _MANY))
  some = mjx_steps(parts, _SOME) | {'update': update(parts)}
  trap = seconds({name: some[name] for name in ('body', 'update')})
  rate = _MANY / statistics.median(many['body'])
  return [
    Number(task, 'mjx', 'ratio', ratio(many, 'alone', 'body'), ''),
    Number(task, 'mjx', 'step_rate', rate, 'steps/s'),
    Number(task, 'mjx', 'step_in_updates', ratio(trap, 'body', 'update'), 'updates'),
  ]


def replay_numbers(task: str) -> list[Number]:
  """Measures the replays with the transitions of a task."""
  parts = build.make_parts(naf.get_config(task))
  rates = {kind: through(kind, parts, 1000) for kind in ('memory', 'reverb')}
  return [Number(task, kind, 'block_rate', x, 'blocks/s') for kind, x in rates.items()]


def main(argv: list[str]) -> None:
  """Prints a line for each number, and records them."""
  del argv
  source = rows.Source('python benchmarks/bodies.py', rows.commit(), rows.machine())
  measured = itertools.chain(
    native_numbers('reach', 'native'),
    native_numbers('door_pull', 'native_door'),
    mjx_numbers('reach'),
    replay_numbers('reach'),
  )
  for task, variant, metric, value, unit in measured:
    print(variant, metric, f'{value:,.3g}', unit, flush=True)
    number = (metric, round(value, 3), unit)
    row = rows.Row('bodies', task, 'naf', variant, 0, *number, None, *source)
    rows.merge(results.folder(), [row])


if __name__ == '__main__':
  app.run(main)
