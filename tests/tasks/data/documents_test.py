"""Text files: which are found, what is read of them, how each can be wrong."""

import gzip
import json
import os
import zipfile

from backports import zstd
from etils import epath
import pytest

from t5_align.tasks.data import documents, streams
from t5_align.tasks.data.documents import find_files, read_documents


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  content = content.encode() if isinstance(content, str) else content
  pack = {'.gz': gzip.compress, '.zst': zstd.compress}.get(path.suffix, bytes)
  path.write_bytes(pack(content))
  return path


def jsonl(*texts):
  return '\n'.join(json.dumps({'text': text, 'id': 7}) for text in texts)


def names(files, folder):
  return [os.path.relpath(file, folder) for file in files]


@pytest.fixture
def folder(tmp_path):
  for name in (
    'b.txt',
    'a.md',
    'deep/er/c.py',
    'deep/d.jsonl.gz',
    'deep/E.TXT',
    'f.png',
    'README',
    '.hidden/g.txt',
    '.h.txt',
  ):
    write(tmp_path / name, jsonl('x'))
  return tmp_path


def test_folder_gives_its_text_files_in_order(folder):
  found = names(find_files([folder]), folder)
  assert found == ['a.md', 'b.txt', 'deep/E.TXT', 'deep/d.jsonl.gz'] + [
    'deep/er/c.py'
  ]


def test_patterns_and_names_reach_any_file_once(folder):
  paths = [f'{folder}/*.png', f'{folder}/README', f'{folder}/**/*.txt']
  paths += [f'{folder}/f.png', f'{folder}/deep/../b.txt']
  assert names(find_files(paths), folder) == ['f.png', 'README', 'b.txt']


def test_brackets_in_a_name_are_no_pattern(tmp_path):
  file = write(tmp_path / 'notes[1].txt', 'x')
  assert find_files([file]) == [str(file)]


@pytest.mark.parametrize(
  'path, error, message',
  [
    ('b.text', FileNotFoundError, r"no such file.*Did you mean 'b.txt'"),
    ('nowhere/b.txt', FileNotFoundError, r"looked for 'b.txt' in .*nowhere"),
    ('*.csv', FileNotFoundError, r'No file matches .*csv'),
    ('images', ValueError, r'without text files; .*\.txt .*\.jsonl'),
    ('empty.txt', ValueError, r'empty\.txt: an empty file'),
  ],
)
def test_nothing_to_read(folder, path, error, message):
  write(folder / 'images/a.png', 'x')
  write(folder / 'empty.txt', '')
  with pytest.raises(error, match=message):
    find_files([folder / path])


def test_no_paths():
  with pytest.raises(ValueError, match='list of paths is empty'):
    find_files([])


@pytest.mark.parametrize('ending', ['', '.gz'])
def test_text_file_is_one_document(tmp_path, ending):
  file = write(tmp_path / f'a.txt{ending}', '\ufeffgrün\r\n\n1 < 2')
  assert list(read_documents(str(file))) == ['grün\r\n\n1 < 2']


@pytest.mark.parametrize('ending', ['', '.gz'])
def test_each_record_is_a_document(tmp_path, ending):
  content = '\ufeff' + jsonl('one', '') + '\n\n \n' + jsonl('zwölf\n2')
  file = write(tmp_path / f'a.JSONL{ending}', content)
  assert list(read_documents(str(file))) == ['one', 'zwölf\n2']


def test_long_file_comes_in_blocks_that_split_no_character(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(documents, 'DOCUMENT_BYTES', 4)
  file = write(tmp_path / 'a.txt', 'a€€bü€')
  blocks = list(read_documents(str(file)))
  assert len(blocks) > 2
  assert ''.join(blocks) == 'a€€bü€'


def test_reads_no_more_than_it_is_asked_for(tmp_path):
  file = write(tmp_path / 'a.jsonl', jsonl('one', 'two') + '\nbroken')
  found = read_documents(str(file))
  assert [next(found), next(found)] == ['one', 'two']
  with pytest.raises(ValueError, match=r'a\.jsonl:3: not JSON'):
    next(found)


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('a.txt', b'abc\xffd', r'a\.txt: byte 3 is not UTF-8'),
    ('a.txt', b'abcdefg\xe2\x82', r'byte 7 is not UTF-8: unexpected end'),
    ('a.txt', b'abcdefgh\xe2\x82A', r'byte 8 is not UTF-8'),
    ('a.txt', b'abcdef\0', r'byte 6 is zero: a binary file'),
    ('a.txt', gzip.compress(b'packed', mtime=0), 'byte 1 is not UTF-8'),
    ('a.jsonl', b'{"text": "x"}\n{"text": "\xff"}', r':2: byte 10 of the line'),
    ('a.jsonl', '["text"]', r':1: got a list; wanted an object'),
    ('a.jsonl', '{"content": "x"}', r":1: no field 'text'; it has 'content'"),
    ('a.jsonl', '{"text": 5}', r":1: field 'text' is 5; wanted a string"),
    ('a.jsonl', '\n{"text": "\\ud800"}', r':2: .*half of a surrogate pair'),
    ('a.jsonl', '[' * 100_000, r':1: not JSON'),
    ('a.jsonl', '9' * 5000, r':1: not JSON'),
    (
      'a.jsonl',
      '{"text": "' + 'x' * 200_000,
      r':1: a line of more than 150000',
    ),
  ],
)
def test_unreadable_content_is_named(
  tmp_path, monkeypatch, name, content, message
):
  monkeypatch.setattr(documents, 'DOCUMENT_BYTES', 9)
  monkeypatch.setattr(streams, 'MAX_LINE_BYTES', 150_000)
  file = write(tmp_path / name, content)
  with pytest.raises(ValueError, match=message):
    list(read_documents(str(file)))


def test_broken_archives(tmp_path):
  packed = gzip.compress(os.urandom(1000).hex().encode())
  for content in (packed[:-100], b'no archive', packed[:50] + b'\0' * 900):
    file = tmp_path / 'a.txt.gz'
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r'a\.txt\.gz: a broken gzip file'):
      list(read_documents(str(file)))


def test_documents_have_names_and_subsets(tmp_path, monkeypatch):
  rows = [
    {'text': 'one', 'meta': {'pile_set_name': 'ArXiv'}},
    {'text': ' '},
    {'text': 'two', 'meta': None},
    {'text': 'three', 'meta': {'other': 1}},
  ]
  path = str(tmp_path / 'a.jsonl.zst')
  write(tmp_path / 'a.jsonl.zst', '\n'.join(map(json.dumps, rows)))
  assert list(documents.read_named(path)) == [
    (f'{path}:1', 'one', 'ArXiv'),
    (f'{path}:3', 'two', None),
    (f'{path}:4', 'three', None),
  ]
  monkeypatch.setattr(documents, 'DOCUMENT_BYTES', 4)
  path = str(write(tmp_path / 'a.txt', 'abcdefgh'))
  found = list(documents.read_named(path))
  assert found[:2] == [(path, 'abcd', None), (f'{path}#2', 'efgh', None)]


def test_rows_of_parquet_are_documents(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  rows = [{'text': 'one', 'id': 1}, {'text': '', 'id': 2}, {'text': 'three'}]
  path = tmp_path / 'a.parquet'
  parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  (file,) = find_files([tmp_path])
  assert list(read_documents(file)) == ['one', 'three']
  assert list(documents.read_named(file))[1].name == f'{path}:3'


def test_buckets_are_searched_like_folders(folder, monkeypatch):
  def in_folder(path):
    return epath.Path(path.replace('gs://bucket', str(folder)))

  monkeypatch.setattr(streams, '_epath', in_folder)
  found = find_files(['gs://bucket'])
  assert found == ['gs://bucket/a.md', 'gs://bucket/b.txt'] + [
    f'gs://bucket/deep/{name}' for name in ('E.TXT', 'd.jsonl.gz', 'er/c.py')
  ]
  assert list(read_documents(found[3])) == ['x']
  assert find_files(['gs://bucket/f.png']) == ['gs://bucket/f.png']
  with pytest.raises(FileNotFoundError, match='gs://bucket/x: no such file'):
    find_files(['gs://bucket/x'])


def test_members_of_archives(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
    file.writestr('in/b.txt', 'text')
  (file,) = find_files([tmp_path / 'a.zip/in/b.txt'])
  assert list(read_documents(file)) == ['text']
