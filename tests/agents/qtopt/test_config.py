"""The numbers of `configs/qtopt.py` fit the agent and the tasks."""

import pytest

from armfarm import envs
from armfarm.agents import types
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import augment
from armfarm.agents.qtopt import cem
from armfarm.agents.qtopt import networks
from armfarm.configs import qtopt as configs
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


def test_an_unknown_task_is_refused():
  with pytest.raises(ValueError, match=r'no config qtopt.py:walk; choose reach, .*'):
    configs.get_config('walk')
