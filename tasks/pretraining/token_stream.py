"""A corpus as one array of token ids, from which windows are cut.

    document ids EOS document ids EOS …

It is tokenized once and kept as an .npy file, under the hash of its text and
of the vocabulary; processes open it as a memory map, so a window costs
microseconds and no memory. A window may begin and end anywhere.

Synopsis:

    stream = tokenize(training_files('corpus'), 'model', 'model/run')
    stream.draw(np.random.default_rng(0), 256)      # [256]
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import hashlib
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from t5_align import vocabulary as vocabulary_lib
from t5_align.tasks.data import documents, streams
from t5_align.tasks.pretraining.ahead import map_ahead

# Of the files that this module writes.
_VERSION = 1
# Characters that a process tokenizes at once.
_CHUNK = 2**20
# Of a split's file, as `tasks.data.corpus` writes it, packed or not.
_ENDINGS = ('.jsonl', '.jsonl.gz', '.jsonl.zst')


@dataclasses.dataclass(frozen=True)
class TokenStream:
  """Token ids in a file; small enough to be pickled.

  Attributes:
    path: the .npy file.
  """

  path: str

  @property
  def ids(self) -> np.ndarray:
    """All of them, as a memory map."""
    return _open(self.path)

  def __len__(self) -> int:
    return len(self.ids)

  def window(self, start: int, length: int) -> np.ndarray:
    """Return `length` ids from `start`: a view, nothing is read yet."""
    return self.ids[start : start + length]

  def draw(self, rng: np.random.Generator, length: int) -> np.ndarray:
    """Return a window anywhere, each as likely.

    Raises:
      ValueError: there are not as many tokens.
    """
    last = len(self) - length
    if last < 0:
      raise ValueError(
        f'{self.path} has {len(self)} tokens, a window {length}; give more'
        ' text or shorten the window.'
      )
    return self.window(int(rng.integers(last + 1)), length)


def training_files(data: str | os.PathLike | Sequence[str]) -> list[str]:
  """Return the text files to train on.

  Args:
    data: file, folder or pattern, or several. Of a folder with a train.jsonl,
      as `tasks.data.corpus` writes it, only that: the others are held out.

  Raises:
    FileNotFoundError, ValueError: see `documents.find_files`.
  """
  return documents.find_files(
    [_split_file(path, 'train') or path for path in _as_list(data)]
  )


def held_out_files(data: str | os.PathLike | Sequence[str]) -> list[str]:
  """Return the text files to watch training by: each folder's dev.jsonl."""
  found = (_split_file(path, 'dev') for path in _as_list(data))
  return [file for file in found if file]


def _as_list(data: str | os.PathLike | Sequence[str]) -> list[Any]:
  return [data] if isinstance(data, (str, os.PathLike)) else list(data)


def _split_file(folder: str | os.PathLike, split: str) -> str | None:
  """Return the file of a corpus's split, if this is a corpus."""
  files = [os.path.join(folder, f'{split}{ending}') for ending in _ENDINGS]
  return next(filter(os.path.isfile, files), None)


def read_texts(files: Iterable[str]) -> Iterator[str]:
  """Yield every document of the files, in order."""
  for file in files:
    yield from documents.read_documents(file)


def tokenize(
  files: Sequence[str],
  vocabulary: str | os.PathLike,
  folder: str | os.PathLike,
  workers: int = 0,
) -> TokenStream:
  """Return the stream of some files; tokenize them unless that was done.

  Args:
    files: from `training_files`.
    vocabulary: its file or folder.
    folder: where the ids are kept; made if need be.
    workers: processes; they change the speed and nothing else.
  """
  pieces = load(os.fspath(vocabulary))
  name = f'tokens-{_hash(files, pieces.hash)}.npy'
  path = pathlib.Path(folder).absolute() / name
  if path.exists():
    return TokenStream(os.fspath(path))
  path.parent.mkdir(parents=True, exist_ok=True)
  encode = functools.partial(_encode, os.fspath(vocabulary))
  arrays = list(map_ahead(encode, _chunks(read_texts(files)), workers))
  # Moved into place whole, so that what is there is complete.
  with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
    np.save(file, np.concatenate(arrays))
  os.replace(file.name, path)
  return TokenStream(os.fspath(path))


@functools.cache
def load(path: str) -> vocabulary_lib.Vocabulary:
  """Return the vocabulary of a file or folder, read once a process."""
  found = vocabulary_lib.load_vocabulary(path)
  if found is None:
    raise ValueError(f'{path} has no tokenizer.')
  return found


@functools.cache
def _open(path: str) -> np.ndarray:
  return np.load(path, mmap_mode='r', allow_pickle=False)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
  """Group documents, about `_CHUNK` characters each."""
  chunk, size = [], 0
  for text in texts:
    chunk.append(text)
    size += len(text)
    if size >= _CHUNK:
      yield chunk
      chunk, size = [], 0
  if chunk:
    yield chunk


def _encode(vocabulary: str, texts: Sequence[str]) -> np.ndarray:
  """Return the ids of documents, EOS after each."""
  pieces = load(vocabulary)
  dtype = np.uint16 if pieces.vocab_size <= 2**16 else np.int32
  ids = [np.array([*pieces.encode(t), pieces.eos_id], dtype) for t in texts]
  return np.concatenate(ids)


def _hash(files: Sequence[str], vocabulary_hash: str) -> str:
  """Return what decides the ids, as 16 hexadecimal digits of a SHA-256."""
  digest = hashlib.sha256(f'{_VERSION} {vocabulary_hash}'.encode())
  for file in files:
    content = hashlib.sha256()
    with streams.open_stream(file) as stream:
      while block := stream.read(2**20):
        content.update(block)
    # The ending says whether rows or the file are documents.
    ending = os.path.splitext(streams.unpacked_name(file))[1]
    digest.update(f' {ending} {content.hexdigest()}'.encode())
  return digest.hexdigest()[:16]
