"""Pretraining objectives: a window of text becomes inputs and targets.

With a window `a b c d e f g h` and sentinels X, Y:

  span corruption   inputs a b X e f Y      targets X c d Y g h
  prefix LM         inputs a b c            targets d e f g
  language model    inputs                  targets a b c d e f g h

Span corruption is T5's (Raffel et al. 2020, section 3.1.4): a share of the
tokens is masked, in spans of a mean length, and any window of so many tokens
gives inputs and targets of the same lengths. Targets end with the last span,
as those of T5's code do; the paper draws one more sentinel. The prefix LM is
that of the LM-adapted models (Lester, Al-Rfou and Constant 2021).

Synopsis:

    objective = SpanCorruption(input_tokens=512)
    objective.window_tokens                               # 568
    inputs, targets = objective(ids, rng, sentinels)      # without EOS
    # sentinels: ids of <extra_id_0>, <extra_id_1>, …
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Objective(Protocol):
  """What becomes of a window of text."""

  name: ClassVar[str]
  """In logs and settings."""
  ends: ClassVar[bool]
  """Whether EOS ends its targets; where text goes on, it would be a lie."""

  @property
  def window_tokens(self) -> int:
    """Tokens of a window."""
    ...

  @property
  def longest(self) -> tuple[int, int]:
    """Tokens of inputs and of targets at most, without EOS."""
    ...

  def __call__(
    self, ids: np.ndarray, rng: np.random.Generator, sentinels: Sequence[int]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets, without EOS.

    Args:
      ids: a window, [window_tokens].
      rng: what is random is drawn from it.
      sentinels: ids of <extra_id_0>, <extra_id_1>, …
    """
    ...


@dataclasses.dataclass(frozen=True)
class SpanCorruption:
  """T5's objective: write the spans that sentinels stand for.

  Attributes:
    input_tokens: of an input at most, EOS included.
    noise_density: share of the tokens that is masked.
    mean_span_tokens: mean length of a span.
  """

  name: ClassVar[str] = 'span_corruption'
  ends: ClassVar[bool] = True

  input_tokens: int = 512
  noise_density: float = 0.15
  mean_span_tokens: float = 3.0

  def __post_init__(self):
    if self.input_tokens < 4:
      raise ValueError(
        f'input_tokens is {self.input_tokens}, wanted 4 or more.'
      )
    if not 0 < self.noise_density < 1:
      raise ValueError(
        f'noise_density is {self.noise_density}, wanted between 0 and 1.'
      )
    if self.mean_span_tokens < 1:
      raise ValueError(
        f'mean_span_tokens is {self.mean_span_tokens}, wanted at least 1.'
      )

  @functools.cached_property
  def window_tokens(self) -> int:
    """The most tokens whose inputs have at most `input_tokens`."""
    window = self.input_tokens // 2
    while self._lengths(window + 1)[0] <= self.input_tokens:
      window += 1
    return window

  @property
  def longest(self) -> tuple[int, int]:
    inputs, targets = self._lengths(self.window_tokens)
    return inputs - 1, targets - 1

  def _counts(self, window: int) -> tuple[int, int]:
    """Return how many tokens are masked, and in how many spans."""
    num_noise = min(max(round(window * self.noise_density), 1), window - 1)
    num_spans = max(round(num_noise / self.mean_span_tokens), 1)
    return num_noise, min(num_spans, window - num_noise)

  def _lengths(self, window: int) -> tuple[int, int]:
    """Return tokens of inputs and of targets, with sentinels and EOS."""
    num_noise, num_spans = self._counts(window)
    return window - num_noise + num_spans + 1, num_noise + num_spans + 1

  def __call__(
    self, ids: np.ndarray, rng: np.random.Generator, sentinels: Sequence[int]
  ) -> tuple[np.ndarray, np.ndarray]:
    num_noise, num_spans = self._counts(len(ids))
    if num_spans > len(sentinels):
      raise ValueError(
        f'{num_spans} spans of {len(ids)} tokens need as many sentinels; the'
        f' vocabulary has {len(sentinels)}. Shorten input_tokens.'
      )
    kept = _segment(len(ids) - num_noise, num_spans, rng)
    noise = _segment(num_noise, num_spans, rng)
    # Where each kept part begins, where its masked part does, and the end.
    borders = np.cumsum(np.stack([kept, noise], axis=1).ravel())
    starts = np.concatenate([[0], borders[1:-1:2]])
    ids = np.asarray(ids)
    marks = np.asarray(sentinels[:num_spans], ids.dtype)[:, None]
    inputs, targets = [], []
    for i, mark in enumerate(marks):
      inputs += [ids[starts[i] : borders[2 * i]], mark]
      targets += [mark, ids[borders[2 * i] : borders[2 * i + 1]]]
    return np.concatenate(inputs), np.concatenate(targets)


@dataclasses.dataclass(frozen=True)
class PrefixLM:
  """Go on with a text after a context of random length.

  Attributes:
    shortest_context_tokens: of the context, without EOS.
    longest_context_tokens: lengths are uniform in between.
    target_tokens: of every target; no EOS ends it, since the text goes on.
  """

  name: ClassVar[str] = 'prefix_lm'
  ends: ClassVar[bool] = False

  shortest_context_tokens: int = 16
  longest_context_tokens: int = 511
  target_tokens: int = 128

  def __post_init__(self):
    if not 0 <= self.shortest_context_tokens <= self.longest_context_tokens:
      raise ValueError(
        f'A context of {self.shortest_context_tokens} to'
        f' {self.longest_context_tokens} tokens; wanted 0 or more, ascending.'
      )
    _check_positive('target_tokens', self.target_tokens)

  @property
  def window_tokens(self) -> int:
    return self.longest_context_tokens + self.target_tokens

  @property
  def longest(self) -> tuple[int, int]:
    return self.longest_context_tokens, self.target_tokens

  def __call__(
    self, ids: np.ndarray, rng: np.random.Generator, sentinels: Sequence[int]
  ) -> tuple[np.ndarray, np.ndarray]:
    del sentinels
    split = int(
      rng.integers(
        self.shortest_context_tokens, self.longest_context_tokens + 1
      )
    )
    return ids[:split], ids[split : split + self.target_tokens]


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """Write a window of text from nothing.

  Attributes:
    target_tokens: of a window; a decoder-only model's whole row.
  """

  name: ClassVar[str] = 'language_model'
  ends: ClassVar[bool] = False

  target_tokens: int = 512

  def __post_init__(self):
    _check_positive('target_tokens', self.target_tokens)

  @property
  def window_tokens(self) -> int:
    return self.target_tokens

  @property
  def longest(self) -> tuple[int, int]:
    return 0, self.target_tokens

  def __call__(
    self, ids: np.ndarray, rng: np.random.Generator, sentinels: Sequence[int]
  ) -> tuple[np.ndarray, np.ndarray]:
    del rng, sentinels
    return ids[:0], ids


def _segment(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
  """Return the lengths of `parts` parts, each of at least 1, any as likely."""
  cuts = np.sort(rng.permutation(total - 1)[: parts - 1]) + 1
  return np.diff(np.concatenate([[0], cuts, [total]]))


def _check_positive(field: str, value: int) -> None:
  if value < 1:
    raise ValueError(f'{field} is {value}, wanted at least 1.')
