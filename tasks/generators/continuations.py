"""Targets at fixed places of documents, after as much text as is asked for.

Only the length of what stands before differs between sizes:

    document   ········|··· words before ···|target|············|target|····
    L          the words before, as many as fit in L tokens, EOS counted
    target     whole words of at most 128 tokens

A document has up to four targets, evenly spread, and the same ones at every
size up to 16,384: each has that much text before it, even where less is read.
Larger sizes need as much as they ask for, and have targets of their own.
Documents that are too short are left out, and so is a place beside a word of
more than 64 tokens (a word is what white space separates). Prompt and target
are texts, so that every runner makes the same tokens of them; white space
belongs to the word after it.

Synopsis:

    for sample in read_samples(read_named('a.jsonl'), request):
      sample.prompt, sample.target     # the words before, and the next ones
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import re

import numpy as np

from t5_align.tasks.data.documents import Document
from t5_align.tasks.generators import task

TARGET_TOKENS = 128
# Few, so that small samples are of many documents: those decide the interval.
TARGETS_PER_DOCUMENT = 4
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
