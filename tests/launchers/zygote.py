"""Starts launchers by forking a process that has the imports behind it.

A fresh interpreter spends seconds on imports, and the tests here need a hundred of
them. This one imports what every launcher does, keeps to one thread, and forks a child
for every request, one JSON object a line on stdin:

  {"module": to run as __main__, "arguments": its own, "folder": to run in,
   "log": file stem, "environment": what differs, "unset": coverage's variables}

The child's output goes to LOG.out and LOG.err, its exit code to LOG.code; its process
id is the answer on stdout. When stdin ends, so do the children.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pathlib
import runpy
import select
import signal
import sys
import threading
import warnings

import setproctitle

_IMPORTS = ['armfarm.launchers.policy', 'armfarm.launchers.session']
_REVERB = 'armfarm.replay.reverb_replay'  # where it is installed


def reap(children):
  """Notes the exit codes of those that ended; negative for signals."""
  pid, status = os.waitpid(-1, os.WNOHANG) if children else (0, 0)
  if pid:
    code = pathlib.Path(children.pop(pid) + '.code')
    code.with_suffix('.new').write_text(str(os.waitstatus_to_exitcode(status)))
    code.with_suffix('.new').replace(code)


def requests(children):
  """Yields what is asked for."""
  while True:
    while not select.select([0], [], [], 0.01)[0]:
      reap(children)
    line = sys.stdin.readline()
    if not line:
      return
    yield json.loads(line)


def serve():
  """Forks for every request; returns it in the child, and None at the end."""
  children = {}
  for request in requests(children):
    with warnings.catch_warnings(action='ignore'):  # JAX warns of forks
      pid = os.fork()
    if not pid:
      return request
    children[pid] = request['log']
    print(pid, flush=True)
  for pid in children:
    os.kill(pid, signal.SIGKILL)
  return None


def stop_measuring(variables):
  """Spares this process and its children the coverage of what they run."""
  for name in variables:
    os.environ.pop(name, None)
  coverage = sys.modules.get('coverage')
  if coverage and (measuring := coverage.Coverage.current()):
    measuring.stop()


def become(request):
  """Turns this process into the one that was asked for; returns its exit code."""
  for suffix, descriptor in (('.out', 1), ('.err', 2)):
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(request['log'] + suffix, flags), descriptor)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  if request['unset']:
    stop_measuring(request['unset'])
  os.environ.update(request['environment'])
  os.chdir(request['folder'])
  sys.path[0] = ''
  sys.argv[1:] = request['arguments']
  try:
    runpy.run_module(request['module'], run_name='__main__', alter_sys=True)
  except SystemExit as end:
    return end.code or 0
  except BaseException:
    sys.excepthook(*sys.exc_info())
    return 1
  return 0


def leave(code):
  """Ends this process, but does not take apart all that was imported: half a second."""
  threading._shutdown()
  atexit._run_exitfuncs()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


if __name__ == '__main__':
  for name in _IMPORTS:
    importlib.import_module(name)
  with contextlib.suppress(ImportError):
    importlib.import_module(_REVERB)
  # It finds the command line before the first variable, which a request may unset.
  setproctitle.getproctitle()
  gc.freeze()  # children need not copy what lasts
  asked = serve()
  if asked is not None:
    leave(become(asked))
