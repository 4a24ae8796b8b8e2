"""Evaluates the policy of a run, without exploration noise, and films it.

python -m armfarm.launchers.evaluate --workdir=runs/reach
"""

from __future__ import annotations

import pathlib

from absl import flags

from armfarm.launchers import app
from armfarm.launchers import policy

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
_EPISODES = flags.DEFINE_integer('episodes', 100, 'Episodes to run.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 1, 'Decides the episodes.', 0, 2**32 - 1)
_RECORD = flags.DEFINE_string(
  'record',
  None,
  'Where to record an episode, a demonstration.npz; with {} in it, one'
  ' of each instance.',
)
_PICTURES = flags.DEFINE_boolean(
  'pictures', True, 'Draw the curve and film the policy.'
)


def main(argv: list[str]) -> None:
  """Prints success and return; draws."""
  app.no_arguments(argv)
  app.exit_on_interrupt()
  workdir = pathlib.Path(_WORKDIR.value)
  loaded = policy.load(workdir)
  outcome = policy.evaluate(loaded, _EPISODES.value, _SEED.value)
  counters = loaded.counters
  print(
    f'  policy after  {counters["updates"]} updates, {counters["episodes"]} episodes'
  )
  print(f'  success       {100 * outcome.success:.1f} % of {_EPISODES.value} episodes')
  print(f'  return        {outcome.total:.2f} ± {outcome.deviation:.2f}')
  if _RECORD.value:
    for path in policy.record(loaded, _RECORD.value, _SEED.value):
      print(f'  recorded      {path}')
  if _PICTURES.value:
    policy.draw(workdir)


if __name__ == '__main__':
  app.run(main)
