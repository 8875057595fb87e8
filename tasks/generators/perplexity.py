"""Perplexity: how well a text's next words are predicted from more and more.

Of each document up to four targets are scored, the same ones at every size:
see `continuations`. An encoder reads the text before a target and the decoder
the target, as with a prefix language model (Raffel et al., arXiv 1910.10683).

  perplexity_arxiv, perplexity_github, perplexity_openwebtext2
      subsets of the Pile (Gao et al., arXiv 2101.00027): JSONL or Parquet with
      `text` and `meta.pile_set_name`, or files of the one subset without it
  perplexity_pg19
      books (Rae et al., arXiv 1911.05507), as TFDS prepared them or as files
  perplexity_files
      any text files; without data, Python's own library

Synopsis:

    task = get_task('perplexity_arxiv_4096')
    samples = task.samples(encode, data='pile/test.jsonl.zst', limit=100)
    next(samples).cluster        # 'test.jsonl.zst:17', the document
"""

from collections.abc import Callable, Iterator
import os
import sysconfig
import zlib

from t5_align.tasks.data import documents as documents_lib
from t5_align.tasks.data import sources, streams, tfds_text, windows
from t5_align.tasks.data.documents import Document
from t5_align.tasks.generators import task
from t5_align.tasks.generators.continuations import (
  NoDocumentError,
  read_samples,
)

# A stream of documents may have no end.
DEFAULT_NUM_SAMPLES = 200


def _named_within(files: list[str]) -> Iterator[Document]:
  """Yield the documents of files in spread order, named within their folder."""
  folder = os.path.dirname(os.path.commonprefix(files))
  for i in windows.spread(len(files)):
    for document in documents_lib.read_named(files[i]):
      name = document.name.removeprefix(folder).lstrip('/')
      yield document._replace(name=name)


def _find_files(source: sources.DataSource, data: str | None) -> list[str]:
  """Return the published file, or whatever texts the user names."""
  path = None if data is None else os.path.expanduser(data)
  is_folder = path is not None and streams.is_folder(path)
  if path and not is_folder and not path.startswith(sources.HUB):
    return documents_lib.find_files([path])
  try:
    return [sources.find(source, {}, path)]
  except sources.DataMissingError:
    if path and is_folder:
      return documents_lib.find_files([path])
    raise


def _of_pile(name: str, subset: str, description: str) -> task.Family:
  """Return the family of a subset of the Pile."""
  source = sources.DataSource(
    name='The Pile',
    licence='of each text; the collection MIT',
    files=('test.jsonl',),
    get=(
      'hf download EleutherAI/pile_val_test test.jsonl --repo-type dataset'
      ' --local-dir FOLDER'
    ),
  )

  def read(request: task.Request) -> Iterator[task.Sample]:
    others: set[str] = set()

    def of_subset() -> Iterator[Document]:
      # A file of one subset alone need not say so.
      for document in _named_within(_find_files(source, request.data)):
        if document.subset in (subset, None):
          yield document
        else:
          others.add(document.subset)

    try:
      yield from read_samples(of_subset(), request)
    except NoDocumentError as error:
      has = ', '.join(sorted(others))
      hint = f' Of {subset}; other subsets there: {has}.' if others else ''
      raise NoDocumentError(f'{error}{hint}') from None

  return _family(f'perplexity_{name}', description, read, source)


def _read_books(request: task.Request) -> Iterator[task.Sample]:
  """Yield the samples of PG-19, from text files or as TFDS prepared it."""
  data = request.data
  folder = data and os.path.expanduser(data)
  if folder is None or tfds_text.is_prepared(PG19, folder):
    documents = tfds_text.read_texts(PG19, 'book_text', request.split, folder)
  else:
    documents = _named_within(_find_files(_BOOKS, data))
  yield from read_samples(documents, request)


def _library_files(split: str) -> list[str]:
  """Return the Python files of the running Python's own library.

  Its tests are left out, which many systems don't install, and so is what says
  how this Python was built. A hash of its path puts a quarter of the files into
  'dev' and the others into 'test'. Another version of Python has other texts.
  """
  library = sysconfig.get_path('stdlib')
  left_out = ('site-packages', 'dist-packages', 'test', 'tests', 'idle_test')
  files = []
  for folder, inner, names in os.walk(library):
    inner[:] = [name for name in inner if name not in left_out]
    files += [
      os.path.join(folder, name)
      for name in names
      if name.endswith('.py') and not name.startswith('_sysconfigdata')
    ]
  inside = {
    file: os.path.relpath(file, library).replace(os.sep, '/') for file in files
  }
  is_dev = split == 'dev'
  return sorted(
    file
    for file, name in inside.items()
    if (zlib.crc32(name.encode()) % 4 == 0) == is_dev and os.path.getsize(file)
  )


def _read_files(request: task.Request) -> Iterator[task.Sample]:
  """Yield the samples of the user's texts, or of Python's library."""
  if request.data is None:
    files = _library_files(request.split)
  elif request.split != 'test':
    raise ValueError(
      f"{request.name}: files have no split '{request.split}'; give those that"
      " are wanted, and split 'test'."
    )
  else:
    files = documents_lib.find_files([request.data])
  yield from read_samples(_named_within(files), request)


def _family(
  name: str,
  description: str,
  read: Callable[[task.Request], Iterator[task.Sample]],
  source: sources.DataSource | None = None,
  data_splits: tuple[str, ...] = ('test',),
) -> task.Family:
  """Return a family of all sizes."""
  return task.Family(
    name=name,
    version='1.0',
    description=description,
    forms=(f'{name}_{{tokens}}',),
    typical=tuple(f'{name}_{2**n}' for n in range(7, 15)),
    measures=(
      'perplexity',
      'nats_per_token',
      'bits_per_byte',
      'word_perplexity',
      'unknown_share',
    ),
    read=read,
    source=source,
    data_splits=data_splits,
    data_limit=DEFAULT_NUM_SAMPLES,
    scored=True,
  )


PG19 = 'pg19/0.1.1'
_BOOKS = sources.DataSource(
  name='PG-19',
  licence='Apache-2.0; the books are in the public domain',
  files=('test.jsonl', 'test.parquet'),
  tfds=PG19,
  get=(
    'tfds build pg19 --data_dir FOLDER, or hf download emozilla/pg19-test'
    ' --repo-type dataset --local-dir FOLDER'
  ),
)

FAMILIES = (
  _of_pile('arxiv', 'ArXiv', 'Papers in LaTeX, of the Pile.'),
  _of_pile('github', 'Github', 'Programs, of the Pile.'),
  _of_pile('openwebtext2', 'OpenWebText2', 'Web pages, of the Pile.'),
  _family('perplexity_pg19', 'Books from before 1919.', _read_books, _BOOKS),
  _family(
    'perplexity_files',
    'Any text files; without data, the library of the Python that runs.',
    _read_files,
    data_splits=('dev', 'test'),
  ),
)
