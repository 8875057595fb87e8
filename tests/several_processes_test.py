"""Commands in one process and in several: the same files, whoever is killed."""

import json
import pathlib
import re
import signal
import socket
import time

import pytest

from t5_align import processes
from tests.processes_test import finish_all, start_all

LENGTHS = ('--training_length=64',)
# What says when, how long, or where something was done.
TIMES = re.compile(
  r'"(seconds|date|count|compiled_shapes)": ("[^"]*"|[\d.e-]+)'
)


def evaluate(model, folder, count, alignments='none,0.8', limit=13):
  """Start an evaluation in so many processes."""
  arguments = [
    '-m', 't5_align.eval', f'--model={model}', *LENGTHS,
    '--task=passkey_160,line_retrieval_tokens_180', '--batch_size=2',
    f'--alignment={alignments}', f'--limit={limit}', f'--output_dir={folder}',
  ]  # fmt: skip
  return start_all(arguments, count)


def calibrate(model, folder, count, text):
  arguments = [
    '-m', 't5_align.calibrate', f'--model={model}', '--training_length=32',
    '--length=64', '--num_sequences=3', f'--output_dir={folder}',
    f'--data={text}',
  ]  # fmt: skip
  return start_all(arguments, count)


def succeed(started):
  """Return what each process printed."""
  ends = finish_all(started)
  assert [code for code, _ in ends] == [0] * len(ends), ends
  return [output for _, output in ends]


def files(folder):
  """The text files of a run without times, and the names of the others."""
  contents = {}
  for path in sorted(pathlib.Path(folder).rglob('*')):
    name = path.relative_to(folder).as_posix()
    if path.suffix in ('.json', '.jsonl', '.gin'):
      # Gin breaks a line where a folder's name makes it long.
      text = re.sub(r' \\\n +', ' ', path.read_text())
      text = text.replace(str(folder), 'FOLDER')
      contents[name] = TIMES.sub(r'"\1"', text)
    else:
      contents[name] = None
  return contents


@pytest.fixture(scope='module')
def alone(model_folder, tmp_path_factory):
  """What one process writes, calibrations included."""
  folder = tmp_path_factory.mktemp('alone')
  succeed(evaluate(model_folder, folder, 1, 'none,0.8,entropy'))
  return files(folder)


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, 4])
def test_an_evaluation_writes_what_one_process_writes(
  model_folder, alone, tmp_path, count
):
  outputs = succeed(evaluate(model_folder, tmp_path, count, 'none,0.8,entropy'))
  assert 'passkey_match' in outputs[0]
  assert not any('passkey_match' in output for output in outputs[1:])
  assert files(tmp_path) == alone
  assert len([n for n in alone if n.startswith('samples/')]) == 6
  assert 'alignments/entropy.json' in alone


@pytest.mark.slow
def test_a_calibration_writes_what_one_process_writes(model_folder, tmp_path):
  text = tmp_path / 'text.txt'
  text.write_text(''.join(f'{i} lazy dogs met {i * i}.\n' for i in range(99)))
  found = {}
  for count in (1, 2, 4):
    folder = tmp_path / str(count)
    succeed(calibrate(model_folder, folder, count, text))
    found[count] = files(folder)
  assert found[1] == found[2] == found[4]
  assert 'temperatures.json' in found[1]


@pytest.mark.slow
@pytest.mark.parametrize('who, count, again', [(2, 3, 1), (0, 4, 2)])
def test_a_killed_process_ends_a_run_that_others_complete(
  model_folder, tmp_path, who, count, again
):
  limit = 160
  started = evaluate(model_folder, tmp_path, count, limit=limit)
  deadline = time.monotonic() + 120
  parts = f'passkey_160.*.part{who}'
  while not list((tmp_path / 'samples').glob(parts)):
    assert time.monotonic() < deadline
    assert all(process.poll() is None for process in started)
    time.sleep(0.05)
  started[who].send_signal(signal.SIGKILL)
  ends = finish_all(started, 60)
  lost = f': process {who} ({socket.gethostname()}) '
  for process, (code, output) in enumerate(ends):
    if process != who:
      assert code == processes.INTERRUPTED and lost in output, output
  succeed(evaluate(model_folder, tmp_path, again, limit=limit))
  whole = tmp_path / 'whole'
  succeed(evaluate(model_folder, whole, 1, limit=limit))
  expected = files(whole)
  completed = files(tmp_path)
  for name, content in expected.items():
    if name.startswith('samples/'):
      assert completed[name] == content
  rows = [
    json.loads((folder / 'results.json').read_text())['rows']
    for folder in (tmp_path, whole)
  ]
  assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_calibration_that_fails_ends_all_at_once(model_folder, tmp_path):
  text = tmp_path / 'text.txt'
  text.write_text('Too short.')
  began = time.monotonic()
  ends = finish_all(calibrate(model_folder, tmp_path / 'out', 2, text))
  assert time.monotonic() - began < 60
  assert len({code for code, _ in ends}) == 1 and ends[0][0] > 0, ends
  failed = f'process 0 ({socket.gethostname()}) failed: '
  assert failed in ends[1][1], ends
