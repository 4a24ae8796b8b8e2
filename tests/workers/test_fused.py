"""The fused trainer on a toy: what it counts, stores, reports and goes on from."""

import json
import pathlib
import subprocess
import sys

from brax import envs as brax_envs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.envs import mjx
from armfarm.replay import buffer as buffers
from armfarm.workers import fused
from armfarm.workers.trainer import Counters
from armfarm.workers.trainer import Diverged

_BATCH, _LIMIT = 4, 5


class Line(brax_envs.Env):
  """A point on a line, pushed by the action; outside [-1, 1] it ends."""

  observation_size, action_size, backend = 2, 1, 'none'

  def __init__(self, dtype=jnp.float32, worst=0.0):
    self._dtype = dtype
    self._worst = worst

  def reset(self, rng):
    position = jax.random.uniform(rng, minval=-0.9, maxval=0.9)
    zero = jnp.zeros([])
    return brax_envs.State(
      position, self._observe(position), zero, zero, {'success': zero}, {'goal': zero}
    )

  def step(self, state, action):
    position = state.pipeline_state + 0.3 * action[0]
    near = (jnp.abs(position) < 0.1).astype(jnp.float32)
    return state.replace(
      pipeline_state=position,
      obs=self._observe(position),
      reward=-jnp.abs(position) + self._worst,
      done=(jnp.abs(position) > 1).astype(jnp.float32),
      metrics={'success': near},
    )

  def _observe(self, position):
    scale = 100 if self._dtype == jnp.uint8 else 1
    return (scale * jnp.stack([position, position + 1])).astype(self._dtype)


@pytest.fixture
def make(toy):
  """Returns `... -> FusedTrainer`, of the toy agent."""

  def make(environments=4, ratio=1.0, warmup_steps=0, capacity=400, **line):
    options = fused.Options(environments, 1, 3, ratio, warmup_steps)
    env = mjx.AutoReset(Line(**line), _LIMIT)
    observation = np.zeros(2, line.get('dtype', np.float32))
    scalar = np.float32(0)
    action = np.zeros(1, np.float32)
    item = agent_types.Transition(
      observation, action, scalar, scalar, scalar, observation
    )
    samples = _BATCH * options.updates_per_round
    buffer = buffers.make(item, capacity, environments, samples)
    program = fused.Program(toy.agent, env, buffer, options)
    return fused.FusedTrainer(program, jax.random.key(0)), buffer

  return make


@pytest.mark.parametrize(
  ('environments', 'ratio', 'warmup_steps', 'updates'),
  [
    (4, 1.0, 0, [12, 24, 36]),
    (4, 1.0, 16, [0, 8, 20]),
    (4, 1.0, 15, [0, 8, 20]),  # the ratio is never exceeded
    (4, 0.5, 8, [2, 8, 14]),
    (2, 3.0, 6, [0, 18, 36]),
  ],
)
def test_the_ratio_is_exact(make, environments, ratio, warmup_steps, updates):
  trainer, _ = make(environments, ratio, warmup_steps)
  counted = []
  for _ in updates:
    trainer.advance()
    counted.append(trainer.counters._replace(episodes=0))
  steps = [3 * environments * (n + 1) for n in range(3)]
  assert counted == [Counters(*row) for row in zip(steps, updates, strict=True)]
  assert int(trainer._carry.learner.updates) == updates[-1]
  assert trainer.metrics()['traces'] == trainer.traces == 1


def test_episodes_are_those_that_were_stored(make):
  trainer, buffer = make(warmup_steps=80)
  episodes = [episode for _ in range(10) for episode in trainer.advance()]
  stored = buffer.stored(trainer._carry.memory)
  rows = jax.tree.map(lambda x: x.reshape(30, 4, *x.shape[1:]), stored)
  over = (rows.discount == 0) | (rows.truncation == 1)
  found = []
  for instance in range(4):
    ends = np.flatnonzero(over[:, instance])
    for number, (start, end) in enumerate(zip([-1, *ends[:-1]], ends, strict=True)):
      total = rows.reward[start + 1 : end + 1, instance].sum()
      found.append((end, instance, number, end - start, round(float(total), 4)))
  reported = [(x.collector, x.episode, x.steps, round(x.total, 4)) for x in episodes]
  assert reported == [row[1:] for row in sorted(found)]
  assert len(reported) == trainer.counters.episodes > 20
  assert {True, False} == set((rows.discount == 0)[over])  # ends of both kinds
  assert (rows.truncation[rows.discount == 0] == 0).all()
  # What follows a step is what the next one begins with, but for where it ended.
  joins = (rows.next_observation[:-1] == rows.observation[1:]).all(axis=-1)
  np.testing.assert_array_equal(joins, ~over[:-1])
  versions = [episode.version for episode in episodes]
  assert versions == sorted(versions) and versions[0] >= 1


def test_a_restored_trainer_goes_on_bit_for_bit(make):
  trainer, _ = make(warmup_steps=8)
  other, _ = make(warmup_steps=8)
  for _ in range(2):
    trainer.advance()
  state = jax.tree.map(np.array, trainer.state())
  progress = json.loads(json.dumps(trainer.progress()))
  episodes = [trainer.advance() for _ in range(3)]
  other.advance()
  other.restore(state, progress)
  assert [other.advance() for _ in range(3)] == episodes
  assert other.counters == trainer.counters
  for path, array in trainer.state().items():
    np.testing.assert_array_equal(other.state()[path], array, err_msg=path)
  assert all(array.size for array in state.values())


def test_bytes_stay_bytes(make):
  trainer, _ = make(dtype=jnp.uint8)
  trainer.advance()
  kept = trainer._carry.memory.experience
  assert {name: x.dtype.name for name, x in kept.items()}.keys() == {
    'uint8',
    'float32',
  }
  assert kept['uint8'].shape[-1] == 4  # two observations of two
  assert kept['uint8'].max() > 1


def test_a_loss_that_is_not_finite_is_told(make):
  trainer, _ = make(worst=np.nan)
  with pytest.raises(Diverged, match='after 12 updates'):
    trainer.advance()


def test_updates_that_no_round_pays_for(make):
  with pytest.raises(ValueError, match='environments to a multiple of 8'):
    make(environments=4, ratio=0.125)


def test_four_devices_learn_what_one_does(unmeasured):
  script = pathlib.Path(__file__).with_name('devices.py')
  done = subprocess.run(
    [sys.executable, str(script)],
    env={**unmeasured, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  assert len(found['differences']) == 6
  for name, row in found['differences'].items():
    assert row['apart'] < 1e-5 < 1e-3 < row['moved'], name
  assert found['empty'] == [[4, 3], [4, 0]]  # JAX 0.11 crashes with Shardy
