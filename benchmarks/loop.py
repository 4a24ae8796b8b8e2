"""How fast the whole loop is, against SBX's.

  make sbx && python benchmarks/loop.py

Steps a second of DDPG on Pusher-v5, with one update a step, layers of 100 units and
minibatches of 64: ours in lock step, a step and an update in turn (`blocks-1`) or ten
and ten (`blocks-10`), and SBX's, in its own environment as another process, which is
given as many threads as ours. All take turns, round by round, so that a change of the
machine's speed meets them alike.
"""

from __future__ import annotations

from collections.abc import Callable
import itertools
import pathlib
import statistics
import subprocess
import time

from absl import app
from absl import flags

from armfarm import launchers  # noqa: F401 - before numpy and JAX: it sets threads
from armfarm.configs import ddpg
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import build
from armfarm.launchers import runtimes
from armfarm.replay.memory import MemoryReplay

_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Rounds; the medians are printed.')
_STEPS = flags.DEFINE_integer('steps', 1000, 'Steps in a round.')

_HERE = pathlib.Path(__file__).parent
_PYTHON = _HERE.parent / '.venv-sbx' / 'bin' / 'python'
_ID, _SEED, _WARMUP = 'Pusher-v5', 0, 100
_BLOCKS = (1, 10)


def ours(block_steps: int) -> Callable[[int], float]:
  """Returns a function that runs our loop for some steps, and returns the seconds."""
  config = ddpg.get_config(f'gym/{_ID}')
  config.run.warmup_steps = _WARMUP
  config.run.block_steps = block_steps
  parts = build.make_parts(config)
  sync = runtimes.Sync(parts, MemoryReplay(config.replay.max_blocks))
  sync.trainer.publish()

  def run(steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps // block_steps):
      sync.round()
    sync.trainer.metrics()  # waits for the last update
    return time.perf_counter() - began

  return run


class Sbx:
  """SBX's loop, in a process of its own."""

  def __init__(self) -> None:
    command = [str(_PYTHON), str(_HERE / '_sbx.py'), _ID, str(_SEED), str(_WARMUP)]
    pipe = subprocess.PIPE
    self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

  def run(self, steps: int) -> float:
    """Runs for some steps; returns the seconds."""
    assert self._process.stdin is not None and self._process.stdout is not None
    self._process.stdin.write(f'{steps}\n')
    self._process.stdin.flush()
    return float(self._process.stdout.readline())

  def close(self) -> None:
    """Ends the process."""
    self._process.communicate()


def compare(steps: int, rounds: int) -> dict[str, list[float]]:
  """Times all loops in turn; returns the steps/s of each round."""
  loops = {f'blocks-{length}': ours(length) for length in _BLOCKS}
  sbx = Sbx()
  loops['sbx'] = sbx.run
  found: dict[str, list[float]] = {name: [] for name in loops}
  for _, (name, run) in itertools.product(range(rounds + 1), loops.items()):
    found[name].append(steps / run(steps))
  sbx.close()
  return {name: rates[1:] for name, rates in found.items()}  # the first compiles


def main(argv: list[str]) -> None:
  """Prints a line for each way to run, and records the numbers."""
  del argv
  if not _PYTHON.exists():
    print('loop.py: SBX is not there: run make sbx first')
    return
  found = compare(_STEPS.value, _ROUNDS.value)
  source = rows.Source('python benchmarks/loop.py', rows.commit(), rows.machine())
  sbx = found.pop('sbx')
  for name, rates in found.items():
    ratio = statistics.median(a / b for a, b in zip(rates, sbx, strict=True))
    numbers = [
      ('ratio', ratio, ''),
      ('loop_rate', statistics.median(rates), 'steps/s'),
      ('sbx_rate', statistics.median(sbx), 'steps/s'),
    ]
    print(name, ', '.join(f'{metric} {value:,.2f}' for metric, value, _ in numbers))
    rows.merge(
      results.folder(),
      [
        rows.Row('loop', _ID, 'ddpg', name, 0, metric, round(x, 3), unit, None, *source)
        for metric, x, unit in numbers
      ],
    )


if __name__ == '__main__':
  app.run(main)
