"""How fast QT-Opt labels, learns and acts.

  python benchmarks/qtopt.py

Prints, for the network of 64 x 64 pixels and minibatches of 32, labelled steps a
second: the Bellman update of a minibatch and one gradient step, apart, in one program,
and ten of these in a loop, as trainers make them. Of the search it prints milliseconds
an action, with that network for one state and with an MLP of two layers of 100 units
for one state and for 32; and for the latter, what share of the search is the network,
by two bare passes over as many samples. All take turns, round by round, so that a
change of the machine's speed meets them alike.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import itertools
import os
import statistics
import time
from typing import Any

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.agents import types
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import cem
from armfarm.agents.qtopt import networks
from armfarm.configs import qtopt as configs
from armfarm.experiments import results
from armfarm.experiments import rows
from armfarm.launchers import guided
from armfarm.workers import trainer

_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Rounds; the medians are printed.')

_BATCH, _PIXELS, _CALLS = 32, 72, 5
_LOOP = 10  # labelled steps


def config(network: str, **other: Any) -> qtopt.Config:
  """Returns the agent's numbers, but for those given."""
  numbers = configs.agent(network).to_dict() | other
  del numbers['name']
  return guided.fill(qtopt.Config, numbers)


Calls = dict[str, Callable[[], Any]]


def transitions(layout: Any) -> types.Transition:
  """Draws a minibatch whose images are larger than what the network sees."""
  rng = np.random.default_rng(0)
  numbers = jnp.asarray(rng.normal(size=[2, _BATCH, 2]), jnp.float32)
  shape = 2, _BATCH, _PIXELS, _PIXELS, 3
  pixels = jnp.asarray(rng.integers(0, 256, shape, np.uint8))
  before, after = map(networks.Observation, pixels, numbers)
  prior = cem.prior(layout, 1.0)
  action = cem.draw(layout, prior, _BATCH, jax.random.key(0))
  zeros, ones = jnp.zeros(_BATCH), jnp.ones(_BATCH)
  return types.Transition(before, action, zeros, ones, zeros, after)


def learning() -> Calls:
  """Returns calls that label a minibatch, learn from it, do both, and act."""
  spec = types.Spec(observation_size=2, action_size=8)
  numbers = config('grasping64')
  agent, model = qtopt.make(spec, numbers), qtopt.build(spec, numbers)
  state, key = jax.jit(agent.init)(jax.random.key(0)), jax.random.key(1)
  batch, variables = transitions(model.layout), agent.variables(state)
  label, update = jax.jit(agent.label), jax.jit(agent.update)
  act = jax.jit(agent.act)
  examples, _ = label(variables, (), batch, key)
  one = jax.tree.map(lambda x: x[0], batch.observation)

  @jax.jit
  def both(state: Any, batch: Any, key: Any) -> Any:
    key_label, key_update = jax.random.split(key)
    examples, _ = agent.label(agent.variables(state), (), batch, key_label)
    return agent.update(state, examples, key_update)

  loop = jax.jit(functools.partial(trainer.learn, agent, _LOOP))
  many = jax.tree.map(lambda x: jnp.concatenate([x] * _LOOP), batch)

  return {
    'label': lambda: label(variables, (), batch, key),
    'update': lambda: update(state, examples, key),
    'labelled_step': lambda: both(state, batch, key),
    'loop': lambda: loop(state, many, key),
    'act': lambda: act(variables, one, key),
  }


def searching() -> Calls:
  """Returns calls that search with an MLP of five actions, and ask it bare."""
  spec = types.Spec(observation_size=20, action_size=5)
  numbers = config('mlp', angles=0, commands=())
  agent, model = qtopt.make(spec, numbers), qtopt.build(spec, numbers)
  state = jax.jit(agent.init)(jax.random.key(0))
  target = agent.variables(state).target
  keys = jax.random.key_data(jax.random.split(jax.random.key(1), _BATCH))
  embed = functools.partial(model.network.apply, target, train=False, method='embed')
  score = functools.partial(model.network.apply, target, train=False, method='score')
  embedding = jax.jit(embed)(jnp.ones([_BATCH, 20]))
  samples = jnp.zeros([2, _BATCH, model.config.cem.samples, 5])
  search = functools.partial(qtopt.greedy, model, model.config.cem, target)

  # Keys as their data: a typed one would be dispatched in Python.
  def found(embedding: Any, data: Any) -> Any:
    return search(embedding, jax.random.wrap_key_data(data))[:2]

  @jax.jit
  def bare(embedding: Any, samples: Any) -> Any:
    each = jax.vmap(lambda e, a: score(e[None], a))
    return [each(embedding, actions) for actions in samples]

  one, many = jax.jit(found), jax.jit(jax.vmap(found))
  first, key = embedding[0], keys[0]
  return {
    'search_1': lambda: one(first, key),
    'search_32': lambda: many(embedding, keys),
    'bare_32': lambda: bare(embedding, samples),
  }


def spend(call: Callable[[], Any], calls: int) -> float:
  """Returns the milliseconds of a call."""
  began = time.perf_counter()
  for _ in range(calls):
    found = call()
  jax.block_until_ready(found)
  return 1e3 * (time.perf_counter() - began) / calls


def measure(calls: Calls, rounds: int) -> dict[str, list[float]]:
  """Times calls in turn; returns the milliseconds of each round."""
  spent: dict[str, list[float]] = {name: [] for name in calls}
  for _, (name, call) in itertools.product(range(rounds + 1), calls.items()):
    # Small calls are many, for the clock.
    count = 20 * _CALLS if name.startswith(('search', 'bare')) else _CALLS
    spent[name].append(spend(call, count))
  return {name: values[1:] for name, values in spent.items()}  # the first compiles


def main(argv: list[str]) -> None:
  """Prints and records the medians of all calls, the rate, and the ratios."""
  del argv
  os.environ['NPROC'] = str(os.cpu_count())  # all; launchers take one
  spent = measure(learning() | searching(), _ROUNDS.value)
  median = {name: statistics.median(values) for name, values in spent.items()}

  def ratio(own: str, *others: str) -> float:
    pairs = zip(spent[own], zip(*(spent[x] for x in others), strict=True), strict=True)
    return statistics.median(sum(other) / x for x, other in pairs)

  found = {name: (value, 'ms') for name, value in median.items()}
  found['labelled_steps'] = 1e3 / median['labelled_step'], 'steps/s'
  found['labelled_steps_in_loop'] = 1e3 * _LOOP / median['loop'], 'steps/s'
  found['parts_of_labelled_step'] = ratio('labelled_step', 'label', 'update'), ''
  found['bare_of_search_32'] = ratio('search_32', 'bare_32'), ''
  found['load'] = os.getloadavg()[0], 'processes'
  source = rows.Source('python benchmarks/qtopt.py', rows.commit(), rows.machine())
  recorded = []
  for name, (value, unit) in found.items():
    print(f'{name}\t{value:,.3f} {unit}', flush=True)
    row = name, round(value, 3), unit, None
    recorded.append(rows.Row('qtopt', 'random', 'qtopt', 'cpu', 0, *row, *source))
  rows.merge(results.folder(), recorded)


if __name__ == '__main__':
  app.run(main)
