"""Files as streams of bytes, wherever they are and however they are packed.

A path is local, a bucket's (`gs://…`), or of a member in a zip archive
(`LongBench/data.zip/data/lcc.jsonl`, read in place and never extracted); `.gz`
and `.zst` are unpacked. Memory is constant, and three caps bound what a hostile
or broken file can do:

  MAX_LINE_BYTES   of one line
  MAX_EXPANSION    bytes unpacked for one byte packed, once there are
  FREE_BYTES       of them

Synopsis:

    for where, line in read_lines('pile/test.jsonl.zst'):
      where                      # 'pile/test.jsonl.zst:1'
"""

from collections.abc import Iterator
import gzip
import io
import os
from typing import IO, Any
import zipfile
import zlib

# A novel is 1 MiB, the longest document of the Pile some 10 MiB.
MAX_LINE_BYTES = 64 * 2**20
# Text packs to a third or a tenth, logs to a hundredth; a bomb of gzip to a
# thousandth.
MAX_EXPANSION = 200
FREE_BYTES = 16 * 2**20
PACKED = ('.gz', '.zst')
# zstd's own limit; --ultra --long=31 writes such windows.
_ZSTD_WINDOW_LOG = 31
_BUFFER_BYTES = 2**18

# What the formats' libraries make of a file, and take for one.
_Binary = IO[bytes] | io.IOBase


class StreamError(ValueError):
  """A file that cannot be read on; `problem` is the message without its name.

  A `ValueError`, since what is wrong is the content.
  """

  def __init__(self, path: str, problem: str):
    super().__init__(f'{path}: {problem}')
    self.problem = problem


def unpacked_name(path: str) -> str:
  """Return the path in lower case, without `.gz` or `.zst`."""
  name = path.lower()
  return name.removesuffix('.gz').removesuffix('.zst')


def split_archive(path: str) -> tuple[str, str] | None:
  """Return (archive, member) of a path into a zip archive, else None."""
  place = path.lower().find('.zip/')
  return None if place < 0 else (path[: place + 4], path[place + 5 :])


def is_remote(path: str) -> bool:
  """Whether the path is of a bucket and not of this machine."""
  return '://' in path


def is_file(path: str) -> bool:
  """Whether there is such a file, or such a member of an archive."""
  inside = split_archive(path)
  if inside is None:
    return _epath(path).is_file() if is_remote(path) else os.path.isfile(path)
  archive, member = inside
  if not is_file(archive):
    return False
  with _open_plain(archive) as file, _open_zip(archive, file) as names:
    return member in names.namelist()


def is_folder(path: str) -> bool:
  """Whether there is such a folder; an archive is no folder."""
  return _epath(path).is_dir() if is_remote(path) else os.path.isdir(path)


def list_folder(path: str) -> list[str]:
  """Return the names in a folder of a bucket."""
  return [entry.name for entry in _epath(path).iterdir()]


def open_stream(path: str) -> io.BufferedReader:
  """Open a file for reading, unpacked.

  Raises:
    OSError: it isn't there or may not be read.
    ValueError: no such member; and, while it is read, a broken archive, or one
      that expands to more than any text does.
  """
  return io.BufferedReader(_Unpacked(path), _BUFFER_BYTES)


def open_seekable(path: str) -> io.BufferedReader:
  """Open a file that is not packed, for reading in any order."""
  return io.BufferedReader(_Counted(_open_plain(path)), _BUFFER_BYTES)


def read_lines(path: str) -> Iterator[tuple[str, bytes]]:
  """Yield ('FILE:LINE', line) for each line that is not blank.

  Raises:
    OSError: it isn't there or may not be read.
    ValueError: with file and line: a line of more than `MAX_LINE_BYTES`, or
      what `open_stream` says.
  """
  number = 1
  with open_stream(path) as stream:
    while True:
      try:
        line = stream.readline(MAX_LINE_BYTES + 1)
      except StreamError as error:
        raise StreamError(f'{path}:{number}', error.problem) from None
      if not line:
        return
      if len(line) > MAX_LINE_BYTES:
        raise StreamError(
          f'{path}:{number}', f'a line of more than {MAX_LINE_BYTES} bytes.'
        )
      if not line.isspace():
        yield f'{path}:{number}', line
      number += 1


class _Counted(io.RawIOBase):
  """A file that counts what is read of it."""

  def __init__(self, file: _Binary):
    self._file: Any = file
    self.num_bytes = 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return self._file.seekable()

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    self._file.seek(offset, whence)
    return self._file.tell()

  def tell(self) -> int:
    return self._file.tell()

  def readinto(self, buffer: Any) -> int:
    block = self._file.read(len(buffer))
    buffer[: len(block)] = block
    self.num_bytes += len(block)
    return len(block)

  def close(self) -> None:
    self._file.close()
    super().close()


class _Unpacked(io.RawIOBase):
  """The content of a file, with the errors of every format made one."""

  def __init__(self, path: str):
    self._path = path
    self._num_bytes = 0
    inside = split_archive(path)
    self._source = _Counted(_open_plain(inside[0] if inside else path))
    self._opened: list[Any] = [self._source]
    try:
      if inside:
        archive = _open_zip(inside[0], self._source)
        self._opened += [archive, _open_member(archive, *inside)]
      if path.lower().endswith('.gz'):
        self._opened.append(gzip.GzipFile(fileobj=self._opened[-1]))
      elif path.lower().endswith('.zst'):
        self._opened.append(_open_zstd(self._opened[-1]))
    except BaseException:
      self.close()
      raise
    self._is_packed = len(self._opened) > 1

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    try:
      block = self._opened[-1].read(len(buffer))
    except (*_broken_errors(), RuntimeError) as error:
      kind = os.path.splitext(self._path)[1].lower().lstrip('.')
      kind = {'gz': 'gzip', 'zst': 'zstd'}.get(kind, 'zip')
      raise StreamError(
        self._path, f'a broken {kind} file: {error or type(error).__name__}.'
      ) from None
    buffer[: len(block)] = block
    self._num_bytes += len(block)
    most = max(FREE_BYTES, MAX_EXPANSION * self._source.num_bytes)
    if self._is_packed and self._num_bytes > most:
      raise StreamError(
        self._path,
        f'{self._source.num_bytes} bytes unpack to {self._num_bytes} and more;'
        f' no more than {MAX_EXPANSION} for one are read. Unpack it yourself if'
        ' you trust it.',
      )
    return len(block)

  def close(self) -> None:
    for file in reversed(self._opened):
      file.close()
    super().close()


def _open_plain(path: str) -> _Binary:
  """Open a file as it is."""
  return _epath(path).open('rb') if is_remote(path) else open(path, 'rb')


def _open_zip(path: str, file: Any) -> zipfile.ZipFile:
  """Return the archive in an open file."""
  try:
    return zipfile.ZipFile(file)
  except (zipfile.BadZipFile, OSError, ValueError) as error:
    raise StreamError(path, f'a broken zip file: {error}.') from None


def _open_member(archive: zipfile.ZipFile, path: str, member: str) -> _Binary:
  """Return a member of an archive as a stream."""
  names = archive.namelist()
  if member not in names:
    listed = ', '.join(names[:10]) + (', …' if len(names) > 10 else '')
    raise StreamError(path, f'no member {member!r}; it has {listed or "none"}.')
  try:
    return archive.open(member)
  except (*_broken_errors(), RuntimeError, NotImplementedError) as error:
    raise StreamError(f'{path}/{member}', f'cannot be read: {error}.') from None


def _open_zstd(file: Any) -> _Binary:
  """Return the content of a zstd file, all of its frames."""
  from backports import zstd  # no part of Python before 3.14

  window = int(zstd.DecompressionParameter.window_log_max)
  return zstd.ZstdFile(file, options={window: _ZSTD_WINDOW_LOG})


def _broken_errors() -> tuple[type[Exception], ...]:
  """Return what the formats raise when a file is not as it should be."""
  from backports import zstd

  return (
    EOFError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zlib.error,
    zstd.ZstdError,
  )


def _epath(path: str) -> Any:
  """Return a bucket's path; the library that can read it comes with it."""
  from etils import epath

  return epath.Path(path)
