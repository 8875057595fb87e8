"""`t5-align` itself: which commands there are and what they answer."""

import configparser
import pathlib

import pytest

from t5_align import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('argv', [[], ['--help'], ['-h'], ['help']])
def test_help(capfd, argv):
  assert cli.main(argv) == 0
  out, err = capfd.readouterr()
  assert err == ''
  for name in (*cli.COMMANDS, *cli.LATER_COMMANDS):
    assert f'\n  {name} ' in out
  assert max(map(len, out.splitlines())) <= 80


def test_all_commands_of_the_design_are_known():
  wanted = 'eval calibrate infer train tasks report convert benchmark'.split()
  assert {*cli.COMMANDS, *cli.LATER_COMMANDS} == set(wanted)


@pytest.mark.parametrize('name', sorted(cli.COMMANDS))
def test_help_of_a_command(capfd, name):
  with pytest.raises(SystemExit) as exit_:
    cli.main([name, '--help'])
  assert exit_.value.code == 0
  out, err = capfd.readouterr()
  assert out.startswith(f'usage: t5-align {name}') and err == ''


@pytest.mark.parametrize(
  'argv, message',
  [
    (['evla'], "unknown command 'evla'; did you mean 'eval'?"),
    (['infer', '--x'], 'infer is not there yet'),
    (['tasks', '--x'], '--x'),
    (['report'], 'output_dir'),
    (['report', 'nowhere'], 'nowhere has no results.json'),
    (['calibrate', '--x'], '--x'),
    (['calibrate', '--strategy', 'entropi'], "did you mean 'entropy'?"),
  ],
)
def test_bad_usage_is_one_line_and_2(capfd, argv, message):
  assert cli.main(argv) == 2
  out, err = capfd.readouterr()
  assert out == '' and err.count('\n') == 1
  assert message in err


def test_console_script():
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  scripts = parser['options.entry_points']['console_scripts']
  assert 't5-align = t5_align.cli:main' in scripts
