"""Compares four virtual devices with one; a process of its own, since JAX starts once.

Prints a JSON object: see `test_fused.py`, which reads it.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from armfarm import agents
from armfarm.agents import types
from armfarm.configs import ddpg
from armfarm.configs import naf
from armfarm.envs import compiler

_DEVICES, _BATCH, _UPDATES = 4, 64, 5
_SPEC = types.Spec(observation_size=20, action_size=7)
_AXIS = 'devices'
_CONFIGS = {
  'naf': functools.partial(naf.get_config, 'reach'),
  'linear-naf': functools.partial(naf.get_config, 'reach,linear'),
  'ddpg': functools.partial(ddpg.get_config, 'reach'),
}


def batches(rng):
  """Returns minibatches for all the updates, [N B ...]."""
  lead = (_UPDATES, _BATCH)

  def normal(*size):
    return jnp.asarray(rng.normal(size=(*lead, *size)), jnp.float32)

  return types.Transition(
    observation=normal(_SPEC.observation_size),
    action=jnp.tanh(normal(_SPEC.action_size)),
    reward=normal(),
    discount=jnp.asarray(rng.random(lead) > 0.1, jnp.float32),
    truncation=jnp.zeros(lead),
    next_observation=normal(_SPEC.observation_size),
  )


def learn(agent, learner, examples):
  """Makes all the updates, in a scan."""
  keys = jax.random.split(jax.random.key(1), _UPDATES)
  return jax.lax.scan(
    lambda state, x: (agent.update(state, *x)[0], None), learner, (examples, keys)
  )[0]


def difference(name, normalization):
  """Returns how far apart one and four devices end, and how far they had come."""
  numbers = _CONFIGS[name]().agent.to_dict()
  entry = agents.AGENTS[numbers.pop('name')]
  config = entry.Config(**numbers | {'normalization': normalization})
  one, four = entry.make(_SPEC, config), entry.make(_SPEC, config, _AXIS)
  start = jax.jit(one.init)(jax.random.key(0))
  examples = batches(np.random.default_rng(0))
  alone = jax.jit(functools.partial(learn, one))(start, examples)
  shared = jax.tree.map(
    lambda x: x.reshape(_UPDATES, _DEVICES, -1, *x.shape[2:]), examples
  )
  mapped = jax.pmap(functools.partial(learn, four), _AXIS, in_axes=(None, 1))
  together = mapped(start, shared)
  parts = [(x.params, x.statistics) for x in (start, alone, together)]
  began, mine, theirs = (jax.tree.leaves(part) for part in parts)
  apart = [np.abs(x[None] - y).max() for x, y in zip(mine, theirs, strict=True)]
  moved = [np.abs(x - y).max() for x, y in zip(began, mine, strict=True)]
  return {'apart': float(max(apart)), 'moved': float(max(moved))}


def empty():
  """Returns the shapes that arrays with and without elements have after mapping."""
  given = jnp.ones([_DEVICES, 3]), jnp.ones([_DEVICES, 0])
  mapped = jax.pmap(lambda full, none: (full + none.sum(), none), _AXIS)
  return [x.shape for x in mapped(*given)]


if __name__ == '__main__':
  compiler.prepare_devices(_DEVICES)
  differences = {
    f'{name}-{kind}': difference(name, kind)
    for name in _CONFIGS
    for kind in ('layer', 'batch')
  }
  print(json.dumps({'differences': differences, 'empty': empty()}))
