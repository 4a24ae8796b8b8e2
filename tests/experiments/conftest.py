"""What tests of experiments share."""

import sys

from absl import flags
from ml_collections import config_flags
import pytest


@pytest.fixture
def parsed():
  """Gives all flags the values that they have by default."""
  flags.FLAGS.mark_as_parsed()


@pytest.fixture
def different_runs():
  """Returns how many runs variants share; those in one folder are to be the same."""

  def count(every):
    found = {}
    for job in every:
      found.setdefault(job.workdir, set()).add(job.arguments)
    assert all(len(arguments) == 1 for arguments in found.values())
    assert len({arguments for same in found.values() for arguments in same}) == len(
      found
    )
    return len(found)

  return count


@pytest.fixture
def read_config(monkeypatch):
  """Returns the config that a launcher reads from a job's flags."""

  def config(job):
    command = ['', *(flag for flag in job.arguments if flag.startswith('--config'))]
    monkeypatch.setattr(sys, 'argv', command)  # where it looks for what is overridden
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', flag_values=values)
    values(command)
    return values.config

  return config
