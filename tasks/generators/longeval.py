"""Line retrieval from the files that LongEval publishes.

`lines/testcases/200_lines.jsonl` of the LongChat repository (Apache-2.0) holds
50 rows with the prompt in the published wording. A folder stands for any of its
levels, a file for itself.

Synopsis:

    for sample in read_lines('line_retrieval_200', 200, 'longeval/evaluation'):
      sample.prompt, sample.answers
"""

from collections.abc import Iterator
import json

from t5_align.tasks.data import sources
from t5_align.tasks.generators import task

# No published row has more than 0.1 MB.
MAX_ROW_BYTES = 16 * 2**20
_FIELDS = {
  'prompt': str,
  'expected_number': int,
  'num_lines': int,
  'random_idx': list,
}


LINES = sources.DataSource(
  name='LongEval',
  licence='Apache-2.0',
  files=('{lines}_lines.jsonl',),
  folders=('', 'testcases', 'lines', 'lines/testcases'),
  get='git clone https://github.com/DachengLi1/LongChat FOLDER/LongChat',
)


def read_lines(request: task.Request) -> Iterator[task.Sample]:
  """Yield the samples of `{lines}_lines.jsonl`.

  Args:
    request: its data is the file, its folder, or a folder that holds
      `lines/testcases`; its name begins ids: 'line_retrieval_200-file-000017'.

  Raises:
    ValueError: with file and line: not JSON, not UTF-8, a field missing, of the
      wrong type or with the wrong value, a row twice, or no row at all.
    FileNotFoundError: no such file; says where it was looked for.
  """
  name, size = request.name, request.numbers['lines']
  file_path = sources.find(LINES, request.numbers, request.data)
  seen: dict[str, int] = {}
  number = 0
  with open(file_path, 'rb') as file:
    while line := file.readline(MAX_ROW_BYTES + 1):
      number += 1
      where = f'{file_path}:{number}'
      if len(line) > MAX_ROW_BYTES:
        raise ValueError(f'{where}: row of more than {MAX_ROW_BYTES} bytes.')
      if not line.strip():
        continue
      row = _parse(line, where, size)
      if row['prompt'] in seen:
        raise ValueError(
          f'{where}: the same prompt as line {seen[row["prompt"]]}.'
        )
      seen[row['prompt']] = number
      key, position = row['random_idx']
      yield task.Sample(
        id=f'{name}-file-{len(seen) - 1:06d}',
        prompt=row['prompt'],
        target=f'{key}: {row["expected_number"]}',
        answers=(str(row['expected_number']),),
        depth=position / max(size - 1, 1),
      )
  if not seen:
    raise ValueError(f'{file_path}: no rows; wanted one JSON object a line.')


def _parse(line: bytes, where: str, size: int) -> dict:
  """Return one row after checking its fields."""
  try:
    row = json.loads(line.decode('utf-8-sig'))
  except UnicodeDecodeError as error:
    raise ValueError(f'{where}: not UTF-8: {error.reason}.') from None
  except json.JSONDecodeError as error:
    raise ValueError(f'{where}: not JSON: {error.msg}.') from None
  except RecursionError:
    raise ValueError(f'{where}: not a row: nested too deeply.') from None
  if not isinstance(row, dict):
    raise ValueError(
      f'{where}: got a {type(row).__name__}; wanted an object with the'
      f' fields {", ".join(_FIELDS)}.'
    )
  for field, kind in _FIELDS.items():
    if field not in row:
      raise ValueError(f"{where}: field '{field}' is missing.")
    if not isinstance(row[field], kind) or isinstance(row[field], bool):
      raise ValueError(
        f"{where}: field '{field}' is {str(row[field])[:50]!r}; wanted"
        f' {kind.__name__}.'
      )
  if not row['prompt'].strip():
    raise ValueError(f"{where}: field 'prompt' is empty.")
  if row['num_lines'] != size:
    raise ValueError(
      f"{where}: field 'num_lines' is {row['num_lines']}; the task asks for"
      f' {size}.'
    )
  index = row['random_idx']
  if (
    len(index) != 2
    or not isinstance(index[0], str)
    or not isinstance(index[1], int)
    or not 0 <= index[1] < size
  ):
    raise ValueError(
      f"{where}: field 'random_idx' is {str(index)[:50]}; wanted [key, line"
      f' from 0 to {size - 1}].'
    )
  return row
