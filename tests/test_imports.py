"""The arrows between the packages: configs ⊥ envs ⊥ agents ← workers ← launchers."""

import ast
from importlib import metadata
import pathlib
import re
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]

_BELOW = ('agents', 'configs', 'envs', 'launchers', 'replay', 'workers')

# What each package may import of ours, itself included.
_ARROWS = {
  'agents': ('agents',),
  'configs': ('configs.tasks',),
  'envs': ('envs',),
  'experiments': (*_BELOW, 'experiments'),
  'launchers': _BELOW,
  'replay': ('agents.types', 'replay'),
  'workers': ('agents', 'envs', 'replay', 'workers'),
}

# Who may import more: a name in Gymnasium stands for a task with its numbers.
_EXCEPTIONS = {'envs/gym.py': ('configs.tasks',)}

# An agent is mathematics: four libraries, and of the standard one nothing that acts.
_IMPURE = {
  *('asyncio', 'datetime', 'importlib', 'io', 'logging', 'multiprocessing', 'os'),
  *('pathlib', 'random', 'shutil', 'socket', 'subprocess', 'threading', 'time'),
}
_MATHEMATICS = {'chex', 'flax', 'jax', 'optax'} | (sys.stdlib_module_names - _IMPURE)

# The same mathematics once more, for who acts without JAX.
_NUMERICAL = {'numpy': 'agents/host.py'}

_SERVER = {'reverb', 'tensorflow'}


def imported(tree, package):
  """Yields the full dotted name of everything that a module imports.

  Args:
    tree: the parsed module.
    package: dotted name of the package that holds it, for relative imports.
  """
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      parents = package.split('.')[: 1 - node.level or None] if node.level else []
      base = '.'.join(parents + ([node.module] if node.module else []))
      yield from (f'{base}.{alias.name}' for alias in node.names)


def within(name, package):
  """Whether a dotted name is a package or lies in it."""
  return f'{name}.'.startswith(f'{package}.')


def fault(name, path):
  """Says what is wrong when the module at `path` imports `name`, or ''."""
  folder, top = path.parts[0], name.split('.')[0]
  if top in _ARROWS:
    return 'a bare name: import it from armfarm'
  if top == 'armfarm':
    packages = (*_ARROWS[folder], *_EXCEPTIONS.get(str(path), ()))
    allowed = [f'armfarm.{other}' for other in packages]
    return '' if any(within(name, a) for a in allowed) else 'against the arrows'
  if top in _SERVER and not path.match('replay/reverb*.py'):
    return 'only replay/reverb*.py knows the server'
  if (
    folder == 'agents' and top not in _MATHEMATICS and str(path) != _NUMERICAL.get(top)
  ):
    return 'an agent is pure mathematics'
  return ''


def faults(root):
  """Lists `path: name, what is wrong` for every package under `root`."""
  found = []
  for path in sorted(p for top in _ARROWS for p in (root / top).rglob('*.py')):
    relative = path.relative_to(root)
    package = '.'.join(('armfarm', *relative.parts[:-1]))
    for name in imported(ast.parse(path.read_text()), package):
      what = fault(name, relative)
      found += [f'{relative}: {name}, {what}'] if what else []
  return found


def test_arrows_hold():
  assert [top for top in _ARROWS if not (_ROOT / top).is_dir()] == []
  assert faults(_ROOT) == []


def test_every_package_has_an_arrow():
  packages = {p.parent.name for p in _ROOT.glob('*/py.typed')}
  assert packages == set(_ARROWS)


_WRONG = [
  ('configs/naf.py', 'from armfarm.agents import naf'),
  ('configs/naf.py', 'import armfarm.configs.ddpg'),
  ('envs/reach.py', 'from armfarm import agents'),
  ('envs/reach.py', 'from armfarm.configs import tasks'),
  ('envs/gym.py', 'from armfarm.configs import naf'),
  ('envs/robot/filter.py', 'import armfarm.workers.collector'),
  ('envs/robot/filter.py', 'from ...replay import memory'),
  ('agents/naf/agent.py', 'from armfarm.envs import reach'),
  ('agents/naf/agent.py', 'import numpy as np'),
  ('agents/host.py', 'import time'),
  ('agents/naf/agent.py', 'def f():\n  import time'),
  ('agents/naf/agent.py', 'from ... import envs'),
  ('agents/types.py', 'from ..replay import memory'),
  ('agents/types.py', 'import jaxlib'),
  ('replay/memory.py', 'from armfarm.agents import naf'),
  ('replay/memory.py', 'from armfarm.agents.typesetting import x'),
  ('replay/memory.py', 'import reverb'),
  ('workers/trainer.py', 'from armfarm.launchers import local'),
  ('workers/reverb_trainer.py', 'import tensorflow as tf'),
  ('launchers/local.py', 'from armfarm.experiments import table_1'),
  ('launchers/local.py', 'if True:\n  import agents.naf'),
  ('experiments/table_1.py', 'from envs import reach'),
]

_RIGHT = [
  ('configs/naf.py', 'from ml_collections import config_dict'),
  ('envs/gym.py', 'from armfarm.configs import tasks'),
  ('envs/robot/filter.py', 'from armfarm.envs import task\nimport numpy as np'),
  ('envs/robot/filter.py', 'from .. import task\nfrom ..task import Task'),
  ('agents/host.py', 'import numpy as np'),
  ('agents/naf/agent.py', 'import jax.numpy as jnp\nimport functools'),
  ('agents/naf/agent.py', 'from armfarm.agents.naf import losses'),
  ('replay/memory.py', 'from armfarm.agents import types\nimport flashbax'),
  ('replay/memory.py', 'from armfarm.agents.types import Transition'),
  ('replay/reverb_tables.py', 'import reverb\nimport tensorflow as tf'),
  ('workers/trainer.py', 'from armfarm.agents import naf\nfrom armfarm import replay'),
  ('launchers/local.py', 'from armfarm.workers import trainer'),
  ('experiments/table_1.py', 'from armfarm.launchers import local'),
]


def _plant(root, path, source):
  (root / path).parent.mkdir(parents=True)
  (root / path).write_text(source)
  return faults(root)


@pytest.mark.parametrize(('path', 'source'), _WRONG)
def test_a_wrong_import_is_found(tmp_path, path, source):
  assert len(_plant(tmp_path, path, source)) == 1


@pytest.mark.parametrize(('path', 'source'), _RIGHT)
def test_a_right_import_passes(tmp_path, path, source):
  assert _plant(tmp_path, path, source) == []


def normal(name):
  """Returns the name of a distribution as all of its spellings have it."""
  return re.sub('[-_.]+', '-', name).lower()


def test_the_distribution_requires_what_it_imports():
  """Reverb apart: TensorFlow's own requirements let no resolver place it beside JAX."""
  lines = metadata.requires('armfarm')
  required = {normal(re.match(r'[\w.-]+', line)[0]) for line in lines}
  places = metadata.packages_distributions()
  paths = [path for top in _ARROWS for path in (_ROOT / top).rglob('*.py')]
  names = {name for path in paths for name in imported(ast.parse(path.read_text()), '')}
  tops = {name.split('.')[0] for name in names}
  tops -= sys.stdlib_module_names | _SERVER | {'armfarm'}
  # What only some have, as `log`, need not be here: its name is the import's.
  found = {x: places.get(x, [x]) for x in tops}
  assert {x for x in tops if required.isdisjoint(map(normal, found[x]))} == set()
