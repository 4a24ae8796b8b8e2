"""The tasks' numbers, shared by the systems that learn them.

Where the paper of a task gives a number it is named; the others are ours, with the
reason. "Gu" is Gu et al. 2016, section V-A.
"""

from ml_collections import ConfigDict


def reach() -> ConfigDict:
  """Reaching with the 7-DoF arm (Gu, V-A.1)."""
  task = ConfigDict()
  task.name = 'reach'
  task.distance_weight = 33.0  # reward per m^2; ours: far away, about -1 per m
  task.control_weight = 0.001  # reward per squared action; ours: a tie-breaker
  task.huber_delta = 0.03  # m; ours: sharp down to half the criterion
  task.speed = 0.5  # part of the joints' velocity limits; ours: safe, and fast enough
  task.cube_center = (0.5, 0.25, 0.65)  # m, from the arm's base; ours: well in reach
  task.cube_edge = 0.2  # m; Gu
  task.success_distance = 0.05  # m at the last step; Gu
  task.episode_steps = 150  # control steps at 20 Hz, 7.5 s; Gu
  return task


TASKS = {'reach': reach}
