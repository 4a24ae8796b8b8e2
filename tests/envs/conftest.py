"""The numbers that tests build each task from."""

import pytest


@pytest.fixture(scope='session')
def numbers():
  """Name of a task -> arguments of its `make`."""
  return {
    'reach': dict(
      distance_weight=10.0,
      control_weight=0.001,
      huber_delta=0.1,
      speed=0.5,
      cube_center=(0.5, 0.25, 0.65),
    )
  }
