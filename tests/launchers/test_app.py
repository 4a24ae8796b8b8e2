"""What a launcher says of configs that lack a part, and of a full disk."""

import errno

from ml_collections import ConfigDict
import pytest

from armfarm.launchers import app


def _raised(error, cause=None):
  """Returns an error as it is caught, with the one that it came of."""
  try:
    raise error from cause
  except Exception as caught:
    return caught


@pytest.mark.parametrize(
  ('error', 'cause', 'is_full'),
  [
    (OSError(errno.ENOSPC, 'x'), None, True),
    (RuntimeError('tensorstore'), OSError(errno.EDQUOT, 'x'), True),
    (ValueError('RESOURCE_EXHAUSTED: write: No space left on device'), None, True),
    (OSError(errno.EACCES, 'x'), None, False),
    (RuntimeError('x'), OSError(errno.ECONNREFUSED, 'x'), False),
  ],
)
def test_a_full_disk_is_known_by_its_errors(error, cause, is_full):
  assert app.of_full_disk(_raised(error, cause)) is is_full


def test_a_full_disk_is_one_line(monkeypatch, capsys):
  def main(argv):
    raise RuntimeError('a checkpoint failed') from OSError(errno.ENOSPC, 'full')

  codes = []
  monkeypatch.setattr(
    app.app, 'run', lambda main, argv, flags_parser: codes.append(main(argv))
  )
  with pytest.raises(AssertionError, match='does not return'):
    app.run(main)
  assert codes == [2]
  expected = 'armfarm: the disk is full: make room, and the same command goes on\n'
  assert capsys.readouterr().err == expected


def test_a_config_without_a_section_is_refused():
  config = ConfigDict({'task': {}, 'agent': {}, 'run': {}})
  with pytest.raises(app.UserError, match='has no replay, so it cannot run: add'):
    app.check_sections(config)
