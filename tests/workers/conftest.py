"""A toy agent, a toy robot and scripted blocks, small enough to know by heart."""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.configs import tasks
from armfarm.envs import reach
from armfarm.envs import task
from armfarm.replay import memory
from armfarm.replay import ring
from armfarm.replay import types
from armfarm.workers import trainer

_SPEC = agent_types.Spec(observation_size=2, action_size=1)
_BATCH = 4


class _Learner(NamedTuple):
  """Sums up the rewards that it is shown, and counts its updates."""

  weight: Any
  updates: Any


class Toy:
  """Makes the agent, and counts how often its `update` is traced."""

  def __init__(self):
    self.traces = 0
    self.agent = agent_types.Agent(
      init=lambda key: _Learner(jax.random.uniform(key), jnp.int32(0)),
      variables=lambda learner: {'weight': learner.weight},
      begin=lambda key: jax.random.uniform(key, [1], minval=-0.1, maxval=0.1),
      explore=self._explore,
      act=lambda variables, observation, key: variables['weight'] * jnp.ones([1]),
      label=agent_types.identity,
      update=self._update,
    )

  def _explore(self, variables, actor_state, observation, key):
    actor_state = actor_state + jax.random.uniform(key, [1], maxval=0.1)  # it grows
    action = variables['weight'] * observation[:1] + actor_state
    return jnp.clip(action, -1.0, 1.0), actor_state

  def _update(self, learner, batch, key):
    self.traces += 1
    loss = jnp.mean(batch.reward)
    weight = learner.weight + loss + 1e-3 * jax.random.normal(key)
    metrics = {'loss': loss, 'updates': jnp.float32(learner.updates)}
    return _Learner(weight, learner.updates + 1), metrics


class Robot:
  """A point on a line, pushed by the action; an end is an end, five steps a limit."""

  observation_size, action_size = _SPEC
  episode_steps = 5

  def __init__(self):
    self.steps_taken = 0
    self._position, self._step = np.float32(0), 0

  def reset(self, key):
    self._position = np.asarray(jax.random.uniform(key, minval=-0.9, maxval=0.9))
    self._step = 0
    return self._observe()

  def step(self, action):
    self.steps_taken += 1
    self._step += 1
    self._position = np.float32(self._position + 0.5 * action[0])
    terminated = bool(abs(self._position) > 1)
    truncated = not terminated and self._step == self.episode_steps
    success = bool(abs(self._position) < 0.1)
    reward = -abs(self._position)
    return task.Step(self._observe(), reward, terminated, truncated, success)

  def state(self):
    return {'position': np.array(self._position), 'step': np.array(self._step)}

  def restore(self, state):
    self._position, self._step = np.float32(state['position']), int(state['step'])

  def _observe(self):
    return np.float32([self._position, self._step])


@pytest.fixture(scope='session')
def spec():
  """The boundary between robot and agent."""
  return _SPEC


@pytest.fixture(scope='session')
def toy():
  """The agent, the same for all, so that it is compiled once."""
  return Toy()


@pytest.fixture
def robot():
  """A robot."""
  return Robot()


@pytest.fixture(scope='session')
def reach_task():
  """The real thing, cut to five steps as well."""
  numbers = tasks.reach().to_dict() | {'episode_steps': Robot.episode_steps}
  numbers.pop('name')
  return reach.make(**numbers)


@pytest.fixture
def published():
  """Returns `version -> Published`, whose weight is the version."""

  def make(version, time=0.0):
    return types.Published(version, time, {'weight': np.float32(version)})

  return make


@pytest.fixture
def script():
  """Returns `letters, block_steps, ... -> blocks` of a collector.

  The letters, one a step: . nothing   T end   S end and success   L limit. Rewards
  are 1, 2, 3 ... from the first letter on, unless another is given.
  """

  def make(letters, block_steps, *, collector=0, episode=0, reward=None, version=1):
    ends = np.array([letter in 'TSL' for letter in letters])
    before = np.concatenate([[False], ends[:-1]])
    episodes = episode + np.cumsum(before)
    firsts = np.maximum.accumulate(np.where(before, np.arange(len(ends)), 0))
    counts = np.arange(1, len(ends) + 1)
    rewards = counts if reward is None else np.full(len(ends), reward)
    observation = np.stack([episodes, counts], axis=1).astype(np.float32)
    transition = agent_types.Transition(
      observation=observation,
      action=np.zeros([len(ends), 1], np.float32),
      reward=rewards.astype(np.float32),
      discount=np.float32([letter not in 'TS' for letter in letters]),
      truncation=np.float32([letter == 'L' for letter in letters]),
      next_observation=observation,
    )
    origin = types.Origin(
      np.full_like(counts, collector), episodes, counts - 1 - firsts
    )
    whole = types.Block(
      types.Item(transition, jax.tree.map(np.int32, origin)),
      version=np.full(len(ends), version, np.int32),
      age=np.full(len(ends), 0.5, np.float32),
      success=np.array([letter == 'S' for letter in letters]),
    )
    rows = [slice(i, i + block_steps) for i in range(0, len(ends), block_steps)]
    return [jax.tree.map(operator.itemgetter(row), whole) for row in rows]

  return make


class Outbox(memory.MemoryReplay):
  """A seam that remembers what was published."""

  def __init__(self):
    super().__init__(max_blocks=2)
    self.sent = []

  def publish(self, published):
    self.sent.append(published)
    super().publish(published)


@pytest.fixture
def make_trainer(toy):
  """Returns `... -> Trainer, the seam that it is on`, of the toy agent.

  The toy agent as it is, or with other functions of that name.
  """

  def make(
    updates_per_step=1.0,
    block_steps=2,
    *,
    warmup_steps=0,
    publish_every=1000,
    **functions,
  ):
    options = trainer.Options(
      updates_per_step, warmup_steps, block_steps, publish_every, _BATCH
    )
    experience = ring.Ring(types.item_template(_SPEC), 100 * block_steps, seed=0)
    outbox = Outbox()
    key = jax.random.key(0)
    agent = toy.agent._replace(**functions)
    return trainer.Trainer(agent, experience, outbox, options, key), outbox

  return make


class Clock:
  """Stands for the module `time`: it moves when told to, or slept on."""

  def __init__(self):
    self.now = 1000.0

  def monotonic(self):
    return self.now

  def sleep(self, seconds):
    self.now += seconds


@pytest.fixture
def clock(monkeypatch):
  """Returns `module -> Clock`, which the module looks at from then on."""

  def install(module):
    clock = Clock()
    monkeypatch.setattr(module, 'time', clock)
    return clock

  return install
