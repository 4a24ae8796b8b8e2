"""Collectors, a seam and a trainer at work together."""

import threading

import jax
import numpy as np
import pytest

from armfarm import agents
from armfarm.envs import task
from armfarm.replay import memory
from armfarm.replay import ring
from armfarm.replay import types
from armfarm.workers import collector as collectors
from armfarm.workers import trainer as trainers

_BLOCK = 5  # steps
_MAX_BLOCKS = 2
_PATIENCE = 30.0  # s for what comes at once if nobody else wants the machine


class _Farm:
  """A trainer in this thread, and collectors of one agent, each with a robot."""

  def __init__(self, agent, spec, robots, **options):
    numbers = dict(updates_per_step=1.0, warmup_steps=50, publish_every=25) | options
    self.options = trainers.Options(block_steps=_BLOCK, batch_size=8, **numbers)
    experience = ring.Ring(types.item_template(spec), 1000, seed=0)
    key_trainer, key = jax.random.split(jax.random.key(0))
    self.robots = robots
    self.replay = memory.MemoryReplay(_MAX_BLOCKS)
    self.trainer = trainers.Trainer(
      agent, experience, self.replay, self.options, key_trainer
    )
    self.collectors = [
      collectors.Collector(
        robot, agent, self.replay, number=number, block_steps=_BLOCK, key=key
      )
      for number, robot in enumerate(robots)
    ]
    self.trainer.publish()

  def __enter__(self):
    self._stop = threading.Event()
    self._threads = [
      threading.Thread(target=collector.run, args=[self._stop], daemon=True)
      for collector in self.collectors
    ]
    for thread in self._threads:
      thread.start()
    return self

  def __exit__(self, *_):
    self._stop.set()
    for thread in self._threads:
      thread.join(_PATIENCE)

  @property
  def ahead(self):
    """Steps that were taken and have not arrived."""
    taken = sum(robot.steps_taken for robot in self.robots)
    return taken - self.trainer.counters.env_steps


@pytest.mark.parametrize('updates_per_step', [0.2, 1.0, 20.0])
def test_the_ratio_holds_whoever_is_faster(toy, spec, robot, updates_per_step):
  robots = [type(robot)() for _ in range(3)]
  with _Farm(toy.agent, spec, robots, updates_per_step=updates_per_step) as farm:
    for _ in range(100):
      farm.trainer.advance(farm.replay.take(_PATIENCE))
      # Replay is full, and each collector has a block in the making or in hand.
      assert farm.ahead <= (_MAX_BLOCKS + 2 * len(robots)) * _BLOCK
  ratio = farm.trainer.metrics()['updates_per_step']
  assert ratio == pytest.approx(updates_per_step, rel=0.05)
  assert farm.trainer.dropped == 0
  assert all(farm.trainer.next_episode(number) for number in range(3))


class _Bandit:
  """One step, paid by how near the action is to 0.5."""

  observation_size, action_size = 1, 1
  episode_steps = 1

  def reset(self, key):
    del key
    return np.ones(1, np.float32)

  def step(self, action):
    reward = -((action[0] - 0.5) ** 2)
    return task.Step(np.ones(1, np.float32), reward, True, False, False)


def test_a_farm_learns():
  spec = agents.types.Spec(observation_size=1, action_size=1)
  entry = agents.AGENTS['naf']
  naf = entry.make(
    spec,
    entry.Config(
      network='mlp',
      hidden=(16,),
      normalization='none',
      gamma=0.9,
      learning_rate=1e-2,
      tau=0.05,
      bootstrap_at_time_limit=True,
      noise_theta=0.15,
      noise_sigma=0.5,
    ),
  )
  farm = _Farm(naf, spec, [_Bandit()])

  def act():
    variables = farm.replay.latest(0.0).variables
    return naf.act(variables, np.ones(1, np.float32), jax.random.key(0))

  assert abs(act() - 0.5) > 0.2
  for _ in range(100):
    farm.collectors[0].send()
    farm.trainer.advance(farm.replay.take(_PATIENCE))
  assert act() == pytest.approx(0.5, abs=0.1)
