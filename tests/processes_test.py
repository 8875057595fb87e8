"""Several processes: how they start, and that they find what one finds."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from t5_align import processes

ROOT = pathlib.Path(__file__).parents[1]

# A run of three meetings, in which process WHO does ACT between the first two.
MEET = """
import os, signal, sys, time
from t5_align import processes
processes.start()
processes.wait_for_all('all here')
if processes.name(WHO).startswith(f'process {os.environ["JAX_PROCESS_ID"]} '):
  ACT
processes.wait_for_all('done')
processes.wait_for_all('really done')
"""
MEET_ONLY = """
from t5_align import processes
processes.start()
processes.wait_for_all('all here')
"""


def free_port():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


# Of a process without others; the last flag counts.
ONE_DEVICE = '--xla_force_host_platform_device_count=1'
ALONE = {
  'PYTHONPATH': str(ROOT),
  'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} {ONE_DEVICE}',
}


def variables(port, index, count):
  return {
    'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
    'JAX_NUM_PROCESSES': str(count),
    'JAX_PROCESS_ID': str(index),
    'T5_ALIGN_TIMEOUT': '5',
    **ALONE,
  }


def start_all(arguments, count):
  """Start a program in so many processes that find each other."""
  port = free_port()
  return [
    subprocess.Popen(
      [sys.executable, *arguments],
      cwd=ROOT,
      env={**os.environ, **(variables(port, i, count) if count > 1 else ALONE)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(count)
  ]


def finish_all(started, seconds=200):
  """Return the exit code and the output of each process."""
  try:
    outputs = [p.communicate(timeout=seconds)[0] for p in started]
  finally:
    for process in started:
      process.kill()
  return [(p.returncode, output) for p, output in zip(started, outputs)]


def meet(who, act, count=2):
  program = MEET.replace('WHO', str(who)).replace('ACT', act)
  return finish_all(start_all(['-c', program], count), seconds=60)


def test_one_process_does_everything():
  processes.start({})
  assert processes.is_writer()
  assert processes.deal([1, 2, 3]) == [1, 2, 3]
  processes.wait_for_all('nothing')


def test_an_environment_that_makes_no_sense():
  with pytest.raises(ValueError, match='JAX_PROCESS_ID set, but not JAX_COORD'):
    processes.start({'JAX_PROCESS_ID': '1'})


def test_the_others_cannot_be_joined(monkeypatch):
  """Not with a port that is taken: JAX 0.12 may crash there by itself."""

  def fail(**_):
    raise RuntimeError('Failed to start RPC server')

  monkeypatch.setattr(processes.jax.distributed, 'initialize', fail)
  monkeypatch.setattr(processes.jax.config, 'update', lambda *_: None)
  with pytest.raises(ValueError, match='ADDRESS says that .*Failed to start'):
    processes.start(variables(1, 0, 2))


def test_imports_touch_no_device():
  """Processes that have touched one can no longer find each other."""
  code = (
    'import t5_align.eval; from jax._src import xla_bridge; '
    'assert not xla_bridge.backends_are_initialized()'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_they_wait_for_the_slowest():
  ends = meet(1, 'time.sleep(7)')
  assert ends == [(0, ''), (0, '')]


@pytest.mark.slow
def test_a_slow_end_is_a_good_end():
  """What runs after JAX has let the others go, without its store."""
  linger = 'import atexit, time; atexit.register(time.sleep, 4)'
  ends = finish_all(start_all(['-c', linger + MEET_ONLY], 2), seconds=60)
  assert ends == [(0, ''), (0, '')]


@pytest.mark.slow
@pytest.mark.parametrize('who', [0, 1])
def test_a_killed_process_ends_the_others(who):
  ends = meet(who, 'os.kill(os.getpid(), signal.SIGKILL)', count=3)
  assert ends[who][0] == -signal.SIGKILL
  others = [end for i, end in enumerate(ends) if i != who]
  lost = f': process {who} ({socket.gethostname()}) '
  for code, output in others:
    assert code == processes.INTERRUPTED, output
    assert lost in output, output


@pytest.mark.parametrize('who', [0, 1])
def test_an_exception_ends_the_others_at_once(who):
  began = time.monotonic()
  ends = meet(who, 'raise OSError("disk full")')
  assert time.monotonic() - began < 30
  assert [code for code, _ in ends] == [1, 1]
  failed = f'process {who} ({socket.gethostname()}) failed: OSError: disk full'
  assert failed in ends[1 - who][1]
  assert 'Traceback' in ends[who][1]


def test_an_error_of_a_command_ends_all_with_its_code():
  ends = meet(1, 'processes.end(3, "torn.json is torn")')
  assert [code for code, _ in ends] == [3, 3]
  assert 'failed: torn.json is torn' in ends[0][1]


@pytest.mark.slow
def test_who_leaves_before_the_others_ends_them():
  ends = meet(1, 'sys.exit()')
  assert ends[0][0] == processes.INTERRUPTED
  assert 'ended before the others' in ends[0][1]


@pytest.mark.slow
def test_meeting_for_other_reasons_is_an_error():
  ends = meet(1, 'processes.wait_for_all("lunch")')
  assert [code for code, _ in ends] == [1, 1]
  assert "waits for 'lunch', this one for 'done'" in ends[0][1]


@pytest.mark.slow
def test_they_end_where_they_are_told_to():
  """JAX's runtime would pass over SIGTERM."""
  ends = meet(1, 'os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)')
  assert ends[1][0] == -signal.SIGTERM
  assert ends[0][0] == processes.INTERRUPTED


@pytest.mark.slow
def test_all_hear_what_each_says():
  ends = meet(
    0,
    'pass\nprint(processes.gather("hosts", "h" + '
    'os.environ["JAX_PROCESS_ID"]), flush=True)',
    count=2,
  )
  assert [output for _, output in ends] == ["['h0', 'h1']\n"] * 2


@pytest.mark.slow
def test_a_folder_that_hosts_do_not_share(tmp_path):
  call = f'processes.check_shared(pathlib.Path({str(tmp_path)!r}))'
  act = f'pass\nimport pathlib\n{call}'
  assert [code for code, _ in meet(0, act)] == [0, 0]
  assert not list(tmp_path.iterdir())
  blind = """pass
import pathlib
if os.environ['JAX_PROCESS_ID'] == '1':
  pathlib.Path.exists = lambda path: False"""
  ends = meet(0, blind + act.removeprefix('pass'))
  assert [code for code, _ in ends] == [1, 1]
  assert 'must be on a file system that they share' in ends[0][1]
