"""The user's text files as documents, read as a stream.

A document is a whole text file or one record of a JSONL file; either may be
compressed with gzip. Nothing larger than one document is ever in memory, so a
file of any size can be begun. Files are UTF-8, with or without a byte order
mark.

Synopsis:

    for file in find_files(['notes', 'books/*.txt', 'web.jsonl.gz']):
      for text in read_documents(file):
        ...
"""

import codecs
from collections.abc import Iterator, Sequence
import difflib
import functools
import glob
import gzip
import io
import json
import os
import zlib

# What a folder is searched for, plain or with '.gz' added; a file that is
# named, or matched by a pattern, may have any ending.
SUFFIXES = tuple(
  """.txt .text .md .rst .tex .jsonl .py .c .h .cc .cpp .hpp .java .js .ts .go
.rs .rb .sh .scala .kt .swift .cs .php .pl .lua .jl .r .m .sql""".split()
)
# A longer text comes as several documents of this size.
DOCUMENT_BYTES = 4 * 2**20
MAX_LINE_BYTES = 64 * 2**20


def find_files(paths: Sequence[str | os.PathLike]) -> list[str]:
  """Return the files that files, folders and patterns stand for, each once.

  Args:
    paths: files; folders, which are searched with all of their own for the
      endings of `SUFFIXES`, hidden ones left out; patterns such as
      'books/**/*.txt'. `~` is the home folder.

  Returns:
    In the order of `paths`, those of a folder or pattern sorted.

  Raises:
    FileNotFoundError: nothing is there, or nothing matches.
    ValueError: a folder without text files, an empty file, no paths at all.
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
  if os.path.isdir(path):
    files = _search(path)
    if not files:
      raise ValueError(
        f'{path}: a folder without text files; looked in all of it for'
        f' {" ".join(SUFFIXES)}, plain or .gz. Name files or a pattern such as'
        f' {os.path.join(path, "*.log")!r} for others.'
      )
    return files
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
  files = []
  for place, folders, names in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith('.')]
    files.extend(
      os.path.join(place, name)
      for name in names
      if not name.startswith('.')
      and name.lower().removesuffix('.gz').endswith(SUFFIXES)
      and os.path.isfile(os.path.join(place, name))
    )
  return sorted(files)


def read_documents(path: str) -> Iterator[str]:
  """Yield the documents of one file that are not empty.

  A file whose name ends in `.jsonl` has one JSON object a line, whose field
  `text` is the document; any other file is one document. `.gz` is unpacked.

  Raises:
    ValueError: with file and byte, or file and line: not UTF-8, binary, a
      broken archive; not JSON, no text in it, a line over 64 MiB.
    OSError: the file cannot be read.
  """
  name = path.lower()
  read = _records if name.removesuffix('.gz').endswith('.jsonl') else _blocks
  open_bytes = gzip.open if name.endswith('.gz') else open
  with open_bytes(path, 'rb') as file:
    try:
      yield from (text for text in read(path, file) if text.strip())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise ValueError(f'{path}: a broken gzip file: {error}.') from None


def _blocks(path: str, file: io.BufferedIOBase) -> Iterator[str]:
  """Yield a text file's content, in one piece unless it is a long one."""
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


def _records(path: str, file: io.BufferedIOBase) -> Iterator[str]:
  """Yield the field `text` of each line."""
  readline = functools.partial(file.readline, MAX_LINE_BYTES + 1)
  for number, line in enumerate(iter(readline, b''), start=1):
    where = f'{path}:{number}'
    if len(line) > MAX_LINE_BYTES:
      raise ValueError(f'{where}: a line of more than {MAX_LINE_BYTES} bytes.')
    if line.strip():
      yield _text_field(where, line)


def _text_field(where: str, line: bytes) -> str:
  """Return the text of one record."""
  try:
    record = json.loads(line.decode('utf-8-sig'))
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{where}: byte {error.start} of the line is not UTF-8: {error.reason}.'
    ) from None
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{where}: not JSON: {error}.') from None
  if not isinstance(record, dict):
    raise ValueError(
      f'{where}: got a {type(record).__name__}; wanted an object with a field'
      " 'text'."
    )
  if 'text' not in record:
    fields = ', '.join(map(repr, list(record)[:10])) or 'none'
    raise ValueError(f"{where}: no field 'text'; it has {fields}.")
  text = record['text']
  if not isinstance(text, str):
    raise ValueError(
      f"{where}: field 'text' is {str(text)[:50]!r}; wanted a string."
    )
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f"{where}: field 'text' has half of a surrogate pair at character"
      f' {error.start}.'
    ) from None
  return text
