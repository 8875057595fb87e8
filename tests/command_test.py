"""Flags and gin files: one call at the end, one line for each fault."""

import pathlib
import subprocess
import sys

import gin
import pytest

from t5_align import command

GIN = """
from __gin__ import dynamic_registration
import string
WIDTH = 30
string.capwords:
  sep = '-'
"""


@pytest.fixture
def gin_file(tmp_path):
  path = tmp_path / 'run.gin'
  path.write_text(
    GIN.replace('WIDTH = 30\n', "MARK = '-'\n").replace(
      "sep = '-'", 'sep = %MARK'
    )
  )
  return str(path)


def bound():
  import string

  return command.bound_arguments(string.capwords)


def test_bindings_override_files(gin_file):
  command.parse_gin([gin_file], [])
  assert bound() == {'sep': '-'}
  command.parse_gin([gin_file], ["MARK = '+'"])
  assert bound() == {'sep': '+'}
  command.parse_gin([gin_file], ["string.capwords.sep = '/'"])
  assert bound() == {'sep': '/'}
  # Nothing is left of an earlier parse.
  command.parse_gin([gin_file], [])
  assert bound() == {'sep': '-'}


@pytest.mark.parametrize(
  'binding, message',
  [
    (
      "MRK = '+'",
      'nothing in the gin files reads the macro MRK. Did you mean MARK?',
    ),
    (
      'string.capwords.spe = 1',
      "doesn't have a parameter named 'spe'. Did you mean sep?",
    ),
    ('nowhere.f.x = 1', "No configurable matching 'nowhere.f'"),
    ('MARK = plus', 'strings need quotes'),
    ('MARK = %gin.REQUIRED', 'MARK is required: set --mark or --gin.MARK='),
    ('MARK = %OTHER', 'OTHER is required'),
  ],
)
def test_faults_of_bindings(gin_file, binding, message):
  with pytest.raises(command.UsageError) as error:
    command.parse_gin([gin_file], [binding], flags={'MARK': '--mark'})
  assert message in str(error.value)
  assert '\n' not in str(error.value)


def test_unread_macro_of_a_file(tmp_path):
  path = tmp_path / 'run.gin'
  path.write_text(GIN)
  with pytest.raises(command.UsageError, match='reads the macro WIDTH'):
    command.parse_gin([str(path)], [])


def test_faults_of_files(tmp_path, gin_file):
  missing = str(tmp_path / 'missing.gin')
  with pytest.raises(command.UsageError, match=r'Unable to open.*missing\.gin'):
    command.parse_gin([missing], [])
  bad = tmp_path / 'bad.gin'
  bad.write_text(GIN + 'string.capwords.other = 1\n')
  with pytest.raises(command.UsageError, match=r"'other'.*bad\.gin.*line"):
    command.parse_gin([str(bad)], [])
  bad.write_text('from __gin__ import dynamic_registration\nimport no_such_x\n')
  with pytest.raises(command.UsageError, match='no_such_x'):
    command.parse_gin([str(bad)], [])


def test_search_paths(tmp_path, gin_file):
  command.parse_gin(['run.gin'], [], search_paths=str(tmp_path))
  assert bound() == {'sep': '-'}


@pytest.mark.parametrize('dashes', ['-', '--'])
def test_gin_flags_become_bindings(dashes):
  parser = command.Parser(prog='x')
  command.add_gin_flags(parser)
  flags, bindings = command.parse_flags(
    parser, [f"{dashes}gin.A.b='c=d'", '--gin_file=e', '--gin_file', 'f']
  )
  assert bindings == ["A.b = 'c=d'"]
  assert flags.gin_file == ['e', 'f']
  with pytest.raises(command.UsageError, match='has no value'):
    command.parse_flags(parser, ['--gin.A'])
  with pytest.raises(command.UsageError, match='--nonsense'):
    command.parse_flags(parser, ['--nonsense=1'])


def test_gin_keeps_what_flags_say():
  """Text of any kind comes back from gin as it was."""
  for text in ("it's", '"', '%A', '@b', 'c\\d', 'naïve', '', '#x'):
    value = gin.config.parse_value(repr(text))
    assert value == text


def test_writable_leaves_no_trace(tmp_path):
  command.check_writable(tmp_path / 'new' / 'folder')
  assert not [*tmp_path.iterdir()]
  (tmp_path / 'file').write_text('')
  with pytest.raises(command.UsageError, match='file/x is not writable: Not a'):
    command.check_writable(tmp_path / 'file' / 'x')


class BrokenModelError(Exception):
  pass


@pytest.mark.parametrize(
  'error, code',
  [
    (ValueError('bad\nvalue'), 2),
    (command.UsageError('bad value'), 2),
    (NotImplementedError('bad value'), 2),
    (FloatingPointError('bad value'), 2),
    (command.UnreadableError('bad value'), 3),
    (FileNotFoundError('bad value'), 3),
    (BrokenModelError('bad value'), 3),
    (KeyboardInterrupt(), 130),
  ],
)
@pytest.mark.parametrize('debug', [False, True])
def test_exit_codes(capfd, error, code, debug):
  def body(argv):
    raise error

  argv = ['--debug'] if debug else []
  assert command.run(body, argv, 'me', (BrokenModelError,)) == code
  out, err = capfd.readouterr()
  assert out == ''
  assert ('Traceback' in err) == debug
  last = err.splitlines()[-1]
  assert last.startswith('me: ')
  assert code == 130 or last == 'me: bad value'
  assert debug or err.count('\n') == 1


def test_our_own_faults_keep_their_traceback():
  def body(argv):
    raise KeyError('x')

  with pytest.raises(KeyError):
    command.run(body, [], 'me')
  assert command.run(lambda argv: len(argv), ['a', 'b'], 'me') == 2


def test_a_reader_that_has_seen_enough_is_no_error():
  listed = subprocess.Popen(
    [sys.executable, '-m', 't5_align.cli', 'tasks', '--json'],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=pathlib.Path(__file__).parents[1],
  )
  assert listed.stdout and listed.stderr
  listed.stdout.close()
  with listed.stderr:
    assert listed.stderr.read() == b''
  assert listed.wait(timeout=60) == 0
