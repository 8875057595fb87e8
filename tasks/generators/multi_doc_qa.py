"""Multi-document question answering: one passage of several has the answer.

The task of Liu et al., "Lost in the Middle" (arXiv 2307.03172; their repository
lost-in-the-middle, MIT): a question of Natural Questions, the passage that
answers it, and the passages that a retriever found best of those without the
answer. `multi_doc_qa_20_gold_9` has 20 passages, nine of them before the right
one; `multi_doc_qa_oracle` has the right one alone.

Published are files for 10, 20 and 30 passages, those of the retriever, from
which `scripts/make_qa_data_from_retrieval_results.py` makes any other number,
and the right passages alone. All have rows of one form,

  question            str
  answers             [str]
  ctxs                [{title, text, hasanswer, isgold}]
  nq_annotated_gold   {title, chunked_long_answer}

and a row whose passages are not those that the task asks for is made into one
that has them, as that script does it.

Synopsis:

    task = get_task('multi_doc_qa_20_gold_9')
    next(task.samples(encode, data='lost-in-the-middle')).prompt
"""

from collections.abc import Iterator, Mapping, Sequence
import types
from typing import Any

from t5_align.tasks.data import records, sources
from t5_align.tasks.generators import task
from t5_align.tasks.generators.template import Template

TEMPLATES = (
  Template(
    name='plain',
    needle='Source {index} ({title}): {text}',
    prompt=(
      'One of these sources answers a question.\n\n{context}\n\n'
      'The question: {question}? Answer in a few words:'
    ),
    separator='\n',
  ),
  Template(
    name='question_first',
    needle='Source {index} ({title}): {text}',
    prompt=(
      'Find out: {question}? One of these sources says it.\n\n{context}\n\n'
      'Once more, in a few words: {question}?'
    ),
    separator='\n',
  ),
)
_PLACEHOLDERS = {
  'needle': (frozenset({'text'}), frozenset({'index', 'title', 'text'})),
  'prompt': (
    frozenset({'context', 'question'}),
    frozenset({'context', 'question'}),
  ),
}
_FIELDS = {
  'question': str,
  'answers': list[str],
  'ctxs': list[dict],
  'nq_annotated_gold': (dict, types.NoneType),
}

Passage = Mapping[str, Any]

_RETRIEVED = 'nq-open-contriever-msmarco-retrieved-documents.jsonl.gz'
_REPOSITORY = 'https://github.com/nelson-liu/lost-in-the-middle'
_LICENCE = 'MIT; text of Wikipedia CC BY-SA 3.0'
_FOLDERS = ('', 'qa_data', 'lost-in-the-middle/qa_data')
SOURCE = sources.DataSource(
  name='Lost in the Middle',
  licence=_LICENCE,
  files=tuple(
    folder + 'nq-open-{documents}_total_documents_gold_at_{gold}.jsonl.gz'
    for folder in ('', '{documents}_total_documents/')
  )
  + (_RETRIEVED,),
  folders=_FOLDERS,
  get=(
    'wget -P FOLDER https://nlp.stanford.edu/data/nfliu/lost-in-the-middle/'
    f'{_RETRIEVED}'
  ),
)
ORACLE = sources.DataSource(
  name='Lost in the Middle',
  licence=_LICENCE,
  files=('nq-open-oracle.jsonl.gz',),
  folders=(*_FOLDERS, 'lost_in_the_middle'),
  get=f'git clone {_REPOSITORY} FOLDER/lost-in-the-middle',
)


def first_line(prediction: str) -> str:
  """Return what the published pipeline scores (`evaluate_qa_responses.py`)."""
  return prediction.split('\n')[0].strip()


def read(request: task.Request) -> Iterator[task.Sample]:
  """Yield a sample a row.

  Raises:
    ValueError: the right passage's place is not among so many; or, with file
      and line, what is wrong with a row.
    FileNotFoundError: no file; says where it was looked for.
  """
  documents = request.numbers.get('documents', 1)
  gold = request.numbers.get('gold', 0)
  if gold >= documents:
    raise ValueError(
      f'{request.name}: place {gold} of {documents} documents; wanted one from'
      f' 0 to {documents - 1}.'
    )
  source = SOURCE if request.numbers else ORACLE
  path = sources.find(source, request.numbers, request.data)
  for i, (where, row) in enumerate(records.read_records(path, _FIELDS)):
    answers = tuple(row['answers'])
    if not answers or not all(answer.strip() for answer in answers):
      raise ValueError(
        f"{where}: field 'answers' is {str(answers)[:50]}; wanted one or more,"
        ' none of them blank.'
      )
    passages = _passages(row, where, documents, gold)
    yield task.Sample(
      id=f'{request.name}-file-{i:06d}',
      prompt=_prompt(request.template, passages, row['question']),
      target=answers[0],
      answers=answers,
      depth=gold / max(documents - 1, 1),
    )


def _prompt(
  template: Template, passages: Sequence[Passage], question: str
) -> str:
  """Return the passages in order, and the question."""
  forms = [
    template.needle.format(
      index=i, title=passage['title'], text=passage['text']
    )
    for i, passage in enumerate(passages, 1)
  ]
  return template.prompt.format(
    context=template.separator.join(forms), question=question
  )


def _passages(
  row: Mapping[str, Any], where: str, documents: int, gold: int
) -> Sequence[Passage]:
  """Return the passages of a row, made where it has not those asked for."""
  given = row['ctxs']
  for passage in given:
    _check(passage, 'ctxs', where)
  places = [i for i, passage in enumerate(given) if passage.get('isgold')]
  if len(given) == documents and places == [gold]:
    return given
  others = [passage for passage in given if passage.get('hasanswer') is False]
  if len(others) < documents - 1:
    raise ValueError(
      f'{where}: {len(others)} passages without the answer among {len(given)};'
      f' {documents} documents need {documents - 1}. Name another file.'
    )
  annotated = row.get('nq_annotated_gold')
  if annotated is None:
    raise ValueError(
      f"{where}: no field 'nq_annotated_gold'; without it the right passage"
      f' cannot be put at place {gold} of {documents}.'
    )
  right = {**annotated, 'text': annotated.get('chunked_long_answer')}
  _check(right, 'nq_annotated_gold', where)
  return [*others[:gold], right, *others[gold : documents - 1]]


def _check(passage: Passage, field: str, where: str) -> None:
  """Raise unless a passage has a title and a text."""
  for name in ('title', 'text'):
    if not isinstance(passage.get(name), str):
      raise ValueError(
        f'{where}: the {name} of a passage in field {field!r} is'
        f' {str(passage.get(name))[:50]!r}; wanted a string.'
      )


def _family(
  name: str, description: str, source: sources.DataSource, **names: Any
) -> task.Family:
  return task.Family(
    name=name,
    version='1.0',
    description=description,
    measures=('best_subspan_em', 'best_subspan_em_repaired'),
    max_new_tokens=100,  # as published
    templates=TEMPLATES,
    placeholders=_PLACEHOLDERS,
    read=read,
    source=source,
    clean=first_line,
    **names,
  )


# Places of the right passage as published: EXPERIMENTS.md for 20 documents.
_PLACES = {
  10: (0, 4, 9),
  20: (0, 4, 9, 14, 19),
  30: (0, 4, 9, 14, 19, 24, 29),
}
FAMILIES = (
  _family(
    'multi_doc_qa',
    'A question that one of several passages answers.',
    SOURCE,
    forms=('multi_doc_qa_{documents}_gold_{gold}',),
    typical=tuple(
      f'multi_doc_qa_{documents}_gold_{gold}'
      for documents, places in _PLACES.items()
      for gold in places
    ),
  ),
  _family(
    'multi_doc_qa_oracle',
    'A question and the passage that answers it.',
    ORACLE,
    forms=('multi_doc_qa_oracle',),
    typical=('multi_doc_qa_oracle',),
  ),
)
