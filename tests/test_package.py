"""The wheel holds what git holds, and every module of it imports by itself."""

import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

_ROOT = pathlib.Path(__file__).parents[1]

# Runs without .pth files, so that the editable install is out of sight. Flags are
# dropped after each module: two mains in one process may define the same ones.
_IMPORT_ALL = """
import importlib, sys
wheel, packages, *modules = sys.argv[1:]
sys.path += [wheel, packages]
from absl import flags
for name in modules:
  try:
    module = importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name not in ('reverb', 'tensorflow', 'array_record', 'grain'):
      raise
  else:
    assert module.__file__.startswith(wheel), module.__file__
  for flag in list(flags.FLAGS):
    delattr(flags.FLAGS, flag)
print(len(modules))
"""


def _run(*command, cwd):
  done = subprocess.run(
    command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.fixture(name='tracked', scope='module')
def _tracked():
  """Paths that git holds, or will: what exists and is not ignored."""
  git = ('git', '-c', 'safe.directory=*', 'ls-files', '-z')
  names = _run(*git, '--cached', '--others', '--exclude-standard', cwd=_ROOT)
  return sorted({n for n in names.split('\0') if (_ROOT / n).is_file()})


@pytest.fixture(name='wheel', scope='module')
def _wheel(tracked, tmp_path_factory):
  """The wheel, built through an sdist from a copy of the tracked files alone."""
  tree = tmp_path_factory.mktemp('tree')
  for name in tracked:
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_ROOT / name, tree / name)
  _run(sys.executable, '-m', 'build', '--no-isolation', '.', cwd=tree)
  (path,) = (tree / 'dist').glob('*.whl')
  return zipfile.ZipFile(path)


def test_the_wheel_holds_the_tracked_files(tracked, wheel):
  tops = {p.parent.name for p in _ROOT.glob('*/py.typed')}
  expected = {f'armfarm/{n}' for n in tracked if n.split('/')[0] in tops}
  assert 'armfarm/agents/types.py' in expected
  assert {n for n in wheel.namelist() if '.dist-info/' not in n} == expected


def test_the_wheel_is_licensed_and_named(wheel):
  (metadata,) = (n for n in wheel.namelist() if n.endswith('.dist-info/METADATA'))
  text = wheel.read(metadata).decode()
  assert '\nName: armfarm\n' in text
  assert '\nLicense: Apache-2.0\n' in text
  assert any(n.endswith('/LICENSE') for n in wheel.namelist())


def test_every_module_imports_from_the_wheel_alone(wheel, tmp_path):
  wheel.extractall(tmp_path)
  paths = [p.relative_to(tmp_path) for p in sorted(tmp_path.rglob('armfarm/**/*.py'))]
  modules = ['.'.join(p.with_suffix('').parts) for p in paths]
  modules = [m.removesuffix('.__init__') for m in modules]
  packages = sysconfig.get_path('purelib')
  command = (sys.executable, '-I', '-S', '-c', _IMPORT_ALL)
  printed = _run(*command, str(tmp_path), packages, *modules, cwd=tmp_path)
  assert printed.split()[-1] == str(len(modules))
