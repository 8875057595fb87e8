"""t5-align: the commands of the package.

Each command is a module with a `main(argv, prog)` of its own, imported only
when it is asked for, so that `t5-align --help` answers at once.

Synopsis:

    t5-align eval --model FOLDER --task passkey_4096 --alignment none,0.8
    t5-align report t5_align_results
    t5-align tasks show passkey_4096
"""

from __future__ import annotations

from collections.abc import Sequence
import difflib
import importlib
import pathlib
import sys

from t5_align import command

# Command -> what `t5-align --help` says of it.
COMMANDS = {
  'eval': 'evaluate a model on long inputs; without flags, the bundled one',
  'calibrate': 'measure attention, choose temperatures',
  'report': 'show what eval or calibrate found: tables, plots, page',
  'tasks': 'list the tasks, show a sample of one',
  'train': 'train a model',
}
LATER_COMMANDS = {
  'infer': 'generate from a file of prompts',
  'convert': 'convert checkpoints',
  'benchmark': 'time attention',
}


def help_text() -> str:
  """Return what `t5-align --help` prints."""
  lines = [f'  {name:<10}{text}' for name, text in COMMANDS.items()]
  later = [
    f'  {name:<10}{text} (not there yet)'
    for name, text in LATER_COMMANDS.items()
  ]
  return '\n'.join(
    [
      'usage: t5-align COMMAND [FLAGS]',
      '',
      'T5 on inputs far longer than it was trained on.',
      '',
      *lines,
      *later,
      '',
      'See t5-align COMMAND --help. `t5-align eval` alone shows what an',
      'attention temperature does, with a model that comes with the package.',
    ]
  )


def _report(argv: Sequence[str]) -> int:
  parser = command.Parser(
    prog='t5-align report',
    description='Print the tables of an evaluation or a calibration; write its'
    ' plots and its page.',
  )
  parser.add_argument('output_dir', help='of t5-align eval or calibrate')
  parser.add_argument('--debug', action='store_true', help='show tracebacks')
  arguments = parser.parse_args(argv)
  from t5_align import report

  folder = pathlib.Path(arguments.output_dir)
  calibrated = ('statistics.json', 'temperatures.json')
  if any((folder / name).exists() for name in calibrated):
    report.show_calibration(arguments.output_dir)
  else:
    report.show(arguments.output_dir)
  return 0


def _dispatch(argv: Sequence[str]) -> int:
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(help_text())
    return 0
  name, rest = argv[0], argv[1:]
  if name == 'report':
    return _report(rest)
  if name in COMMANDS:
    # t5_align.tasks are the tasks themselves.
    file = 'tasks_command' if name == 'tasks' else name
    module = importlib.import_module(f't5_align.{file}')
    return module.main(rest, f't5-align {name}')
  if name in LATER_COMMANDS:
    raise command.UsageError(f'{name} is not there yet.')
  close = difflib.get_close_matches(name, [*COMMANDS, *LATER_COMMANDS], 1)
  raise command.UsageError(
    f'unknown command {name!r};'
    + (f' did you mean {close[0]!r}?' if close else ' see t5-align --help.')
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Run `t5-align`; return its exit code."""
  return command.run(_dispatch, argv, 't5-align')


if __name__ == '__main__':
  sys.exit(main())
