"""Checkpoints that are whole or not there.

A checkpoint is one directory, named after its number of environment steps:

  run/            learner, optimiser, keys, replay memory, collectors: an orbax tree
  policy/         what acting needs and nothing else: another
  manifest.json   counters and criteria, and size and checksum of every file

The manifest is renamed into place last. A directory without one was never finished and
is removed; one whose files do not fit its manifest is reported and passed over.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import os
import pathlib
import shutil
from typing import Any
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp

_KEEP = 2
_PIECE = 2**24  # bytes; replay may have gigabytes
_MANIFEST = 'manifest.json'


class CorruptError(Exception):
  """A checkpoint's files do not fit its manifest."""


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes JSON so that a reader sees all of it or what was there before."""
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('w') as file:
    json.dump(content, file, indent=2)
    file.write('\n')
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def _files(directory: pathlib.Path) -> dict[str, list[int]]:
  """Returns size and checksum of every file below a directory."""
  paths = sorted(path for path in directory.rglob('*') if path.is_file())
  return {str(path.relative_to(directory)): _checksum(path) for path in paths}


def _checksum(path: pathlib.Path) -> list[int]:
  """Returns size and checksum of a file, of which it holds a piece at a time."""
  size = checksum = 0
  with path.open('rb') as file:
    while piece := file.read(_PIECE):
      size, checksum = size + len(piece), zlib.crc32(piece, checksum)
  return [size, checksum]


def _as_arrays(tree: Any) -> Any:
  """Makes arrays of scalars, which orbax does not take."""
  return jax.tree.map(lambda x: x if isinstance(x, jax.Array) else np.asarray(x), tree)


def _shapes(tree: Any) -> dict[str, str]:
  """Returns type and shape of every array of a tree, by its path."""
  leaves = jax.tree_util.tree_leaves_with_path(_as_arrays(tree))
  return {jax.tree_util.keystr(path): f'{x.dtype}{[*x.shape]}' for path, x in leaves}


class Checkpoints:
  """The checkpoints of one run; the last two are kept.

  Args:
    directory: where they are, made if need be.
    warn: told in one line of each checkpoint that could not be used.
  """

  def __init__(self, directory: pathlib.Path, warn: Callable[[str], None]):
    self._directory = directory
    self._warn = warn
    self._orbax = ocp.StandardCheckpointer()
    directory.mkdir(parents=True, exist_ok=True)

  def save(
    self, env_steps: int, trees: dict[str, Any], progress: dict[str, Any]
  ) -> None:
    """Commits a checkpoint, then removes those that are too old.

    Args:
      env_steps: its number; a second one of that number stands behind the first.
      trees: trees of arrays by name.
      progress: whatever else there is, ready for JSON.
    """
    path = self._free(f'{env_steps:012d}')
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for name, tree in trees.items():
      self._orbax.save((path / name).absolute(), _as_arrays(tree))
    self._orbax.wait_until_finished()
    shapes = {name: _shapes(tree) for name, tree in trees.items()}
    manifest = {'progress': progress, 'shapes': shapes, 'files': _files(path)}
    write_json(path / _MANIFEST, manifest)
    for old in self._committed()[:-_KEEP]:
      shutil.rmtree(old)

  def read(self) -> tuple[pathlib.Path, dict[str, Any]] | None:
    """Finds the newest checkpoint that is whole.

    Returns:
      Its directory and its progress, or None if there is none.
    """
    for path in reversed(self._committed()):
      try:
        return path, self._verified(path)
      except (CorruptError, OSError, ValueError, KeyError, TypeError) as error:
        self._warn(
          f'checkpoint {path.name} cannot be used ({error}); trying an older one'
        )
    return None

  def tree(self, path: pathlib.Path, name: str, template: Any) -> Any:
    """Reads a tree of arrays from a checkpoint.

    Args:
      path: as returned by `read`.
      name: as given to `save`.
      template: a tree with the shapes and types that are expected.

    Raises:
      ValueError: the checkpoint holds something else.
    """
    # Told by the manifest: orbax would tell it in a hundred lines on stderr.
    found, shapes = self._manifest(path)['shapes'][name], _shapes(template)
    if found != shapes:
      other = min(x for x in {*found, *shapes} if found.get(x) != shapes.get(x))
      raise ValueError(f'{other} is {found.get(other)}, not {shapes.get(other)}')
    return self._orbax.restore((path / name).absolute(), _as_arrays(template))

  def clean(self) -> None:
    """Removes what a killed process left half-written."""
    committed = self._committed()
    for path in self._directory.iterdir():
      if path not in committed:
        shutil.rmtree(path, ignore_errors=True)

  def go_back(self, path: pathlib.Path) -> None:
    """Removes what is newer than a checkpoint and could not be used."""
    for newer in self._committed():
      if newer > path:
        shutil.rmtree(newer)

  def _free(self, name: str) -> pathlib.Path:
    """Returns a path that no committed checkpoint has, behind all of that name."""
    taken = [p.name for p in self._committed() if p.name.partition('.')[0] == name]
    if taken:
      name = f'{name}.{int(taken[-1].partition(".")[2] or 0) + 1:03d}'
    return self._directory / name

  def _committed(self) -> list[pathlib.Path]:
    paths = self._directory.iterdir()
    return sorted(path for path in paths if (path / _MANIFEST).exists())

  def _manifest(self, path: pathlib.Path) -> dict[str, Any]:
    return json.loads((path / _MANIFEST).read_text())

  def _verified(self, path: pathlib.Path) -> dict[str, Any]:
    manifest = self._manifest(path)
    found = _files(path)
    for name, expected in manifest['files'].items():
      if found.get(name) != expected:
        raise CorruptError(f'{name} is damaged')
    return manifest['progress']
