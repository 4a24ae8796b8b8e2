"""Asynchronous NAF: --config=configs/naf.py:TASK or configs/naf.py:TASK,linear.

Every number of the system, with its unit and its source. "Gu" is Gu et al. 2016, the
sections those of the paper; "ours" is what the paper leaves open.
"""

from ml_collections import ConfigDict

from armfarm.configs import tasks


def get_config(which: str = 'reach') -> ConfigDict:
  """Returns the config of a task, for NAF or, after a comma, its variant `linear`.

  Args:
    which: as in 'reach', 'reach,linear' or 'gym/Pendulum-v1'.

  Raises:
    ValueError: there is no such task or variant.
  """
  name, _, variant = which.partition(',')
  task = tasks.find(name)
  if task is None or variant not in ('', 'linear'):
    names = ', '.join(f'{name} or {name},linear' for name in tasks.NAMES)
    raise ValueError(f'there is no config naf.py:{which}; choose {names}')
  config = ConfigDict()
  config.seed = 0
  config.task = task
  config.agent = agent('linear' if variant else 'mlp')
  if name == 'pick_place':
    steady(config.agent)
  config.replay = replay()
  config.run = run()
  return config


def agent(network: str) -> ConfigDict:
  """Returns the numbers of the agent, see `armfarm.agents.naf.agent.Config`."""
  agent = ConfigDict()
  agent.name = 'naf'
  agent.network = network  # 'mlp' or 'linear', Linear-NAF; Gu, IV-C
  agent.hidden = (100, 100)  # units; Gu, IV-C
  agent.normalization = 'none'  # ours: faster; Gu: 'batch' in V-B, 'layer' in V-C
  agent.gamma = 0.98  # Gu, V-A
  agent.learning_rate = 1e-3  # Adam; Gu, V-A: 1e-4 or 1e-3
  agent.tau = 0.01  # per update; ours
  agent.bootstrap_at_time_limit = True  # ours: time is not in x; Gu, Alg. 1: False
  agent.noise_theta = 0.15  # per control step; Lillicrap et al. 2016
  agent.noise_sigma = 0.1  # of the action's range [-1, 1]; ours
  return agent


def steady(agent: ConfigDict) -> None:
  """Makes targets of 174 numbers follow more slowly, and noise at 100 Hz last.

  With 0.01, as for the other tasks, seed 1 forgot what it had learned, time and again.
  """
  agent.tau = 0.001  # per update; Lillicrap et al. 2016
  agent.noise_theta = 0.03  # ours: at 100 Hz as slow in seconds as at 20 Hz
  agent.noise_sigma = 0.05  # ours: so that it is as wide


def replay() -> ConfigDict:
  """Returns the numbers of replay."""
  replay = ConfigDict()
  replay.capacity = 200_000  # transitions; ours: more than a run of reach has
  replay.batch_size = 64  # transitions; Lillicrap et al. 2016
  replay.max_blocks = 8  # blocks that wait for the trainer; ours: little is stale
  return replay


def run() -> ConfigDict:
  """Returns the numbers of the run."""
  run = ConfigDict()
  run.collectors = 1
  run.environments = 16  # simulated arms of the fused runtime, in place of collectors
  run.devices = 1  # that the fused runtime shares its arms and minibatches among
  run.block_steps = 10  # control steps that travel together; ours
  run.updates_per_step = 1.0  # per environment step of any collector; Gu, V-B
  run.warmup_steps = 1_500  # environment steps before the first update; ours
  run.publish_every = 50  # updates; ours: half a second of the paper's trainer
  run.pace = 0.0  # k: k x 100 updates/s, k x 20 steps/s (Gu, V-C); 0: unpaced
  run.max_episodes = 3_000  # training episodes; ours: below what the paper took
  run.stop_when_solved = True
  run.evaluate_every = 20  # training episodes; ours
  run.held_out_episodes = 20  # the same in every evaluation; ours
  run.fresh_episodes = 5  # new in every evaluation; Gu, V-A.1
  run.checkpoint_every = 100  # training episodes; ours
  return run
