"""The numbers of `configs/qtopt.py` fit the agent and the tasks."""

import jax
import numpy as np
import pytest

from armfarm import envs
from armfarm.agents import types
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import augment
from armfarm.agents.qtopt import cem
from armfarm.agents.qtopt import networks
from armfarm.agents.qtopt import supervised
from armfarm.configs import qtopt as configs
from armfarm.envs import host
from armfarm.launchers import guided


def _build(config):
  numbers = config.task.to_dict()
  task = envs.TASKS[numbers.pop('name')](**numbers)
  numbers = config.agent.to_dict()
  del numbers['name']
  spec = types.Spec(task.observation_size, task.action_size)
  return qtopt.build(spec, guided.fill(qtopt.Config, numbers))


def test_the_action_of_grasping_has_its_parts():
  layout = _build(configs.get_config('grasp_state')).layout
  assert layout.box == 3
  assert layout.angles == 1
  assert layout.commands == ('close', 'open', 'terminate')


@pytest.mark.parametrize('which', ['grasp_state', 'grasp_few'])
def test_where_things_are_told_apart_the_critic_of_things_learns(which):
  model = _build(configs.get_config(which))
  assert model.config.network == 'things'
  assert model.config.augmentation is None
  paper = configs.agent('mlp')
  assert paper.optimizer == 'sgd'
  assert model.config.optimizer == 'adam'


@pytest.mark.parametrize(
  ('which', 'network'), [('grasp', 'grasping64'), ('grasp472', 'grasping472')]
)
def test_images_have_room_for_a_random_crop(which, network):
  config = configs.get_config(which)
  model = _build(config)
  assert model.config.network == network
  assert model.spec.observation_size == 2
  assert model.layout.box == 3
  assert min(config.task.image_size) > networks.IMAGE_SIZES[network]


def test_other_tasks_have_numbers_alone_and_bootstrap():
  model = _build(configs.get_config('reach'))
  assert model.layout.box == 7
  assert model.config.bootstrap_at_time_limit
  assert not configs.get_config().agent.bootstrap_at_time_limit


def test_numbers_nest():
  numbers = configs.agent('grasping64').to_dict()
  del numbers['name']
  config = guided.fill(qtopt.Config, numbers)
  assert config.cem == cem.Options()
  assert isinstance(config.augmentation, augment.Options)
  assert config.noise.weights == (0.75, 0.17, 0.08)
  del numbers['cem']['samples']
  numbers['cem']['sample'] = 64
  with pytest.raises(TypeError, match='sample'):
    guided.fill(qtopt.Config, numbers)


def test_the_baseline_and_the_script_have_the_tasks_numbers():
  config = configs.get_config('grasp_state,supervised')
  config.task.lift_height, config.task.max_turn = 0.18, 0.25
  assert (config.agent.lift_height, config.agent.max_turn) == (0.18, 0.25)
  assert config.scripted.max_turn == 0.25
  assert config.to_dict()['agent']['lift_height'] == 0.18


@pytest.mark.parametrize('which', ['walk', 'grasp_state,other', 'walk,supervised'])
def test_an_unknown_task_is_refused(which):
  message = f'no config qtopt.py:{which}; choose reach, .*'
  with pytest.raises(ValueError, match=message):
    configs.get_config(which)


@pytest.mark.parametrize('name', ['grasp_state', 'grasp'])
def test_the_baseline_sees_where_its_gripper_is(name):
  config = configs.get_config(f'{name},supervised')
  numbers = config.agent.to_dict()
  assert numbers.pop('name') == 'supervised'
  task = config.task.to_dict()
  size = 2 if name == 'grasp' else 6 + 12 * task['in_bin'][1]
  chosen = guided.fill(supervised.Config, numbers)
  model = supervised.build(types.Spec(size, 8), chosen)
  assert model.critic.layout.motion_size == model.critic.spec.action_size == 5
  numbers = configs.get_config(name).agent.to_dict()
  del numbers['name']
  assert chosen.critic == guided.fill(qtopt.Config, numbers)
  body = host.Host(envs.TASKS['grasp_state'](**_numbers_of('grasp_state')))
  observation = body.reset(jax.random.key(0))
  if name == 'grasp':
    observation = observation[4:6]
  close = np.float64([0, 0, 0, 0, 1, 1, 0, 0])
  closed, height = supervised.status(model, observation)
  assert not closed
  assert 0.1 < height < 0.23
  observation = body.step(close).observation
  closed, _ = supervised.status(
    model, observation[4:6] if name == 'grasp' else observation
  )
  assert closed


def _numbers_of(name):
  numbers = configs.get_config(name).task.to_dict()
  del numbers['name']
  return numbers


def test_there_is_no_baseline_for_what_grasps_nothing():
  with pytest.raises(ValueError, match='no baseline for reach'):
    configs.get_config('reach,supervised')


@pytest.mark.parametrize('which', ['reach', 'gym/Pendulum-v1', 'pick_place'])
def test_tasks_of_costs_have_returns_below_nought(which):
  low, high = configs.get_config(which).agent.value_range
  assert low < high == 0.0
  assert configs.get_config('grasp_state').agent.value_range == (0.0, 1.0)


@pytest.mark.parametrize('which', ['door_push', 'door_pull'])
def test_an_open_door_is_worth_more_than_nought(which):
  low, high = configs.get_config(which).agent.value_range
  assert low < 0.0 < high


def test_nobody_guesses_what_an_environment_from_elsewhere_pays():
  config = configs.get_config('gym/InvertedPendulum-v5')
  assert tuple(config.agent.value_range) == (0.0, 0.0)  # refused: see test_agent
