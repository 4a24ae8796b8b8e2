"""QT-Opt: --config=configs/qtopt.py:TASK, or TASK,supervised for the baseline.

Every number of the agent, with its unit and its source. "Kalashnikov" is Kalashnikov et
al. 2018, the sections those of the paper; "ours" is what it leaves open.
"""

from ml_collections import ConfigDict

from armfarm.configs import tasks

# Sine-cosine pairs and commands at the end of a task's action; D.2. Others have none.
_GRASPING = 1, ('close', 'open', 'terminate')
_LAYOUTS = {'grasp_state': _GRASPING, 'grasp': _GRASPING}
# Least and greatest return that is worth telling from others, discounted; ours.
_GRASP = 0.0, 1.0  # Kalashnikov, 4.1
_VALUES = {
  'reach': (-30.0, 0.0),  # 0.6 m away for ever, at gamma = 0.98
  'door_push': (-75.0, 100.0),  # far from what is shut, or with it open, for ever
  'door_pull': (-75.0, 100.0),
  'gym/Pendulum-v1': (-400.0, 0.0),  # 8 of at most 16 a step, for ever
}
_COSTS = -100.0, 0.0  # of our other tasks
_UNKNOWN = 0.0, 0.0  # of an environment from elsewhere: to be given
_NETWORKS = {
  'grasp_state': 'things',
  'grasp_few': 'things',
  'grasp': 'grasping64',
  'grasp472': 'grasping472',
}  # others have an MLP
# Transitions; two images each: 3 GB, and 4 GB.
_CAPACITIES = {'grasp': 100_000, 'grasp472': 2_000}


def get_config(which: str = 'grasp_state') -> ConfigDict:
  """Returns the config of a task.

  Args:
    which: as in 'grasp_state', 'reach' or 'gym/Pendulum-v1', and for the supervised
      baseline 'grasp_state,supervised'.

  Raises:
    ValueError: there is no such task, or no baseline for it.
  """
  name, _, baseline = which.partition(',')
  task = tasks.find(name)
  if task is None or baseline not in ('', 'supervised'):
    names = ', '.join(tasks.NAMES)
    raise ValueError(
      f'there is no config qtopt.py:{which}; choose {names}, or such a one with'
      " ',supervised'"
    )
  config = ConfigDict()
  config.seed = 0
  config.task = task
  network = _NETWORKS.get(name, 'mlp')
  config.agent = agent(network)
  angles, commands = _LAYOUTS.get(task.name, (0, ()))
  config.agent.angles = angles
  config.agent.commands = commands
  if network == 'things':
    hasten(config.agent)
  # The step limit of grasping is part of the MDP; that of others is not. Ours.
  config.agent.bootstrap_at_time_limit = task.name not in _LAYOUTS
  if task.name not in _LAYOUTS:
    config.agent.gamma = 0.98  # Gu et al. 2016, V-A: these take more than 20 steps
    config.agent.value_range = value_range(name)
    config.agent.update(quick())
  if commands:
    config.trials = trials()
    config.scripted = scripted(task)
  if baseline:
    if not commands:
      raise ValueError(f'there is no baseline for {name}: it grasps, and nothing else')
    config.agent = supervised(config.agent, task)
  config.replay = replay()
  config.replay.capacity = _CAPACITIES.get(name, config.replay.capacity)
  config.run = run()
  if network == 'things':
    config.run.updates_per_step = 2.0  # ours: simulated steps cost as much as these
  config.log = log()
  config.labels = labels()
  config.joint = joint()
  return config


def value_range(name: str) -> tuple[float, float]:
  """Returns least and greatest return of a task without grasping; both 0: unknown."""
  return _VALUES.get(name, _UNKNOWN if name.startswith('gym/') else _COSTS)


def log() -> ConfigDict:
  """Returns where experience is logged, and which is replayed."""
  log = ConfigDict()
  log.record = ''  # folder to log episodes in; '': none
  log.replay = ''  # folders of logs to learn from, with commas; '': none
  log.jobs = 2  # jobs of log replay; Kalashnikov, F.2: 100 and more, for 7 robots
  return log


def labels() -> ConfigDict:
  """Returns who labels, see `armfarm.workers.bellman_updater`."""
  labels = ConfigDict()
  labels.updaters = 0  # Bellman updaters, of `async`; 0: the trainer labels; ours
  labels.batch = 256  # transitions that one takes at once; ours
  labels.period = 10.0  # s between two loads of target networks; ours
  labels.uses = 4.0  # of a label by updates, at most, on average; ours
  return labels


def joint() -> ConfigDict:
  """Returns how logged and on-policy experience meet, see `armfarm.workers.joint`."""
  joint = ConfigDict()
  joint.offline_updates = 0  # on a log alone; Kalashnikov, F.3: 5 to 15 million
  joint.start = 0.01  # share of on-policy examples, to begin with; Kalashnikov, F.3
  joint.end = 0.5  # and at last; Kalashnikov, F.3
  joint.updates = 1_000_000  # of fine-tuning until then; Kalashnikov, F.3
  joint.balance = (6.0, 11.0)  # updates a transition, least, most; Kalashnikov, F.3
  return joint


def agent(network: str) -> ConfigDict:
  """Returns the numbers of the agent for grasping, see `Config` in `qtopt.agent`.

  Args:
    network: 'mlp' or 'things' without images, or 'grasping64' or 'grasping472', by
      their pixels.
  """
  agent = ConfigDict()
  agent.name = 'qtopt'
  agent.network = network
  agent.hidden = (100, 100)  # units, of the MLP; ours: NAF's
  agent.normalization = 'none'  # of the MLP; ours: images' is always 'batch'
  agent.angles = 1  # sine-cosine pairs: about the vertical; Kalashnikov, D.2
  agent.commands = ('close', 'open', 'terminate')  # Kalashnikov, D.2
  agent.gamma = 0.9  # Kalashnikov, table 7
  agent.bootstrap_at_time_limit = False  # Kalashnikov, 5
  agent.value_range = _GRASP  # least and greatest of Q
  agent.target = 'clipped'  # or 'double', 'single'; Kalashnikov, F.4
  agent.loss = 'cross_entropy'  # or 'squared'; Kalashnikov, 4.1
  agent.polyak = 0.9999  # of theta-bar-1 that stays at an update; Kalashnikov, C
  agent.lag = 6_000  # updates, mean age of theta-bar-2; Kalashnikov, 4.1 and F.4
  agent.optimizer = 'sgd'  # or 'adam'; Kalashnikov, E
  agent.learning_rate = 1e-4  # Kalashnikov, E
  agent.decay_updates = 0  # until a tenth of it is left, 0: never; ours
  agent.momentum = 0.9  # Kalashnikov, E
  agent.weight_decay = 7e-5  # of half the sum of squared weights; Kalashnikov, E
  agent.cem = cem()  # of who acts
  agent.label_cem = cem()  # behind a label
  agent.noise = noise()
  agent.augmentation = augmentation() if network.startswith('grasping') else None
  return agent


def hasten(agent: ConfigDict) -> None:
  """Makes tens of thousands of updates do, where the paper has millions; ours."""
  agent.hidden = (64, 64)  # units, for each of the nearest things
  # A step that makes a grasp safe is worth it if it saves 0.07 of failure; with 0.9,
  # if it saves 0.15.
  agent.gamma = 0.98
  agent.polyak = 0.998  # of theta-bar-1 that stays at an update
  agent.lag = 750  # updates, mean age of theta-bar-2: 1.5 times that of theta-bar-1
  agent.optimizer = 'adam'
  agent.learning_rate = 1e-3  # of Adam
  agent.decay_updates = 350_000  # at 1e-4, 92 % of grasps became 94
  agent.weight_decay = 0.0
  agent.label_cem.samples = 32  # N; half the time of a label
  agent.label_cem.elites = 4  # M
  agent.noise.epsilon = 0.3  # probability of a random action


def supervised(critic: ConfigDict, task: ConfigDict) -> ConfigDict:
  """Returns the numbers of the baseline, see `Config` in `qtopt.supervised`.

  Args:
    critic: numbers of QT-Opt, whose network, loss and search are the same.
    task: of grasping.
  """
  agent = ConfigDict()
  agent.name = 'supervised'
  agent.critic = critic
  del agent.critic.name
  agent.reach = 4.0  # units of the action; ours: on to the bin's bottom
  agent.max_turn = task.get_ref('max_turn')  # rad in a step
  agent.patience = 0.9  # of the best promise; Levine et al. 2016
  agent.lift_height = task.get_ref('lift_height')  # m
  agent.status_at = 0 if len(task.image_size) else 4  # before it: place and heading
  return agent


def quick() -> ConfigDict:
  """Returns what the MLP of a task without grasping departs in from the paper.

  Its numbers are for convolutions and 10^6 to 10^7 minibatches; here there are 10^4.
  """
  quick = ConfigDict()
  quick.normalization = 'layer'  # ours: Q does not run away from what it was shown
  quick.polyak = 0.995  # of theta-bar-1 that stays at an update; ours
  quick.lag = 300  # updates, mean age of theta-bar-2; ours
  quick.optimizer = 'adam'  # ours
  quick.learning_rate = 5e-4  # Adam; ours
  quick.weight_decay = 0.0  # ours
  return quick


def cem() -> ConfigDict:
  """Returns the numbers of the search, see `Options` in `qtopt.cem`."""
  cem = ConfigDict()
  cem.samples = 64  # N; Kalashnikov, 4.2
  cem.elites = 6  # M; Kalashnikov, 4.2
  cem.iterations = 2  # Kalashnikov, 4.2
  cem.deviation = 0.7  # of the first samples, of the action's range [-1, 1]; ours
  cem.min_deviation = 0.01  # of the Gaussian that is fitted, likewise; ours
  return cem


def noise() -> ConfigDict:
  """Returns the numbers of the noisy policy, see `Options` in `qtopt.noisy`."""
  noise = ConfigDict()
  noise.epsilon = 0.2  # probability of a random action; Kalashnikov, B
  noise.weights = (0.75, 0.17, 0.08)  # pose, gripper, termination; Kalashnikov, B
  noise.translation_deviation = 0.5  # of the action's range [-1, 1]; ours
  noise.rotation_deviation = 0.5  # rad; ours
  return noise


def scripted(task: ConfigDict) -> ConfigDict:
  """Returns the numbers of the scripted policy, see `Options` in `qtopt.scripted`.

  The ways are in units of the action, 0.06 m of `grasp_state`, and those of its bin.
  """
  scripted = ConfigDict()
  scripted.reach = (1.65, 0.92)  # along x and y; ours: an open hand clears the walls
  scripted.depth = 3.7  # ours: on to the bin's bottom, where the bounds end it
  scripted.stride = (0.5, 1.0)  # of a step down or up; ours: "a few random" ones
  scripted.max_angle = 1.57  # rad; ours: every grasp of two fingers
  scripted.max_turn = task.get_ref('max_turn')  # rad in a step
  return scripted


def trials() -> ConfigDict:
  """Returns what is different of the task where policies are tried."""
  trials = ConfigDict()
  trials.unseen = True  # objects; Kalashnikov, 6.1
  return trials


def replay() -> ConfigDict:
  """Returns the numbers of replay."""
  replay = ConfigDict()
  replay.capacity = 300_000  # transitions; ours: all that a run collects
  replay.batch_size = 64  # transitions; ours
  replay.max_blocks = 8  # blocks that wait for the trainer; ours: little is stale
  return replay


def run() -> ConfigDict:
  """Returns the numbers of the run."""
  run = ConfigDict()
  run.collectors = 1
  run.environments = 16  # simulated arms of the fused runtime, in place of collectors
  run.devices = 1  # that the fused runtime shares its arms and minibatches among
  run.block_steps = 10  # control steps that travel together; ours
  run.updates_per_step = 1.0  # per environment step of any collector; ours
  # Before the noisy policy explores; ours: as soon as it learns, since what the script
  # never does is overrated until it is tried. Kalashnikov, C: 120,000
  run.scripted_updates = 1
  run.scripted_success = 0.5  # of a trial, from which it explores, too; Kalashnikov, 5
  run.warmup_steps = 20_000  # environment steps before the first update; ours
  run.publish_every = 50  # updates; ours
  run.pace = 0.0  # not paced
  run.max_episodes = 30_000  # training episodes; ours: some 300,000 steps
  run.stop_when_solved = False
  run.evaluate_every = 1_000  # training episodes; ours
  run.held_out_episodes = 100  # the same in every evaluation; ours
  run.fresh_episodes = 1  # new in every evaluation; ours
  run.checkpoint_every = 5_000  # training episodes; ours
  return run


def augmentation() -> ConfigDict:
  """Returns how images change in training, see `Options` in `qtopt.augment`."""
  augmentation = ConfigDict()
  augmentation.brightness = 0.125  # of the full scale; Kalashnikov, D.1
  augmentation.contrast = (0.5, 1.5)  # factors; Kalashnikov, D.1
  augmentation.saturation = (0.5, 1.5)  # factors; Kalashnikov, D.1
  return augmentation
