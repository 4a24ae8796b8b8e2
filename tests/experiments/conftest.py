"""What tests of experiments share."""

import sys

from absl import flags
from ml_collections import config_flags
import pytest


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
