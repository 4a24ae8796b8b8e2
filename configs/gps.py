"""Guided policy search: --config=configs/gps.py:TASK, or TASK,pd or TASK,demonstration.

Every number of the system, with its unit and its source. "Yahya" is Yahya et al. 2016;
"code" the code published with Levine et al. 2016, its peg experiment unless said
otherwise; "ours" is what these leave open, or where they would not do.
"""

from ml_collections import ConfigDict

from armfarm.configs import tasks


def get_config(which: str = 'peg') -> ConfigDict:
  """Returns the config of a task and, after a comma, of what controllers begin with.

  Args:
    which: as in 'peg', 'peg,pd' or 'reach_torque,demonstration'.

  Raises:
    ValueError: there is no such task, or no such beginning.
  """
  name, _, first = which.partition(',')
  first = first or 'guessed'
  if name not in _INSTANCES or first not in _INITIAL:
    names = ', '.join(f'{x}, {x},pd, {x},demonstration' for x in _INSTANCES)
    raise ValueError(f'there is no config gps.py:{which}; choose {names}')
  config = ConfigDict()
  config.seed = 0
  config.task = tasks.TASKS[name]()
  config.instances = instances(name)
  config.agent = agent()
  config.agent.cost.weights = _WEIGHTS[name]
  config.agent.cost.ramps = _RAMPS[name]
  config.agent.noise_deviation = _NOISE_DEVIATIONS[name]
  config.agent.initial = _INITIAL[first]()
  # Workdir of a run whose policy this one goes on from, '' for a new one; Yahya, V-B.
  config.agent.taught_by = ''
  config.replay = replay()
  config.replay.batch_size = _BATCHES[name]
  config.run = run(config)
  return config


# Train, validate, test. Each of the first has its own local controller; the policy is
# tried on the others, without noise. The code tests the peg where it is trained; where
# it is perturbed, what validates is perturbed otherwise.
_INSTANCES = {
  'peg': (range(4), range(4), range(4)),
  'reach_torque': (range(8), range(8, 12), range(12, 16)),  # Yahya, V-A: 8, 4, 4
}

# Of x, y and z of three points; ours. The peg goes aside first, then down, where haste
# in z would have it cut the corner of the hole's edge.
_WEIGHTS = {'peg': (2.0, 2.0, 0.6) * 3, 'reach_torque': (2.0,) * 9}
_RAMPS = {
  'peg': ('constant', 'constant', 'quadratic') * 3,  # ours
  'reach_torque': ('constant',) * 9,  # code
}

# Lessons of a minibatch; ours: to send a gradient costs more than to compute it.
_BATCHES = {'peg': 100, 'reach_torque': 200}

# Contacts need a sharp model, and a policy for any goal needs to see much.
_NOISE_DEVIATIONS = {'peg': 0.5, 'reach_torque': 2.0}


def instances(which: str) -> ConfigDict:
  """Returns which numbered instances of the task serve for what."""
  instances = ConfigDict()
  train, validate, test = map(tuple, _INSTANCES[which])
  instances.train = train
  instances.validate = validate
  instances.test = test
  return instances


def agent() -> ConfigDict:
  """Returns the numbers of the agent, see `Config` in `armfarm.agents.gps.agent`."""
  agent = ConfigDict()
  agent.name = 'gps'
  agent.hidden = (40, 40)  # units; code: 42, 42
  # That an entry of an observation is divided by at least, in its units; ours.
  agent.min_deviation = 1e-3
  agent.learning_rate = 1e-3  # Adam; code
  agent.weight_decay = 0.005  # over the learning rate, AdamW's; ours; code: of the loss
  agent.initial_variance = 0.1  # of an action, squared, before training; code
  agent.precision_rate = 0.01  # of a minibatch in the running mean of P, at least; ours
  agent.snapshot_period = 200  # updates between parameters to roll back to; ours
  agent.harm = 10.0  # times the snapshot's loss that calls for a rollback; ours
  # Steps of the filter of exploration noise; code; ours: `_NOISE_DEVIATIONS`.
  agent.noise_deviation = 2.0
  agent.local = local()
  agent.cost = cost()
  return agent


def local() -> ConfigDict:
  """Returns the numbers of rollouts, models and improvements, see `gps.local`."""
  local = ConfigDict()
  local.algorithm = 'badmm'  # or 'mdgps', or 'trajectory', each instance alone; Yahya
  local.optimizer = 'lqr'  # or 'pi2'; Yahya, V-A
  local.on_policy = False  # whether the global policy acts, once it has been taught
  local.state_size = 32  # X: the state is the beginning of an observation
  local.steps = 100  # T, control steps of a rollout; code
  local.rollouts = 5  # N of an iteration and instance; code
  local.remembered = 20  # rollouts; code
  local.initial_variance = 1e-6  # floor of x_0's, in its units; code
  local.gaussians = 10  # of the mixture at most; ours: twice as fast as the code's 20
  local.measure = 'rollouts'  # states over which a divergence is taken; ours
  local.step_rule = 'laplace'  # code
  local.importance_horizon = 1  # steps; ours: corrects for the action alone
  local.importance_limit = 4.0  # times the mean weight; ours
  local.dynamics = dynamics()
  local.update(improvements())
  return local


def dynamics() -> ConfigDict:
  """Returns the numbers of the fitted model, see `gps.dynamics` and `gps.mixture`."""
  dynamics = ConfigDict()
  dynamics.points_per_gaussian = 40  # code
  dynamics.prior_weight = 5.0  # rollouts; ours: as many as there are; code: 1
  dynamics.regularization = 1e-4  # in the square of units; ours; code: 1e-6
  dynamics.mixture = ConfigDict()
  dynamics.mixture.ridge = 1e-6  # of standardised points; ours
  dynamics.mixture.tolerance = 1e-3  # nats a point; ours
  dynamics.mixture.max_steps = 10  # of EM; ours: it goes on where it was; code: 100
  return dynamics


def improvements() -> ConfigDict:
  """Returns the numbers of `gps.step`, `gps.lqr`, `gps.pi2` and `gps.badmm`."""
  numbers = ConfigDict({'step': {}, 'lqr': {}, 'pi2': {}, 'badmm': {}})
  numbers.step.kl_step = 1.0  # nats a time step; code
  numbers.step.min_multiplier = 0.1  # of `kl_step`; code: 0.01
  numbers.step.max_multiplier = 1.0  # ours: more, and contacts are not where they were
  numbers.lqr.tolerance = 0.1  # of the divergence asked for; code
  numbers.lqr.min_eta = 1e-8  # in units of the cost; code
  numbers.lqr.max_eta = 1e16  # likewise
  numbers.lqr.max_passes = 50  # code
  numbers.pi2.epsilon = 1.0  # nats of a step's weights, below log N; code
  numbers.pi2.min_temperature = 1e-3  # in units of the cost; code
  numbers.pi2.damping = 2.0  # of the covariance; code
  numbers.pi2.covariance_floor = 1e-4  # of a squared action; ours
  numbers.badmm.rate = 0.1  # of the multipliers, in units of w P; code
  numbers.badmm.initial_weight = 0.01  # w at the start; ours; code: 0.002
  numbers.badmm.min_weight = 1e-3  # ours
  numbers.badmm.max_weight = 1.0  # ours
  numbers.badmm.max_shift = 1.0  # of a target, standard deviations; ours
  return numbers


def cost() -> ConfigDict:
  """Returns what local controllers lower, see `gps.reaching` and `gps.costs`."""
  cost = ConfigDict()
  cost.state_size = 32  # X
  cost.points = 14  # where the points begin in the state
  cost.goal = 32  # where their goal begins in an observation
  cost.weights = (1.0,) * 9  # of the points' entries; ours: `_WEIGHTS`; code: 2, 2, 1
  cost.penalty = ConfigDict()
  cost.penalty.l1 = 0.3  # of log r; ours; code: 0.1
  cost.penalty.l2 = 10.0  # per m^2; code
  cost.penalty.alpha = 1e-3  # m^2; ours: code's 1e-5 asks for gains that saturate
  cost.penalty.logarithmic = True  # code
  cost.ramps = ('constant',) * 9  # over a rollout, likewise; code; ours: `_RAMPS`
  cost.final_weight = 1.0  # times that of other steps; ours; code: 10, of a part
  cost.effort = 0.8  # of u'u / 2; ours: less saturates, and misses the hole
  return cost


def guessed() -> ConfigDict:
  """Returns a regulator around x_0 to begin with, see `gps.initial.Guess`."""
  initial = ConfigDict()
  initial.kind = 'guessed'
  initial.gains = (7.0,) * 7  # rad/s^2 of an action of one; ours: the shoulder's
  initial.stiffness = 1.0  # squared actions per rad^2; code
  initial.damping = 0.5  # times the stiffness; code
  initial.variance = 0.1  # of an action where nothing else costs; ours
  initial.final_weight = 1.0  # times that of other steps; ours; code: 50
  initial.dt = 0.05  # s, of a control step
  return initial


def pd() -> ConfigDict:
  """Returns a controller that keeps x_0 to begin with, see `gps.initial.PD`."""
  initial = ConfigDict()
  initial.kind = 'pd'
  initial.stiffness = 1.0  # actions per rad; ours; code: 10 in N m/rad
  initial.damping = 0.3  # s, times the stiffness; ours
  initial.variance = 0.1  # of an action; ours
  return initial


def demonstration() -> ConfigDict:
  """Returns recorded trajectories to begin with, and what leads back to them."""
  initial = pd()
  initial.kind = 'demonstration'
  # As `launchers.evaluate --record` writes it; {} in it is an instance's number, as
  # each robot has a demonstration of its own; Yahya, V-B.
  initial.path = 'demonstration.npz'
  return initial


_INITIAL = {'guessed': guessed, 'pd': pd, 'demonstration': demonstration}


def replay() -> ConfigDict:
  """Returns the numbers of what travels and of what is sampled."""
  replay = ConfigDict()
  replay.batch_size = 100  # lessons; ours: `_BATCHES`
  replay.iterations = 1  # of each instance whose lessons are sampled; ours
  replay.max_blocks = 16  # reports or gradients that wait for the server; ours
  return replay


def run(config: ConfigDict) -> ConfigDict:
  """Returns the numbers of the run; episodes are rollouts of any robot."""
  every = len(config.instances.train) * config.agent.local.rollouts
  run = ConfigDict()
  run.collectors = 1  # robots, each with as many of the training instances
  # In lock step, of the global policy; code: 3,000, for MDGPS 4,000.
  run.updates_per_iteration = 1_000
  run.inner_iterations = 4  # in lock step, of BADMM; others have one; code
  run.gradients_per_s = 10.0  # of a global worker, not in lock step; ours
  run.publish_every = 1  # updates; ours: 80 updates late, eight robots do not learn
  run.pace = 0.0  # robots move at so many times real time; 0: as fast as they can
  run.max_episodes = 12 * every  # 12 iterations; code
  run.stop_when_solved = False  # the papers' curves have one length
  run.evaluate_first = True  # before any training: the papers' curves begin there
  run.evaluate_every = every
  run.checkpoint_every = every
  return run
