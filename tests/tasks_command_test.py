"""The list of tasks, and one sample of each kind."""

import gzip
import json

import pytest

from t5_align import cli, tasks_command
from t5_align.tasks import generators

QUESTION = {
  'question': 'who wrote it',
  'answers': ['Ada \x1b[31m{Lovelace}'],
  'ctxs': [
    {'title': 'It', 'text': 'Ada wrote it.', 'hasanswer': True, 'isgold': True}
  ],
  'nq_annotated_gold': None,
}


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
  """Nothing of this machine's own data is found."""
  monkeypatch.setenv('T5_ALIGN_DATA', str(tmp_path))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  monkeypatch.setenv('COLUMNS', '80')
  return tmp_path


def run(capfd, *arguments):
  code = cli.main(['tasks', *map(str, arguments)])
  return code, *capfd.readouterr()


def write_oracle(folder, rows=(QUESTION,)):
  with gzip.open(folder / 'nq-open-oracle.jsonl.gz', 'wt') as file:
    file.write(''.join(json.dumps(row) + '\n' for row in rows))


def test_list_has_every_family_and_fits(capfd):
  code, out, err = run(capfd)
  assert (code, err) == (0, '')
  for name in generators.list_families():
    family = generators.get_family(name)
    assert f'\n{name} {family.version} ' in out
    assert f'  {family.description}\n' in out
    for form in family.forms:
      assert form in out
    if family.source:
      # On one line, to be copied.
      assert f'\n  {family.source.get}\n' in out
  head = out.partition('Published data')[0]
  assert max(map(len, head.splitlines())) <= 80
  assert 'passkey_{tokens}: 512, 1024, 2048, … 16384' in out
  assert 'Lost in the Middle, not here' in out


def test_list_says_what_is_here(capfd, data_folder):
  write_oracle(data_folder)
  (data_folder / '200_lines.jsonl').write_text('')
  _, out, _ = run(capfd, '--json')
  families = {family['name']: family for family in json.loads(out)}
  oracle = families['multi_doc_qa_oracle']
  assert oracle['published'] == oracle['data_here'] == ['multi_doc_qa_oracle']
  assert families['line_retrieval']['data_here'] == ['line_retrieval_200']
  assert families['passkey']['published'] == []
  assert families['perplexity_pg19']['data_here'] == []
  _, out, _ = run(capfd)
  assert 'multi_doc_qa_oracle: Lost in the Middle, here.' in out


def test_listing_downloads_nothing(monkeypatch, capfd):
  monkeypatch.setenv('T5_ALIGN_DATA', 'hf://datasets/somebody/data')

  def refuse(path):
    raise AssertionError(f'{path} was fetched')

  monkeypatch.setattr(tasks_command.sources, 'fetch', refuse)
  assert run(capfd)[0] == 0


def test_a_generated_sample(capfd):
  code, out, _ = run(capfd, 'show', 'passkey_600', '--index', 3)
  assert code == 0
  assert 'passkey_600-test-000003' in out and '\ndepth ' in out
  (answer,) = [line for line in out.splitlines() if line.startswith('answer')]
  assert len(answer.split()[1]) == 5
  assert 'left out; --whole prints them' in out
  assert out.endswith('What is the pass key?\n')
  tokens = int(out.split('tokens')[1].split()[0])
  assert 560 < tokens <= 600
  _, whole, _ = run(capfd, 'show', 'passkey_600', '--index', 3, '--whole')
  assert 'left out' not in whole and len(whole) > len(out)
  assert f'The pass key is {answer.split()[1]}.' in whole


def test_a_published_sample_acts_on_no_terminal(capfd, data_folder):
  write_oracle(data_folder)
  code, out, _ = run(capfd, 'show', 'multi_doc_qa_oracle')
  assert code == 0 and '\x1b' not in out
  assert 'answer    Ada \\x1b[31m{Lovelace}' in out
  assert 'multi_doc_qa_oracle-file-000000' in out


def test_a_text_shows_its_target(capfd):
  code, out, _ = run(capfd, 'show', 'perplexity_files_128')
  assert code == 0 and '--- target\n' in out and '\nanswer' not in out
  assert '\ndocument ' in out


def test_missing_data_is_one_line_with_the_command(capfd):
  code, out, err = run(capfd, 'show', 'multi_doc_qa_oracle')
  assert (code, out, err.count('\n')) == (3, '', 1)
  assert 'nq-open-oracle.jsonl.gz' in err and 'Get it: git clone' in err


@pytest.mark.parametrize(
  'arguments, code, message',
  [
    (('passkye_512',), 2, "Did you mean 'passkey_512'?"),
    (('passkey_512', '--template', 'plane'), 2, 'it has plain'),
    (('passkey_512', '--index', '-1'), 2, '--index is -1'),
    (('passkey_3',), 2, 'passkey_3'),
    (('passkey_512', '--vocabulary', 'nowhere'), 3, 'nowhere'),
    (('multi_doc_qa_oracle', '--split', 'dev'), 2, "no split 'dev'"),
  ],
)
def test_what_cannot_be_shown(capfd, arguments, code, message):
  got, out, err = run(capfd, 'show', *arguments)
  assert (got, out, err.count('\n')) == (code, '', 1)
  assert message in err


def test_bad_rows_and_an_index_beyond_them(capfd, data_folder):
  write_oracle(data_folder)
  arguments = ('show', 'multi_doc_qa_oracle', '--index', 1)
  code, _, err = run(capfd, *arguments)
  assert code == 2 and 'has 1 samples there' in err
  write_oracle(data_folder, [QUESTION | {'answers': []}])
  code, _, err = run(capfd, *arguments)
  assert code == 3 and 'nq-open-oracle.jsonl.gz:1' in err


def test_a_folder_without_a_tokenizer(capfd, tmp_path):
  code, _, err = run(capfd, 'show', 'passkey_512', '--model', tmp_path)
  assert code == 3 and 'has no tokenizer' in err
