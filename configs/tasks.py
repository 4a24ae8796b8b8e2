"""The tasks' numbers, shared by the systems that learn them, and by Gymnasium.

Where the paper of a task gives a number it is named; the others are ours, with the
reason. "Gu" is Gu et al. 2016, section V-A.
"""

from ml_collections import ConfigDict
from ml_collections import config_dict


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


def pick_place() -> ConfigDict:
  """Lifting a hanging stick with the JACO arm and its hand (Gu, V-A.3).

  A weight times `huber_delta` is the reward for a metre, where that is far: 2 for the
  grip and for each finger, 6 for the target. A step at the start costs 1.3, and one
  with the arm turned away, which is 0.9 m long, not more than 20.
  """
  task = ConfigDict()
  task.name = 'pick_place'
  # c1 grip, c2 each finger, c3 target, reward per m^2, c4 per squared action; ours:
  # closing pays at once, lifting more, and c4 breaks ties. With c3 = 100 policies hover
  # beside the target for long; with c1 = c2 = 30 they push the stick before they close.
  task.weights = (66.0, 66.0, 200.0, 0.001)
  task.huber_delta = 0.03  # m; ours: sharp down to half the criterion, as for reach
  task.speed = 1.0  # part of the joints' velocity limits; ours: JACO's are slow enough
  # m, from the arm's base; ours: 0.15 above the resting stick, string slack
  task.square_center = (0.55, 0.0, 0.57)
  task.square_edge = 0.24  # m; Gu
  task.success_distance = 0.05  # m at the last step; Gu; ours: and a finger touches
  task.episode_steps = 300  # control steps at 100 Hz, 3 s; Gu
  return task


def door_push() -> ConfigDict:
  """Pushing a door open with the 7-DoF arm (Gu, V-A.2)."""
  task = ConfigDict()
  task.name = 'door_push'
  task.distance_weight = 33.0  # c1, reward per m^2; ours: far away, about -1 per m
  task.opening_weight = 8.0  # c2, reward per squared quaternion; ours
  task.control_weight = 0.001  # c3, reward per squared action; ours: a tie-breaker
  task.distance_delta = 0.03  # m; ours: as in reach
  task.opening_delta = 0.5  # of quaternions; ours
  task.turned_angle = 70.0  # degrees of the handle in q_o; ours: past the latch
  task.opened_angle = 60.0  # degrees of the door in q_o; ours: well past the criterion
  task.release_angle = 60.0  # degrees of the handle where the latch lets go; Gu
  task.success_angle = 10.0  # degrees of the door at the last step; Gu
  task.speed = 0.5  # part of the joints' velocity limits; ours: as in reach
  task.hinge_center = (0.82, 0.36, 0.65)  # m, from the arm's base; ours: well in reach
  task.hinge_range = (0.1, 0.2)  # m along x and y; Gu
  task.episode_steps = 300  # control steps at 20 Hz, 15 s; Gu
  return task


def door_pull() -> ConfigDict:
  """Pulling a door open with the 7-DoF arm (Gu, V-A.2)."""
  task = door_push()
  task.name = 'door_pull'
  return task


def reach_torque() -> ConfigDict:
  """Reaching for poses under torque control (Yahya et al. 2016, section V-A)."""
  task = ConfigDict()
  task.name = 'reach_torque'
  task.torque = 0.1  # part of the joints' torque limits; ours: 7 rad/s^2 and more
  # rad, of a goal's joint angles around the first ones; ours: eight instances teach a
  # policy three directions of space, but not six of a free pose.
  task.spread = (0.4, 0.4, 0.0, 0.4, 0.0, 0.0, 0.0)
  task.distance_weight = 33.0  # reward per m^2; ours: far away, about -1 per m
  task.control_weight = 0.001  # reward per squared action; ours: a tie-breaker
  task.huber_delta = 0.03  # m; ours: as in reach
  task.success_distance = 0.05  # m, mean of three points at the last step; ours
  task.episode_steps = 100  # control steps at 20 Hz, 5 s; Yahya et al.: 20 Hz
  return task


def peg() -> ConfigDict:
  """Putting a peg into a hole (Levine et al. 2016, and their published code)."""
  task = ConfigDict()
  task.name = 'peg'
  task.torque = 0.1  # part of the joints' torque limits; ours: as in reach_torque
  task.hole_x = 0.55  # m, from the arm's base; ours: well in reach
  task.holes_y = (-0.2, -0.1, 0.1, 0.2)  # m, of the four conditions; the code's
  task.perturbation = 0.0  # m along x and y at each reset; the paper's poses have one
  task.distance_weight = 33.0  # reward per m^2; ours: far away, about -1 per m
  task.control_weight = 0.001  # reward per squared action; ours: a tie-breaker
  task.huber_delta = 0.03  # m; ours: as in reach
  task.success_distance = 0.05  # m from the hole's bottom; ours: 4/5 of the way in
  task.episode_steps = 100  # control steps at 20 Hz, 5 s; the code's
  return task


def grasp_state() -> ConfigDict:
  """Grasping from a bin, by the objects' poses (Kalashnikov et al. 2018, D)."""
  task = ConfigDict()
  task.name = 'grasp_state'
  task.bin_size = (0.29, 0.2)  # m along x and y, inside; ours: blind grasps, 1 in 4
  task.wall_height = 0.04  # m; ours: an object leans on it, an open hand passes over
  task.margin = 0.035  # m, of the gripper's middle from the walls; ours
  task.floor = 0.008  # m, least height of the fingers' tips; ours
  task.ceiling = 0.22  # m, their greatest height; ours: a little over where they begin
  task.step_size = 0.06  # m along each axis in a step of 0.2 s; ours
  task.max_turn = 0.5  # rad in a step of 0.2 s; ours: what the last joint can do
  task.train_objects = 240  # ours
  task.test_objects = 60  # ours
  task.unseen = False  # whether the objects are those to test with
  task.in_bin = (4, 10)  # objects, fewest and most; Kalashnikov, 5
  task.radius = (0.03, 0.045)  # m, of the sphere around an object; ours: graspable
  task.mass = (0.03, 0.15)  # kg; ours
  task.friction = (1.0, 1.6)  # ours: of things on the rubber of the fingers
  task.lift_height = 0.13  # m, of the fingers' tips; Kalashnikov, algorithm 2
  task.step_reward = -0.05  # of every step but the last; Kalashnikov, 5
  task.learned_termination = True  # Kalashnikov, D.4; False: algorithm 2
  task.observes_gripper = True  # its status and height; Kalashnikov, D.1
  task.image_size = ()  # pixels, height and width; (): poses in place of an image
  task.episode_steps = 20  # steps at most; Kalashnikov, 5
  return task


def grasp() -> ConfigDict:
  """The same from images, of which the network sees 64 x 64 pixels."""
  task = grasp_state()
  task.name = 'grasp'
  task.image_size = (72, 72)  # pixels; ours: room for random crops, as in the paper
  return task


def grasp472() -> ConfigDict:
  """The same from images of the paper's size, of which the network sees 472 x 472."""
  task = grasp()
  task.image_size = (512, 640)  # pixels; Kalashnikov, D
  return task


def grasp_few() -> ConfigDict:
  """The same with one to three objects in the bin, to begin a curriculum with."""
  task = grasp_state()
  task.in_bin = (1, 3)  # objects, fewest and most; ours
  return task


# How the policies of any of these are tried: each changes the numbers of a task, and a
# policy sees as much as it has learned with.


def unseen(task: ConfigDict) -> None:
  """Other objects than those to learn with (Kalashnikov et al. 2018, 6.1)."""
  task.observes_objects = task.in_bin[1]  # as many as in training
  task.unseen = True


def emptying(task: ConfigDict) -> None:
  """A bin full of unseen objects (Kalashnikov et al. 2018, 6.1)."""
  unseen(task)
  task.in_bin = (28, 28)  # objects; Kalashnikov, 6.1


def disturbed(task: ConfigDict) -> None:
  """One unseen object, for `grasp_attempts.Disturbed` to move away."""
  unseen(task)
  task.in_bin = (1, 1)  # objects; Kalashnikov, A: a ball


def singulation(task: ConfigDict) -> None:
  """A puzzle of blocks, which has to be broken up first."""
  unseen(task)
  task.blocks = (2, 2)  # rows and columns; ours, for the toy of Kalashnikov, A
  task.block_edge = 0.05  # m; ours: two are wider than an open hand, fingers and all
  task.in_bin = (4, 4)  # blocks


def protocols() -> ConfigDict:
  """How often a policy is tried, by protocol."""
  protocols = ConfigDict()
  protocols.replacement = 714  # attempts; Kalashnikov, 6.1: 102 of 7 robots
  protocols.emptying = 5  # bins; Kalashnikov, 6.1
  protocols.attempts = 30  # at each of these bins; Kalashnikov, 6.1
  protocols.counted = (10, 20, 30)  # of them, the first; Kalashnikov, table 1
  protocols.disturbed = 100  # attempts; ours: Kalashnikov made 38
  protocols.singulation = 100  # attempts; ours: Kalashnikov made 24
  return protocols


def gym(id: str) -> ConfigDict:
  """Any Gymnasium environment with Box spaces, by its id."""
  task = ConfigDict()
  task.name = 'gym'
  task.id = id
  task.episode_steps = 0  # control steps; 0: the environment's own limit
  # A return from which an episode counts as a success; None: the environment says so.
  task.success_return = config_dict.placeholder(float)
  if id in _SUCCESS_RETURNS:
    task.success_return = _SUCCESS_RETURNS[id]
  return task


_SUCCESS_RETURNS = {
  'Pendulum-v1': -200.0,  # ours: upright within a swing or two from anywhere
}

TASKS = {
  'reach': reach,
  'door_push': door_push,
  'door_pull': door_pull,
  'pick_place': pick_place,
  'reach_torque': reach_torque,
  'peg': peg,
  'grasp_state': grasp_state,
  'grasp_few': grasp_few,
  'grasp': grasp,
  'grasp472': grasp472,
}
NAMES = (*TASKS, 'gym/ID')


def find(which: str) -> ConfigDict | None:
  """Returns the numbers of a task or, after `gym/`, of a Gymnasium environment."""
  kind, _, id = which.partition('/')
  if kind == 'gym' and id:
    return gym(id)
  return TASKS[which]() if which in TASKS else None
