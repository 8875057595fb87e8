"""Several processes: how they start, and that they find what one finds."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from t5_align import processes

ROOT = pathlib.Path(__file__).parents[1]


def test_one_process_does_everything():
  processes.start({})
  assert processes.is_writer()
  assert processes.deal([1, 2, 3]) == [1, 2, 3]
  processes.wait_for_all('nothing')


@pytest.mark.parametrize(
  ('environment', 'complaint'),
  [
    ({'JAX_NUM_PROCESSES': '2'}, 'not JAX_COORDINATOR_ADDRESS and JAX_PROCESS'),
    (
      {
        'JAX_COORDINATOR_ADDRESS': 'localhost:1',
        'JAX_NUM_PROCESSES': '2',
        'JAX_PROCESS_ID': '2',
      },
      "JAX_PROCESS_ID is '2'",
    ),
  ],
)
def test_an_environment_that_makes_no_sense(environment, complaint):
  with pytest.raises(ValueError, match=complaint):
    processes.start(environment)


def test_imports_touch_no_device():
  """Processes that have touched one can no longer find each other."""
  code = (
    'import t5_align.eval; from jax._src import xla_bridge; '
    'assert not xla_bridge.backends_are_initialized()'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


def evaluate(folder, **environment):
  """Start an evaluation of the bundled model in a process of its own."""
  arguments = [
    '--model=bundled', '--task=passkey_128,line_retrieval_tokens_90',
    '--alignment=none,0.8', '--limit=7', '--batch_size=2',
    f'--output_dir={folder}',
  ]  # fmt: skip
  return subprocess.Popen(
    [sys.executable, '-m', 't5_align.eval', *arguments],
    cwd=ROOT,
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
      **environment,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process):
  output, _ = process.communicate(timeout=200)
  assert process.returncode == 0, output
  return output


def samples(folder):
  """The files of samples, without the seconds that each took."""
  return {
    path.name: re.sub(r', "seconds": [\d.e-]+}', '}', path.read_text())
    for path in sorted((folder / 'samples').iterdir())
  }


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path):
  finish(evaluate(tmp_path / 'one'))
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  both = [
    evaluate(
      tmp_path / 'two',
      JAX_COORDINATOR_ADDRESS=f'localhost:{port}',
      JAX_NUM_PROCESSES='2',
      JAX_PROCESS_ID=str(i),
    )
    for i in range(2)
  ]
  first, second = [finish(process) for process in both]
  assert 'passkey_match' in first and 'passkey_match' not in second
  assert samples(tmp_path / 'two') == samples(tmp_path / 'one')
  assert len(samples(tmp_path / 'one')) == 4
  one, two = (
    json.loads((tmp_path / name / 'results.json').read_text())['rows']
    for name in ('one', 'two')
  )
  assert one == two
