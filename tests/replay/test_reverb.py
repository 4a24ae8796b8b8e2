"""What holds over Reverb alone: signatures, connections, a server of its own."""

import subprocess
import sys
import tempfile
import threading

import jax
import numpy as np
import portpicker
import pytest

from armfarm.replay import types

pytestmark = pytest.mark.reverb
_PATIENCE = 30.0  # s for what comes at once if nobody else wants the machine


def _longer(tree):
  return jax.tree.map(lambda x: np.zeros((4, *x.shape[1:]), x.dtype), tree)


def _doubled(tree):
  return jax.tree.map(lambda x: x.astype(np.float64), tree)


@pytest.mark.parametrize('change', [_longer, _doubled])
def test_a_block_that_does_not_fit_is_refused(open_reverb, block, change):
  replay = open_reverb()
  writer = replay.writer()
  with pytest.raises(ValueError, match="table 'online'"):
    writer.insert(change(block(0)))
  assert replay.take(timeout=0.1) is None
  writer.close()


@pytest.mark.parametrize('gain', [np.zeros(2, np.float32), np.float64(1.0)])
def test_variables_that_do_not_fit_are_refused(open_reverb, published, gain):
  replay = open_reverb()
  with pytest.raises(ValueError, match='table signature'):
    replay.publish(published(1)._replace(variables={'gain': gain}))
  assert replay.latest(0.0) is None


def test_a_connection_closes_while_blocks_keep_coming(open_reverb, block):
  replay = open_reverb(max_blocks=1)
  stop, writer = threading.Event(), replay.writer()

  def write():
    while not stop.is_set():
      writer.insert(block(0))
      while not (writer.flush(timeout=0.05) or stop.is_set()):
        pass

  threads = [threading.Thread(target=work) for work in (write, replay.close)]
  threads[0].start()
  assert replay.take(_PATIENCE)
  replay._server, server = None, replay._server  # outlives the connection
  threads[1].start()
  threads[1].join(10.0)
  closed = not threads[1].is_alive()
  stop.set()
  for thread in threads:
    thread.join()
  server.stop()
  assert closed


_SERVER = """
import sys
import numpy as np
from armfarm.agents import types as agent_types
from armfarm.replay import reverb_replay
from armfarm.replay import types

item = types.item_template(agent_types.Spec(observation_size=2, action_size=1))
queues = {'online': types.block_template(item, 3)}
templates = reverb_replay.Templates(queues, {'gain': np.float32(0)})
server = reverb_replay.serve(templates, 8, port=None)
print(server.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def address():
  """The address of a server that is a process of its own."""
  command = [sys.executable, '-c', _SERVER]
  pipe = subprocess.PIPE
  with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
    yield f'127.0.0.1:{process.stdout.readline().strip()}'
    process.communicate()


def test_a_server_of_its_own_serves_all(address, reverb_replay, item, block, published):
  templates = reverb_replay.Templates(
    {'online': types.block_template(item, 3)}, published(0).variables
  )
  trainer, late = (reverb_replay.ReverbReplay(address, templates) for _ in range(2))
  trainer.wait_until_ready(_PATIENCE)
  for version in range(1, 4):
    trainer.publish(published(version))
  assert late.latest(0.0) == published(3)
  writers = [late.writer(), late.writer()]
  for number in range(4):
    writers[number % 2].insert(block(number))
    assert writers[number % 2].flush(_PATIENCE)
  taken = [trainer.take(_PATIENCE).version[0] for _ in range(4)]
  for end in (*writers, late, trainer):
    end.close()
  assert taken == [0, 1, 2, 3]


def test_a_server_that_is_not_there_is_missed_in_time(reverb_replay, item, published):
  templates = reverb_replay.Templates(
    {'online': types.block_template(item, 3)}, published(0).variables
  )
  address = f'127.0.0.1:{portpicker.pick_unused_port()}'
  replay = reverb_replay.ReverbReplay(address, templates)
  with pytest.raises(TimeoutError, match=f'no Reverb server answered at {address}'):
    replay.wait_until_ready(1.0)
  replay.close()


def test_a_server_leaves_no_folder_behind(open_reverb, tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  open_reverb().close()
  assert not list(tmp_path.iterdir())


def test_a_read_that_nobody_answers_is_lost(
  reverb_replay, item, published, monkeypatch
):
  class Silent:
    over = threading.Event()

    def sample(self, table, count, emit_timesteps):
      self.over.wait(_PATIENCE)
      return []

  templates = reverb_replay.Templates(
    {'online': types.block_template(item, 3)}, published(0).variables
  )
  replay = reverb_replay.ReverbReplay('127.0.0.1:1', templates)
  monkeypatch.setattr(reverb_replay, '_SERVER_TIMEOUT', 0.1)
  monkeypatch.setattr(replay, '_client', Silent())
  monkeypatch.setattr(replay, '_size', lambda table: 1)
  for read, table in ((replay.take, 'online'), (replay.latest, 'variables')):
    with pytest.raises(ConnectionError, match=f'127.0.0.1:1 no longer serves {table}'):
      read(0.0)
  Silent.over.set()
  replay.close()


def test_a_server_that_takes_nothing_is_lost(
  reverb_replay, item, published, monkeypatch
):
  class Stuck:
    def __init__(self, client, table):
      assert table == 'variables'

    def put(self, leaves):
      assert leaves

    def flush(self, timeout):
      return False

    def close(self):
      pass

  monkeypatch.setattr(reverb_replay, '_Channel', Stuck)
  variables = published(0).variables
  templates = reverb_replay.Templates(
    {'online': types.block_template(item, 3)}, variables
  )
  replay = reverb_replay.ReverbReplay('127.0.0.1:1', templates)
  with pytest.raises(ConnectionError, match=r'127.0.0.1:1 took no variables'):
    replay.publish(published(1))
  replay.close()


def test_a_server_of_something_else_is_told(reverb_replay, item, published):
  import reverb

  templates = reverb_replay.Templates(
    {'online': types.block_template(item, 3)}, published(0).variables
  )
  server = reverb.Server([reverb.Table.queue('another', 1)], port=None)
  address = f'127.0.0.1:{server.port}'
  replay = reverb_replay.ReverbReplay(address, templates)
  for read, table in ((replay.take, 'online'), (replay.latest, 'variables')):
    with pytest.raises(ConnectionError, match=f'{address} serves no {table}'):
      read(0.0)
  replay.close()
  server.stop()
