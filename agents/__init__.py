"""Learners as pure functions of arrays: no input or output, no clock, no replay."""

from collections.abc import Callable
from typing import Any, NamedTuple

from armfarm.agents import types
from armfarm.agents.ddpg import agent as ddpg
from armfarm.agents.naf import agent as naf
from armfarm.agents.qtopt import agent as qtopt
from armfarm.agents.qtopt import supervised


class Entry(NamedTuple):
  """How a launcher builds an agent: `make(spec, Config(**numbers), axis_name)`."""

  make: Callable[[types.Spec, Any, str | None], types.Agent]
  Config: type


AGENTS = {
  'naf': Entry(naf.make, naf.Config),
  'ddpg': Entry(ddpg.make, ddpg.Config),
  'qtopt': Entry(qtopt.make, qtopt.Config),
  'supervised': Entry(supervised.make, supervised.Config),
}
