"""Guided policy search: --config=configs/gps.py:TASK.

Every number of the system, with its unit and its source. "Yahya" is Yahya et al. 2016;
"code" the code published with Levine et al. 2016, its peg experiment unless said
otherwise; "ours" is what these leave open, or where they would not do.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from armfarm.configs import tasks


def get_config(which: str = 'peg') -> ConfigDict:
  """Returns the config of a task.

  Args:
    which: 'peg' or 'reach_torque'.

  Raises:
    ValueError: there is no such task.
  """
  if which not in _TASKS:
    raise ValueError(f'there is no config gps.py:{which}; choose {", ".join(_TASKS)}')
  config = ConfigDict()
  config.seed = 0
  config.task = tasks.TASKS[which]()
  config.instances = _TASKS[which]()
  config.agent = agent()
  config.agent.cost_weights = _WEIGHTS[which]
  return config


def peg_instances() -> ConfigDict:
  """Which numbered instances of the task serve for what."""
  instances = ConfigDict()
  instances.train = (0, 1, 2, 3)  # each with its own local controller; code
  instances.validate = ()
  instances.test = (0, 1, 2, 3)  # by the global policy, without noise; code
  return instances


def reach_torque_instances() -> ConfigDict:
  """Which numbered instances of the task serve for what."""
  instances = ConfigDict()
  instances.train = tuple(range(8))  # Yahya, V-A: 8, 4 and 4
  instances.validate = tuple(range(8, 12))
  instances.test = tuple(range(12, 16))
  return instances


_TASKS: dict[str, Callable[[], ConfigDict]] = {
  'peg': peg_instances,
  'reach_torque': reach_torque_instances,
}


# Of x, y and z of three points; ours. The peg goes aside first, then down: with equal
# ones it comes down beside the hole.
_WEIGHTS = {'peg': (2.0, 2.0, 0.3) * 3, 'reach_torque': (2.0,) * 9}


def agent() -> ConfigDict:
  """Returns the numbers of the agent: the global half, the local one, what each needs.

  See `Config` in `armfarm.agents.gps.agent`, and `Options` in the modules named below.
  """
  agent = ConfigDict()
  agent.name = 'gps'
  _global(agent)
  _local(agent)
  _improvements(agent)
  _cost(agent)
  _first(agent)
  return agent


def _global(agent: ConfigDict) -> None:
  """The global policy and its training: `agent`."""
  agent.hidden = (40, 40)  # units; code: 42, 42
  agent.learning_rate = 1e-3  # Adam; code
  agent.weight_decay = 0.005  # over the learning rate; code
  agent.policy_variance = 0.1  # of an action, squared, before training; code
  agent.precision_rate = 0.01  # of a minibatch in the running mean of P, at least; ours
  agent.snapshot_period = 200  # updates between parameters to roll back to; ours
  agent.harm = 10.0  # times the snapshot's loss that calls for a rollback; ours


def _local(agent: ConfigDict) -> None:
  """Rollouts, and the model fitted to them: `local`, `dynamics`, `mixture`."""
  agent.algorithm = 'badmm'  # or 'mdgps', or 'trajectory', each instance alone; Yahya
  agent.optimizer = 'lqr'  # or 'pi2'; Yahya, V-A
  agent.on_policy = False  # whether the global policy acts, once it has been taught
  agent.state_size = 32  # X: the state is the beginning of an observation
  agent.steps = 100  # T, control steps of a rollout; code
  agent.rollouts = 5  # N of an iteration and instance; code
  agent.remembered = 20  # rollouts; code
  agent.noise_deviation = 2.0  # steps of the filter of exploration noise; code
  agent.initial_variance = 1e-6  # floor of x_0's, in its units; code
  agent.gaussians = 10  # of the mixture at most; ours: twice as fast as the code's 20
  agent.points_per_gaussian = 40  # code
  agent.prior_weight = 5.0  # rollouts; ours: as many as there are; code: 1
  agent.regularization = 1e-4  # in the square of units; ours; code: 1e-6
  agent.mixture_ridge = 1e-6  # of standardised points; ours
  agent.mixture_tolerance = 1e-3  # nats a point; ours
  agent.mixture_steps = 10  # of EM; ours: it goes on where it was; code: 100
  agent.importance_horizon = 1  # steps; ours: corrects for the action alone
  agent.importance_limit = 4.0  # times the mean weight; ours


def _improvements(agent: ConfigDict) -> None:
  """Improvements of a local controller: `step`, `lqr`, `pi2`, `badmm`."""
  agent.measure = 'rollouts'  # states over which a divergence is taken; ours
  agent.step_rule = 'laplace'  # code
  agent.kl_step = 1.0  # nats a time step; code
  agent.min_multiplier = 0.1  # of `kl_step`; code: 0.01
  agent.max_multiplier = 1.0  # ours: more, and contacts are not where they were
  agent.lqr_tolerance = 0.1  # of the divergence asked for; code
  agent.min_eta = 1e-8  # in units of the cost; code
  agent.max_eta = 1e16  # likewise
  agent.max_passes = 50  # code
  agent.pi2_epsilon = 1.0  # nats of a step's weights, below log N; code
  agent.min_temperature = 1e-3  # in units of the cost; code
  agent.pi2_damping = 2.0  # of the covariance; code
  agent.covariance_floor = 1e-4  # of a squared action; ours
  agent.badmm_rate = 0.1  # of the multipliers, in units of w P; code
  agent.badmm_weight = 0.01  # w at the start; code
  agent.badmm_min_weight = 1e-3  # ours
  agent.badmm_max_weight = 1.0  # ours
  agent.badmm_max_shift = 1.0  # of a target, standard deviations; ours


def _cost(agent: ConfigDict) -> None:
  """What local controllers lower: `reaching`, `costs.Penalty`."""
  agent.cost_points = 14  # where the points begin in the state
  agent.cost_goal = 32  # where their goal begins in an observation
  agent.cost_weights = (1.0,) * 9  # of x, y, z of three points; code; see `_WEIGHTS`
  agent.cost_l1 = 0.3  # of log r; ours; code: 0.1
  agent.cost_l2 = 10.0  # per m^2; code
  agent.cost_alpha = 1e-3  # m^2; ours: code's 1e-5 asks for gains that saturate
  agent.cost_logarithmic = True  # code
  agent.cost_ramp = 'constant'  # code
  agent.cost_final_weight = 1.0  # times that of other steps; code
  agent.cost_effort = 0.8  # of u'u / 2; ours: less saturates, and misses the hole


def _first(agent: ConfigDict) -> None:
  """The controller to begin with, around x_0: `initial.Guess`."""
  agent.initial = 'lqr'
  agent.initial_gains = (7.0,) * 7  # rad/s^2 of an action of one; ours: the shoulder's
  agent.initial_stiffness = 1.0  # squared actions per rad^2; code
  agent.initial_damping = 0.5  # times the stiffness; code
  agent.initial_action_variance = 0.1  # of an action where nothing else costs; ours
  agent.initial_final_weight = 1.0  # times that of other steps; code
