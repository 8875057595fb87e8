"""Streams: every place and packing gives the same bytes, within the caps."""

import gzip
import io
import tracemalloc
import zipfile

from backports import zstd
from etils import epath
import pytest

from t5_align.tasks.data import streams

LINES = [b'{"a": %d}\n' % i for i in range(3000)]
CONTENT = b''.join(LINES)


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'a.jsonl').write_bytes(CONTENT)
  (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(CONTENT))
  (tmp_path / 'A.JSONL.ZST').write_bytes(zstd.compress(CONTENT))
  half = len(CONTENT) // 2
  # gzip members and zstd frames in a row, as parallel packers write them.
  for name, pack in (('b.gz', gzip.compress), ('b.zst', zstd.compress)):
    content = pack(CONTENT[:half]) + pack(CONTENT[half:])
    (tmp_path / name).write_bytes(content)
  with zipfile.ZipFile(tmp_path / 'd.zip', 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr('data/a.jsonl', CONTENT)
    file.writestr('data/a.jsonl.gz', gzip.compress(CONTENT))
  return tmp_path


FILES = [
  *('a.jsonl', 'a.jsonl.gz', 'A.JSONL.ZST', 'b.gz', 'b.zst'),
  *('d.zip/data/a.jsonl', 'd.zip/data/a.jsonl.gz'),
]


@pytest.mark.parametrize('name', FILES)
def test_same_lines_whatever_the_packing(folder, name):
  path = f'{folder}/{name}'
  with streams.open_stream(path) as stream:
    assert stream.read() == CONTENT
  assert list(streams.read_lines(path)) == [
    (f'{path}:{i}', line) for i, line in enumerate(LINES, start=1)
  ]


@pytest.mark.parametrize('name', [*FILES, 'd.zip'])
def test_buckets_are_read_like_folders(folder, monkeypatch, name):
  # Stands for the bucket's own library.
  def in_folder(path):
    return epath.Path(path.replace('gs://bucket', str(folder)))

  monkeypatch.setattr(streams, '_epath', in_folder)
  path = f'gs://bucket/{name}'
  assert streams.is_file(path)
  assert not streams.is_file(f'{path}.x')
  assert streams.is_folder('gs://bucket') and not streams.is_folder(path)
  if name != 'd.zip':
    assert next(streams.read_lines(path)) == (f'{path}:1', LINES[0])
  assert 'd.zip' in streams.list_folder('gs://bucket')


def test_what_is_there(folder):
  assert streams.is_file(f'{folder}/d.zip/data/a.jsonl')
  for name in ('d.zip/data', 'd.zip/a.jsonl', 'e.zip/a.jsonl', '', 'a\0b'):
    assert not streams.is_file(f'{folder}/{name}')


def test_blank_lines_are_counted_and_left_out(tmp_path):
  (tmp_path / 'a').write_bytes(b'one\r\n\r\n \t\ntwo')
  path = str(tmp_path / 'a')
  assert list(streams.read_lines(path)) == [
    (f'{path}:1', b'one\r\n'),
    (f'{path}:4', b'two'),
  ]


def test_memory_does_not_grow_with_the_file(tmp_path):
  line = bytes(range(32, 127)) * 10 + b'\n'
  pieces = (line * 1000 for _ in range(60))
  with gzip.open(tmp_path / 'a.gz', 'wb', compresslevel=1) as file:
    for number, piece in enumerate(pieces):
      file.write(b'%d' % number + piece)
  tracemalloc.start()
  count = sum(1 for _ in streams.read_lines(str(tmp_path / 'a.gz')))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert count == 60_000
  assert peak < 4 * 2**20


def test_zstd_windows_of_any_size(tmp_path):
  content = CONTENT * 3
  window = {zstd.CompressionParameter.window_log: 30}
  packed = io.BytesIO()
  with zstd.ZstdFile(packed, 'w', options=window) as file:
    file.write(content)
  (tmp_path / 'a.zst').write_bytes(packed.getvalue())
  with streams.open_stream(str(tmp_path / 'a.zst')) as stream:
    assert stream.read() == content
