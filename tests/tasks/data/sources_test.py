"""Where data is looked for, and what is said when it isn't there."""

import zipfile

import pytest

from t5_align.tasks.data import records, sources

BENCH = sources.DataSource(
  name='Bench',
  licence='MIT',
  files=('{lines}_lines.jsonl', '{lines}.jsonl'),
  folders=('', 'data', 'data.zip/data'),
  get='git clone bench FOLDER/bench',
)
REVISION = 'c' * 40


def write(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('{"a": 1}')
  return path


def write_zip(path, *members):
  with zipfile.ZipFile(path, 'w') as file:
    for member in members:
      file.writestr(member, '{"a": 1}')


def find(data, lines=7):
  return sources.find(BENCH, {'lines': lines}, data and str(data))


@pytest.mark.parametrize(
  'name',
  [
    '7_lines.jsonl',
    '7.jsonl',
    'data/7.jsonl',
    '7.jsonl.zst',
    'data/7.jsonl.gz',
  ],
)
def test_file_in_a_folder_or_itself(tmp_path, monkeypatch, name):
  file = write(tmp_path / name)
  assert find(tmp_path) == find(f'{tmp_path}/') == find(file) == str(file)
  monkeypatch.setenv('T5_ALIGN_DATA', str(tmp_path))
  assert find(None) == str(file)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert find('~') == str(file)


def test_first_name_wins_then_the_first_folder(tmp_path):
  write(tmp_path / '7.jsonl')
  write(tmp_path / 'data/7.jsonl')
  assert find(tmp_path) == str(tmp_path / '7.jsonl')
  file = write(tmp_path / 'data/7_lines.jsonl')
  assert find(tmp_path) == str(file)


def test_member_of_an_archive(tmp_path):
  write_zip(tmp_path / 'data.zip', 'data/7.jsonl')
  member = str(tmp_path / 'data.zip/data/7.jsonl')
  assert find(tmp_path) == find(tmp_path / 'data.zip') == find(member) == member
  assert next(records.read_records(member, {'a': int})).row == {'a': 1}


def test_data_that_is_not_there(tmp_path, monkeypatch):
  with pytest.raises(sources.DataMissingError) as error:
    find(tmp_path)
  assert str(error.value) == (
    f'No 7_lines.jsonl or 7.jsonl of Bench in {tmp_path} (nor in'
    " 'data', 'data.zip/data' there). Get it: git clone bench"
    f' {tmp_path}/bench'
  )
  monkeypatch.setenv('T5_ALIGN_DATA', str(tmp_path / 'mine'))
  with pytest.raises(FileNotFoundError, match=r'7\.jsonl of Bench in .*mine'):
    find(None)
  monkeypatch.delenv('T5_ALIGN_DATA')
  with pytest.raises(FileNotFoundError, match=r'\.cache/t5_align/data \('):
    find(None, lines=123456)
  with pytest.raises(FileNotFoundError, match='nowhere: no such file or fol'):
    find(tmp_path / 'nowhere')


@pytest.fixture
def hub(tmp_path, monkeypatch):
  """A cache that holds one revision of owner/name; there is no network."""
  import huggingface_hub

  monkeypatch.setattr(
    huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub')
  )
  repository = tmp_path / 'hub' / 'datasets--owner--name'
  write(repository / 'refs/main').write_text(REVISION)
  snapshot = repository / 'snapshots' / REVISION
  write(snapshot / 'data/7.jsonl')
  write_zip(snapshot / 'data.zip', 'data/8.jsonl')
  return snapshot


@pytest.mark.parametrize('at', ['', '@main', f'@{REVISION}'])
def test_hub_without_a_network(hub, at):
  base = f'hf://datasets/owner/name{at}'
  file = str(hub / 'data/7.jsonl')
  assert find(f'{base}/data/7.jsonl') == find(base) == file
  assert sources.fetch(f'{base}/data/7.jsonl') == file
  member = str(hub / 'data.zip/data/8.jsonl')
  assert find(f'{base}/data.zip', 8) == find(base, 8) == member
  assert sources.fetch('any/other') == 'any/other'


def test_hub_has_it_not(hub):
  with pytest.raises(
    sources.DataMissingError,
    match=r'9\.jsonl of owner/name at revision v1\.2 is not here .* Get it: hf'
    r' download owner/name 9\.jsonl --repo-type dataset --revision v1\.2$',
  ):
    find('hf://datasets/owner/name@v1.2/9.jsonl')
  with pytest.raises(
    sources.DataMissingError, match=r'of Bench in hf://.*name at revision main'
  ):
    find('hf://datasets/owner/name', 9)


@pytest.mark.parametrize(
  'path',
  [
    'hf://datasets/owner',
    'hf://datasets/owner/name@/x.jsonl',
    'hf://datasets//name/x.jsonl',
    'hf://datasets/owner/name/../../x.jsonl',
    'hf://datasets/owner/name/a\0b.jsonl',
  ],
)
def test_no_path_of_the_hub(hub, path):
  with pytest.raises(ValueError, match='wanted hf://|no name of a file'):
    find(path)


def test_names_stay_in_their_folder(tmp_path):
  write(tmp_path / 'secret.jsonl')
  (tmp_path / 'in').mkdir()
  for name in ('../secret.jsonl', '/secret.jsonl', 'a/../../secret.jsonl'):
    source = sources.DataSource('x', '', files=('{name}',), get='')
    with pytest.raises(ValueError, match='no name of a file inside a folder'):
      sources.find(source, {'name': name}, str(tmp_path / 'in'))
