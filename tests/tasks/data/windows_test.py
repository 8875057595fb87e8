"""Windows in texts: disjoint, exact, whole documents first, spread evenly."""

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from t5_align.tasks.data import documents as documents_lib
from t5_align.tasks.data import windows


def encode(text):
  """Digits and letters have an id, everything else is lost."""
  return [ord(c) for c in text if c.isalnum() or c == '\n']


def read(*collections, max_tokens=10**6):
  return windows.read_tokens(collections, encode, max_tokens)


def lay_out(lengths):
  """Documents of these lengths, a token between any two."""
  ends = np.cumsum(np.asarray(lengths) + 1) - 1
  return [(int(e) - n, int(e)) for n, e in zip(lengths, ends, strict=True)]


@hypothesis.given(strategies.integers(0, 300))
def test_spread_is_a_permutation_whose_beginnings_lie_evenly(count):
  order = list(windows.spread(count))
  assert sorted(order) == list(range(count))
  for k in (2, 4, 8, 16):
    if count >= k:
      inner = np.diff([*sorted(order[:k]), count])
      assert count / k - 1 < inner.min() <= inner.max() < count / k + 1


@hypothesis.given(
  lengths=strategies.lists(strategies.integers(1, 60), max_size=12),
  size=strategies.integers(1, 30),
  follow=strategies.integers(0, 5),
  count=strategies.integers(1, 30),
  min_count=strategies.integers(1, 4),
)
def test_windows_are_disjoint_and_inside(
  lengths, size, follow, count, min_count
):
  documents = lay_out(lengths)
  found = windows.starts(
    documents, size, follow=follow, count=count, min_count=min_count
  )
  total = documents[-1][1] if documents else 0
  assert len(found) <= count
  assert all(0 <= s and s + size + follow <= total for s in found)
  assert (np.diff(sorted(found)) >= size).all()
  # Where text suffices for the least number, that many are found.
  possible = max(total - follow, 0) // size
  assert len(found) >= min(count, min_count, possible)


@hypothesis.given(
  lengths=strategies.lists(strategies.integers(1, 60), min_size=1, max_size=12),
  size=strategies.integers(1, 30),
  follow=strategies.integers(0, 5),
)
def test_windows_of_one_document_come_first(lengths, size, follow):
  documents = lay_out(lengths)
  found = windows.starts(documents, size, follow=follow, count=1000)
  inside = [
    any(a <= s and s + size + follow <= b for a, b in documents) for s in found
  ]
  assert inside == sorted(inside, reverse=True)
  possible = sum(max(n - follow, 0) // size for n in lengths)
  assert sum(inside) >= possible


def test_drawing_of_the_docstring():
  documents = lay_out([7, 1, 2, 4])
  assert windows.starts(documents, 3, count=9) == [0, 3, 13, 8]


def test_few_windows_lie_over_all_of_the_text():
  found = windows.starts([(0, 64_000)], 10, count=4)
  assert sorted(found) == [0, 16_000, 32_000, 48_000]


def test_documents_are_joined_by_newlines_and_empty_ones_left_out():
  text = read(['ab', '!', 'c'], ['', 'def'])
  assert text.ids.tolist() == [ord(c) for c in 'ab\nc\ndef']
  assert text.ids.dtype == np.int32
  assert text.documents == ((0, 2), (3, 4), (5, 8))
  assert not text.in_part


def test_nothing_to_read():
  text = read(['...'], [])
  assert text.ids.size == 0
  assert text.documents == ()
  assert windows.starts(text.documents, 2, count=3, min_count=2) == []


def test_stops_reading_when_it_has_enough():
  def endless():
    while True:
      yield 'abcdefgh'

  text = read(endless(), max_tokens=20)
  assert [b - a for a, b in text.documents] == [8, 8, 4]
  assert text.in_part


def test_files_share_what_is_read(monkeypatch):
  monkeypatch.setattr(windows, 'MIN_SHARE_TOKENS', 1)
  text = read(['a' * 99], ['b'], ['c' * 99], ['d' * 99], max_tokens=40)
  found = bytes(text.ids.tolist()).decode()
  assert {c: found.count(c) for c in 'abcd'} == {'a': 10, 'b': 1, 'c': 10} | {
    'd': 19
  }
  assert sorted(found.replace('\n', '')) == list(found.replace('\n', ''))


def test_many_files_give_a_least_share_each(monkeypatch):
  monkeypatch.setattr(windows, 'MIN_SHARE_TOKENS', 10)
  text = read(*(['x' * 99] for _ in range(100)), max_tokens=25)
  assert [b - a for a, b in text.documents] in ([10, 10, 5], [10, 5, 10])
  assert text.in_part


@pytest.mark.parametrize('max_tokens, in_part', [(7, True), (8, False)])
def test_knows_whether_something_is_left(max_tokens, in_part):
  assert read(['abcd', 'efgh', '...'], max_tokens=max_tokens).in_part == in_part


def test_long_texts_are_tokenized_in_pieces(monkeypatch):
  monkeypatch.setattr(documents_lib, 'DOCUMENT_BYTES', 3)
  text = read(['abcdefgh'])
  assert [b - a for a, b in text.documents] == [3, 3, 2]
