"""How much faster one iteration of guided policy search is than in NumPy.

  python benchmarks/gps.py

The size is that of the peg: 100 steps, 26 states, 7 actions, 5 rollouts, a mixture of
20 Gaussians of 20 rollouts; PI2 takes 30 rollouts. Both sides compute the same
equations in double precision on one core, with equally many steps of expectation
maximisation from the same start, and equally many passes of the search; their results
are compared first. They take turns, round by round, and what counts is processor time,
so that what else the machine does meets them alike. Medians are printed and recorded.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import os
import statistics
import sys
import time
from typing import Any, NamedTuple

import _gps_numpy as plain
from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from armfarm.agents.gps import costs
from armfarm.agents.gps import dynamics
from armfarm.agents.gps import linear_gaussian as lg
from armfarm.agents.gps import lqr
from armfarm.agents.gps import mixture as gmm
from armfarm.agents.gps import pi2
from armfarm.experiments import results
from armfarm.experiments import rows

_ROUNDS = flags.DEFINE_integer('rounds', 9, 'Rounds; the medians are printed.')
_STEPS = flags.DEFINE_integer('em_steps', 20, 'Steps of expectation maximisation.')

_T, _X, _A, _N, _GAUSSIANS, _REMEMBERED = 100, 26, 7, 5, 20, 20
_RIDGE, _REGULARIZATION, _EPSILON = 1e-6, 1e-6, 20.0
_CALLS = {'iteration': 1, 'search': 5, 'pi2': 20}  # a round; the small ones are many
_PI2 = pi2.Options(
  epsilon=1.0, min_temperature=1e-6, damping=2.0, covariance_floor=1e-12
)
_LQR = lqr.Options(tolerance=0.1, min_eta=1e-8, max_eta=1e16, max_passes=50)


class Data(NamedTuple):
  """Rollouts of a random stable system, and a controller.

  Attributes:
    states: [N T X].
    actions: [N T A].
    anchor: that made them.
    cost: expansions at every step.
  """

  states: Any
  actions: Any
  anchor: lg.Controller
  cost: costs.Expansion


def make_data(count: int, seed: int) -> Data:
  """Draws `count` rollouts."""
  system, rng = np.random.default_rng(0), np.random.default_rng(seed)
  decay = 0.95 * np.linalg.qr(system.normal(size=[_X, _X]))[0]
  push = 0.3 * system.normal(size=[_X, _A])
  tril = np.broadcast_to(0.3 * np.eye(_A), (_T, _A, _A))
  gain = 0.05 * system.normal(size=[_T, _A, _X])
  anchor = lg.Controller(gain, 0.1 * system.normal(size=[_T, _A]), tril)
  x, states, actions = rng.normal(size=[count, _X]), [], []
  for t in range(_T):
    u = x @ gain[t].T + anchor.offset[t] + 0.3 * rng.normal(size=[count, _A])
    states.append(x)
    actions.append(u)
    x = np.sin(x @ decay.T) + u @ push.T + 0.01 * rng.normal(size=x.shape)
  states, actions = np.stack(states, 1), np.stack(actions, 1)
  z = np.concatenate([states, actions], axis=2)
  weights = np.r_[np.ones(_X), np.full(_A, 0.1)]
  hessian = np.broadcast_to(np.diag(weights), (*z.shape, _X + _A))
  cost = costs.Expansion(0.5 * (weights * z**2).sum(2), weights * z, hessian)
  return jax.tree.map(jnp.asarray, Data(states, actions, anchor, cost))


def standard_points() -> tuple[Any, gmm.Mixture]:
  """Standardised points of the remembered rollouts, and a mixture to begin with."""
  data = make_data(_REMEMBERED, 1)
  points = dynamics.joint(data.states, data.actions).reshape(-1, 2 * _X + _A)
  points = (points - points.mean(0)) / points.std(0)
  start = jax.jit(gmm.grow)(
    gmm.empty(_GAUSSIANS, points.shape[1]),
    points,
    jnp.ones(len(points)),
    jnp.float64(_GAUSSIANS),
    _RIDGE,
    jax.random.key(0),
  )
  return points, start


def ours(points: Any, start: gmm.Mixture, data: Data, eta: Any) -> Any:
  """One iteration: mixture, model, cost, search."""
  options = gmm.Options(_RIDGE, -float('inf'), _STEPS.value)
  fit = gmm.maximise(start, points, jnp.ones(len(points)), options)
  new = dynamics.joint(data.states, data.actions)
  prior = dynamics.local_prior(fit.mixture, new, jnp.float64(len(points)), 1.0)
  added = dynamics.Regularization(_REGULARIZATION)
  model = dynamics.fit(data.states, data.actions, prior, added)
  z = jnp.concatenate([data.states, data.actions], axis=2)
  cost = costs.average(data.cost, z)
  return fit, model, cost, search(model, cost, data, eta)


def search(model: lg.Dynamics, cost: lg.Quadratic, data: Data, eta: Any) -> Any:
  """The constrained improvement alone."""
  initial = dynamics.initial_state(data.states[:, 0], 1e-6)
  nought = jnp.zeros([_T])
  return lqr.improve(
    lqr.Model(model, initial),
    cost,
    data.anchor,
    jnp.float64(_EPSILON),
    eta,
    nought,
    _LQR,
  )


def theirs(points: Any, start: Any, data: Any, etas: Any) -> Any:
  """The iteration of `ours` in NumPy, with passes at the given multipliers."""
  mixture, likelihood = plain.maximise(
    plain.Mixture(start.weights, start.mean, start.covariance),
    points,
    _RIDGE,
    _STEPS.value,
  )
  joint = np.concatenate(
    [data.states[:, :-1], data.actions[:, :-1], data.states[:, 1:]], axis=2
  )
  model = plain.fit_dynamics(mixture, joint, _X + _A, len(points), _REGULARIZATION)
  z = np.concatenate([data.states, data.actions], axis=2)
  value, gradient, hessian = data.cost
  curved = np.einsum('ntyz,nty->ntz', hessian, z)
  constant = (value - ((gradient - 0.5 * curved) * z).sum(2)).mean(0)
  cost = lg.Quadratic(hessian.mean(0), (gradient - curved).mean(0), constant)
  return likelihood, model, cost, their_search(model, cost, data, etas)


def their_search(model: Any, cost: Any, data: Any, etas: Any) -> Any:
  """The constrained improvement alone, in NumPy."""
  first = data.states[:, 0]
  start = first.mean(0), np.diag(np.maximum(first.var(0), 1e-6))
  return plain.Regulator(model, cost, start, data.anchor).search(etas)


def spend(side: Callable[[], Any], calls: int) -> float:
  """Returns the processor time of a call, s."""
  began = time.process_time()
  for _ in range(calls):
    jax.block_until_ready(side())
  return (time.process_time() - began) / calls


def race(pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]]) -> None:
  """Prints and records the medians of both sides of each pair, and of their ratio."""
  source = rows.Source('python benchmarks/gps.py', rows.commit(), rows.machine())
  recorded = [_row('load', os.getloadavg()[0], 'processes', source)]
  for name, sides in pairs.items():
    calls = _CALLS[name]
    spent = [[spend(side, calls) for side in sides] for _ in range(_ROUNDS.value + 1)]
    own, other = zip(*spent[1:], strict=True)  # the first compiles
    ratio = statistics.median(y / x for x, y in zip(own, other, strict=True))
    times = [1e3 * statistics.median(side) for side in (own, other)]
    print(name, *(f'{x:,.2f} ms' for x in times), f'{ratio:.1f}x', sep='\t', flush=True)
    recorded += [_row(f'{name}_ratio', ratio, '', source)]
    sides_of = zip((name, f'{name}_numpy'), times, strict=True)
    recorded += [_row(metric, value, 'ms', source) for metric, value in sides_of]
  rows.merge(results.folder(), recorded)


def _row(metric: str, value: float, unit: str, source: rows.Source) -> rows.Row:
  measured = metric, round(value, 3), unit, None
  return rows.Row('gps', 'random', 'gps', 'cpu', 0, *measured, *source)


def keep_to_one_core() -> None:
  """Starts this program again on one core, where libraries start one thread."""
  if os.environ.get('OMP_NUM_THREADS') == '1':
    return
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  alone = os.environ | {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
  os.execve(sys.executable, [sys.executable, *sys.argv], alone)


def main(argv: list[str]) -> None:
  """Prints a line for each part: our time, NumPy's, and how many times it is ours."""
  del argv
  keep_to_one_core()
  jax.config.update('jax_enable_x64', True)
  points, start = standard_points()
  data, narrow = make_data(_N, 2), make_data(30, 3)
  eta = jnp.float64(1.0)
  iteration, improve = jax.jit(ours), jax.jit(search)
  fit, model, cost, found = iteration(points, start, data, eta)
  etas = [float(found.eta)] * int(found.passes)
  flat = jax.tree.map(np.asarray, (points, start, data, model, cost, narrow))
  given = (*flat[:3], etas)
  likelihood, their_model, _, (controller, divergence) = theirs(*given)
  np.testing.assert_allclose(likelihood, fit.log_likelihood, rtol=1e-6)
  np.testing.assert_allclose(their_model[0], model.matrix, atol=1e-6)
  np.testing.assert_allclose(controller[0], found.controller.gain, atol=1e-5)
  np.testing.assert_allclose(divergence, found.divergence, rtol=1e-5)
  print(f'{int(fit.steps)} steps, {likelihood:.4f} nats, {int(found.passes)} passes')
  half = functools.partial(pi2.improve, options=_PI2)
  step = jax.jit(half)
  arguments = narrow.anchor, narrow.states, narrow.actions, narrow.cost.value
  wide = flat[5]
  their_arguments = wide.anchor.gain, wide.anchor.scale_tril, *wide[:2], wide.cost.value
  np.testing.assert_allclose(
    plain.pi2(*their_arguments)[2], step(*arguments).temperature, rtol=1e-8
  )
  race(
    {
      'iteration': (
        lambda: iteration(points, start, data, eta),
        lambda: theirs(*given),
      ),
      'search': (
        lambda: improve(model, cost, data, eta),
        lambda: their_search(flat[3], flat[4], flat[2], etas),
      ),
      'pi2': (lambda: step(*arguments), lambda: plain.pi2(*their_arguments)),
    }
  )


if __name__ == '__main__':
  app.run(main)
