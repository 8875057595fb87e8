"""What every command does with its flags, its gin files and its errors.

Flags of T5X (`--gin_file`, `--gin.X=Y`, `--gin_search_paths`) and short flags
end in the same place: bindings of one gin-bound function. A gin parser takes a
macro that nothing reads for a new one, so a misspelt name would silently leave
the default in force: here it is an error.

An error that the user can mend is one line on stderr; `--debug` shows where it
comes from. Of several processes it ends all (`processes`). Exit codes:

    0 all scored               1 some samples failed
    2 usage or configuration   3 model or data unreadable
    130 interrupted; the same command continues

Synopsis:

    parser = Parser(prog='t5-align eval')
    add_model_flags(parser)
    add_gin_flags(parser)
    run_gin(evaluate, parser, argv, {'model': 'CHECKPOINT_PATH'},
            't5_align/gin_configs/runs/eval.gin', bundled_file)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
import difflib
import importlib.util  # noqa: F401  gin 0.5.0 uses it without importing it
import inspect
import logging
import math
import os
import pathlib
import re
import sys
import tempfile
import traceback
from typing import Any, NoReturn

import gin

from t5_align import processes, results

INTERRUPTED = processes.INTERRUPTED


class UsageError(ValueError):
  """Flags or a configuration that make no sense."""


class UnreadableError(ValueError):
  """A model or data that cannot be read."""


class Parser(argparse.ArgumentParser):
  """An ArgumentParser whose errors are one line."""

  def error(self, message: str) -> NoReturn:
    raise UsageError(f'{message}; see {self.prog} --help.')


def add_model_flags(parser: argparse.ArgumentParser) -> None:
  """Add the flags that every command which opens a model has."""
  add = parser.add_argument
  add('--model', help="folder, hub id or 'bundled'")
  add('--vocabulary', help='tokenizer of a T5X folder: a file or a folder')
  add(
    '--training_length',
    type=int,
    help="tokens of the model's input in training (default: the model's own)",
  )
  add('--dtype', choices=('float32', 'bfloat16'), help='of activations')
  add('--revision', help='of a hub id: branch, tag or commit')
  add('--attention', help='reference or chunked (default: the best that can)')


def add_gin_flags(parser: argparse.ArgumentParser) -> None:
  """Add the flags that every command with a gin-bound function has."""
  group = parser.add_argument_group('gin, as in T5X')
  group.add_argument(
    '--gin_file',
    action='append',
    default=[],
    metavar='FILE',
    help='gin file; repeatable. t5_align/gin_configs/... works anywhere',
  )
  group.add_argument(
    '--gin.X=Y',
    dest='shown_in_help_only',
    metavar='',
    help='bind a macro or parameter; strings need quotes inside:'
    ' --gin.CHECKPOINT_PATH="\'/models/t5\'"',
  )
  group.add_argument(
    '--gin_search_paths',
    default='',
    metavar='DIRS',
    help='where else to look for gin files, comma-separated',
  )
  parser.add_argument(
    '--debug', action='store_true', help='show the traceback of an error'
  )


def run_gin(
  function: Callable[..., Any],
  parser: argparse.ArgumentParser,
  argv: Sequence[str],
  targets: Mapping[str, str],
  run_file: str,
  bundled_file: str,
  convert: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Any:
  """Call a function as flags and gin files say; keep what was said.

  Args:
    function: gin-bound, with an output_dir, which gets config.gin; but not
      where it only plans (plan=True).
    parser: of the short flags.
    argv: the arguments.
    targets: short flag -> the macro or parameter that it binds.
    run_file: gin file that binds the function.
    bundled_file: is read, too, where no gin file and no model was named.
    convert: short flag -> what makes its value that of the parameter.

  Returns:
    What the function returns.

  Raises:
    UsageError: whatever is wrong with flags, files or bindings.
  """
  flags, bindings = parse_flags(parser, argv)
  for flag, target in targets.items():
    value = getattr(flags, flag)
    if value is None:
      continue
    if isinstance(value, float) and not math.isfinite(value):
      raise UsageError(f'--{flag} is {value}; wanted a finite number.')
    if convert and flag in convert:
      value = convert[flag](value)
    bindings.append(f'{target} = {value!r}')
  has_model = any(b.startswith('CHECKPOINT_PATH ') for b in bindings)
  own = flags.gin_file or ([] if has_model else [bundled_file])
  parse_gin(
    [run_file, *own],
    bindings,
    flags.gin_search_paths,
    {target: f'--{flag}' for flag, target in targets.items()},
  )
  arguments = bound_arguments(function)
  result = function(**arguments)
  if processes.is_writer() and not arguments.get('plan'):
    config_file = pathlib.Path(arguments['output_dir'], 'config.gin')
    results.write_atomically(config_file, gin.config_str())
  return result


def parse_flags(
  parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
  """Return the parsed short flags, and the bindings of `--gin.X=Y`."""
  bindings, rest = [], []
  for argument in argv:
    match = re.fullmatch(r'--?gin\.([^=]+)=(.*)', argument, re.DOTALL)
    if match:
      bindings.append(f'{match[1]} = {match[2]}')
    elif re.match(r'--?gin\.', argument):
      raise UsageError(f'{argument} has no value; wanted --gin.NAME=VALUE.')
    else:
      rest.append(argument)
  return parser.parse_args(rest), bindings


def parse_gin(
  files: Sequence[str],
  bindings: Sequence[str],
  search_paths: str = '',
  flags: dict[str, str] | None = None,
) -> None:
  """Parse gin files, then bindings, into gin's global configuration.

  Args:
    files: gin files, later ones override.
    bindings: such as `BATCH_SIZE = 8`; they override the files.
    search_paths: comma-separated folders.
    flags: macro -> the short flag that sets it, for messages.

  Raises:
    UsageError: whatever is wrong with them.
  """
  gin.clear_config()
  for folder in filter(None, search_paths.split(',')):
    gin.add_config_file_search_path(folder)
  level = logging.root.manager.disable
  logging.disable(logging.ERROR)  # gin logs each place where a file is not
  try:
    read: set[str] = set()
    for file in files:
      _parse_file(file)
      # Before an override of what reads a macro hides that it was read.
      read |= _macros_read()
    for binding in bindings:
      _parse_binding(binding)
    _check_macros(read | _macros_read())
    _finalize(flags or {})
  finally:
    logging.disable(level)


def bound_arguments(function: Callable[..., Any]) -> dict[str, Any]:
  """Return what gin binds of a function's arguments, references resolved."""
  try:
    return gin.get_bindings(function)
  except ValueError as error:
    raise UsageError(_first_line(error)) from error


def _parse_file(file: str) -> None:
  try:
    gin.parse_config_file(file)
  except OSError as error:
    raise UsageError(f'gin file: {_first_line(error)}') from error
  except (ImportError, SyntaxError, ValueError, TypeError) as error:
    raise UsageError(f'{file}: {_explain(error)}') from error


def _parse_binding(binding: str) -> None:
  try:
    gin.parse_config(binding)
  except SyntaxError as error:
    raise UsageError(
      f'--gin.{binding.replace(" = ", "=", 1)} is not a gin value; strings need'
      ' quotes inside the quotes of the shell.'
    ) from error
  except (ValueError, TypeError) as error:
    raise UsageError(f'--gin: {_explain(error)}') from error


def _explain(error: Exception) -> str:
  """Return gin's message on one line, with the name that may be meant."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  message = lines[0] if lines else type(error).__name__
  place = [line for line in lines if line.startswith('In file')]
  match = re.match(
    r"Configurable '(.+)' doesn't have a parameter named '(.+)'", message
  )
  if match:
    function = gin.get_configurable(match[1])
    if isinstance(function, type):
      function = function.__init__  # what gin wraps of a class
    known = list(inspect.signature(inspect.unwrap(function)).parameters)
    message += _nearest(match[2], known)
  return ' '.join([message, *place])


def _macros_read() -> set[str]:
  """Return the names that follow a % in the configuration."""
  return set(re.findall(r'%(?:[\w.]+/)?(\w+)', _config_text()))


def _check_macros(read: set[str]) -> None:
  """Raise unless something reads, or has read, every macro."""
  for macro in re.findall(r'^(\w+) = ', _config_text(), re.MULTILINE):
    if macro not in read:
      raise UsageError(
        f'nothing in the gin files reads the macro {macro}.'
        + _nearest(macro, sorted(read - {'gin'}))
      )


def _config_text() -> str:
  return gin.config_str(max_line_length=10_000)


def _finalize(flags: dict[str, str]) -> None:
  try:
    gin.finalize()
  except ValueError as error:
    required = re.match(r'([\w/]+)/macro.value set to `%gin.REQ', str(error))
    unbound = re.match(r"No bindings specified for '(\w+)/gin", str(error))
    match = required or unbound
    if match is None:
      raise UsageError(_first_line(error)) from error
    flag = flags.get(match[1])
    raise UsageError(
      f'{match[1]} is required: set '
      + (f'{flag} or ' if flag else '')
      + f'--gin.{match[1]}=VALUE.'
    ) from error


def _nearest(name: str, known: Sequence[str]) -> str:
  close = difflib.get_close_matches(name, known, 1)
  return f' Did you mean {close[0]}?' if close else ''


def _first_line(error: BaseException) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0]


def check_writable(folder: str | os.PathLike) -> None:
  """Raise a UsageError unless a folder can take files, or can be made."""
  place = pathlib.Path(folder).absolute()
  try:
    # A command that fails before it has something to write leaves no folder.
    while not place.exists():
      place = place.parent
    with tempfile.TemporaryFile(dir=place):
      pass
  except OSError as error:
    raise UsageError(
      f'output directory {folder} is not writable: {error.strerror}.'
    ) from error


def run(
  body: Callable[[Sequence[str]], int],
  argv: Sequence[str] | None,
  name: str,
  unreadable: tuple[type[Exception], ...] = (),
  resumes: bool = True,
) -> int:
  """Run a command and return its exit code.

  Args:
    body: takes the arguments and returns an exit code.
    argv: the arguments; None for those of the process.
    name: of the command, which opens an error's line.
    unreadable: errors of a model or data, exit code 3. Other ValueErrors,
      NotImplementedErrors and a training that diverges are 2; anything else is
      a fault of ours and keeps its traceback.
    resumes: whether the same command continues what was interrupted.
  """
  arguments = sys.argv[1:] if argv is None else list(argv)
  try:
    code = body(arguments)
    sys.stdout.flush()
    return code
  except KeyboardInterrupt as error:
    fault: BaseException = error
    message = 'interrupted; the same command ' + (
      'continues where it stopped.' if resumes else 'starts over.'
    )
    code = INTERRUPTED
  except BrokenPipeError:
    # Whoever reads, such as `head`, has seen enough; nothing more is printed,
    # not by the interpreter either as it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (UnreadableError, OSError, *unreadable) as error:
    fault, message, code = error, str(error), 3
  except (ValueError, NotImplementedError, FloatingPointError) as error:
    fault, message, code = error, str(error), 2
  if '--debug' in arguments:
    traceback.print_exception(fault)
  message = ' '.join(message.split())
  print(f'{name}: {message}', file=sys.stderr)
  processes.end(code, message)
  return code
