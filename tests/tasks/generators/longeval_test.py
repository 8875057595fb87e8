"""LongEval's files: the layout, and every way a file can be wrong."""

import json

import pytest

from t5_align.tasks import generators
from t5_align.tasks.data import streams


def encode(text):
  raise AssertionError('published prompts are not encoded')


def row(key='torpid-kid', value=2416, **changes):
  content = {
    'random_idx': [key, 1],
    'expected_number': value,
    'num_lines': 3,
    'correct_line': f'line {key}: REGISTER_CONTENT is <{value}>\n',
    'prompt': f'Record of {key}.\nline {key}: <{value}>\nWhat is it? ',
    **changes,
  }
  return {k: v for k, v in content.items() if v is not None}


def write(folder, rows, name='3_lines.jsonl'):
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / name
  lines = [json.dumps(r) if isinstance(r, dict) else r for r in rows]
  lines = [r.encode() if isinstance(r, str) else r for r in lines]
  path.write_bytes(b'\n'.join(lines))
  return path


def read(path, **options):
  task = generators.get_task('line_retrieval_3')
  return list(task.samples(encode, data=path, **options))


def test_rows_become_samples(tmp_path):
  path = write(tmp_path, [row(), row('red-ox', 7)])
  first, second = read(path)
  assert first == generators.Sample(
    id='line_retrieval_3-file-000000',
    prompt=row()['prompt'],
    target='torpid-kid: 2416',
    answers=('2416',),
    depth=0.5,
  )
  assert second.id == 'line_retrieval_3-file-000001'
  task = generators.get_task('line_retrieval_3')
  quantities = task.score('The content in line torpid-kid is <2416>.', first)
  assert quantities['line_retrieval_match'] == 1
  assert task.score('2416 (line 7)', first)['line_retrieval_match'] == 0
  assert read(path, limit=1) == [first]


@pytest.mark.parametrize(
  'inner',
  [
    '',
    'testcases',
    'lines',
    'lines/testcases',
    'evaluation/lines/testcases',
    'longeval/evaluation/lines/testcases',
    'LongChat/longeval/evaluation/lines/testcases',
  ],
)
def test_any_folder_of_the_layout_will_do(tmp_path, inner):
  write(tmp_path / inner, [row()])
  assert len(read(tmp_path)) == 1


def test_byte_order_mark_and_blank_lines_are_ignored(tmp_path):
  path = write(
    tmp_path,
    [b'\xef\xbb\xbf' + json.dumps(row()).encode(), '', row('b', 1), ''],
  )
  assert len(read(path)) == 2


@pytest.mark.parametrize(
  ('rows', 'complaint'),
  [
    ([], '3_lines.jsonl: no rows'),
    (['', ' '], '3_lines.jsonl: no rows'),
    ([row(), '{"prompt": '], '3_lines.jsonl:2: not JSON'),
    ([row(), b'\xff'], '3_lines.jsonl:2: byte 0 .*not UTF-8'),
    ([row(), '', '[' * 100_000], '3_lines.jsonl:3: '),
    (['"text"'], ':1: got a str; wanted an object'),
    ([row(), row()], r':2: the same prompt as .*3_lines.jsonl:1: '),
    ([row(prompt=None)], ":1: no field 'prompt'; it has 'random_idx'"),
    ([row(expected_number=None)], "no field 'expected_number'"),
    ([row(num_lines=None)], "no field 'num_lines'"),
    ([row(random_idx=None)], "no field 'random_idx'"),
    ([row(expected_number='2416')], "'expected_number' is '2416'; wanted a wh"),
    ([row(expected_number=True)], "'expected_number' is True; wanted a whole"),
    ([row(prompt=' ')], "'prompt' is empty"),
    ([row(num_lines=4)], "'num_lines' is 4; the task asks for 3"),
    ([row(random_idx=['a'])], "'random_idx' is"),
    ([row(random_idx=['a', 3])], 'line from 0 to 2'),
    ([row(random_idx=[1, 'a'])], "'random_idx' is"),
  ],
)
def test_faults_have_file_and_line(tmp_path, rows, complaint):
  path = write(tmp_path, rows)
  with pytest.raises(ValueError, match=complaint):
    read(path)


def test_a_row_without_end_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(streams, 'MAX_LINE_BYTES', 1000)
  path = write(tmp_path, [row(), 'x' * 2000])
  with pytest.raises(ValueError, match=':2: a line of more than 1000 bytes'):
    read(path)


def test_a_path_that_is_not_there_is_said_to_be_missing(tmp_path):
  with pytest.raises(FileNotFoundError, match='typo.jsonl: no such file'):
    read(tmp_path / 'typo.jsonl')


def test_a_missing_file_says_where_it_was_looked_for(tmp_path):
  with pytest.raises(FileNotFoundError, match='testcases') as error:
    read(tmp_path)
  for part in ('3_lines.jsonl', str(tmp_path), "'lines'", 'git clone'):
    assert part in str(error.value)


def test_published_prompts_take_no_template(tmp_path):
  with pytest.raises(ValueError, match='own prompts'):
    read(write(tmp_path, [row()]), template='plain')


def test_sizes_in_tokens_are_not_published(tmp_path):
  task = generators.get_task('line_retrieval_tokens_2048')
  with pytest.raises(ValueError, match='always generated'):
    task.samples(encode, data=tmp_path)


def topics_row(*topics, **changes):
  prompt = f'On {len(topics)} topics: {topics}. Which was first?'
  row = {'test_id': len(prompt), 'prompt': prompt, 'topics': list(topics)}
  return {**row, **changes}


def read_topics(path):
  task = generators.get_task('topic_retrieval_2')
  return list(task.samples(encode, data=path))


def test_topics_become_samples(tmp_path):
  first, second = topics_row('The Art of tea', 'Bees'), topics_row('Bees', '')
  rows = [first, second, {**first, 'test_id': 2}]  # as published
  write(tmp_path / 'topics/testcases', rows, '2_topics.jsonl')
  first, second, again = read_topics(tmp_path)
  assert first == generators.Sample(
    id='topic_retrieval_2-file-000000',
    prompt=rows[0]['prompt'],
    target='The Art of tea',
    answers=('The Art of tea',),
    depth=0.0,
  )
  assert second.answers == ('Bees',)
  assert again.prompt == first.prompt


@pytest.mark.parametrize(
  ('bad', 'complaint'),
  [
    (topics_row('Bees'), "'topics' has 1 of them; the task asks for 2"),
    (topics_row(' ', 'Bees'), "'topics' has a blank one first"),
    (topics_row(1, 2), "'topics' is .*wanted a list"),
    (topics_row('a', 'b', prompt=''), "'prompt' is empty"),
    (topics_row('Bees', 'Snow'), 'the same test_id as .*2_topics.jsonl:1'),
    (topics_row('a', 'b', test_id='0'), "'test_id' is '0'; wanted a whole"),
  ],
)
def test_faults_of_topics_have_file_and_line(tmp_path, bad, complaint):
  rows = [topics_row('Bees', 'Snow'), bad]
  path = write(tmp_path, rows, '2_topics.jsonl')
  with pytest.raises(ValueError, match=f'2_topics.jsonl:2: .*{complaint}'):
    read_topics(path)
