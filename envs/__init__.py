"""Tasks, and the bodies that run them.

`task.py` says what a task is, one file holds each family of tasks, `host.py`
runs a task on native MuJoCo, `gym.py` as a Gymnasium environment for others' learners;
`foreign.py` brings Gymnasium's environments to ours.
"""

from collections.abc import Callable

from armfarm.envs import pick_place
from armfarm.envs import reach
from armfarm.envs import task

# Name -> `make`, which builds the task from its numbers (see `configs`).
TASKS: dict[str, Callable[..., task.Task]] = {
  'reach': reach.make,
  'pick_place': pick_place.make,
}
