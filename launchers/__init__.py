"""Programs: they put the parts together, on one machine, on many, on arms."""

import os
import signal
import sys

from armfarm.launchers import opengl

# Here, since MuJoCo, numpy and XLA read these when they are loaded. What is computed is
# so small that two threads would spend their time in waiting for each other.
opengl.choose()
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
os.environ.setdefault('NPROC', '1')  # of XLA on a CPU

# A program that still imports has nothing to lose: Ctrl-C ends it, without a traceback.
if sys.argv[:1] == ['-m']:  # as long as Python looks for the module to run
  signal.signal(signal.SIGINT, signal.SIG_DFL)
