"""The workers of guided policy search, on a mass that is pushed to its goal."""

from fractions import Fraction
import threading
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.agents.gps import agent as gps
from armfarm.agents.gps import costs
from armfarm.agents.gps import initial
from armfarm.agents.gps import local
from armfarm.agents.gps import reaching
from armfarm.configs import gps as configs
from armfarm.envs import task
from armfarm.launchers import guided
from armfarm.replay import types
from armfarm.replay.memory import MemoryReplay
from armfarm.workers import global_worker
from armfarm.workers import lessons
from armfarm.workers import local_worker
from armfarm.workers import pair
from armfarm.workers.parameter_server import ParameterServer

_T, _N, _R, _X, _A = 8, 3, 6, 2, 1
_SPEC = agent_types.Spec(observation_size=3, action_size=_A)
_BLOCK = _R * _T


class Mass:
  """Position, velocity, goal; the key decides the goal."""

  observation_size, action_size = _SPEC
  episode_steps = _T

  def __init__(self):
    self.goals = []

  def reset(self, key):
    self.goals.append(float(jax.random.uniform(key, minval=0.3, maxval=0.6)))
    self._x = np.array([0.0, 0.0, self.goals[-1]], np.float32)
    return self._x

  def step(self, action):
    velocity = self._x[1] + 0.4 * action[0]
    position = self._x[0] + 0.2 * velocity
    self._x = np.array([position, velocity, self._x[2]], np.float32)
    reward = np.float32(-abs(position - self._x[2]))
    return task.Step(self._x, reward, False, False, bool(-reward < 0.1))


@pytest.fixture(scope='module')
def options():
  numbers = configs.local()
  numbers.update(steps=_T, rollouts=_N, remembered=_R, state_size=_X, gaussians=2)
  numbers.dynamics.mixture.max_steps = 5
  return guided.fill(local.Options, numbers.to_dict())


@pytest.fixture(scope='module')
def agent(options):
  numbers = configs.agent().to_dict()
  for name in ('name', 'cost'):
    del numbers[name]
  config = guided.fill(gps.Config, numbers)._replace(local=options, hidden=(8,))
  penalty = costs.Penalty(0.0, 1.0, 1e-3, logarithmic=False)
  cost = reaching.Options(_X, 0, 2, (1.0,), penalty, ('constant',), 1.0, 0.01)
  first = initial.pd(initial.PD(0.2, 1.0, 0.1), jnp.zeros(_X), _T, _A)
  return gps.make(_SPEC, config, lambda o, u: reaching.cost(cost, o, u), first)


@pytest.fixture
def memory(options):
  return lessons.Memory(2, gps.no_examples(options, _SPEC))


@pytest.fixture
def local_maker(agent, options):
  def make(memory, number=0, controllers=(), **changes):
    robot = local_worker.Robot(number, (4, 7), (Mass(), Mass()), _distance)
    robot = robot._replace(controllers=controllers)
    key, own = jax.random.key(0), options._replace(**changes)
    return local_worker.LocalWorker(agent, own, robot, memory, key), robot

  return make


@pytest.fixture
def server(agent):
  replay = MemoryReplay(max_blocks=4)
  made = ParameterServer(agent, replay, publish_every=3, key=jax.random.key(1))
  made.publish()
  return made, replay


def _distance(observation):
  return jnp.abs(observation[0] - observation[2])


def _source(server):
  return lambda: server[1].latest(1.0)


def _never():
  return False


def test_every_lesson_is_as_likely_and_padding_never_drawn():
  value = jnp.arange(12.0).reshape(3, 4)
  held = lessons.Lessons({'x': value}, jnp.array([4, 0, 1]))
  drawn = lessons.sample(held, 5000, jax.random.key(0))['x']
  values, counts = np.unique(drawn, return_counts=True)
  np.testing.assert_array_equal(values, [0, 1, 2, 3, 11])
  assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(800))  # five deviations


def _lessons_of(options, value):
  return jax.tree.map(lambda x: x + value, gps.no_examples(options, _SPEC))


def test_memory_swaps_blocks_and_comes_back(options, memory):
  assert memory.latest() is None
  empty = memory.state()
  memory.replace(1, 0, _lessons_of(options, 2.0), filled=5)
  before = memory.latest()
  memory.replace(0, 0, _lessons_of(options, 2.0), filled=_BLOCK)
  np.testing.assert_array_equal(before.filled, [0, 5])
  assert float(before.examples.weight[0].sum()) == 0.0
  memory.replace(1, 1, _lessons_of(options, 3.0), filled=6)
  np.testing.assert_array_equal(memory.latest().filled, [_BLOCK, 6])
  other = lessons.Memory(2, gps.no_examples(options, _SPEC))
  other.restore(memory.state())
  chex.assert_trees_all_equal(other.latest(), memory.latest())
  other.restore(empty)
  assert other.latest() is None


def test_memory_keeps_the_latest_iterations(options):
  memory = lessons.Memory(2, gps.no_examples(options, _SPEC), iterations=3)
  for iteration in range(1, 6):
    memory.replace(1, iteration, _lessons_of(options, iteration), filled=_BLOCK)
  drawn = lessons.sample(memory.latest(), 200, jax.random.key(0))
  assert set(np.unique(drawn.weight)) == {3.0, 4.0, 5.0}
  chex.assert_trees_all_equal_shapes_and_dtypes(memory.template(), memory.latest())
  memory.replace(1, 5, _lessons_of(options, 7.0), filled=2)  # once more of the fifth
  assert sorted(memory.latest().filled) == [0, 0, 0, 2, _BLOCK, _BLOCK]
  drawn = lessons.sample(memory.latest(), 500, jax.random.key(0))
  assert set(np.unique(drawn.weight)) == {3.0, 4.0, 7.0}
  other = lessons.Memory(2, gps.no_examples(options, _SPEC), iterations=3)
  other.restore(memory.state())
  chex.assert_trees_all_equal(other.latest(), memory.latest())


def test_an_iteration_rolls_out_improves_and_teaches(local_maker, memory, server):
  worker, robot = local_maker(memory)
  reports = []
  worker.iterate(_source(server), reports.append, _never)
  assert [row.episode for row in reports] == list(range(2 * _N))
  assert [row.instance for row in reports] == [4] * _N + [7] * _N
  assert {row.iteration for row in reports} == {0}
  assert all(row.steps == _T and row.version == 1 for row in reports)
  assert all(row.success == (row.distance < 0.1) for row in reports)
  assert len({row.distance for row in reports}) == 2 * _N
  assert 0 < reports[-1].utilization <= 1
  np.testing.assert_array_equal(memory.latest().filled, [_N * _T] * 2)
  goals = [body.goals for body in robot.environments]
  assert len({*goals[0], *goals[1]}) == 2 * _N  # no key was used twice
  worker.iterate(_source(server), reports.append, _never)
  assert [row.iteration for row in reports[2 * _N :]] == [1] * 2 * _N
  np.testing.assert_array_equal(memory.latest().filled, [2 * _N * _T] * 2)
  taught = memory.latest().examples
  worker.again(_source(server))  # BADMM's multipliers have moved
  assert not np.array_equal(taught.action, memory.latest().examples.action)


def test_an_iteration_of_a_policy_begins_alike(local_maker, memory, server):
  worker, robot = local_maker(memory, on_policy=True)
  reports = []
  for _ in range(2):
    worker.iterate(_source(server), reports.append, _never)
  goals = [body.goals for body in robot.environments]
  assert [len({*some[:_N]}) + len({*some[_N:]}) for some in goals] == [2, 2]
  assert len({*goals[0], *goals[1]}) == 4
  assert len({row.distance for row in reports}) == 4 * _N  # and ends otherwise


def test_instances_may_begin_with_controllers_of_their_own(local_maker, memory):
  common = local_maker(memory)[0].state()['locals'][0].controller
  own = [common._replace(offset=common.offset + x) for x in (1.0, 2.0)]
  worker, _ = local_maker(memory, controllers=own)
  chex.assert_trees_all_equal([x.controller for x in worker.state()['locals']], own)


def test_rollouts_tell_of_improvements_that_kept_their_anchor(
  local_maker, memory, server
):
  worker, _ = local_maker(memory)
  state, (first, second) = worker.state(), worker.state()['locals']
  reasons = jnp.arange(5)  # met, slack, inside; unreachable, indefinite
  report = first.report._replace(reasons=reasons)
  worker.restore({**state, 'locals': [first._replace(report=report), second]})
  reports = []
  worker.iterate(_source(server), reports.append, _never)
  assert [row.held for row in reports] == [3 + 4] * _N + [0] * _N


def test_what_is_over_before_its_end_teaches_nothing(local_maker, memory, server):
  worker, _ = local_maker(memory)
  reports = []
  worker.iterate(_source(server), reports.append, lambda: len(reports) >= _N - 1)
  assert len(reports) == _N - 1
  assert memory.latest() is None


def test_robots_differ_and_one_that_comes_back_goes_on(local_maker, memory, server):
  (one, first), (other, second) = local_maker(memory), local_maker(memory, number=1)
  for worker in (one, other):
    worker.iterate(_source(server), lambda row: None, _never)
  assert not {*first.environments[0].goals} & {*second.environments[0].goals}
  again, robot = local_maker(memory)
  again.restore(one.state())
  again.skip_to(3)  # was long done
  again.skip_to(9)
  reports = []
  again.iterate(_source(server), reports.append, _never)
  assert [row.episode for row in reports] == list(range(9, 9 + 2 * _N))
  assert {row.iteration for row in reports} == {1}
  assert not {*robot.environments[0].goals} & {*first.environments[0].goals}


def test_a_parcel_is_the_gradient_of_what_is_remembered(
  agent, local_maker, memory, server
):
  worker, _ = local_maker(memory)
  teacher = global_worker.GlobalWorker(agent, memory, 16, 3, jax.random.key(2))
  published = server[1].latest(1.0)
  assert teacher.parcel(published) is None
  worker.iterate(_source(server), lambda row: None, _never)
  parcel = teacher.parcel(published)
  template = global_worker.parcel_template(agent)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), parcel) == jax.tree.map(
    lambda x: (x.shape, x.dtype), template
  )
  assert (parcel.version[0], parcel.collector[0]) == (1, 3)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(parcel))
  assert np.abs(jax.tree.leaves(parcel.gradients.params)[0]).max() > 0
  other = teacher.parcel(published)  # of another minibatch
  assert not np.array_equal(parcel.gradients.loss, other.gradients.loss)


def test_the_server_applies_counts_and_publishes(agent, local_maker, memory, server):
  made, replay = server
  worker, _ = local_maker(memory)
  worker.iterate(_source(server), made.note, _never)
  assert made.counters.episodes == 2 * _N
  assert made.counters.env_steps == 2 * _N * _T
  teacher = global_worker.GlobalWorker(agent, memory, 16, 0, jax.random.key(2))
  old = replay.latest(1.0)
  for _ in range(4):
    made.receive(teacher.parcel(old))
  assert made.counters.updates == 4
  assert replay.latest(1.0).version == 4  # after three
  stale = made.staleness
  assert (stale.gradients, stale.total, stale.most) == (4, 0 + 1 + 2 + 3, 3)
  metrics = made.metrics()
  assert metrics['staleness'] == 1.5
  assert 0 < metrics['utilization_0'] <= 1
  before, after = old.variables, replay.latest(1.0).variables
  leaves = zip(
    jax.tree.leaves(before.policy.params),
    jax.tree.leaves(after.policy.params),
    strict=True,
  )
  assert any(not np.array_equal(*pair) for pair in leaves)


def test_the_server_goes_on_from_a_policy(agent, server):
  made, replay = server
  taught = jax.tree.map(lambda x: np.asarray(x) + 1.0, made.variables())
  made.adopt(taught)
  made.publish()
  chex.assert_trees_all_equal(replay.latest(1.0).variables.policy, taught)
  chex.assert_trees_all_equal(made.variables(), taught)


def test_a_rollout_counts_once_and_readiness_is_none(server):
  made, _ = server
  assert made.note(local_worker.ready(2)) == []
  assert (made.ready, made.counters.episodes) == ({2}, 0)
  rollout = local_worker.ready(2)._replace(episode=5, steps=_T)
  assert made.note(rollout) == [rollout]
  assert made.note(rollout) == []
  assert (made.counters.episodes, made.dropped, made.next_episode(2)) == (1, 1, 6)
  travelled = local_worker.from_block(local_worker.to_block(rollout))
  assert travelled == rollout


def test_a_server_that_comes_back_is_what_it_was(agent, local_maker, memory, server):
  made, replay = server
  worker, _ = local_maker(memory)
  worker.iterate(_source(server), made.note, _never)
  made.train(memory.latest(), 10, 16)
  other = ParameterServer(agent, replay, 3, jax.random.key(5))
  other.restore(made.state(), made.progress())
  for twin in (made, other):
    twin.train(memory.latest(), 10, 16)
  assert other.counters == made.counters
  assert other.next_episode(0) == made.next_episode(0)
  for one, twin in zip(
    jax.tree.leaves(made.variables()), jax.tree.leaves(other.variables()), strict=True
  ):
    np.testing.assert_array_equal(one, twin)


def _paired(agent, options, local_maker, number, replays, saved):
  memory = lessons.Memory(2, gps.no_examples(options, _SPEC))
  worker, _ = local_maker(memory, number)
  key = jax.random.key(2)
  teacher = global_worker.GlobalWorker(agent, memory, 16, number, key)
  seams = pair.Seams(*replays)
  return pair.Pair(worker, teacher, memory, seams, 200.0, saved.append)


def test_whoever_asks_gets_the_newest_parameters():
  replay = MemoryReplay(1)
  newest = pair.Newest(replay)
  for version in (1, 2):
    replay.publish(types.Published(version, 0.0, None))
    assert newest.wait(threading.Event()) and newest().version == version
  stopped = threading.Event()
  stopped.set()
  assert not pair.Newest(MemoryReplay(1)).wait(stopped)


def test_pairs_teach_a_server(agent, options, local_maker):
  replays = MemoryReplay(4), MemoryReplay(4)
  made = ParameterServer(agent, replays[0], 2, jax.random.key(1))
  stop, saved = threading.Event(), ([], [])
  threads = []
  for number in range(2):
    paired = _paired(agent, options, local_maker, number, replays, saved[number])
    paired.prepare(gps.portable(agent.init(jax.random.key(0))))
    threads.append(threading.Thread(target=paired.run, args=[stop]))
    threads[-1].start()
  untaught = made.state()['learner']
  deadline = time.monotonic() + 120
  while made.counters.updates < 400 or made.counters.episodes < 8 * _N:
    assert time.monotonic() < deadline
    if len(made.ready) == 2 and made.staleness.gradients == 0:
      made.publish()  # both are there
    while block := replays[0].take(0.0):
      made.note(local_worker.from_block(block))
    if parcel := replays[1].take(0.01):
      made.receive(parcel)
  stop.set()
  while any(thread.is_alive() for thread in threads):
    replays[0].take(0.01)
    replays[1].take(0.01)
  assert all(states for states in saved)
  held = lessons.Memory(2, gps.no_examples(options, _SPEC))
  held.restore(saved[0][-1]['memory'])
  examples = lessons.sample(held.latest(), 200, jax.random.key(3))
  before, after = (
    float(agent.gradient(learner, examples).loss)
    for learner in (untaught, made.state()['learner'])
  )
  assert after < 0.8 * before, (before, after)
  again = _paired(agent, options, local_maker, 0, replays, [])
  again.restore(saved[0][-1])
  assert again.state()['local']['episode'] == saved[0][-1]['local']['episode'] > 0


def test_a_pair_dies_of_what_its_global_worker_dies_of(agent, options, local_maker):
  replays = MemoryReplay(64), MemoryReplay(4)
  ParameterServer(agent, replays[0], 2, jax.random.key(1)).publish()
  paired = _paired(agent, options, local_maker, 0, replays, [])
  paired._teacher.parcel = lambda published: Fraction(1, 0)
  with pytest.raises(ZeroDivisionError):
    paired.run(threading.Event())
