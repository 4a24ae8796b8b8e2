"""What a film shows of a policy that searches for its actions."""

import types

import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from armfarm.agents.qtopt import cem
from armfarm.launchers import policy


def _loaded(search, **task):
  agent = types.SimpleNamespace(search=search)
  parts = types.SimpleNamespace(agent=agent, config=ConfigDict({'task': task}))
  return policy.Loaded(parts, None, {})


def _search(variables, observation, key):
  del variables, key
  actions = jnp.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, -1, 0]])
  values = observation * jnp.array([0.0, 1.0, 0.5])
  return cem.Optimum(actions[1], values[1], actions, values)


def test_actions_are_marked_where_they_lead():
  thinks = policy._thinks(_loaded(_search, step_size=0.06), None)
  thought = thinks(0.93)
  assert thought.text == 'Q 0.93'
  marks = thought.marks
  np.testing.assert_allclose(marks.offsets, 0.06 * np.diag([1.0, 1.0, -1.0]), rtol=1e-6)
  assert marks.radii.argmax() == 1
  assert marks.radii[0] == marks.radii[2]
  green = marks.colors[:, 1] - marks.colors[:, 0]
  assert green.argsort().tolist() == [0, 2, 1]


def test_actions_of_one_value_are_marked():
  marks = policy._thinks(_loaded(_search, step_size=0.06), None)(0.0).marks
  assert np.isfinite(marks.colors).all()


@pytest.mark.parametrize(
  'loaded', [_loaded(None, step_size=0.06), _loaded(_search)], ids=['agent', 'task']
)
def test_others_think_nothing_that_could_be_shown(loaded):
  assert policy._thinks(loaded, None) is None
