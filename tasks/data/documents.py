"""The user's text files as documents, read as a stream.

A document is a whole text file or one row of a JSONL or Parquet file; any but
the last may be packed with gzip or zstd. Nothing larger than one document is
ever in memory, so a file of any size can be begun. Files are UTF-8, with or
without a byte order mark, of this machine or of a bucket (`gs://…`).

Synopsis:

    for file in find_files(['notes', 'books/*.txt', 'web.jsonl.zst']):
      for text in read_documents(file):
        ...
      for document in read_named(file):
        document.name, document.text     # 'web.jsonl.zst:17'
"""

import codecs
from collections.abc import Iterator, Sequence
import difflib
import glob
import io
import os
import types
from typing import NamedTuple

from t5_align.tasks.data import records, sources, streams

# What a folder is searched for, plain or with '.gz' or '.zst' added; a file
# that is named, or matched by a pattern, may have any ending.
SUFFIXES = tuple(
  """.txt .text .md .rst .tex .jsonl .parquet .py .c .h .cc .cpp .hpp .java .js
.ts .go .rs .rb .sh .scala .kt .swift .cs .php .pl .lua .jl .r .m
.sql""".split()
)
# A longer text comes as several documents of this size.
DOCUMENT_BYTES = 4 * 2**20


class Document(NamedTuple):
  """A text, and where it is from."""

  name: str
  """Its file; with ':LINE' for a row, '#2' for a long file's second piece."""
  text: str
  """Not empty."""
  subset: str | None = None
  """What a row's `meta.pile_set_name` says, as in the Pile."""


def find_files(paths: Sequence[str | os.PathLike]) -> list[str]:
  """Return the files that files, folders and patterns stand for, each once.

  Args:
    paths: files; folders, which are searched with all of their own for the
      endings of `SUFFIXES`, hidden ones left out and links to folders not
      followed; patterns such as 'books/**/*.txt'; members of zip archives;
      files of the hub (see `sources`). `~` is the home folder.

  Returns:
    In the order of `paths`, those of a folder or pattern sorted.

  Raises:
    FileNotFoundError: nothing is there, or nothing matches.
    ValueError: a folder without text files, an empty file, a broken link, no
      paths at all.
    OSError: a folder that may not be read.
  """
  if not paths:
    raise ValueError('There are no text files: the list of paths is empty.')
  found: dict[str, str] = {}  # where it really is -> how it was reached
  for path in paths:
    for file in _expand(os.path.expanduser(os.fspath(path))):
      found.setdefault(os.path.realpath(file), file)
  return list(found.values())


def _expand(path: str) -> list[str]:
  """Return the files that one path stands for."""
  path = sources.fetch(path)
  if streams.is_folder(path):
    files = _search_remote(path) if streams.is_remote(path) else _search(path)
    if not files:
      raise ValueError(
        f'{path}: a folder without text files; looked in all of it for'
        f' {" ".join(SUFFIXES)}, plain, .gz or .zst. Name files or a pattern'
        f' such as {os.path.join(path, "*.log")!r} for others.'
      )
    return files
  if streams.is_remote(path):
    if not streams.is_file(path):
      raise FileNotFoundError(
        f'{path}: no such file or folder, or it may not be read.'
      )
    return [path]
  if streams.split_archive(path) and streams.is_file(path):
    return [path]
  if os.path.isfile(path):
    if not os.path.getsize(path):
      raise ValueError(f'{path}: an empty file; wanted text.')
    return [path]
  if os.path.exists(path):
    raise ValueError(f'{path}: neither a file nor a folder.')
  if glob.has_magic(path):
    matches = sorted(glob.glob(path, recursive=True))
    files = [match for match in matches if os.path.isfile(match)]
    if not files:
      raise FileNotFoundError(
        f'No file matches {path!r} (looked in {os.getcwd()}).'
      )
    return files
  folder, name = os.path.split(os.path.abspath(path))
  beside = os.listdir(folder) if os.path.isdir(folder) else []
  close = difflib.get_close_matches(name, beside, n=1)
  hint = f' Did you mean {close[0]!r}?' if close else ''
  raise FileNotFoundError(
    f'{path}: no such file or folder (looked for {name!r} in {folder}).{hint}'
  )


def _search(folder: str) -> list[str]:
  """Return the text files anywhere in a folder, sorted."""

  def fail(error: OSError):
    raise error

  files = []
  for place, folders, names in os.walk(folder, onerror=fail):
    folders[:] = [name for name in folders if not name.startswith('.')]
    files += [os.path.join(place, name) for name in names if _is_text(name)]
  for file in files:
    if not os.path.isfile(file):
      raise ValueError(
        f'{file}: not a file (a link that leads nowhere?). Remove it, or name'
        ' the files that are wanted.'
      )
  return sorted(files)


def _search_remote(folder: str) -> list[str]:
  """Return the text files anywhere in a folder of a bucket, sorted."""
  files = []
  for name in streams.list_folder(folder):
    path = f'{folder.rstrip("/")}/{name}'
    if _is_text(name):
      files.append(path)
    elif not name.startswith('.') and streams.is_folder(path):
      files += _search_remote(path)
  return sorted(files)


def _is_text(name: str) -> bool:
  """Whether a file is one that folders are searched for."""
  is_hidden = name.startswith('.')
  return not is_hidden and streams.unpacked_name(name).endswith(SUFFIXES)


def read_documents(path: str) -> Iterator[str]:
  """Yield the texts of one file that are not empty; see `read_named`."""
  return (document.text for document in read_named(path))


def read_named(path: str) -> Iterator[Document]:
  """Yield the documents of one file that are not empty.

  A file whose name ends in `.jsonl` has one JSON object a line, whose field
  `text` is the document, and so has a row of a `.parquet` file; any other file
  is one document. `.gz` and `.zst` are unpacked.

  Raises:
    ValueError: with file and byte, or file and line: not UTF-8, binary, a
      broken archive or one that expands too far; what `records` says.
    OSError: the file cannot be read.
  """
  if streams.unpacked_name(path).endswith((*records.JSONL, records.PARQUET)):
    found = _rows(path)
  else:
    found = _blocks(path)
  return (document for document in found if document.text.strip())


def _rows(path: str) -> Iterator[Document]:
  """Yield the field `text` of each row."""
  fields = {'text': str, 'meta': (dict, types.NoneType)}
  for where, row in records.read_records(path, fields):
    subset = (row.get('meta') or {}).get('pile_set_name')
    yield Document(where, row['text'], None if subset is None else str(subset))


def _blocks(path: str) -> Iterator[Document]:
  """Yield a text file's content, in one piece unless it is a long one."""
  with streams.open_stream(path) as file:
    for number, text in enumerate(_decoded(path, file), start=1):
      yield Document(path if number == 1 else f'{path}#{number}', text)


def _decoded(path: str, file: io.BufferedReader) -> Iterator[str]:
  """Yield a stream's content as text."""
  decoder = codecs.getincrementaldecoder('utf-8')()
  start = 0
  block = b' '
  while block:
    block = file.read(DOCUMENT_BYTES)
    # The bytes of a character that the last block ended within.
    num_held = len(decoder.getstate()[0])
    try:
      text = decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{path}: byte {start - num_held + error.start} is not UTF-8:'
        f' {error.reason}. Convert the file, or leave it out.'
      ) from None
    if b'\0' in block:
      raise ValueError(
        f'{path}: byte {start + block.index(0)} is zero: a binary file; wanted'
        ' text.'
      )
    yield text if start else text.removeprefix('\ufeff')
    start += len(block)
