"""A task on MJX: as many instances as a device holds, each a pure function of state.

  Mjx         one instance, a `brax.envs.Env` without a time limit; map it for many
  AutoReset   a batch of them with a time limit, whose episodes follow one another

Both hold to the rules of `host.py`: what a step returns is read from the state after
it, and an episode starts from the model's first keyframe, under the task's own `Start`.
They compute in single precision, and drift from `host.py` by what that rounds. Nothing
checks an action here: a traced value cannot be refused.

JAX 0.7.1 to 0.10 compile a serial arm a thousand times too slow on a CPU: whoever jits
a step takes `compiler.jit`, or sets XLA_FLAGS=--xla_cpu_use_fusion_emitters=false.

Letters as in `task.py`.
"""

from __future__ import annotations

import contextlib
import functools
import io
from typing import Any

import chex
import jax
import jax.numpy as jnp
import mujoco

from armfarm.envs.task import Task

with contextlib.redirect_stdout(io.StringIO()):  # MJX prints that it lacks Warp
  from brax.envs import Env
  from brax.envs import State
  from brax.envs import Wrapper
  from mujoco import mjx

_HOME = 0  # the first keyframe


@jax.jit  # traced once for the resets and steps that are compiled of it
def _begin_step(model: mjx.Model, data: mjx.Data) -> mjx.Data:
  """Computes what follows from positions and velocities, as `mj_step1`."""
  data = mjx.sensor_pos(model, mjx.fwd_position(model, data))
  return mjx.sensor_vel(model, mjx.fwd_velocity(model, data))


@jax.jit
def _end_step(model: mjx.Model, data: mjx.Data) -> mjx.Data:
  """Computes accelerations and integrates by `implicitfast`, as `mj_step2`.

  `mjx.step` damps the velocities by every actuator's slope, also where the actuator's
  force is at its limit and has none; native MuJoCo leaves those out.
  """
  data = mjx.fwd_acceleration(model, mjx.fwd_actuation(model, data))
  data = mjx.sensor_acc(model, mjx.solve(model, data))
  low, high = model.actuator_forcerange.T
  force = data.actuator_force
  limited = model.actuator_forcelimited & ((force <= low) | (force >= high))
  slopes = {
    name: jnp.where(limited[:, None], 0.0, getattr(model, name))
    for name in ('actuator_gainprm', 'actuator_biasprm')
  }
  return mjx.implicit(model.replace(**slopes), data)


class Mjx(Env):
  """One instance of a task, for `jax.vmap`.

  Its `State` has the physics as `pipeline_state`, `done` where the task terminated,
  `metrics['success']` where its criterion holds, and `info['goal']`, [G].
  """

  def __init__(self, task: Task):
    """Puts the model on the device.

    Raises:
      ValueError: its integrator is another than `implicitfast`, or the task asks for
        what native MuJoCo alone does.
    """
    if task.final_reward or task.fields or task.settling or task.view:
      raise ValueError(f'{task.name} does not run on MJX: take native MuJoCo')
    if task.model.opt.integrator != mujoco.mjtIntegrator.mjINT_IMPLICITFAST:
      raise ValueError(f'the model of {task.name} needs integrator="implicitfast"')
    self._task = task
    data = mujoco.MjData(task.model)
    mujoco.mj_resetDataKeyframe(task.model, data, _HOME)
    with jax.numpy_rank_promotion('allow'):
      self._model = mjx.put_model(task.model, impl='jax')
      self._home = mjx.put_data(task.model, data, impl='jax')

  @property
  def observation_size(self) -> int:
    """O."""
    return self._task.observation_size

  @property
  def action_size(self) -> int:
    """A."""
    return self._task.action_size

  @property
  def backend(self) -> str:
    """What computes the physics."""
    return 'mjx'

  def reset(self, rng: chex.PRNGKey) -> State:
    """Begins an episode.

    Args:
      rng: decides the episode, as it does on every body; typed, or brax's raw one;
        consumed.
    """
    if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
      rng = jax.random.wrap_key_data(rng)
    start = self._task.reset(rng)
    qpos, qvel = (jnp.asarray(x, jnp.float32) for x in (start.qpos, start.qvel))
    data = self._home.replace(qpos=qpos, qvel=qvel)
    with jax.numpy_rank_promotion('allow'):
      data = _begin_step(self._placed(start.goal), data)
    none = jnp.zeros([])
    return State(
      pipeline_state=data,
      obs=self._task.observe(data, start.goal),
      reward=none,
      done=none,
      metrics={'success': none},
      info={'goal': start.goal},
    )

  def step(self, state: State, action: chex.Array) -> State:
    """Takes one control step with an action [A] in [-1, 1]."""
    task, goal = self._task, state.info['goal']
    data = state.pipeline_state.replace(ctrl=task.control(state.pipeline_state, action))
    substep = functools.partial(self._substep, self._placed(goal))
    is_last = jnp.arange(task.substeps) == task.substeps - 1
    data, _ = jax.lax.scan(substep, data, is_last)
    return state.replace(
      pipeline_state=data,
      obs=task.observe(data, goal),
      reward=task.reward(data, goal, action),
      done=task.terminated(data, goal, action).astype(jnp.float32),
      metrics=state.metrics | {'success': task.success(data, goal).astype(jnp.float32)},
    )

  def _substep(
    self, model: mjx.Model, data: mjx.Data, is_last: chex.Array
  ) -> tuple[mjx.Data, None]:
    """A physics step, from and to where positions and velocities are up to date."""
    with jax.numpy_rank_promotion('allow'):
      data = _end_step(model, data)
    if self._task.active is not None:
      active = jnp.where(is_last, self._task.active(data), data.eq_active)
      data = data.replace(eq_active=active)
    with jax.numpy_rank_promotion('allow'):
      return _begin_step(model, data), None

  def _placed(self, goal: chex.Array) -> mjx.Model:
    """Returns the model with the bodies where an episode puts them."""
    if self._task.place is None:
      return self._model
    rows = jnp.asarray(self._task.movable)
    positions = self._model.body_pos.at[rows].set(self._task.place(goal))
    return self._model.replace(body_pos=positions)


class AutoReset(Wrapper):
  """B instances whose episodes follow one another, each on a goal of its own.

  Unlike brax's wrapper of this name it draws a new goal for every episode, keeps the
  true last observation, and tells a time limit from a termination. `obs` is what to act
  on next: the first observation of the new episode where one has just ended. `info` has

    last_observation [B O]   after the step, of the episode that the step belongs to
    terminated, truncated [B]
    steps [B]                of the present episode
    key [B 2]                of the episodes to come, its data

  Args:
    env: one instance, which need not be mapped.
    episode_steps: the time limit, control steps.
  """

  def __init__(self, env: Env, episode_steps: int):
    super().__init__(env)
    self._episode_steps = episode_steps

  def reset(self, rng: chex.PRNGKey) -> State:
    """Begins an episode in every instance; keys [B] are consumed."""
    starts, keys = jax.vmap(lambda key: tuple(jax.random.split(key)))(rng)
    state = jax.vmap(self.env.reset)(starts)
    size = len(keys)
    own = {
      'last_observation': state.obs,
      'terminated': jnp.zeros(size, bool),
      'truncated': jnp.zeros(size, bool),
      'steps': jnp.zeros(size, jnp.int32),
      'key': jax.random.key_data(keys),
    }
    return state.replace(info=state.info | own)

  def step(self, state: State, action: chex.Array) -> State:
    """Takes one control step in every instance, with actions [B A] in [-1, 1]."""
    after = jax.vmap(self.env.step)(state, action)
    steps = state.info['steps'] + 1
    terminated = after.done > 0
    truncated = ~terminated & (steps >= self._episode_steps)
    over = terminated | truncated
    info = after.info | {
      'last_observation': after.obs,
      'terminated': terminated,
      'truncated': truncated,
      'steps': steps,
    }
    after = after.replace(info=info, done=over.astype(jnp.float32))
    # A condition for the whole batch: most steps end no episode, and cost nothing here.
    return jax.lax.cond(over.any(), self._begin, lambda state: state, after)

  def _begin(self, state: State) -> State:
    """Begins an episode where one has ended."""
    begun = self.reset(jax.random.wrap_key_data(state.info['key']))

    over = state.done > 0
    info = state.info | {
      name: choose(over, begun.info[name], state.info[name])
      for name in ('goal', 'steps', 'key')
    }
    return state.replace(
      pipeline_state=choose(over, begun.pipeline_state, state.pipeline_state),
      obs=choose(over, begun.obs, state.obs),
      info=info,
    )


def choose(which: chex.Array, new: Any, old: Any) -> Any:
  """Returns the rows of a tree `new` [B ...] where `which` [B] holds, else of `old`."""
  return jax.tree.map(lambda x, y: jax.vmap(jnp.where)(which, x, y), new, old)
