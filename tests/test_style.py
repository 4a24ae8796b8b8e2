"""What ruff cannot see: long functions, closures in closures, lint turned off."""

import ast
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_FOLDERS = sorted(p.parent.name for p in _ROOT.glob('*/py.typed'))
_LINES = 40  # of a function's body, its docstring apart
_DEPTH = 2  # functions around a function

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_SUPPRESSION = re.compile(r'#\s*(noqa|ruff:|type:\s*ignore|mypy:|pylint:|fmt:)')


def body_lines(function):
  """Counts the lines of a function's body, without its docstring."""
  body = function.body[1:] if ast.get_docstring(function) else function.body
  return function.end_lineno - body[0].lineno + 1 if body else 0


def functions(node, around=0):
  """Yields each function under a node, with the number of functions around it."""
  for child in ast.iter_child_nodes(node):
    inside = isinstance(child, _FUNCTION)
    if inside:
      yield child, around
    yield from functions(child, around + inside)


def faults(source):
  """Lists `name: what is wrong` for the functions of a module."""
  found = []
  for function, around in functions(ast.parse(source)):
    lines = body_lines(function)
    if lines > _LINES:
      found.append(f'{function.name}: {lines} lines')
    if around > _DEPTH:
      found.append(f'{function.name}: inside {around} functions')
  return found


def _sources(*folders):
  paths = [p for folder in folders for p in sorted((_ROOT / folder).rglob('*.py'))]
  assert paths
  return {str(p.relative_to(_ROOT)): p.read_text() for p in paths}


def test_functions_are_short_and_flat():
  found = {path: faults(source) for path, source in _sources(*_FOLDERS).items()}
  assert {path: what for path, what in found.items() if what} == {}


def test_agents_turn_no_check_off():
  sources = _sources('agents')
  assert [path for path in sources if _SUPPRESSION.search(sources[path])] == []


def _function(lines, docstring=''):
  return f'def f():\n{docstring}' + '  x = 1\n' * lines


def _nested(depth):
  heads = [f'{"  " * i}def f{i}():\n' for i in range(depth + 1)]
  return ''.join(heads) + '  ' * (depth + 1) + 'pass\n'


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    (_function(40), []),
    (_function(41), ['f: 41 lines']),
    (_function(40, '  """Two\n  lines."""\n\n'), []),
    (_function(41, '  """One line."""\n'), ['f: 41 lines']),
    ('class C:\n' + ''.join(f'  {x}\n' for x in _function(41).splitlines()), 1),
    ('async ' + _function(41), ['f: 41 lines']),
    (_nested(2), []),
    (_nested(3), ['f3: inside 3 functions']),
    ('def f():\n  """Only a docstring."""\n', []),
  ],
)
def test_faults(source, expected):
  found = faults(source)
  assert (len(found) if isinstance(expected, int) else found) == expected


@pytest.mark.parametrize(
  ('line', 'expected'),
  [
    ('x = 1  # noqa: E501', True),
    ('x = 1  # type: ignore[assignment]', True),
    ('x = 1  #fmt: off', True),
    ('# ruff: noqa', True),
    ('x = 1  # the type of x', False),
  ],
)
def test_suppression(line, expected):
  assert bool(_SUPPRESSION.search(line)) == expected
