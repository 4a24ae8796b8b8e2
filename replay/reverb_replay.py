"""The seam between processes, over a Reverb server.

Tables, by name:

  online     a queue of blocks: each is taken once, and writers wait while it is full
  variables  one item, the newest variables
  gradients  another queue, where gradients travel
  offline    another, of blocks of log replay
  raw        another, of transitions for Bellman updaters
  train      another, of what they have labelled

Blocks and variables travel as one array for each dtype and are rebuilt from a local
template, so that nothing is pickled and the tables' signatures check every type and
size; a client decodes all signatures at each look at a table, so they are short. The
trainer keeps what it took in its own memory (`armfarm.replay.ring`) and samples
there: an item is a block, not a transition, and crosses once.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from concurrent import futures
import os
import threading
import time
from typing import Any, TypeVar

import jax
import numpy as np
import reverb
import tensorflow as tf

from armfarm.agents import types as agent_types
from armfarm.replay import types
from armfarm.replay.packing import pack
from armfarm.replay.packing import pack_one
from armfarm.replay.packing import unpack
from armfarm.replay.packing import unpack_one

_POLL, _VARIABLES_POLL = 0.005, 0.2  # s between two looks at an empty table
_SERVER_TIMEOUT = 10.0  # s that a server may take to answer

_T = TypeVar('_T')


def quiet_tensorflow() -> None:
  """Keeps TensorFlow off the accelerator and on one thread: it only moves bytes."""
  tf.config.set_visible_devices([], 'GPU')
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)


def _signature(tree: Any) -> list[tf.TensorSpec]:
  return [
    tf.TensorSpec(np.shape(x), np.asarray(x).dtype) for x in jax.tree.leaves(tree)
  ]


def _wire(published: types.Published) -> list[np.ndarray]:
  head = [np.array(published.version, np.int64), np.array(published.time, np.float64)]
  return head + jax.tree.leaves(pack_one(jax.tree.map(np.asarray, published.variables)))


def _within(timeout: float, read: Callable[[], _T]) -> _T:
  """Returns what a read returns; one of a lost server waits for ever, in its thread.

  Raises:
    TimeoutError: it takes longer than `timeout` s.
  """
  answer: futures.Future[_T] = futures.Future()

  def work() -> None:
    try:
      answer.set_result(read())
    except BaseException as error:
      answer.set_exception(error)

  threading.Thread(target=work, daemon=True).start()
  return answer.result(timeout)


class Templates:
  """What both ends must agree on.

  Attributes:
    queues: name of a table -> what travels through it, zeros, [T ...].
    variables: variables of any learner of the agent.
  """

  def __init__(self, queues: dict[str, Any], variables: agent_types.Variables):
    self.queues = queues
    self.variables = jax.tree.map(np.asarray, variables)


def serve(templates: Templates, max_blocks: int, port: int | None) -> reverb.Server:
  """Starts a server; Reverb 0.14 has it listen on every interface.

  Args:
    templates: shapes and types of the tables.
    max_blocks: blocks that may wait in a queue before writers do.
    port: to listen on, or None for a free one, see the server's `port`.
  """
  quiet_tensorflow()
  variables = types.Published(0, 0.0, templates.variables)
  queues = [
    reverb.Table.queue(name, max_blocks, signature=_signature(pack(block)))
    for name, block in templates.queues.items()
  ]
  newest = reverb.Table(
    'variables',
    sampler=reverb.selectors.Lifo(),
    remover=reverb.selectors.Fifo(),
    max_size=1,
    rate_limiter=reverb.rate_limiters.MinSize(1),
    signature=_signature(_wire(variables)),
  )
  # By default it makes a folder for checkpoints, which stays; ours are the trainer's.
  nowhere = reverb.checkpointers.DefaultCheckpointer(os.devnull)
  return reverb.Server([*queues, newest], port=port, checkpointer=nowhere)


class _Channel:
  """Puts flat lists of arrays into one table."""

  def __init__(self, client: reverb.Client, table: str):
    self._writer = client.trajectory_writer(num_keep_alive_refs=1)
    self._table = table

  def put(self, leaves: list[Any]) -> None:
    self._writer.append(leaves)
    newest = [column[-1] for column in self._writer.history]
    self._writer.create_item(self._table, 1.0, newest)

  def flush(self, timeout: float) -> bool:
    try:
      self._writer.flush(timeout_ms=max(1, int(1000 * timeout)))
    except reverb.DeadlineExceededError:
      return False
    return True

  def close(self) -> None:
    self._writer.close()


class ReverbWriter:
  """A writer into a queue."""

  def __init__(self, client: reverb.Client, table: str):
    self._channel = _Channel(client, table)

  def insert(self, block: Any) -> None:
    """See `types.Writer`."""
    self._channel.put(jax.tree.leaves(pack(block)))

  def flush(self, timeout: float) -> bool:
    """See `types.Writer`."""
    return self._channel.flush(timeout)

  def close(self) -> None:
    """See `types.Writer`."""
    self._channel.close()


class ReverbReplay:
  """A process's connection to one queue of the server, and to its variables.

  Args:
    address: host and port of the server.
    templates: as given to the server.
    server: the server itself where this process owns it, to be stopped by `close`.
    table: name of the queue.
  """

  def __init__(
    self,
    address: str,
    templates: Templates,
    server: reverb.Server | None = None,
    table: str = 'online',
  ):
    quiet_tensorflow()
    self._address = address
    self._server = server
    self._client = reverb.Client(address)
    block = templates.queues[table]
    self._table = table
    self._packed = jax.tree.structure(pack(block))
    self._step = jax.tree.map(lambda x: x[0], block)
    self._variables = templates.variables
    self._wired = jax.tree.structure(pack_one(templates.variables))
    self._outlet: _Channel | None = None  # to open one waits for the server
    self._taken: collections.deque[Any] = collections.deque()
    self._seen = False  # whether there were variables

  def wait_until_ready(self, timeout: float) -> None:
    """Waits for the server to answer.

    Raises:
      TimeoutError: it did not within `timeout` s.
    """
    try:
      self._client.server_info(timeout=max(1, int(timeout)))
    except reverb.DeadlineExceededError as error:
      raise TimeoutError(
        f'no Reverb server answered at {self._address} in {timeout:.0f} s'
      ) from error

  def writer(self) -> ReverbWriter:
    """See `types.Replay`."""
    return ReverbWriter(self._client, self._table)

  def take(self, timeout: float) -> Any | None:
    """See `types.Replay`.

    Raises:
      ConnectionError: the server is gone, or has no such table.
    """
    if not self._taken:
      # All that waits, each once: a sampler for every block would cost as much again.
      for data in self._sample(self._table, self._wait_for(self._table, timeout)):
        packed = jax.tree.unflatten(self._packed, data)
        self._taken.append(unpack(self._step, packed))
    return self._taken.popleft() if self._taken else None

  def publish(self, published: types.Published) -> None:
    """See `types.Replay`.

    Raises:
      ConnectionError: the server is gone, or does not answer.
    """
    if self._outlet is None:
      self._outlet = _Channel(self._client, 'variables')
    self._outlet.put(_wire(published))
    if not self._outlet.flush(_SERVER_TIMEOUT):
      server = f'the Reverb server at {self._address}'
      raise ConnectionError(f'{server} took no variables in {_SERVER_TIMEOUT:.0f} s')

  def latest(self, timeout: float) -> types.Published | None:
    """See `types.Replay`.

    Raises:
      ConnectionError: the server is gone, or has no such table.
    """
    # Once there, they stay: to ask again would double the calls.
    count = 1 if self._seen else self._wait_for('variables', timeout)
    found = self._sample('variables', count)
    if not found:
      return None
    self._seen = True
    version, published, *packed = found[0]
    wired = jax.tree.unflatten(self._wired, packed)
    variables = unpack_one(self._variables, wired)
    return types.Published(int(version), float(published), variables)

  def close(self) -> None:
    """See `types.Replay`."""
    if self._outlet is not None:
      self._outlet.close()
    if self._server is not None:
      self._server.stop()
      self._server = None

  def _wait_for(self, table: str, timeout: float) -> int:
    """Waits for a table to hold something; returns how many items it holds."""
    deadline = time.monotonic() + timeout
    while not (size := self._size(table)):
      left = deadline - time.monotonic()
      if left <= 0:
        break
      poll = _VARIABLES_POLL if table == 'variables' else _POLL
      time.sleep(min(poll, left))
    return size

  def _size(self, table: str) -> int:
    try:
      return self._client.server_info(timeout=int(_SERVER_TIMEOUT))[table].current_size
    except (reverb.ReverbError, RuntimeError, KeyError) as error:
      raise ConnectionError(f'{self._address} serves no {table}') from error

  def _sample(self, table: str, count: int) -> list[list[np.ndarray]]:
    """Returns the flat arrays of so many items, which are there."""

    def read() -> list[list[np.ndarray]]:
      samples = self._client.sample(table, count, emit_timesteps=False)
      return [list(sample.data) for sample in samples]

    if not count:
      return []
    if self._server is not None:  # it is not lost without this process
      return read()
    try:
      return _within(_SERVER_TIMEOUT, read)
    except (reverb.ReverbError, RuntimeError, TimeoutError) as error:
      raise ConnectionError(f'{self._address} no longer serves {table}') from error
