"""Perplexity: how well a text's next words are predicted from more and more.

Only the length of what stands before differs between sizes:

    document   ········|··· words before ···|target|············|target|····
    L          the words before, as many as fit in L tokens, EOS counted
    target     whole words of at most 128 tokens

A document has up to eight targets, evenly spread, and the same ones at every
size up to 16,384: each has that much text before it, even where less is read.
Larger sizes need as much as they ask for, and have targets of their own.
Documents that are too short are left out, and so is a place beside a word of
more than 64 tokens (a word is what white space separates). Prompt and target
are texts, so that every runner makes the same tokens of them; white space
belongs to the word after it. An encoder reads the prompt and the decoder the
target, as with a prefix language model (Raffel et al., arXiv 1910.10683).

Synopsis:

    task = get_task('perplexity_arxiv_4096')
    samples = task.samples(encode, data='pile/test.jsonl.zst', limit=100)
    next(samples).cluster        # 'test.jsonl.zst:17', the document
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import os
import re
import sysconfig
import zlib

import numpy as np

from t5_align.tasks.data import documents as documents_lib
from t5_align.tasks.data import sources, streams, tfds_text, windows
from t5_align.tasks.data.documents import Document
from t5_align.tasks.generators import task

TARGET_TOKENS = 128
TARGETS_PER_DOCUMENT = 8
# What stands before every target, also where less of it is read.
COMMON_CONTEXT_TOKENS = 16_384
# A prompt of 128 tokens has room for at least one word.
MAX_WORD_TOKENS = 64

_WORD = re.compile(r'\s*\S+')
# Longer words are tokenized in pieces, since time grows faster than length.
_PIECE_CHARACTERS = 4096


class NoDocumentError(ValueError):
  """Not one document is long enough."""


@dataclasses.dataclass(frozen=True)
class _Words:
  """A document's words."""

  starts: np.ndarray
  """First character of each, its white space; then the end of the last."""
  totals: np.ndarray
  """Tokens of the words before each; then of all. Nearly those of the text."""


def _read_words(text: str, count_tokens: Callable[[str], int]) -> _Words:
  """Return where the words of a text lie, in characters and in tokens."""
  found = ((w.end(), count_tokens(w[0])) for w in _WORD.finditer(text))
  pairs = np.fromiter(found, np.dtype((np.int64, 2)))
  pairs = np.concatenate([np.zeros((1, 2), np.int64), pairs])
  return _Words(pairs[:, 0], np.cumsum(pairs[:, 1]))


def _counter(encode: task.Encode) -> Callable[[str], int]:
  """Return a function that counts a word's tokens, and remembers short ones."""
  remembered = functools.lru_cache(1 << 17)(lambda word: len(encode(word)))

  def count_tokens(word: str) -> int:
    if len(word) <= MAX_WORD_TOKENS:
      return remembered(word)
    pieces = range(0, len(word), _PIECE_CHARACTERS)
    return sum(len(encode(word[i : i + _PIECE_CHARACTERS])) for i in pieces)

  return count_tokens


def _targets(words: _Words, context: int) -> Iterator[tuple[int, int]]:
  """Yield (first word, one past the last) of targets with `context` before."""
  totals = words.totals
  room = int(totals[-1]) - context
  count = min(TARGETS_PER_DOCUMENT, max(room, 0) // TARGET_TOKENS)
  wanted = [context + k * room // count for k in range(count)]
  firsts = [int(i) for i in np.searchsorted(totals, wanted)]
  for first, next_first in zip(firsts, [*firsts[1:], len(totals) - 1]):
    end = totals[first] + TARGET_TOKENS
    last = int(np.searchsorted(totals, end, side='right')) - 1
    last = min(last, next_first)
    around = np.diff(totals[first - 1 : last + 1])
    # Tokens of a word, none of them if the vocabulary has nothing for it.
    if len(around) > 1 and around.max() <= MAX_WORD_TOKENS and around[1:].any():
      yield first, last


def _prompt(
  words: _Words,
  first: int,
  size: int,
  render: Callable[[int], str],
  encode: task.Encode,
) -> str:
  """Return the longest prompt of at most `size` tokens.

  Args:
    words: of the document.
    first: the target's first word.
    size: tokens, EOS included.
    render: first word of the context to prompt.
    encode: text to ids, without EOS.

  Raises:
    ValueError: not one word fits.
  """
  totals = words.totals

  def count_tokens(start: int) -> int:
    return len(encode(render(start))) + 1

  # Sums over words may be off by some tokens, and know nothing of the wording
  # around them; what the whole prompt has corrects them.
  excess, start = 1, first
  for _ in range(8):
    start = int(np.searchsorted(totals, totals[first] - (size - excess)))
    start = min(start, first)
    measured = count_tokens(start) - int(totals[first] - totals[start])
    if measured == excess:
      break
    excess = measured
  while start < first and count_tokens(start) > size:
    start += 1
  if start == first:
    raise ValueError(
      f'{size} tokens are too few: not one word fits before a target. Wanted at'
      f' least {2 * MAX_WORD_TOKENS}.'
    )
  return render(start)


def read_samples(
  documents: Iterable[Document], request: task.Request
) -> Iterator[task.Sample]:
  """Yield the samples of documents, in order.

  Args:
    documents: read no further than needed.
    request: its size counts tokens of the prompt, EOS included.

  Raises:
    NoDocumentError: not one is long enough; says how long the longest is.
  """
  size, encode = request.numbers['tokens'], request.encode
  context = max(size, COMMON_CONTEXT_TOKENS)
  needed = context + TARGET_TOKENS
  count_tokens = _counter(encode)
  longest, count, has_samples = '', 0, False
  for document in documents:
    text = document.text
    count += 1
    if not has_samples and len(text) > len(longest):
      longest = text
    # A token has at least a byte, so most need not be tokenized to be skipped.
    if len(text) < needed and len(text.encode()) < needed:
      continue
    words = _read_words(text, count_tokens)
    for first, last in _targets(words, context):
      has_samples, longest = True, ''
      yield _sample(document, words, (first, last), request)
  if not has_samples:
    tokens = _read_words(longest, count_tokens).totals[-1]
    raise NoDocumentError(
      f'{request.name}: none of {count} documents is long enough: the longest'
      f' has {tokens} tokens of this vocabulary, wanted {needed} ({context}'
      f' before a target of {TARGET_TOKENS}). Give longer texts.'
    )


def _sample(
  document: Document,
  words: _Words,
  target: tuple[int, int],
  request: task.Request,
) -> task.Sample:
  """Return the sample of one target."""
  text, encode = document.text, request.encode
  first, last = target
  start, end = int(words.starts[first]), int(words.starts[last])
  while last > first + 1 and len(encode(text[start:end])) > TARGET_TOKENS:
    last -= 1
    end = int(words.starts[last])

  def render(word: int) -> str:
    context = text[int(words.starts[word]) : start]
    return request.template.prompt.format(context=context)

  return task.Sample(
    id=f'{request.name}-{document.name}-{start}',
    prompt=_prompt(words, first, request.numbers['tokens'], render, encode),
    target=text[start:end],
    answers=(text[start:end],),
    depth=None,
    cluster=document.name,
  )


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
  'dev' and the others into 'test'.
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
    scored=True,
  )


PG19 = 'pg19/0.1.1'
_BOOKS = sources.DataSource(
  name='PG-19',
  licence='Apache-2.0; the books are in the public domain',
  files=('test.jsonl', 'test.parquet'),
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
    "Any text files; without data, Python's own library.",
    _read_files,
    data_splits=('dev', 'test'),
  ),
)
