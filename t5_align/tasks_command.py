"""The tasks: `t5-align tasks` lists them, `t5-align tasks show NAME` shows one.

The list says of each family what its tasks are called, what they are scored by,
and whether their data is here; below it, how to get what is published. Nothing
is downloaded for it. What is shown of a task is one sample, as a model with the
given vocabulary would read it.

Synopsis:

    t5-align tasks
    t5-align tasks --json
    t5-align tasks show passkey_4096 --model google/flan-t5-base
    t5-align tasks show multi_doc_qa_20_gold_9 --data FOLDER --index 7 --whole
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
from typing import Any

from rich import console as rich_console
from rich import text

from t5_align import command, prompts, results
from t5_align import vocabulary as vocabulary_lib
from t5_align.bundled import find_bundled
from t5_align.checkpoints import CheckpointError, hub
from t5_align.tasks import generators
from t5_align.tasks.data import sources, tfds_text
from t5_align.tasks.generators import task as task_lib

_LISTED_NUMBERS = 5  # of a form, before the rest is left out
_SHOWN_CHARACTERS = 600  # of either end of a prompt
# What would act on a terminal; a line break and a tab may.
_CONTROLS = {i: f'\\x{i:02x}' for i in (*range(32), 127) if i not in (9, 10)}


def describe(family: task_lib.Family) -> dict[str, Any]:
  """Return what there is to know of a family, in JSON types.

  Its `forms` have the numbers of its typical tasks; `source` is null where
  nothing is published; `data_here` are the typical tasks whose published data
  lies where it is looked for.
  """
  tasks = [generators.get_task(name) for name in family.typical]
  forms = {}
  for form in family.forms:
    fields = task_lib.fields(form)
    own = [task for task in tasks if list(task.numbers) == fields]
    forms[form] = {f: sorted({task.numbers[f] for task in own}) for f in fields}
  source = family.source
  # A prompt of so many tokens depends on the vocabulary: none is published.
  published = [
    task
    for task in tasks
    if source and not (task.is_generated and task.unit == 'tokens')
  ]
  return {
    'name': family.name,
    'version': family.version,
    'description': family.description,
    'forms': forms,
    'tasks': list(family.typical),
    'measures': list(family.measures),
    'templates': [template.name for template in family.templates],
    'is_generated': family.draw is not None,
    'source': source and dataclasses.asdict(source),
    'published': [task.name for task in published],
    'data_here': [
      task.name for task in published if source and _is_here(task, source)
    ],
  }


def _is_here(task: task_lib.TaskDefinition, source: sources.DataSource) -> bool:
  """Whether a task's published data lies where it is looked for."""
  if source.tfds:
    return tfds_text.is_prepared(source.tfds, tfds_text.default_folder())
  if sources.default_folder().startswith(sources.HUB):
    return False  # to look would be to download
  try:
    sources.find(source, task.numbers, None)
  except sources.DataMissingError:
    return False
  return True


def _print_list(families: Sequence[dict[str, Any]]) -> None:
  """Print all families, then where their data comes from."""
  console = rich_console.Console(highlight=False)
  columns = '{:<29}{:<22}{}'
  console.print(
    text.Text(columns.format('family, version', 'scored by', 'data'), 'dim')
  )
  for family in families:
    name = f'{family["name"]} {family["version"]}'
    head = columns.format(name, family['measures'][0], _data(family))
    console.print(text.Text(f'\n{head}', 'bold'))
    lines = [family['description']]
    for form, numbers in family['forms'].items():
      lines += _form(form, numbers)
    console.print(text.Text('\n'.join(f'  {line}' for line in lines)))
  console.print(
    text.Text(
      f'\nPublished data is looked for in {sources.default_folder()}'
      ' (T5_ALIGN_DATA sets it) and in what --data names; FOLDER stands for'
      ' either.'
    )
  )
  for (source_name, licence, get), used_by in _sources(families).items():
    names = ', '.join(family['name'] for family in used_by)
    head = text.Text.assemble(
      f'\n{names}: ',
      (source_name, 'bold'),
      f', {_place(used_by)}. Licence: {licence}.',
    )
    console.print(head)
    # Whole, so that it can be copied.
    console.print(text.Text(f'  {get}'), soft_wrap=True)


def _form(form: str, numbers: dict[str, list[int]]) -> list[str]:
  """Return the lines of a form: its name, and typical numbers."""
  listed = {field: _some(values) for field, values in numbers.items()}
  if len(listed) < 2:
    return [f'{form}: {some}' for some in listed.values()]
  values = '; '.join(f'{field} {some}' for field, some in listed.items())
  return [form, f'  {values}']


def _some(values: Sequence[int]) -> str:
  """Return numbers as names have them; of many, the first ones and the last."""
  first = [f'{value}' for value in values]
  if len(first) > _LISTED_NUMBERS:
    first = [*first[: _LISTED_NUMBERS - 2], f'… {first[-1]}']
  return ', '.join(first)


def _data(family: dict[str, Any]) -> str:
  """Return where a family's samples come from, and if they are here."""
  source = family['source']
  if source is None:
    return 'generated' if family['is_generated'] else 'always here'
  if family['is_generated']:
    return f'generated; {source["name"]}'
  return f'{source["name"]}, {_place([family])}'


def _place(families: Sequence[dict[str, Any]]) -> str:
  """Return whether the published data of families is here."""
  have = sum(len(family['data_here']) for family in families)
  total = sum(len(family['published']) for family in families)
  if 0 < have < total:
    return f'{have} of {total} here'
  return 'here' if have else 'not here'


def _sources(
  families: Sequence[dict[str, Any]],
) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
  """Return name, licence and commands of all sources, with their families."""
  found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
  for family in families:
    if source := family['source']:
      key = (source['name'], source['licence'], source['get'])
      found.setdefault(key, []).append(family)
  return found


def _open_vocabulary(
  model: str | None, vocabulary: str | None
) -> vocabulary_lib.Vocabulary:
  """Return the vocabulary of a model or a folder; None: the bundled one's."""
  try:
    folder = vocabulary or find_bundled(model or 'bundled')
    if not vocabulary:
      folder = hub.find_folder(folder, wanted=hub.TOKENIZER_FILES)
    found = vocabulary_lib.load_vocabulary(folder)
  except ValueError as error:
    raise command.UnreadableError(str(error)) from error
  if found is None:
    raise command.UnreadableError(
      f'{folder} has no tokenizer: name the folder of its spiece.model or'
      ' tokenizer.json by --vocabulary.'
    )
  return found


def _read_sample(
  task: task_lib.TaskDefinition,
  vocabulary: vocabulary_lib.Vocabulary,
  flags: argparse.Namespace,
) -> task_lib.Sample:
  """Return the sample that was asked for."""
  if flags.index < 0:
    raise command.UsageError(f'--index is {flags.index}; wanted 0 or more.')
  samples = task.samples(
    vocabulary.encode,
    seed=flags.seed,
    limit=flags.index + 1,
    template=flags.template,
    split=flags.split,
    data=flags.data,
  )
  try:
    found = list(samples)
  except ValueError as error:
    if task.is_generated and flags.data is None:
      raise
    raise prompts.DataError(str(error)) from error
  if len(found) <= flags.index:
    raise command.UsageError(
      f'--index is {flags.index}; {task.name} has {len(found)} samples there.'
    )
  return found[flags.index]


def _print_sample(
  task: task_lib.TaskDefinition,
  sample: task_lib.Sample,
  vocabulary: vocabulary_lib.Vocabulary,
  whole: bool,
) -> None:
  """Print one sample, and what a model with the vocabulary reads of it."""
  lost = vocabulary.lost_characters(
    sample.prompt + (sample.target if task.scored else '')
  )
  tokens = len(vocabulary.encode(sample.prompt)) + 1
  facts = {
    'task': f'{task.name}, version {task.version}',
    'sample': sample.id,
    'tokens': f'{tokens:,} in the prompt, the end of input included',
    'depth': None if sample.depth is None else f'{sample.depth:.0%}',
    'document': sample.cluster,
    'lost': f'{lost} (the vocabulary has no such characters)' if lost else None,
    'metric': task.metric,
    'target': None if task.scored else sample.target,
  }
  lines = [(name, fact) for name, fact in facts.items() if fact is not None]
  for answer in () if task.scored else sample.answers:
    written = vocabulary.decode(vocabulary.encode(answer))
    limit = '' if written == answer else f' (the vocabulary writes: {written})'
    lines.append(('answer', answer + limit))
  for name, fact in lines:
    print(f'{name:<9} {_printable(fact)}')
  texts = {'prompt': sample.prompt}
  if task.scored:
    texts['target'] = sample.target
  for name, content in texts.items():
    shown = content if whole else _shorten(content, vocabulary)
    print(f'\n--- {name}\n{_printable(shown)}')


def _printable(content: str) -> str:
  return content.translate(_CONTROLS)


def _shorten(content: str, vocabulary: vocabulary_lib.Vocabulary) -> str:
  """Leave out the middle of a long text, and say how much it was."""
  middle = content[_SHOWN_CHARACTERS:-_SHOWN_CHARACTERS]
  if not middle:
    return content
  tokens = len(vocabulary.encode(middle))
  return (
    f'{content[:_SHOWN_CHARACTERS]}\n\n[… {len(middle):,} characters, about'
    f' {tokens:,} tokens, left out; --whole prints them …]\n\n'
    f'{content[-_SHOWN_CHARACTERS:]}'
  )


def make_parser(prog: str) -> argparse.ArgumentParser:
  """Return the parser of the command's flags."""
  parser = command.Parser(
    prog=prog,
    description='List the tasks; `show NAME` prints one sample of a task.',
    allow_abbrev=False,
  )
  parser.add_argument('--json', action='store_true', help='the list as JSON')
  parser.add_argument('--debug', action='store_true', help='show tracebacks')
  commands = parser.add_subparsers(dest='command', metavar='show')
  show = commands.add_parser(
    'show', help='print one sample', allow_abbrev=False
  )
  add = show.add_argument
  add('name', help='such as passkey_4096')
  add('--model', help="whose vocabulary counts: folder, hub id or 'bundled'")
  add('--vocabulary', help='a file or a folder, in place of a model')
  add('--data', help='published samples: a file or a folder')
  add('--template', help='wording of the prompt: a name or a JSON file')
  add('--seed', type=int, default=0, help='of generated samples (default: 0)')
  add(
    '--split', choices=task_lib.SPLITS, default='test', help='(default: test)'
  )
  add('--index', type=int, default=0, help='which sample (default: 0)')
  add('--whole', action='store_true', help='print the whole prompt')
  add('--debug', action='store_true', help='show tracebacks')
  return parser


def _run(argv: Sequence[str], prog: str) -> int:
  flags = make_parser(prog).parse_args(argv)
  if flags.command == 'show':
    task = generators.get_task(flags.name)
    vocabulary = _open_vocabulary(flags.model, flags.vocabulary)
    sample = _read_sample(task, vocabulary, flags)
    _print_sample(task, sample, vocabulary, flags.whole)
    return 0
  families = [
    describe(generators.get_family(name)) for name in generators.list_families()
  ]
  if flags.json:
    print(results.to_json(families, indent=2))
  else:
    _print_list(families)
  return 0


def main(
  argv: Sequence[str] | None = None, prog: str = 't5-align tasks'
) -> int:
  """Run the command; return its exit code."""
  return command.run(
    lambda arguments: _run(arguments, prog),
    argv,
    prog,
    unreadable=(CheckpointError, prompts.DataError),
    resumes=False,
  )
