"""Every notebook runs from top to bottom, and git holds none of what it showed."""

import os
import pathlib
import re

import nbclient
import nbformat
import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_PATHS = sorted((_ROOT / 'notebooks').glob('*.ipynb'))
_METADATA = {
  'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
  'language_info': {'name': 'python'},
}
_LINK = re.compile(r'\]\((\.\./[^)#]*)')

# Goes below the cell `config`: learns nothing, in no time.
_TINY = """
config.update_from_flattened_dict({
  'task.episode_steps': 10,
  'agent.hidden': (8, 8),
  'replay.capacity': 5000,
  'replay.batch_size': 16,
  'run.warmup_steps': 100,
  'run.publish_every': 10,
  'run.evaluate_every': 10,
  'run.held_out_episodes': 3,
  'run.fresh_episodes': 2,
  'run.max_episodes': 20,
})
"""


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch, unmeasured):
  for name in set(os.environ) - set(unmeasured):
    monkeypatch.delenv(name)


@pytest.fixture(params=_PATHS, ids=[path.stem for path in _PATHS])
def notebook(request):
  return nbformat.read(request.param, as_version=4)


def test_there_are_notebooks():
  assert 'reach' in {path.stem for path in _PATHS}


def test_git_holds_the_sources_alone(notebook):
  nbformat.validate(notebook)
  assert notebook.metadata == _METADATA
  assert [cell.id for cell in notebook.cells if cell.metadata] == []
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert [cell.id for cell in code if cell.outputs or cell.execution_count] == []


def test_links_lead_somewhere(notebook):
  text = '\n'.join(c.source for c in notebook.cells if c.cell_type == 'markdown')
  links = _LINK.findall(text)
  assert links
  assert [x for x in links if not (_ROOT / 'notebooks' / x).exists()] == []


def _executed(notebook, folder):
  """Runs a notebook on a tiny budget; returns its cells by id."""
  (index,) = (i for i, cell in enumerate(notebook.cells) if cell.id == 'config')
  notebook.cells.insert(index + 1, nbformat.v4.new_code_cell(_TINY))
  resources = {'metadata': {'path': str(folder)}}
  nbclient.NotebookClient(notebook, timeout=240, resources=resources).execute()
  return {cell.id: cell for cell in notebook.cells}


def _shown(cell):
  """Returns the types of what a cell shows, and all text in it."""
  types = {kind for output in cell.outputs for kind in output.get('data', ())}
  texts = [output.get('text', '') for output in cell.outputs]
  texts += [output.get('data', {}).get('text/html', '') for output in cell.outputs]
  return types, '\n'.join(texts)


def test_a_notebook_runs_and_shows(notebook, tmp_path):
  cells = _executed(notebook, tmp_path)
  types, text = _shown(cells['train'])
  assert 'image/png' in types
  assert 'success, held-out episodes' in text
  assert 'image/png' in _shown(cells['compare'])[0]
  assert not any(output.get('name') == 'stderr' for output in cells['train'].outputs)
  found = {path.name for path in (tmp_path / 'runs').iterdir()}
  assert found == {'naf', 'naf-timid'}
  _, text = _shown(cells['film'])
  film = tmp_path / 'runs' / 'naf' / 'videos' / 'policy.mp4'
  assert ('data:video/mp4;base64,' if film.exists() else 'OpenGL is missing') in text


def test_a_notebook_goes_on_without_opengl(notebook, tmp_path, monkeypatch):
  keep = {'imports', 'config', 'train', 'film'}
  notebook.cells = [cell for cell in notebook.cells if cell.id in keep]
  monkeypatch.setenv('MUJOCO_GL', 'disable')
  cells = _executed(notebook, tmp_path)
  types, text = _shown(cells['film'])
  assert text.strip().startswith('OpenGL is missing, for the video: ')
  assert text.strip().count('\n') == 0
  assert not types
