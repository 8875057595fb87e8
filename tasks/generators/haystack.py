"""A needle at a depth in a haystack of an exact size.

The haystack is as many units (sentences, lines) as fit:

  n = max { n : tokens(prompt with n units) <= size },   EOS counted

SentencePiece tokens do not cross words, so the tokens of a prompt are nearly
the sum over its words: nearly, because equal-score splits fall differently in
long texts. So n is found from sums and then checked on the whole prompt.

Synopsis:

    encode = by_words(vocabulary.encode)          # the same ids, sooner
    prompt, depth = bury(needle, units, size, encode, separator, render, depth)
"""

import bisect
from collections.abc import Callable, Iterator
import functools
import itertools
import re

Encode = Callable[[str], list[int]]

# A word with the white space before it, or white space at the end.
_WORDS = re.compile(r'\s*\S+|\s+$')
_PROBE = 'The pass key is 48213.\nWhy, said (the) old fox: "none"? line a: 7'


def by_words(encode: Encode, cache_size: int = 1 << 17) -> Encode:
  """Return `encode` with each word's ids remembered.

  Worth it where millions of short texts of few distinct words are encoded. In
  texts of thousands of tokens a word with two equally good splits may come out
  differently. A vocabulary whose tokens cross words is returned as it is.
  """

  @functools.lru_cache(cache_size)
  def encode_word(word: str) -> tuple[int, ...]:
    return tuple(encode(word))

  def encode_text(text: str) -> list[int]:
    ids: list[int] = []
    for word in _WORDS.findall(text):
      ids.extend(encode_word(word))
    return ids

  return encode_text if encode_text(_PROBE) == encode(_PROBE) else encode


def bury(
  needle: str,
  units: Iterator[str],
  size: int,
  encode: Encode,
  separator: str,
  render: Callable[[str], str],
  depth: float,
) -> tuple[str, float]:
  """Return the largest prompt of at most `size` tokens, and its depth.

  Args:
    needle: the text to hide.
    units: the haystack, as much as is wanted of it.
    size: tokens of the prompt, EOS included.
    encode: text to ids, without EOS.
    separator: between units.
    render: context to prompt.
    depth: share of the units before the needle, 0 to 1.

  Raises:
    ValueError: the needle alone does not fit, or the units do not suffice.
  """

  def count_tokens(context: list[str]) -> int:
    return len(encode(render(separator.join(context)))) + 1

  taken: list[str] = []
  totals = [count_tokens([needle])]  # totals[n]: tokens with n units, by sums
  if totals[0] > size:
    raise ValueError(
      f'{size} tokens are too few: the question and its needle alone take'
      f' {totals[0]} tokens of this vocabulary, the smallest possible size.'
    )
  # Sums may be off by some tokens; a few rounds correct them by what the whole
  # prompt has.
  error = 0
  for _ in range(8):
    # No unit is shorter than a token, which bounds what can be needed.
    for unit in itertools.islice(units, max(size - len(taken), 0)):
      taken.append(unit)
      totals.append(totals[-1] + max(len(encode(separator + unit)), 1))
      if totals[-1] + error > size:
        break
    count = max(bisect.bisect_right(totals, size - error) - 1, 0)
    measured = count_tokens([needle, *taken[:count]]) - totals[count]
    if measured == error:
      break
    error = measured
  while count and count_tokens([needle, *taken[:count]]) > size:
    count -= 1
  if count == len(taken):  # one more than fits was asked for, and not given
    raise ValueError(
      f'{size} tokens are too many: {count} distinct units are all there'
      f' are, {totals[-1] + error} tokens.'
    )
  slot = round(depth * count)
  context = [*taken[:slot], needle, *taken[slot:count]]
  return render(separator.join(context)), slot / count if count else depth
