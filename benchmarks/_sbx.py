"""SBX's DDPG, sized as ours, in an environment of its own: `benchmarks/loop.py` asks.

Every line of stdin is a number of steps to learn for; the seconds that it took are
printed. The line `evaluate N` prints the mean return of N episodes without noise.
"""

from __future__ import annotations

import sys
import time

import gymnasium
import jax
import numpy as np
import sbx
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise


def main() -> None:
  """Makes the agent of the arguments `id seed learning_starts`, then serves."""
  id, seed, learning_starts = sys.argv[1], *map(int, sys.argv[2:])
  environment = gymnasium.make(id)
  size = environment.action_space.sample().shape
  noise = OrnsteinUhlenbeckActionNoise(np.zeros(size), 0.1 * np.ones(size), 0.15, 1.0)
  model = sbx.DDPG(
    'MlpPolicy',
    environment,
    learning_rate=1e-3,
    buffer_size=200_000,
    learning_starts=learning_starts,
    batch_size=64,
    tau=0.01,
    gamma=0.98,
    train_freq=1,
    gradient_steps=1,
    action_noise=noise,
    policy_kwargs={'net_arch': [100, 100]},
    seed=seed,
  )
  for line in sys.stdin:
    if line.startswith('evaluate'):
      trial = Monitor(gymnasium.make(id))
      trial.reset(seed=seed + 1000)
      print(evaluate_policy(model, trial, int(line.split()[1]))[0], flush=True)
      continue
    began = time.perf_counter()
    model.learn(int(line), reset_num_timesteps=False)
    jax.block_until_ready(model.policy.qf_state.params)
    print(time.perf_counter() - began, flush=True)


if __name__ == '__main__':
  main()
