"""Both seams between processes, closed after each test."""

import functools

import jax
import numpy as np
import pytest

from armfarm.agents import types as agent_types
from armfarm.replay import memory
from armfarm.replay import types

_ITEM = types.item_template(agent_types.Spec(observation_size=2, action_size=1))


def _memory(item, variables, block_steps, max_blocks):
  del item, variables, block_steps  # nothing is checked within a process
  return memory.MemoryReplay(max_blocks)


def _reverb(item, variables, block_steps, max_blocks):
  from armfarm.replay import reverb_replay

  templates = reverb_replay.Templates(
    {'online': types.block_template(item, block_steps)}, variables
  )
  server = reverb_replay.serve(templates, max_blocks, port=None)
  address = f'127.0.0.1:{server.port}'
  return reverb_replay.ReverbReplay(address, templates, server)


@pytest.fixture
def reverb_replay():
  """The module that imports Reverb, for tests marked so."""
  from armfarm.replay import reverb_replay

  return reverb_replay


@pytest.fixture
def item():
  """The template of what travels, unless a test wants another."""
  return _ITEM


@pytest.fixture
def published():
  """Returns `version -> Published`, whose one number, the gain, is the version."""

  def make(version, time=0.0):
    return types.Published(version, time, {'gain': np.float32(version)})

  return make


@pytest.fixture
def opened(published):
  """Returns `backend, ... -> its replay`."""
  replays = []

  def make(backend, *, item=_ITEM, variables=None, max_blocks=8, block_steps=3):
    variables = published(1).variables if variables is None else variables
    replays.append(backend(item, variables, block_steps, max_blocks))
    return replays[-1]

  yield make
  for replay in replays:
    replay.close()


_BACKENDS = [
  pytest.param(_memory, id='memory'),
  pytest.param(_reverb, id='reverb', marks=pytest.mark.reverb),
]


@pytest.fixture(params=_BACKENDS)
def open_replay(opened, request):
  """Returns `... -> replay`, for each of the two in turn."""
  return functools.partial(opened, request.param)


@pytest.fixture
def open_reverb(opened):
  """Returns `... -> replay` over Reverb."""
  return functools.partial(opened, _reverb)


@pytest.fixture
def block():
  """Returns `number -> Block` of three steps, full of that number."""

  def make(number, item=_ITEM, block_steps=3):
    zeros = types.block_template(item, block_steps)
    return jax.tree.map(lambda x: np.full_like(x, number), zeros)

  return make
