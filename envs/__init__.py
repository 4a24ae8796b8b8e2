"""Tasks, and the bodies that run them.

`task.py` says what a task is, one file holds each family of tasks, `host.py`
runs a task on native MuJoCo, `mjx.py` on an accelerator, `gym.py` as a Gymnasium
environment for others' learners; `foreign.py` brings Gymnasium's environments to ours.
"""

from collections.abc import Callable
import functools

from armfarm.envs import door
from armfarm.envs import grasp
from armfarm.envs import peg
from armfarm.envs import pick_place
from armfarm.envs import reach
from armfarm.envs import reach_torque
from armfarm.envs.task import Task

# Name -> `make`, which builds the task from its numbers (see `configs`).
TASKS: dict[str, Callable[..., Task]] = {
  'reach': reach.make,
  'door_push': functools.partial(door.make, 'door_push'),
  'door_pull': functools.partial(door.make, 'door_pull'),
  'pick_place': pick_place.make,
  'reach_torque': reach_torque.make,
  'peg': peg.make,
  'grasp_state': grasp.make,
  'grasp': grasp.make,
}
