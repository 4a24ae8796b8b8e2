"""Shows that an SBX agent learns `armfarm/Reach-v0`; run by `make sbx`.

It prints the success rate of 20 held-out episodes, records it in `docs/results`, and
ends with code 1 where fewer than 18 succeed.
"""

from __future__ import annotations

import pathlib
import sys
import time

import gymnasium
import numpy as np
import sbx

import armfarm.envs.gym  # noqa: F401 - registers the tasks
from armfarm.experiments import rows

_RESULTS = pathlib.Path(__file__).parents[1] / 'docs' / 'results'
_STEPS = 50_000
_TRIALS = 20


def succeeds(model: sbx.SAC, environment: gymnasium.Env, seed: int) -> bool:
  """Runs an episode without noise; returns whether its last step was a success."""
  observation, _ = environment.reset(seed=seed)
  over = False
  while not over:
    action, _ = model.predict(observation, deterministic=True)
    observation, _, terminated, truncated, info = environment.step(action)
    over = terminated or truncated
  return info['is_success']


def record(success: float, rate: float) -> None:
  """Writes what was reached, and steps a second of learning."""
  run = 'sbx_reach', 'reach', 'sac', 'sbx', 0
  source = 'make sbx', rows.commit(), rows.machine()
  found = (
    ('success', 100 * success, '%'),
    ('env_steps', float(_STEPS), 'steps'),
    ('env_steps_per_s', round(rate, 1), 'steps/s'),
  )
  rows.merge(_RESULTS, [rows.Row(*run, *number, None, *source) for number in found])


def main() -> int:
  """Trains, tries and returns the exit code."""
  environment = gymnasium.make('armfarm/Reach-v0')
  model = sbx.SAC(
    'MlpPolicy',
    environment,
    learning_rate=1e-3,
    learning_starts=1_500,
    batch_size=64,
    gamma=0.98,
    policy_kwargs={'net_arch': [100, 100]},
    seed=0,
  )
  began = time.perf_counter()
  model.learn(_STEPS)
  seconds = time.perf_counter() - began
  seeds = range(1000, 1000 + _TRIALS)
  share = np.mean([succeeds(model, environment, seed) for seed in seeds])
  print(f'SBX SAC on armfarm/Reach-v0: {_STEPS} steps in {seconds:.0f} s, then')
  print(f'  success  {100 * share:.0f} % of {_TRIALS} episodes')
  record(float(share), _STEPS / seconds)
  return int(share < 0.9)


if __name__ == '__main__':
  sys.exit(main())
