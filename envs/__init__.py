"""Tasks, and the bodies that run them.

`task.py` says what a task is, one file holds each family of tasks, `host.py`
runs a task on native MuJoCo, `gym.py` as a Gymnasium environment for others' learners;
`foreign.py` brings Gymnasium's environments to ours.
"""

import functools

from armfarm.envs import door
from armfarm.envs import reach

# Name -> `make`, which builds the task from its numbers (see `configs`).
TASKS = {
  'reach': reach.make,
  'door_push': functools.partial(door.make, 'door_push'),
  'door_pull': functools.partial(door.make, 'door_pull'),
}
