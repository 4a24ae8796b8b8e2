"""Tasks on MJX: held to native MuJoCo, to brax's interface, and to their time limit."""

import subprocess
import sys

from brax import envs as brax_envs
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from armfarm import envs
from armfarm.envs import compiler
from armfarm.envs import host
from armfarm.envs import mjx

_SIZE = 20  # as many episodes as a test of success has
_STEPS = 20
_FEWER_STEPS = {'pick_place': 10}  # of 10 ms; after that, a finger may meet the stick
_ATOL = 5e-5  # single against double precision
_ATOL_OF_CONTACTS = 1e-3  # also of a handle that falls on its stop
# Each is compiled once for the whole file. Pushing has the physics of pulling, and
# objects of many shapes are for native MuJoCo.
_TASKS = sorted(set(envs.TASKS) - {'door_push', 'grasp_state', 'grasp'})
# Coverage makes tracing a fifth longer, and needs it once.
_MEASURED = 'reach'


def _keys(*seeds):
  return jax.vmap(jax.random.key)(jnp.asarray(seeds))


def _with_open_doors(task):
  """Doors of odd seeds begin open and with the handle turned, to fall shut."""
  if task.active is None:
    return task

  def reset(key):
    start = task.reset(key)
    odd = jax.random.key_data(key)[-1] % 2
    angles = odd * jnp.array([0.3, 1.3])
    return start._replace(qpos=start.qpos.at[-2:].set(angles))

  return task._replace(reset=reset)


@pytest.fixture(scope='module')
def tasks(numbers):
  made = {name: make(**numbers[name]) for name, make in envs.TASKS.items()}
  return {name: _with_open_doors(task) for name, task in made.items()}


@pytest.fixture(scope='module')
def bodies(tasks):
  """Name -> a batch of the task, compiled: `reset(keys)`, `step(state, actions)`."""
  made = {name: mjx.Mjx(tasks[name]) for name in _TASKS}
  return {
    name: [compiler.jit(jax.vmap(f)) for f in (body.reset, body.step)]
    for name, body in made.items()
  }


@pytest.fixture(
  scope='module',
  params=[
    pytest.param(name, marks=[] if name == _MEASURED else pytest.mark.no_cover)
    for name in _TASKS
  ],
)
def task(request, tasks):
  return tasks[request.param]


@pytest.fixture(scope='module')
def body(task, bodies):
  return bodies[task.name]


def _actions(kind, task):
  steps = _FEWER_STEPS.get(task.name, _STEPS)
  shape = (steps, _SIZE, task.action_size)  # too few to touch anything
  actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
  return {'random': actions, 'extreme': np.sign(actions)}[kind]


@pytest.mark.parametrize('kind', ['random', 'extreme'])
def test_mjx_does_what_native_does(task, body, kind):
  reset, step = body
  native = host.HostBatch(task, _SIZE, threads=1)
  first = native.reset(_keys(*range(_SIZE)))
  state = reset(_keys(*range(_SIZE)))
  np.testing.assert_allclose(state.obs, first, rtol=0, atol=1e-6)
  atol = _ATOL_OF_CONTACTS if task.movable else _ATOL
  for actions in _actions(kind, task):
    state, other = step(state, actions), native.step(actions)
    # Actuators at their limits are part of it: with
    # mjx.step alone the joint velocities are 0.02 rad/s apart after two steps.
    np.testing.assert_allclose(state.obs, other.observation, rtol=0, atol=atol)
    np.testing.assert_allclose(state.reward, other.reward, rtol=0, atol=atol)
    np.testing.assert_array_equal(state.metrics['success'], other.success)
    np.testing.assert_array_equal(state.done, other.terminated)
  assert state.obs.dtype == state.reward.dtype == jnp.float32


def test_a_task_for_native_mujoco_alone_is_refused(tasks):
  with pytest.raises(ValueError, match='grasp_state does not run on MJX: take native'):
    mjx.Mjx(tasks['grasp_state'])


@pytest.mark.parametrize('name', ['reach', 'pick_place'])
def test_mjx_stays_with_native_where_nothing_touches(tasks, bodies, name):
  task, (reset, step) = tasks[name], bodies[name]
  native = host.HostBatch(task, _SIZE, threads=1)
  native.reset(_keys(*range(_SIZE)))
  state = reset(_keys(*range(_SIZE)))
  rng = np.random.default_rng(1)
  for _ in range(100):
    actions = rng.uniform(-0.5, 0.5, (_SIZE, task.action_size)).astype(np.float32)
    actions[:, 6:] = -0.3  # fingers, where there are any, stay open
    state, other = step(state, actions), native.step(actions)
    np.testing.assert_allclose(state.obs, other.observation, rtol=0, atol=1e-3)
    assert not state.pipeline_state.sensordata.any()


def _active(task, native):
  """Which equalities hold, [B E], in the state of a native batch."""
  found = np.empty((_SIZE, task.model.neq))
  whole, part = (
    mujoco.mjtState.mjSTATE_INTEGRATION,
    mujoco.mjtState.mjSTATE_EQ_ACTIVE,
  )
  for row, physics in zip(found, native.state()['physics'], strict=True):
    mujoco.mj_extractState(task.model, physics, whole, row, part)
  return found > 0


def test_a_door_falls_shut_alike_on_both_while_the_arm_moves(tasks, bodies):
  task = tasks['door_pull']
  reset, step = bodies['door_pull']
  native = host.HostBatch(task, _SIZE, threads=1)
  native.reset(_keys(*range(_SIZE)))
  state = reset(_keys(*range(_SIZE)))
  rng = np.random.default_rng(0)
  held = []
  for _ in range(100):
    actions = rng.uniform(-0.15, 0.15, (_SIZE, 7)).astype(np.float32)
    state, other = step(state, actions), native.step(actions)
    np.testing.assert_allclose(
      state.obs, other.observation, rtol=0, atol=_ATOL_OF_CONTACTS
    )
    np.testing.assert_allclose(
      state.reward, other.reward, rtol=0, atol=_ATOL_OF_CONTACTS
    )
    held.append(_active(task, native))
    np.testing.assert_array_equal(state.pipeline_state.eq_active, held[-1])
    apart = state.obs[:, 14:17] - state.obs[:, 17:20]
    assert (np.linalg.norm(apart, axis=1) > 0.15).all()  # the hook touches nothing
  assert 0 < held[0].sum() < _SIZE
  assert held[-1].all()
  assert len(np.unique(state.obs[:, 20:22], axis=0)) == _SIZE  # doors in their places


@pytest.mark.parametrize(
  ('name', 'steps'),
  [
    ('door_push', 100),
    ('door_pull', 100),
    ('pick_place', 300),
    ('reach_torque', 60),
    ('peg', 80),
  ],
)
def test_a_script_solves_the_task(tasks, bodies, scripts, name, steps):
  reset, step = bodies.get(name, bodies['door_pull'])
  policy = scripts[name](tasks[name])
  state = reset(_keys(*range(0, 2 * _SIZE, 2)))  # all doors shut
  for _ in range(steps):
    state = step(state, policy(np.asarray(state.obs)).astype(np.float32))
  data, goal = state.pipeline_state, state.info['goal']
  assert tasks[name].success(data, goal).sum() >= 18


def test_sizes_are_those_of_the_task(task):
  body = mjx.Mjx(task)
  assert body.observation_size == task.observation_size
  assert body.action_size == task.action_size
  assert body.backend == 'mjx'


class _Count(brax_envs.Env):
  """Counts in `obs`; a goal of its own each time; terminates at its goal."""

  observation_size = 1
  action_size = 1
  backend = 'none'

  def reset(self, rng):
    goal = 3.0 + jax.random.randint(rng, [], 0, 100)
    zero = jnp.zeros([])
    return brax_envs.State(
      zero, jnp.zeros([1]), zero, zero, metrics={'success': zero}, info={'goal': goal}
    )

  def step(self, state, action):
    obs = state.obs + action
    done = (obs[0] >= state.info['goal']).astype(jnp.float32)
    return state.replace(pipeline_state=obs[0], obs=obs, reward=obs[0], done=done)


def _play(state, step, actions):
  states = []
  for action in actions:
    state = step(state, jnp.asarray(action)[:, None])
    states.append(state)
  return states


def test_episodes_follow_one_another():
  env = mjx.AutoReset(_Count(), episode_steps=3)
  start = jax.jit(env.reset)(jax.random.split(jax.random.key(0), 2))
  goals = start.info['goal']
  # The first reaches its goal in its second step, the second runs out of time.
  actions = [(1.0, 0.25), (200.0, 0.25), (1.0, 0.25), (1.0, 0.25)]
  states = _play(start, jax.jit(env.step), actions)
  last = [state.info['last_observation'][:, 0].tolist() for state in states]
  assert last == [[1, 0.25], [201, 0.5], [1, 0.75], [2, 0.25]]
  after = [state.obs[:, 0].tolist() for state in states]
  assert after == [[1, 0.25], [0, 0.5], [1, 0], [2, 0.25]]
  assert [s.info['terminated'].tolist() for s in states[1:3]] == [
    [True, False],
    [False, False],
  ]
  assert [s.info['truncated'].tolist() for s in states[1:3]] == [
    [False, False],
    [False, True],
  ]
  assert [s.done.tolist() for s in states] == [[0, 0], [1, 0], [0, 1], [0, 0]]
  assert [s.info['steps'].tolist() for s in states] == [[1, 1], [0, 2], [1, 0], [2, 1]]
  assert [s.reward.tolist() for s in states[1:3]] == [[201, 0.5], [1, 0.75]]
  new = [state.info['goal'] for state in states]
  assert (new[0] == goals).all()
  assert new[1][0] != goals[0] and new[1][1] == goals[1]
  assert new[2][0] == new[1][0] and new[2][1] != goals[1]


def test_a_termination_at_the_time_limit_is_no_truncation():
  env = mjx.AutoReset(_Count(), episode_steps=1)
  state = env.reset(jax.random.split(jax.random.key(0), 2))
  state = env.step(state, jnp.array([[200.0], [0.0]]))
  assert state.info['terminated'].tolist() == [True, False]
  assert state.info['truncated'].tolist() == [False, True]


# The arm takes a minute to compile in all that SAC makes of it; one hinge does not.
_SAC = """
from brax.training.agents.sac import train as sac
import jax.numpy as jnp
import mujoco
from armfarm.envs import mjx
from armfarm.envs import task

model = mujoco.MjModel.from_xml_string('''
<mujoco>
  <option integrator="implicitfast" jacobian="dense"/>
  <worldbody>
    <body>
      <joint name="hinge" axis="0 1 0" range="-90 90"/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0 0 0.5"/>
    </body>
  </worldbody>
  <actuator><motor joint="hinge" ctrlrange="-1 1" forcerange="-1 1"/></actuator>
  <keyframe><key qpos="0"/></keyframe>
</mujoco>
''')
never = lambda data, goal, *_: jnp.zeros(goal.shape[:-1], bool)
hinge = task.Task(
  name='hinge', model=model, substeps=2, episode_steps=16, observation_size=2,
  action_size=1, control=lambda data, action: action,
  reset=lambda key: task.Start(jnp.zeros(1), jnp.zeros(1), jnp.zeros(1)),
  observe=lambda data, goal: jnp.concatenate([data.qpos, data.qvel], axis=-1),
  reward=lambda data, goal, action: -jnp.abs(data.qpos[..., 0]),
  success=never, terminated=never,
)
_, _, metrics = sac.train(
  environment=mjx.Mjx(hinge), num_timesteps=64, episode_length=16, num_envs=4,
  num_eval_envs=4, num_evals=2, batch_size=8, min_replay_size=16,
)
print('reward', metrics['eval/episode_reward'])
"""


@pytest.mark.skipif(
  not hasattr(jax, 'device_put_replicated'), reason='brax 0.14.2 needs jax < 0.10'
)
def test_braxs_sac_trains_on_it(unmeasured):
  # And so its wrappers, which give raw keys, take it.
  flags = compiler.flags(jax.__version__)
  environment = {**unmeasured, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
    [sys.executable, '-c', _SAC],
    env=environment,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  reward = float(done.stdout.split('reward')[1])
  assert -16 * np.pi / 2 < reward < 0
