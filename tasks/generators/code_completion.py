"""Code completion: the next line of a program.

Two tasks of LongBench (Bai et al., arXiv 2308.14508; repository LongBench, MIT,
`config/dataset2prompt.json` and `metrics.py`), 500 samples each:

  lcc          the next line of one long file (Guo et al., "LongCoder", arXiv
               2306.14893)
  repobench_p  the next line of a file that uses others of its repository; these
               stand before it (Liu et al., "RepoBench", arXiv 2306.03091)

in LongBench's form, one row a sample:

  context   the code, for repobench_p the other files
  input     what stands between it and the line: for lcc nothing
  answers   [the line, with its indentation]
  _id       str

LongBench cuts the middle out of a prompt that is too long; so does
`--truncation middle`. T5's vocabulary can write neither indentation nor braces:
`ceiling` is what the right line scores once it has been through the vocabulary,
and `code_similarity_in_vocabulary` compares with that.

Synopsis:

    task = get_task('lcc')
    next(task.samples(encode, data='LongBench/data.zip')).prompt
"""

from collections.abc import Iterator

from t5_align.tasks.data import records, sources
from t5_align.tasks.generators import task
from t5_align.tasks.generators.template import Template

TEMPLATES = (
  Template(
    name='plain',
    prompt=(
      'Which line comes next in this program?\n\n{context}{input}\n\n'
      'The line that comes next:\n'
    ),
  ),
  # For models that have only read code: nothing but the program.
  Template(name='bare', prompt='{context}{input}'),
)
_FIELDS = {'context': str, 'input': str, 'answers': list[str], '_id': str}


def read(request: task.Request) -> Iterator[task.Sample]:
  """Yield a sample a row.

  Raises:
    ValueError: with file and line, what is wrong with a row.
    FileNotFoundError: no file; says where it was looked for.
  """
  path = sources.find(SOURCES[request.name], request.numbers, request.data)
  seen: dict[str, str] = {}
  for i, (where, row) in enumerate(records.read_records(path, _FIELDS)):
    records.check_new(row['_id'], seen, where, "field '_id'")
    answers = tuple(row['answers'])
    if not answers or not all(answer.strip() for answer in answers):
      raise ValueError(
        f"{where}: field 'answers' is {str(answers)[:50]}; wanted one or more,"
        ' none of them blank.'
      )
    yield task.Sample(
      id=f'{request.name}-file-{i:06d}',
      prompt=request.template.prompt.format(
        context=row['context'], input=row['input']
      ),
      target=answers[0],
      answers=answers,
      depth=None,
    )


def _source(published: str) -> sources.DataSource:
  return sources.DataSource(
    name='LongBench',
    licence='none stated (LongBench); of each repository (code)',
    files=(
      f'{published}.jsonl',
      f'{published}.parquet',
      f'{published}/test-00000-of-00001.parquet',
    ),
    folders=('', 'data', 'data.zip/data', 'LongBench/data.zip/data'),
    get=(
      'hf download zai-org/LongBench data.zip --repo-type dataset --local-dir'
      ' FOLDER'
    ),
  )


SOURCES = {'lcc': _source('lcc'), 'repobench_p': _source('repobench-p')}


def _family(name: str, description: str, required: set[str]) -> task.Family:
  return task.Family(
    name=name,
    version='1.0',
    description=description,
    forms=(name,),
    typical=(name,),
    measures=(
      'code_similarity',
      'code_similarity_in_vocabulary',
      'code_similarity_repaired',
      'code_exact_match',
      'ceiling',
    ),
    max_new_tokens=64,  # as published
    templates=TEMPLATES,
    placeholders={
      'prompt': (frozenset(required), frozenset({'context', 'input'}))
    },
    read=read,
    source=SOURCES[name],
    needs_line_breaks=True,
  )


FAMILIES = (
  _family('lcc', 'The next line of a long file of code.', {'context'}),
  _family(
    'repobench_p',
    'The next line of a file of code, after others of its repository.',
    {'context', 'input'},
  ),
)
