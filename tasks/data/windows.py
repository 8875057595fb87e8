"""Where pieces of an exact number of tokens lie in texts.

A window lies within one document where there are such windows. Documents too
short for one are joined with a newline (·), each with the next, until they are
long enough; windows of these come after all others:

    documents   aaaaaaa  b  cc  dddd      windows of 3
    windows     aaa aaa  .  ..  ddd       then  b·c

Only the order matters to who takes a few: it is spread over all of the text.

Synopsis:

    tokens = read_tokens([read_documents(file)], vocabulary.encode, 4_000_000)
    for start in starts(tokens.documents, 512, follow=64, count=8):
      tokens.ids[start : start + 512]
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import itertools

import numpy as np

from t5_align.tasks.data import documents as documents_lib

Encode = Callable[[str], list[int]]
# (first token, one past the last)
Stretch = tuple[int, int]

# One of many files gives this much, if it has it, though others get none then.
MIN_SHARE_TOKENS = 2**18


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Documents in a row, a newline between any two."""

  ids: np.ndarray
  """All ids, int32."""
  documents: tuple[Stretch, ...]
  """Where each document lies, without the newline."""
  in_part: bool
  """Whether there was more text than was asked for."""


def read_tokens(
  collections: Sequence[Iterable[str]], encode: Encode, max_tokens: int
) -> Tokens:
  """Return the ids of documents, of each collection as far as there is room.

  Where not everything fits, a collection gives its beginning: an equal share of
  what is left when its turn comes, at least 262,144 tokens. The turns are
  spread evenly over the collections.

  Args:
    collections: the documents of each file, read no further than needed.
    encode: text to ids, without EOS.
    max_tokens: how many to return at most, newlines not counted.
  """
  taken: dict[int, list[np.ndarray]] = {}
  left, in_part = max_tokens, False
  for turn, index in enumerate(spread(len(collections))):
    if not left:
      in_part = True
      break
    share = max(left // (len(collections) - turn), MIN_SHARE_TOKENS)
    taken[index], is_cut = _take(collections[index], encode, min(share, left))
    left -= sum(map(len, taken[index]))
    in_part = in_part or is_cut
  newline = np.asarray(encode('\n'), np.int32)
  parts = [
    part
    for index in sorted(taken)
    for ids in taken[index]
    for part in (newline, ids)
  ][1:]
  ends = list(itertools.accumulate(map(len, parts)))[::2]
  return Tokens(
    np.concatenate([np.zeros(0, np.int32), *parts]),
    tuple(
      (end - len(ids), end) for ids, end in zip(parts[::2], ends, strict=True)
    ),
    in_part,
  )


def _take(
  documents: Iterable[str], encode: Encode, max_tokens: int
) -> tuple[list[np.ndarray], bool]:
  """Return the ids of the first documents, and whether there are more."""
  taken: list[np.ndarray] = []
  left = max_tokens
  size = documents_lib.DOCUMENT_BYTES
  for document in documents:
    # Pieces bound the memory that a long text takes while it is tokenized.
    for start in range(0, len(document), size):
      ids = np.asarray(encode(document[start : start + size]), np.int32)
      if len(ids) > left:
        return [*taken, ids[:left]] if left else taken, True
      if len(ids):
        taken.append(ids)
        left -= len(ids)
  return taken, False


def starts(
  documents: Sequence[Stretch],
  size: int,
  *,
  follow: int = 0,
  count: int,
  min_count: int = 1,
) -> list[int]:
  """Return where windows begin; no two overlap.

  Args:
    documents: where each one lies, in order.
    size: tokens of a window.
    follow: tokens that must follow it, which may be of the next window.
    count: how many to return at most.
    min_count: where there are fewer, all documents are joined.

  Returns:
    The first `count` in spread order: windows in documents, then in joined
    ones. Fewer if there are no more.
  """
  needed = size + follow
  groups = _whole_and_joined(documents, needed)
  offered = [_windows(group, size, needed) for group in groups]
  if sum(map(len, offered)) < min(min_count, count) and documents:
    everything = (documents[0][0], documents[-1][1])
    offered = [_windows([everything], size, needed)]
  in_order = (int(found[i]) for found in offered for i in spread(len(found)))
  return list(itertools.islice(in_order, count))


def _windows(
  stretches: Sequence[Stretch], size: int, needed: int
) -> np.ndarray:
  """Return where one window after the other begins, in each stretch."""
  found = [np.arange(a, b - needed + 1, size) for a, b in stretches]
  return np.concatenate([np.arange(0), *found])


def _whole_and_joined(
  documents: Sequence[Stretch], needed: int
) -> tuple[list[Stretch], list[Stretch]]:
  """Return the documents that are long enough, and the others joined so."""
  whole, joined = [], []
  first = None
  for start, end in documents:
    if end - start >= needed:
      whole.append((start, end))
      first = None
      continue
    first = start if first is None else first
    if end - first >= needed:
      joined.append((first, end))
      first = None
  return whole, joined


def spread(count: int) -> Iterator[int]:
  """Yield 0 … count-1, so that the first few of them, however many, lie evenly.

  They follow van der Corput's sequence, 1/2, 1/4, 3/4, 1/8, 5/8, … of the way:
  the index with its bits reversed. "Verteilungsfunktionen" (1935).
  """
  bits = max(count - 1, 1).bit_length()
  seen = set()
  for i in range(1 << bits if count else 0):
    place = int(f'{i:0{bits}b}'[::-1], 2) * count >> bits
    if place not in seen:
      seen.add(place)
      yield place
