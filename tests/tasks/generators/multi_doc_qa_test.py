"""Multi-document QA: the published files, and rows made as they were."""

import gzip
import json

import pytest

from t5_align.tasks import generators
from t5_align.tasks.generators import multi_doc_qa

QUESTION = 'who discovered x-rays'


def encode(text):
  raise AssertionError('samples do not depend on a vocabulary')


def passage(title, **fields):
  return {'title': title, 'text': f'Text of {title}.', **fields}


def row(ctxs, **changes):
  content = {
    'question': QUESTION,
    'answers': ['Wilhelm Conrad Röntgen', 'Röntgen'],
    'ctxs': ctxs,
    'nq_annotated_gold': {
      'title': 'Gold',
      'long_answer': 'Text of Gold. And more.',
      'chunked_long_answer': 'Text of Gold.',
      'short_answers': ['Röntgen'],
    },
    **changes,
  }
  return {k: v for k, v in content.items() if v is not None}


RETRIEVED = [
  passage('R0', id='7', score='1.9', hasanswer=False),
  passage('R1', id='8', score='1.8', hasanswer=True),
  passage('R2', id='9', score='1.7', hasanswer=False),
  passage('R3', id='5', score='1.6', hasanswer=False),
  passage('R4', id='4', score='1.5', hasanswer=False),
]
GOLD = passage('Gold', hasanswer=True, isgold=True)
PUBLISHED = [
  passage('R0', hasanswer=False, isgold=False, original_retrieval_index=0),
  GOLD,
  passage('R2', hasanswer=False, isgold=False, original_retrieval_index=2),
]


def write(path, *rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  with gzip.open(path, 'wt', encoding='utf-8') as file:
    file.writelines(json.dumps(r) + '\n' for r in rows)
  return path


def read(name, data, **options):
  return list(generators.get_task(name).samples(encode, data=data, **options))


def titles(sample):
  """The passages of a prompt in the default wording, in order."""
  lines = [s for s in sample.prompt.split('\n') if s.startswith('Source ')]
  return [line.partition('(')[2].partition(')')[0] for line in lines]


def test_a_published_file_is_taken_as_it_is(tmp_path):
  write(
    tmp_path / 'qa_data/nq-open-3_total_documents_gold_at_1.jsonl.gz',
    row(PUBLISHED, nq_annotated_gold=None),
    row(PUBLISHED, question='and who else'),
  )
  first, second = read('multi_doc_qa_3_gold_1', tmp_path)
  assert titles(first) == ['R0', 'Gold', 'R2']
  assert first.prompt == (
    'One of these sources answers a question.\n\n'
    'Source 1 (R0): Text of R0.\nSource 2 (Gold): Text of Gold.\n'
    'Source 3 (R2): Text of R2.\n\n'
    f'The question: {QUESTION}? Answer in a few words:'
  )
  assert first.answers == ('Wilhelm Conrad Röntgen', 'Röntgen')
  assert first.depth == 0.5
  assert first.cluster is None
  assert first.id == 'multi_doc_qa_3_gold_1-file-000000'
  assert second.id == 'multi_doc_qa_3_gold_1-file-000001'


@pytest.mark.parametrize(
  ('name', 'expected', 'depth'),
  [
    ('multi_doc_qa_3_gold_0', ['Gold', 'R0', 'R2'], 0),
    ('multi_doc_qa_3_gold_2', ['R0', 'R2', 'Gold'], 1),
    ('multi_doc_qa_5_gold_1', ['R0', 'Gold', 'R2', 'R3', 'R4'], 0.25),
    ('multi_doc_qa_1_gold_0', ['Gold'], 0),
  ],
)
def test_retrieved_passages_are_made_into_a_row(
  tmp_path, name, expected, depth
):
  file = 'nq-open-contriever-msmarco-retrieved-documents.jsonl.gz'
  write(tmp_path / file, row(RETRIEVED))
  (sample,) = read(name, tmp_path)
  assert titles(sample) == expected
  assert sample.depth == depth


def test_a_published_file_holds_fewer_passages_and_other_places_too(tmp_path):
  path = write(tmp_path / 'any.jsonl.gz', row(PUBLISHED))
  (sample,) = read('multi_doc_qa_2_gold_1', path)
  assert titles(sample) == ['R0', 'Gold']


def test_the_right_passage_alone(tmp_path):
  path = write(tmp_path / 'nq-open-oracle.jsonl.gz', row([GOLD]))
  (oracle,) = read('multi_doc_qa_oracle', tmp_path)
  (single,) = read('multi_doc_qa_1_gold_0', path)
  assert oracle.prompt == single.prompt
  assert titles(oracle) == ['Gold']
  assert (oracle.depth, oracle.id) == (0, 'multi_doc_qa_oracle-file-000000')
  with pytest.raises(FileNotFoundError, match='retrieved-documents'):
    read('multi_doc_qa_20_gold_9', tmp_path)


def test_the_published_prompt_is_made_by_a_template(tmp_path):
  template = tmp_path / 'published.json'
  template.write_text(
    json.dumps(
      {
        'needle': 'Document [{index}](Title: {title}) {text}',
        'prompt': (
          'Write a high-quality answer for the given question using only the'
          ' provided search results (some of which might be irrelevant).\n\n'
          '{context}\n\nQuestion: {question}\nAnswer:'
        ),
        'separator': '\n',
      }
    )
  )
  documents = [
    {'title': 'T1', 'text': 'x y', 'isgold': True},
    {'title': 'T2', 'text': 'z'},
  ]
  path = write(tmp_path / 'x.jsonl.gz', row(documents, question='q?'))
  (sample,) = read('multi_doc_qa_2_gold_0', path, template=template)
  # As lost-in-the-middle's own code makes it.
  assert sample.prompt == (
    'Write a high-quality answer for the given question using only the provided'
    ' search results (some of which might be irrelevant).\n\n'
    'Document [1](Title: T1) x y\nDocument [2](Title: T2) z\n\n'
    'Question: q?\nAnswer:'
  )


def test_braces_in_passages_are_text(tmp_path):
  odd = {'title': '{index}', 'text': 'a {0} {', 'isgold': True}
  path = write(tmp_path / 'x.jsonl.gz', row([odd], question='{context}'))
  (sample,) = read('multi_doc_qa_1_gold_0', path)
  assert 'Source 1 ({index}): a {0} {\n' in sample.prompt
  assert 'question: {context}?' in sample.prompt


# lost-in-the-middle, evaluate_qa_responses.py: the first line is what counts.
@pytest.mark.parametrize(
  ('prediction', 'score'), [('answer\n4', 0), ('4\nfoo', 1), ('\n4', 0)]
)
def test_predictions_are_cut_at_the_first_line_break(prediction, score):
  task = generators.get_task('multi_doc_qa_20_gold_9')
  sample = generators.Sample('', '', '4', ('4', 'four'), None)
  assert task.score(prediction, sample)['best_subspan_em'] == score


def test_any_answer_is_right_and_the_repaired_score_stands_beside():
  task = generators.get_task('multi_doc_qa_oracle')
  sample = generators.Sample('', '', 'IV', ('IV', '4'), None)
  assert task.score('It is 14.', sample) == {
    'best_subspan_em': 1,
    'best_subspan_em_repaired': 0,
  }


@pytest.mark.parametrize(
  'name', ['multi_doc_qa_3_gold_3', 'multi_doc_qa_1_gold_9']
)
def test_the_right_passage_has_a_place_among_the_others(tmp_path, name):
  with pytest.raises(ValueError, match='wanted one from 0 to'):
    read(name, write(tmp_path / 'x.jsonl.gz', row(PUBLISHED)))


@pytest.mark.parametrize(
  ('bad', 'complaint'),
  [
    (row(PUBLISHED, question=None), "no field 'question'"),
    (row(PUBLISHED, question=7), 'wanted a string'),
    (row(PUBLISHED, answers=[]), 'none of them blank'),
    (row(PUBLISHED, answers=['x', ' ']), 'none of them blank'),
    (
      row(PUBLISHED, answers=[4]),
      "'answers' is .*wanted a list, each a string",
    ),
    (row('R0'), "'ctxs' is 'R0'; wanted a list"),
    (row([*PUBLISHED[:2], 'R2']), "'ctxs' is .*wanted a list, each an object"),
    (row([{'title': 'T'}] * 3), "text of a passage in field 'ctxs' is 'None'"),
    (row([{'title': 'T', 'text': '\ud800'}] * 3), 'half of a surrogate'),
    (row([{'text': 'T'}] * 3), "title of a passage in field 'ctxs' is 'None'"),
    (row(PUBLISHED[:2]), '1 passages without the answer among 2; 3 documents'),
    (row(RETRIEVED, nq_annotated_gold=None), "no field 'nq_annotated_gold'"),
    (row(RETRIEVED, nq_annotated_gold={'title': 'G'}), "in field 'nq_annot"),
  ],
)
def test_faults_have_file_and_line(tmp_path, bad, complaint):
  path = write(tmp_path / 'x.jsonl.gz', row(PUBLISHED), bad)
  with pytest.raises(ValueError, match=f'x.jsonl.gz:2: .*{complaint}'):
    read('multi_doc_qa_3_gold_1', path)


def test_places_of_published_tasks_are_among_the_documents():
  tasks = [t for family in multi_doc_qa.FAMILIES for t in family.typical]
  assert len(tasks) == 16
  for name in tasks:
    numbers = generators.get_task(name).numbers
    assert numbers.get('gold', 0) < numbers.get('documents', 1)
