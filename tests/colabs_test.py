"""Notebooks: valid, without outputs, and what they show is what comes out."""

import json
import os
import pathlib
import re
import subprocess
import sys

import nbformat
import pytest

_EXECUTE = 'from nbclient.cli import main; main()'
COLABS = pathlib.Path(__file__).resolve().parents[1] / 'colabs'


def _cells(notebook, kind):
  return [c for c in notebook['cells'] if c['cell_type'] == kind]


def _outputs(notebook):
  return [o for c in _cells(notebook, 'code') for o in c['outputs']]


@pytest.fixture(scope='module')
def quickstart():
  return json.loads((COLABS / 'quickstart.ipynb').read_text('utf-8'))


NOTEBOOKS = sorted(COLABS.glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_one_cell_installs_pinned_versions(path):
  (cell,) = (
    cell
    for cell in _cells(json.loads(path.read_text('utf-8')), 'code')
    if cell['metadata'].get('tags') == ['install']
  )
  text = ''.join(cell['source']).replace('\\\n', '')
  packages = [
    word
    for line in text.splitlines()
    if line.startswith('%pip install')
    for word in line.split()[2:]
    if not word.startswith('-')
  ]
  for package in packages:
    assert re.fullmatch(r'[\w.-]+(\[\w+\])?==[\w.]+', package), package
  names = {re.split(r'[\[=]', package)[0] for package in packages}
  assert 't5_align' in names
  if path.stem == 'quickstart':
    assert not names & {'seqio', 'tensorflow', 'tensorflow-datasets', 't5x'}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quickstart_runs_and_shows_the_effect(quickstart, tmp_path):
  """Without the cell that installs; every other one, in a kernel."""
  quickstart['cells'] = [
    cell for cell in quickstart['cells'] if 'tags' not in cell['metadata']
  ]
  path = tmp_path / 'quickstart.ipynb'
  path.write_text(json.dumps(quickstart), encoding='utf-8')
  done = subprocess.run(
    [sys.executable, '-c', _EXECUTE, '--inplace', str(path)],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    # On one device, as whoever opens it has.
    env={**os.environ, 'PYTHONPATH': str(COLABS.parent), 'XLA_FLAGS': ''},
  )
  assert done.returncode == 0, done.stderr[-2000:]
  outputs = _outputs(json.loads(path.read_text('utf-8')))
  pictures = [o for o in outputs if 'image/png' in o.get('data', {})]
  assert len(pictures) == 3
  text = ''.join(
    ''.join(o['text'])
    for o in outputs
    if o['output_type'] == 'stream' and o['name'] == 'stdout'
  )
  assert 'answer: 48213' in text
  scores = {
    (task, alignment): int(value)
    for task, alignment, value in re.findall(r'(\w+) +(\w+) +(\d+)%', text)
  }
  assert scores['passkey_256', 'none'] == 100
  assert scores['passkey_4096', 'aligned'] > scores['passkey_4096', 'none']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_and_kept_without_outputs(path):
  notebook = json.loads(path.read_text('utf-8'))
  nbformat.validate(notebook)
  assert notebook['nbformat'] == 4
  assert not _outputs(notebook)
  assert all(
    cell['execution_count'] is None for cell in _cells(notebook, 'code')
  )
