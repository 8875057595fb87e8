"""Code completion in LongBench's form: the files, the prompts, the scores."""

import json
import zipfile

import pytest

from t5_align.tasks import generators

LINE = '        return self.x'
CONTEXT = 'class A:\n    def f(self):\n'


def encode(text):
  raise AssertionError('samples do not depend on a vocabulary')


def row(**changes):
  content = {
    'input': '',
    'context': CONTEXT,
    'answers': [LINE],
    'length': 3,
    'dataset': 'lcc',
    'language': 'python',
    'all_classes': None,
    '_id': 'a1',
    **changes,
  }
  return {k: v for k, v in content.items() if v != 'missing'}


def lines(*rows):
  return ''.join(json.dumps(r) + '\n' for r in rows).encode()


def write(path, *rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(lines(*rows))
  return path


def read(name, data, **options):
  return list(generators.get_task(name).samples(encode, data=data, **options))


def test_rows_become_samples(tmp_path):
  path = write(tmp_path / 'lcc.jsonl', row(), row(_id='a2', answers=['b', 'c']))
  first, second = read('lcc', path)
  assert first == generators.Sample(
    id='lcc-file-000000',
    prompt=(
      'Which line comes next in this program?\n\n'
      f'{CONTEXT}\n\nThe line that comes next:\n'
    ),
    target=LINE,
    answers=(LINE,),
    depth=None,
  )
  assert second.id == 'lcc-file-000001'
  assert second.answers == ('b', 'c')
  (bare,) = read('lcc', path, template='bare', limit=1)
  assert bare.prompt == CONTEXT


def write_jsonl(folder, name):
  write(folder / 'data' / f'{name}.jsonl', row(input='# {b}\n'))


def write_archive(folder, name):
  with zipfile.ZipFile(folder / 'data.zip', 'w') as archive:
    archive.writestr('data/other.jsonl', lines(row(context='other')))
    archive.writestr(f'data/{name}.jsonl', lines(row(input='# {b}\n')))


def write_parquet(folder, name):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  (folder / name).mkdir()
  parquet.write_table(
    pyarrow.Table.from_pylist([row(input='# {b}\n')]),
    folder / name / 'test-00000-of-00001.parquet',
  )


@pytest.mark.parametrize('layout', [write_jsonl, write_archive, write_parquet])
@pytest.mark.parametrize(
  ('task', 'name'), [('lcc', 'lcc'), ('repobench_p', 'repobench-p')]
)
def test_a_folder_of_longbench_is_searched(tmp_path, layout, task, name):
  layout(tmp_path, name)
  (sample,) = read(task, tmp_path, template='bare')
  assert sample.prompt == f'{CONTEXT}# {{b}}\n'


def test_longbenchs_archive_is_read_by_its_name(tmp_path):
  write_archive(tmp_path, 'repobench-p')
  (sample,) = read('repobench_p', tmp_path / 'data.zip')
  assert sample.id == 'repobench_p-file-000000'
  with pytest.raises(FileNotFoundError, match='hf download zai-org/LongBench'):
    read('lcc', tmp_path / 'data.zip')


@pytest.mark.parametrize(
  ('task', 'wording'),
  [
    # LongBench, config/dataset2prompt.json.
    (
      'lcc',
      'Please complete the code given below. \n{context}Next line of code:\n',
    ),
    (
      'repobench_p',
      'Please complete the code given below. \n{context}{input}Next line of'
      ' code:\n',
    ),
  ],
)
def test_the_published_prompt_is_made_by_a_template(tmp_path, task, wording):
  template = tmp_path / 'published.json'
  template.write_text(json.dumps({'prompt': wording}))
  path = write(tmp_path / 'x.jsonl', row(input='x = 1\n'))
  (sample,) = read(task, path, template=template)
  assert sample.prompt == wording.format(context=CONTEXT, input='x = 1\n')


def test_a_template_must_show_the_code_before_the_line(tmp_path):
  template = tmp_path / 'lossy.json'
  template.write_text(json.dumps({'prompt': '{context}'}))
  path = write(tmp_path / 'x.jsonl', row())
  assert read('lcc', path, template=template)
  with pytest.raises(ValueError, match='must contain {input}'):
    read('repobench_p', path, template=template)


def test_the_vocabularys_own_writing_is_the_ceiling():
  line = '        if (a < b) { return x; }'
  readable = 'if (a  b)  return x; '
  task = generators.get_task('lcc')
  sample = generators.Sample('', '', line, (line,), None)
  assert task.score(readable, sample, [readable]) == {
    'code_similarity': 0.79,
    'code_similarity_in_vocabulary': 1.0,
    'code_similarity_repaired': pytest.approx(40 / 44),
    'code_exact_match': 0,
    'ceiling': 0.79,
  }
  perfect = task.score(f'# as before\n{line}\nb', sample)
  assert set(perfect.values()) == {1}


@pytest.mark.parametrize(
  ('bad', 'complaint'),
  [
    (row(_id='a1'), "the same field '_id' as .*x.jsonl:1: 'a1'"),
    (row(_id='missing'), "no field '_id'"),
    (row(_id='a2', context='missing'), "no field 'context'"),
    (row(_id='a2', input=None), "field 'input' is None; wanted a string"),
    (row(_id='a2', answers=LINE), 'wanted a list, each a string'),
    (row(_id='a2', answers=[]), 'none of them blank'),
    (row(_id='a2', answers=['\n']), 'none of them blank'),
  ],
)
def test_faults_have_file_and_line(tmp_path, bad, complaint):
  path = write(tmp_path / 'x.jsonl', row(), bad)
  with pytest.raises(ValueError, match=f'x.jsonl:2: .*{complaint}'):
    read('lcc', path)
