"""Deterministic policies in numpy, for who acts in one environment, step by step.

Dispatching a compiled network takes longer than computing a small one, and on a CPU it
would wait for the updates that the same thread has dispatched. So this says once more
what `networks.Policy` is, from the same parameters; the tests hold the two together.
Letters as in `armfarm.agents.networks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import numpy as np

from armfarm.agents import exploration
from armfarm.agents import types

_BATCH_EPSILON = 1e-5  # of flax's BatchNorm
_LAYER_EPSILON = 1e-6  # of flax's LayerNorm


class Layer(NamedTuple):
  """An affine map, and the gains of a layer normalisation behind it, if there is one.

  Attributes:
    kernel: [H_in H].
    bias: [H].
    scale: [H], or None.
    offset: [H], or None.
  """

  kernel: chex.ArrayNumpy
  bias: chex.ArrayNumpy
  scale: chex.ArrayNumpy | None = None
  offset: chex.ArrayNumpy | None = None


def prepare(variables: types.Variables, module: str | None = None) -> tuple[Layer, ...]:
  """Reads the layers of a `networks.Policy`; folds batch normalisation into them.

  Args:
    variables: as flax has them, 'params' and 'batch_stats', in numpy.
    module: name of the policy where it is part of a larger network.
  """
  path = ([module] if module else []) + ['MLP_0']
  params = _below(variables['params'], path)
  statistics = _below(variables['batch_stats'], [*path, 'Torso_0'])
  torso, head = params.get('Torso_0', {}), params['Dense_0']
  hidden = [torso[f'Dense_{i}'] for i in range(sum('Dense' in name for name in torso))]
  last = Layer(head['kernel'], head['bias'])
  if statistics:
    return _folded(hidden, last, torso, statistics)
  layers = []
  for number, dense in enumerate(hidden):
    gains = torso.get(f'Normalize_{number}', {}).get('LayerNorm_0', {})
    parts = dense['kernel'], dense['bias'], gains.get('scale'), gains.get('bias')
    layers.append(Layer(*parts))
  return *layers, last


def _below(tree: Any, path: Sequence[str]) -> Any:
  """Returns what a nested dict has at a path, {} if nothing."""
  for name in path:
    tree = tree.get(name, {})
  return tree


def _folded(
  hidden: list[Any], last: Layer, torso: Any, statistics: Any
) -> tuple[Layer, ...]:
  """Returns layers whose kernels and biases do what batch normalisation would."""
  gains = [
    _gain(torso[f'Normalize_{i}'], statistics[f'Normalize_{i}'])
    for i in range(len(hidden) + 1)
  ]
  kernels = [dense['kernel'] for dense in hidden] + [last.kernel]
  biases = [offset for _, offset in gains[1:]] + [last.bias]
  scales = [scale for scale, _ in gains[1:]] + [np.float32(1)]
  # The input's own normalisation goes into the first map.
  scale, offset = gains[0]
  biases[0] = biases[0] + offset @ kernels[0] * scales[0]
  kernels[0] = scale[:, None] * kernels[0]
  rows = zip(kernels, biases, scales, strict=True)
  return tuple(Layer(kernel * scale, bias) for kernel, bias, scale in rows)


def _gain(params: Any, statistics: Any) -> tuple[chex.ArrayNumpy, chex.ArrayNumpy]:
  """Returns scale and offset, [H], of a batch normalisation by running averages."""
  params, statistics = params['BatchNorm_0'], statistics['BatchNorm_0']
  scale = params['scale'] / np.sqrt(statistics['var'] + np.float32(_BATCH_EPSILON))
  return scale, params.get('bias', np.float32(0)) - statistics['mean'] * scale


def act(layers: tuple[Layer, ...], observation: chex.ArrayNumpy) -> chex.ArrayNumpy:
  """u = mu(x), [A], of an observation [O]."""
  *hidden, last = layers
  x = observation
  for layer in hidden:
    x = np.maximum(_normalized(layer, x @ layer.kernel + layer.bias), 0)
  return np.tanh(x @ last.kernel + last.bias)


def _normalized(layer: Layer, x: chex.ArrayNumpy) -> chex.ArrayNumpy:
  if layer.scale is None:
    return x
  x = x - x.mean()
  deviation = np.sqrt((x @ x) / np.float32(len(x)) + np.float32(_LAYER_EPSILON))
  return x / deviation * layer.scale + layer.offset


def explore(
  theta: float,
  sigma: float,
  layers: tuple[Layer, ...],
  actor_state: exploration.OrnsteinUhlenbeck,
  observation: chex.ArrayNumpy,
  draw: chex.ArrayNumpy,
) -> tuple[chex.ArrayNumpy, exploration.OrnsteinUhlenbeck]:
  """u = clip(mu(x) + n, -1, 1), [A], of an observation [O] and e ~ N(0, I), [A]."""
  actor_state = exploration.ornstein_uhlenbeck(actor_state, theta, sigma, draw)
  action = act(layers, observation) + actor_state.noise
  return np.minimum(np.maximum(action, -1), 1), actor_state
