"""The numbers that tests build each task from: those that runs are built from."""

import pytest

from armfarm.configs import tasks


@pytest.fixture(scope='session')
def numbers():
  """Name of a task -> arguments of its `make`."""
  found = {name: make().to_dict() for name, make in tasks.TASKS.items()}
  return {
    name: {k: v for k, v in numbers.items() if k != 'name'}
    for name, numbers in found.items()
  }
