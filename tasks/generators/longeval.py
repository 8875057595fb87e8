"""Line and topic retrieval from the files that LongEval publishes.

`longeval/evaluation` of the LongChat repository (Apache-2.0) has

  lines/testcases/200_lines.jsonl    50 rows with a record of 200 lines
  topics/testcases/5_topics.jsonl    50 rows with conversations on 5 topics

and more sizes of both, the prompts in the published wording. A folder stands
for any of its levels, a file for itself.

Synopsis:

    task = get_task('line_retrieval_200')
    next(task.samples(encode, data='LongChat')).prompt
"""

from collections.abc import Iterator, Mapping
from typing import Any

from t5_align.tasks.data import records, sources
from t5_align.tasks.generators import task


def _source(kind: str) -> sources.DataSource:
  return sources.DataSource(
    name='LongEval',
    licence='Apache-2.0',
    files=(f'{{{kind}}}_{kind}.jsonl',),
    folders=(
      '',
      'testcases',
      kind,
      f'{kind}/testcases',
      f'evaluation/{kind}/testcases',
      f'longeval/{kind}',
      f'longeval/evaluation/{kind}/testcases',
      f'LongChat/longeval/evaluation/{kind}/testcases',
    ),
    get='git clone https://github.com/DachengLi1/LongChat FOLDER/LongChat',
  )


LINES = _source('lines')
TOPICS = _source('topics')
_LINES_FIELDS = {
  'prompt': str,
  'expected_number': int,
  'num_lines': int,
  'random_idx': list,
}
_TOPICS_FIELDS = {'test_id': int, 'prompt': str, 'topics': list[str]}


def read_lines(request: task.Request) -> Iterator[task.Sample]:
  """Yield the samples of `{lines}_lines.jsonl`.

  Raises:
    ValueError: with file and line: what `records` says, a field with the wrong
      value, or a row twice.
    FileNotFoundError: no such file; says where it was looked for.
  """
  size = request.numbers['lines']
  for name, where, row in _rows(request, LINES, _LINES_FIELDS, 'prompt'):
    if row['num_lines'] != size:
      raise ValueError(
        f"{where}: field 'num_lines' is {row['num_lines']}; the task asks for"
        f' {size}.'
      )
    key, position = _index(row, where, size)
    yield task.Sample(
      id=name,
      prompt=row['prompt'],
      target=f'{key}: {row["expected_number"]}',
      answers=(str(row['expected_number']),),
      depth=position / max(size - 1, 1),
    )


def read_topics(request: task.Request) -> Iterator[task.Sample]:
  """Yield the samples of `{topics}_topics.jsonl`.

  Raises:
    ValueError: with file and line: what `records` says, a field with the wrong
      value, or a row twice.
    FileNotFoundError: no such file; says where it was looked for.
  """
  size = request.numbers['topics']
  # 1_topics.jsonl asks some prompts twice.
  for name, where, row in _rows(request, TOPICS, _TOPICS_FIELDS, 'test_id'):
    topics = row['topics']
    if len(topics) != size:
      raise ValueError(
        f"{where}: field 'topics' has {len(topics)} of them; the task asks for"
        f' {size}.'
      )
    if not topics[0].strip():
      raise ValueError(f"{where}: field 'topics' has a blank one first.")
    yield task.Sample(
      id=name,
      prompt=row['prompt'],
      target=topics[0],
      answers=(topics[0],),
      depth=0.0,
    )


def _rows(
  request: task.Request,
  source: sources.DataSource,
  fields: Mapping[str, Any],
  unique: str,
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
  """Yield (sample id, 'FILE:LINE', row), none with the prompt blank."""
  path = sources.find(source, request.numbers, request.data)
  seen: dict[str, str] = {}
  for i, (where, row) in enumerate(records.read_records(path, fields)):
    if not row['prompt'].strip():
      raise ValueError(f"{where}: field 'prompt' is empty.")
    records.check_new(str(row[unique]), seen, where, unique)
    yield f'{request.name}-file-{i:06d}', where, row


def _index(row: Mapping[str, Any], where: str, size: int) -> tuple[str, int]:
  """Return the key asked for and its line, from 0."""
  match row['random_idx']:
    case [str(key), int(line)] if 0 <= line < size:
      return key, line
  raise ValueError(
    f"{where}: field 'random_idx' is {str(row['random_idx'])[:50]}; wanted"
    f' [key, line from 0 to {size - 1}].'
  )
