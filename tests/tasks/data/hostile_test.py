"""Hostile and broken files: each an error that names file and line.

What each reader does with a sound file is tested beside it. Here every way a
file can be wrong meets the readers of rows and of documents.
"""

import bz2
import gzip
import json
import os
import pathlib
import shutil
import tracemalloc
import zipfile

from backports import zstd
import pytest

from t5_align.tasks import generators
from t5_align.tasks.data import documents, records, streams

FIELDS = {'text': str}
GOOD = b'{"text": "fine"}\n'


def read(path):
  return [row for _, row in records.read_records(str(path), FIELDS)]


def refuse(path, message, error=ValueError):
  """Both readers refuse the file, in the same words."""
  with pytest.raises(error, match=message):
    read(path)
  with pytest.raises(error, match=message):
    for file in documents.find_files([path]):
      list(documents.read_named(file))


@pytest.mark.parametrize(
  'line, message',
  [
    (b'{"text": "\xff"}', 'byte 10 of the line is not UTF-8: invalid start'),
    (b'{"text": "\xed\xa0\x80"}', 'byte 10 of the line is not UTF-8'),
    ('{"text": "ä"}'.encode('utf-16'), 'not UTF-8'),
    (b'{"text": "\\ud800"}', 'half of a surrogate pair at character 0'),
    (b'{"text": "a}', 'not JSON: Invalid control character'),
    (b'{"text": "a"', "not JSON: Expecting ',' delimiter"),
    (b'{"text": "a\0b"}', 'not JSON: Invalid control character'),
    (b"{'text': 'a'}", 'not JSON: Expecting property name'),
    (b'{"text": "a"} {"text": "b"}', 'not JSON: Extra data'),
    (b'{"text": "a", "x": NaN}', 'not JSON: NaN is no number of JSON'),
    (b'{"text": "a", "x": -Infinity}', 'not JSON: -Infinity is no number'),
    (b'{"text": "a", "x": 1e999}', 'not JSON: 1e999 is no number'),
    (b'{"text": "a", "x": ' + b'9' * 9999 + b'}', 'not JSON: .*4300 digits'),
    (b'[' * 200_000, 'not JSON: nested too deeply'),
    (b'{"text": ' + b'{"a":' * 200_000, 'not JSON: nested too deeply'),
    (b'["text"]', 'got a list; wanted an object'),
    (b'null', 'got a NoneType; wanted an object'),
    (b'{"Text": "a"}', "no field 'text'; it has 'Text'"),
    (b'{}', "no field 'text'; it has none"),
    (b'{"text": null}', "field 'text' is None; wanted a string"),
    (b'{"text": ["a"]}', r"field 'text' is \['a'\]; wanted a string"),
  ],
)
@pytest.mark.parametrize('ending', ['', '.gz', '.zst'])
def test_line(tmp_path, line, message, ending):
  pack = {'.gz': gzip.compress, '.zst': zstd.compress}.get(ending, bytes)
  path = tmp_path / f'a.jsonl{ending}'
  path.write_bytes(pack(GOOD + b'\n' + line + b'\n' + GOOD))
  refuse(path, rf'a\.jsonl{ending}:3: .*{message}')


@pytest.mark.parametrize('newline', [b'\n', b'\r\n', b'\n\n \t\r\n'])
@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
def test_marks_and_line_ends_are_no_errors(tmp_path, newline, mark):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(mark + GOOD.strip() + newline + GOOD.strip())
  assert read(path) == [{'text': 'fine'}] * 2
  found = [document.text for document in documents.read_named(str(path))]
  assert found == ['fine'] * 2


@pytest.mark.parametrize('ending', ['', '.gz', '.zst'])
def test_bomb_takes_little_memory(tmp_path, ending):
  path = tmp_path / f'a.jsonl{ending}'
  blocks = [GOOD, *[b'x' * 2**20] * 200]
  openers = {'.gz': gzip.open, '.zst': zstd.open}
  if ending:
    with openers[ending](path, 'wb') as file:
      file.writelines(blocks)
    message, most = 'bytes unpack to .* no more than 200 for one', 40 * 2**20
    assert path.stat().st_size < 250_000
  else:
    with open(path, 'wb') as file:
      file.write(GOOD)
      file.truncate(200 * 2**20)
    message, most = 'a line of more than 67108864 bytes', 150 * 2**20
  tracemalloc.start()
  with pytest.raises(ValueError, match=rf'a\.jsonl{ending}:2: .*{message}'):
    read(path)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < most


def test_bomb_in_an_archive_and_as_a_document(tmp_path):
  with zipfile.ZipFile(tmp_path / 'd.zip', 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr('a.jsonl', GOOD + b'x' * 40 * 2**20)
  (tmp_path / 'a.txt.gz').write_bytes(gzip.compress(b'x ' * 20 * 2**20))
  with pytest.raises(ValueError, match=r'd\.zip/a\.jsonl:2: .* bytes unpack'):
    read(tmp_path / 'd.zip/a.jsonl')
  with pytest.raises(ValueError, match=r'a\.txt\.gz: .* bytes unpack to'):
    list(documents.read_named(str(tmp_path / 'a.txt.gz')))


@pytest.mark.parametrize(
  'ending, pack', [('gz', gzip.compress), ('zst', zstd.compress)]
)
def test_broken_archives(tmp_path, ending, pack):
  rows = b''.join(
    json.dumps({'text': os.urandom(50).hex()}).encode() + b'\n'
    for _ in range(50)
  )
  packed = pack(rows)
  kind = {'gz': 'gzip', 'zst': 'zstd'}[ending]
  for content in (
    packed[: len(packed) // 2],
    packed[:-3],
    packed[:3],
    b'no archive at all',
    rows,
    bz2.compress(rows),
  ):
    path = tmp_path / f'a.jsonl.{ending}'
    path.write_bytes(content)
    refuse(path, rf'a\.jsonl\.{ending}:\d+: a broken {kind} file: .')
  # What is unpacked before the fault is found need not be JSON.
  path.write_bytes(packed[:200] + b'\0' * 500 + packed[700:])
  refuse(path, rf'a\.jsonl\.{ending}:\d+: .')


def test_broken_zip_files(tmp_path):
  path = tmp_path / 'd.zip'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a.jsonl', GOOD * 10)
  sound = path.read_bytes()
  member = f'{path}/a.jsonl'
  assert len(read(member)) == 10
  with pytest.raises(ValueError, match=r"d\.zip: no member 'b\.jsonl'; it has"):
    read(f'{path}/b.jsonl')
  path.write_bytes(sound.replace(b'fine', b'evil'))
  with pytest.raises(ValueError, match=r'd\.zip/a\.jsonl:1: .*Bad CRC'):
    read(member)
  path.write_bytes(sound[: len(sound) // 2])
  with pytest.raises(ValueError, match=r'd\.zip: a broken zip file'):
    read(member)


def test_archive_members_are_never_extracted(tmp_path, monkeypatch):
  (tmp_path / 'in').mkdir()
  monkeypatch.chdir(tmp_path / 'in')
  with zipfile.ZipFile('d.zip', 'w') as file:
    for name in ('../out.jsonl', '/tmp/out.jsonl', 'a/../../out.jsonl'):
      file.writestr(name, GOOD)
  before = sorted(tmp_path.rglob('*'))
  for name in ('../out.jsonl', '/tmp/out.jsonl', 'a/../../out.jsonl'):
    assert read(f'd.zip/{name}') == [{'text': 'fine'}]
  assert sorted(tmp_path.rglob('*')) == before
  (tmp_path / 'out.jsonl').write_bytes(GOOD)
  with pytest.raises(ValueError, match='no member'):
    read('d.zip/../../out.jsonl')


@pytest.mark.parametrize('content', [b'', b'\n \n\r\n'])
@pytest.mark.parametrize('ending', ['', '.gz', '.zst'])
def test_no_rows(tmp_path, content, ending):
  pack = {'.gz': gzip.compress, '.zst': zstd.compress}.get(ending, bytes)
  path = tmp_path / f'a.jsonl{ending}'
  path.write_bytes(pack(content))
  refuse(path, rf'a\.jsonl{ending}: (no rows|an empty file)')


@pytest.mark.parametrize(
  'name', ['a.json', 'a.csv', 'a', 'a.jsonl.bz2', 'a.pkl']
)
def test_unknown_kinds(tmp_path, name):
  (tmp_path / name).write_bytes(GOOD)
  with pytest.raises(ValueError, match=rf'{name}: what kind of file .*\.jsonl'):
    read(tmp_path / name)


@pytest.mark.parametrize('content', [b'PAR1', b'x' * 500, b'PAR1' + b'\0' * 99])
def test_broken_parquet(tmp_path, content):
  (tmp_path / 'a.parquet').write_bytes(content)
  refuse(tmp_path / 'a.parquet', r'a\.parquet:1: not readable Parquet: .')


def test_bit_flips_in_parquet(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  rows = [{'text': f'text {i}'} for i in range(200)]
  table = pyarrow.Table.from_pylist(rows)
  path = tmp_path / 'a.parquet'
  parquet.write_table(table, path, write_page_checksum=True)
  sound = path.read_bytes()
  refused = 0
  for place in range(0, len(sound), 97):
    broken = bytearray(sound)
    broken[place] ^= 0xFF
    path.write_bytes(broken)
    try:
      assert len(read(path)) <= len(rows)
    except ValueError as error:
      assert str(path) in str(error)
      refused += 1
  assert refused > 5


def test_what_is_no_file(tmp_path):
  folder = tmp_path / 'a.jsonl'
  folder.mkdir()
  with pytest.raises(OSError, match=r'a\.jsonl'):
    read(folder)
  loop = tmp_path / 'loop.jsonl'
  loop.symlink_to(loop)
  refuse(loop, r'loop\.jsonl', OSError)
  refuse(tmp_path / 'none.jsonl', r'none\.jsonl', FileNotFoundError)
  # A search drops nothing silently: not what leads nowhere, …
  with pytest.raises(ValueError, match=r'loop\.jsonl: not a file \(a link'):
    documents.find_files([tmp_path])
  loop.unlink()
  # … and it ends where a folder holds itself.
  (folder / 'b.txt').write_text('text')
  (folder / 'again').symlink_to(folder)
  assert documents.find_files([tmp_path]) == [str(folder / 'b.txt')]


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_files_that_may_not_be_read(tmp_path):
  path = tmp_path / 'in' / 'a.jsonl'
  path.parent.mkdir()
  path.write_bytes(GOOD)
  path.chmod(0)
  refuse(path, r'a\.jsonl', PermissionError)
  path.parent.chmod(0)
  with pytest.raises(PermissionError, match='in'):
    documents.find_files([tmp_path])
  path.parent.chmod(0o700)


def test_folders_that_may_not_be_searched(tmp_path, monkeypatch):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'a.txt').write_text('text')
  scandir = os.scandir

  def refusing(path):
    if os.path.basename(path) == 'in':
      raise PermissionError(13, 'Permission denied', path)
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refusing)
  with pytest.raises(PermissionError, match='/in'):
    documents.find_files([tmp_path])


@pytest.mark.parametrize(
  'name',
  [
    '../../etc/passwd',
    'passkey_../512',
    'passkey_512/../../x',
    'passkey_512\0',
    'passkey_512\n',
    'passkey_-512',
    'passkey_٥١٢',
    'passkey_' + '9' * 400,
    '',
    '*',
  ],
)
def test_task_names_are_names(name):
  with pytest.raises(ValueError, match='Unknown task'):
    generators.get_task(name)


def test_row_that_grows_while_it_is_read(tmp_path, monkeypatch):
  # The cap holds for each line, however many there are.
  monkeypatch.setattr(streams, 'MAX_LINE_BYTES', 100)
  path = tmp_path / 'a.jsonl'
  row = b'{"text": "%s"}' % (b'x' * 87)
  path.write_bytes(row[:-3] + row[-2:] + b'\n' + row + b'\n' + row + b'xx\n')
  found = records.read_records(str(path), FIELDS)
  assert len([next(found), next(found)]) == 2
  with pytest.raises(ValueError, match=r'a\.jsonl:3: a line of more than 100'):
    next(found)


def test_disappearing_file(tmp_path):
  path = pathlib.Path(tmp_path / 'in' / 'a.jsonl')
  path.parent.mkdir()
  path.write_bytes(GOOD)
  (file,) = documents.find_files([path])
  shutil.rmtree(path.parent)
  with pytest.raises(FileNotFoundError, match=r'a\.jsonl'):
    list(documents.read_named(file))
