"""The fused trainer: environments, replay memory and updates in one compiled program.

  for `block_steps` rounds, in one call
    every instance   u ~ explore(variables, x), execute, begin anew where it has ended
    add the B transitions to the memory
    scan: sample a minibatch, update       `updates_per_step` x B updates, once warm

Nothing leaves the device within a call but counts. Over several devices each has its
part of the instances, of the memory and of every minibatch, and its own keys; gradients
are averaged, so that all hold the same learner.

Letters as in `armfarm.agents.types`, [B] instances, [D] devices where there are
several, [R] rounds of a call.
"""

from __future__ import annotations

from fractions import Fraction
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.agents import types as agent_types
from armfarm.envs import compiler
from armfarm.envs import mjx
from armfarm.replay import buffer as buffers
from armfarm.workers import trainer
from armfarm.workers.trainer import Counters
from armfarm.workers.trainer import Episode

AXIS = 'devices'


class Options(NamedTuple):
  """How much of everything.

  Attributes:
    environments: instances on all devices.
    devices: D.
    block_steps: R.
    updates_per_step: gradient updates for an environment step of any instance.
    warmup_steps: environment steps, of all instances, before the first update.
  """

  environments: int
  devices: int
  block_steps: int
  updates_per_step: float
  warmup_steps: int

  @property
  def size(self) -> int:
    """B, instances on one device."""
    return self.environments // self.devices

  @property
  def updates_per_round(self) -> int:
    """Updates that one step of every instance pays for.

    Raises:
      ValueError: that is no whole number.
    """
    ratio = Fraction(self.updates_per_step).limit_denominator(1000)
    updates = ratio * self.environments
    if updates.denominator != 1 or updates < 1:
      raise ValueError(
        f'run.environments {self.environments} x run.updates_per_step {ratio} is'
        f' {updates} updates: set environments to a multiple of {ratio.denominator}'
      )
    return int(updates)

  @property
  def warmup_rounds(self) -> int:
    """Rounds before the first with updates."""
    return -(-self.warmup_steps // self.environments)


class Program(NamedTuple):
  """What is compiled.

  Attributes:
    agent: who learns; its gradients are averaged over `AXIS` if there are devices.
    environment: B instances.
    buffer: the memory of one device, whose samples are the minibatches of one round.
    options: see there.
  """

  agent: agent_types.Agent
  environment: mjx.AutoReset
  buffer: buffers.Buffer
  options: Options


class Carry(NamedTuple):
  """What one device holds between rounds.

  Attributes:
    learner: the same on all devices.
    memory: of transitions.
    state: of the instances, a `brax.envs.State`.
    noise: the agent's actor states, [B ...].
    total: returns of the present episodes so far, [B].
    rounds: since the start, [].
    key: of this device.
  """

  learner: agent_types.LearnerState
  memory: buffers.Memory
  state: Any
  noise: agent_types.ActorState
  total: chex.Array
  rounds: chex.Array
  key: chex.PRNGKey


class Report(NamedTuple):
  """What became of one step of every instance.

  Attributes:
    over: the episode ended with it, [B].
    total: return of the episode so far, [B].
    steps: of the episode so far, [B].
    success: the task's criterion holds, [B].
  """

  over: chex.Array
  total: chex.Array
  steps: chex.Array
  success: chex.Array


def begin(program: Program, key_learner: chex.PRNGKey, key: chex.PRNGKey) -> Carry:
  """Returns one device's start; `key_learner` is the same on all. Both are consumed."""
  agent, size = program.agent, program.options.size
  key, key_reset, key_noise = jax.random.split(key, 3)
  return Carry(
    learner=agent.init(key_learner),
    memory=program.buffer.init(),
    state=program.environment.reset(jax.random.split(key_reset, size)),
    noise=jax.vmap(agent.begin)(jax.random.split(key_noise, size)),
    total=jnp.zeros(size),
    rounds=jnp.int32(0),
    key=key,
  )


def act(program: Program, carry: Carry) -> tuple[Carry, agent_types.Transition, Report]:
  """Takes one step in every instance; returns the transitions [B ...]."""
  agent, size = program.agent, program.options.size
  key, key_explore, key_noise = jax.random.split(carry.key, 3)
  observation = carry.state.obs
  action, noise = jax.vmap(agent.explore, in_axes=(None, 0, 0, 0))(
    agent.variables(carry.learner),
    carry.noise,
    observation,
    jax.random.split(key_explore, size),
  )
  steps = carry.state.info['steps'] + 1
  state = program.environment.step(carry.state, action)
  transition = agent_types.Transition(
    observation=observation,
    action=action,
    reward=state.reward,
    discount=1.0 - state.info['terminated'],
    truncation=state.info['truncated'].astype(jnp.float32),
    next_observation=state.info['last_observation'],
  )
  over = state.done > 0
  total = carry.total + state.reward
  report = Report(over, total, steps, state.metrics['success'] > 0)
  begun = jax.vmap(agent.begin)(jax.random.split(key_noise, size))
  carry = carry._replace(
    state=state,
    noise=mjx.choose(over, begun, noise),
    total=jnp.where(over, 0.0, total),
    key=key,
  )
  return carry, transition, report


def learn(program: Program, carry: Carry) -> tuple[Carry, agent_types.Metrics]:
  """Makes the updates of one round; returns the means of their metrics."""
  key, key_sample, key_learn = jax.random.split(carry.key, 3)
  learner, metrics = trainer.learn(
    program.agent,
    program.options.updates_per_round,
    carry.learner,
    program.buffer.sample(carry.memory, key_sample),
    key_learn,
  )
  return carry._replace(learner=learner, key=key), metrics


def play_round(
  program: Program, carry: Carry, _: None
) -> tuple[Carry, tuple[Report, agent_types.Metrics]]:
  """One step of every instance, and the updates that it pays for."""
  carry, transition, report = act(program, carry)
  memory = program.buffer.add(carry.memory, program.buffer.pack(transition))
  carry = carry._replace(memory=memory, rounds=carry.rounds + 1)
  train = functools.partial(learn, program)
  _, shapes = jax.eval_shape(train, carry)

  def wait(carry: Carry) -> tuple[Carry, agent_types.Metrics]:
    return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  warm = carry.rounds > program.options.warmup_rounds
  carry, metrics = jax.lax.cond(warm, train, wait, carry)
  return carry, (report, metrics)


def play(program: Program, carry: Carry) -> tuple[Carry, Report, agent_types.Metrics]:
  """R rounds; returns what became of each step, [R B], and the last round's metrics."""
  rounds = functools.partial(play_round, program)
  carry, (report, metrics) = jax.lax.scan(
    rounds, carry, length=program.options.block_steps
  )
  metrics = jax.tree.map(lambda x: x[-1], metrics)
  if program.options.devices > 1:
    metrics = jax.lax.pmean(metrics, AXIS)
  return carry, report, metrics


class FusedTrainer:
  """Runs the program, and keeps count; see `supervisor.Supervised`.

  Args:
    program: to be compiled, for one device or for `options.devices`.
    key: consumed.

  Attributes:
    counters: how far the run is.
    dropped: always 0.
    traces: of `play`; one, however long the run.
  """

  def __init__(self, program: Program, key: chex.PRNGKey):
    self._program = program
    self._options = program.options
    self._several = program.options.devices > 1
    self._metrics: agent_types.Metrics = {}
    self._episodes = np.zeros(program.options.environments, np.int64)
    self.counters = Counters()
    self.dropped = 0
    self.traces = 0
    key_learner, key = jax.random.split(key)
    start = functools.partial(begin, program)
    if self._several:
      keys = jax.random.split(key, program.options.devices)
      self._carry = jax.pmap(start, AXIS, in_axes=(None, 0))(key_learner, keys)
      self._play = jax.pmap(self._traced, AXIS, donate_argnums=0)
    else:
      self._carry = compiler.jit(start)(key_learner, key)
      self._play = compiler.jit(self._traced, donate_argnums=0)

  def advance(self) -> list[Episode]:
    """Runs one call; returns the episodes that ended in it.

    Raises:
      Diverged: the loss is not finite.
    """
    before = self._rounds
    self._carry, report, self._metrics = self._play(self._carry)
    if self._several:
      self._metrics = jax.tree.map(lambda x: x[0], self._metrics)
    rounds = before + self._options.block_steps
    self.counters = self.counters._replace(
      env_steps=rounds * self._options.environments, updates=self._updates(rounds)
    )
    self.check()
    return self._ended(jax.tree.map(self._as_rows, report), before)

  def publish(self) -> None:
    """Checks; there is nobody to publish to."""
    self.check()

  def judge(self, success: float) -> None:
    """Nothing: no task of MJX begins with a script."""

  def check(self) -> None:
    """Raises Diverged if a metric of the last call is not finite."""
    trainer.check(self._metrics, self.counters)

  def variables(self) -> agent_types.Variables:
    """Returns the present variables on the host."""
    learner = self._carry.learner
    if self._several:
      learner = jax.tree.map(lambda x: x[0], learner)
    return jax.tree.map(np.asarray, self._program.agent.variables(learner))

  def metrics(self) -> dict[str, float]:
    """Returns the metrics of the last round, and the ratio reached so far."""
    steps = self.counters.env_steps - self._options.warmup_steps
    ratio = self.counters.updates / steps if steps > 0 else 0.0
    warm = self._metrics if self.counters.updates else {}
    counted = {'updates_per_step': ratio, 'traces': self.traces}
    return {name: float(x) for name, x in warm.items()} | counted

  def state(self) -> dict[str, Any]:
    """The arrays that `restore` needs, by their paths, on the host."""
    return {path: np.asarray(x) for path, x in _by_path(self._carry).items() if x.size}

  def progress(self) -> dict[str, Any]:
    """The numbers that `restore` needs, ready for JSON."""
    return {
      'counters': self.counters._asdict(),
      'instances': self._episodes.tolist(),
    }

  def restore(self, state: dict[str, Any], progress: dict[str, Any]) -> None:
    """Goes on from where `state` and `progress` were taken."""
    arrays = _by_path(self._carry) | state
    leaves, structure = jax.tree.flatten(self._carry)
    pairs = zip(leaves, arrays.values(), strict=True)
    leaves = [_put_back(old, x) for old, x in pairs]
    self._carry = jax.tree.unflatten(structure, leaves)
    self.counters = Counters(**progress['counters'])
    self._episodes = np.array(progress['instances'])

  @property
  def _rounds(self) -> int:
    return self.counters.env_steps // self._options.environments

  def _traced(self, carry: Carry) -> tuple[Carry, Report, agent_types.Metrics]:
    self.traces += 1
    return play(self._program, carry)

  def _updates(self, rounds: int) -> int:
    warm = max(0, rounds - self._options.warmup_rounds)
    return warm * self._options.updates_per_round

  def _as_rows(self, x: chex.Array) -> np.ndarray:
    """[R B], or [D R B] with the devices' instances side by side."""
    rows = np.asarray(x)
    return np.concatenate(list(rows), axis=1) if self._several else rows

  def _ended(self, report: Report, before: int) -> list[Episode]:
    episodes = []
    for row, instance in np.argwhere(report.over):
      at = row, instance
      episodes.append(
        Episode(
          collector=int(instance),
          episode=int(self._episodes[instance]),
          steps=int(report.steps[at]),
          total=float(report.total[at]),
          success=bool(report.success[at]),
          version=self._updates(before + int(row)) + 1,
          age_updates=0,
          age_s=0.0,
        )
      )
      self._episodes[instance] += 1
    count = self.counters.episodes + len(episodes)
    self.counters = self.counters._replace(episodes=count)
    return episodes


def _is_key(x: chex.Array) -> bool:
  return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _put_back(old: chex.Array, x: np.ndarray) -> chex.Array:
  """Returns a saved array where the old one is: elsewhere, `play` would be retraced."""
  value = jax.random.wrap_key_data(jnp.asarray(x)) if _is_key(old) else x
  return jax.device_put(value, old.sharding)


def _by_path(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by their paths, in order, keys as their data."""
  return {
    jax.tree_util.keystr(path): jax.random.key_data(x) if _is_key(x) else x
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }
