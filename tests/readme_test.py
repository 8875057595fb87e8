"""The README's commands are the ones that the gate runs."""

import configparser
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def readme_commands() -> list[str]:
  """The lines of the README's fenced blocks."""
  blocks = re.findall(
    r'^```[a-z]*\n(.*?)^```',
    (ROOT / 'README.md').read_text('utf-8'),
    flags=re.MULTILINE | re.DOTALL,
  )
  return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope='module')
def gate_commands() -> list[str]:
  """What .ci/run takes from the README: test command, main command."""
  done = subprocess.run(
    [ROOT / '.ci' / 'run', '--commands'],
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()


def test_gate_runs_the_readme_test_command(readme_commands, gate_commands):
  """One line installs the test extra and runs everything."""
  assert [c for c in readme_commands if 'pytest' in c] == gate_commands[:1]
  extras = configparser.ConfigParser()
  extras.read(ROOT / 'setup.cfg')
  (extra,) = re.findall(r"\[(\w+)\]' && pytest", gate_commands[0])
  assert 'pytest ' in extras['options.extras_require'][extra]


def test_gate_runs_the_readme_main_command(readme_commands, gate_commands):
  """The first line that evaluates needs no arguments: the bundled model."""
  first = next(c for c in readme_commands if 't5-align eval' in c)
  assert first.endswith(gate_commands[1])
  assert gate_commands[1].startswith('t5-align eval')


def test_readme_is_short():
  assert len((ROOT / 'README.md').read_text('utf-8').splitlines()) < 150
