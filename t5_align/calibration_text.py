"""Token sequences to measure attention on, of any length.

Two kinds of source, one method, `draw(length, count)`:

- texts, the user's files or strings, cut into windows of exactly `length`
  tokens; what follows a window is the target that a decoder reads;
- generated prompts of the task families, from a split that is not evaluated.

Attention is compared between lengths, so only the length should differ: windows
of the training length can be cut out of the very text that the long windows
cover, and generated prompts hide the same kind of needle at the same depths.

Synopsis:

    text = text_for(model.vocabulary, decoder_only=False, data='notes/')
    long = text.draw(4096, 8)
    short = text.draw(512, 64, within=(4096, 8))     # of the same text
    text.source, text.hash                           # for the record
"""

import abc
from collections.abc import Iterable, Sequence
import dataclasses
import hashlib
import json
import os
from typing import Any

from t5_align.tasks.data import documents as documents_lib
from t5_align.tasks.data import windows
from t5_align.tasks.generators import task as task_lib
from t5_align.vocabulary import Vocabulary

FAMILIES = ('passkey', 'line_retrieval')
# About 16 MB of English: read in seconds, and 244 windows of 16,384 tokens.
MAX_TOKENS = 4_000_000


@dataclasses.dataclass(frozen=True)
class Sequences:
  """Examples of one length."""

  inputs: tuple[tuple[int, ...], ...]
  """Token ids as the model reads them: an encoder's end in EOS."""
  targets: tuple[tuple[int, ...], ...]
  """What a decoder beside an encoder reads, EOS last; else empty ones."""
  strata: tuple[int, ...] | None = None
  """Kind of text of each sequence, where there are several in fixed shares."""


class CalibrationText(abc.ABC):
  """Where sequences come from.

  Attributes:
    source: what it is, for people.
    hash: SHA-256, in hex, of everything that decides the sequences.
  """

  source: str
  hash: str

  @abc.abstractmethod
  def draw(
    self, length: int, count: int, *, within: tuple[int, int] | None = None
  ) -> Sequences:
    """Return sequences, the same ones at every call.

    Args:
      length: tokens of an input, EOS included.
      count: how many to return at most.
      within: (length, count) of a draw of longer windows out of which these are
        cut, as many as they hold; generated prompts need no such text.

    Raises:
      ValueError: a length below 2, a count below 1, or too little text.
    """


class DocumentText(CalibrationText):
  """Windows of texts.

  Inputs never overlap, though a target may be how the next input begins. See
  `windows` for where they lie, and for what is read of more than `max_tokens`.
  """

  def __init__(
    self,
    collections: Sequence[Iterable[str]],
    name: str,
    vocabulary: Vocabulary,
    decoder_only: bool = False,
    target_tokens: int = 64,
    *,
    min_count: int = 2,
    max_tokens: int = MAX_TOKENS,
  ):
    """Tokenize the texts.

    Args:
      collections: the documents of each file.
      name: of all of it, for people.
      vocabulary: the model's.
      decoder_only: inputs then have no EOS, and targets are empty.
      target_tokens: of a target, EOS included.
      min_count: it is an error if fewer windows are asked for and found.
      max_tokens: how much text to use at most.

    Raises:
      ValueError: there is no text, or a wrong option.
    """
    for option, value in (
      ('target_tokens', target_tokens),
      ('min_count', min_count),
      ('max_tokens', max_tokens),
    ):
      if value < 1:
        raise ValueError(f'{option} is {value}; wanted a number from 1 up.')
    self._ending = () if decoder_only else (vocabulary.eos_id,)
    self._target = None if decoder_only else target_tokens - 1
    self._min_count = min_count
    self._text = windows.read_tokens(collections, vocabulary.encode, max_tokens)
    if not self._text.documents:
      raise ValueError(f'{name}: there is no text.')
    self.source = f'{name}: {len(self._text.ids)} tokens'
    if self._text.in_part:
      self.source += f', its beginning (no more than {max_tokens} are used)'
    self.hash = _hash(
      tokens=hashlib.sha256(self._text.ids.astype('<i4').tobytes()).hexdigest(),
      documents=self._text.documents,
      vocabulary=vocabulary.hash,
      target=self._target,
      min_count=min_count,
    )

  def draw(
    self, length: int, count: int, *, within: tuple[int, int] | None = None
  ) -> Sequences:
    around, num_regions = within or (length, count)
    _check(length, count)
    _check(around, num_regions)
    if around < length:
      raise ValueError(
        f'Windows of {length} tokens cannot be cut out of windows of {around}.'
      )
    num_ending, follow = len(self._ending), self._target or 0
    size, region = length - num_ending, around - num_ending
    regions = windows.starts(
      self._text.documents,
      region,
      follow=follow,
      count=num_regions,
      min_count=self._min_count,
    )
    wanted = min(self._min_count, num_regions)
    if len(regions) < wanted:
      target = f' and a target of {follow + num_ending}' if follow else ''
      raise ValueError(
        f'{self.source}; wanted {wanted * region + follow} (EOS not counted),'
        f' for {wanted} sequence{"s" if wanted > 1 else ""} of'
        f' {around}{target}. Give more text, or ask for a shorter length.'
      )
    # Every region gives one window before any gives two.
    starts = [
      start + i * size
      for i in windows.spread(region // size)
      for start in regions
    ][:count]
    return Sequences(
      inputs=tuple(self._cut(start, size) for start in starts),
      targets=tuple(self._cut(start + size, self._target) for start in starts),
    )

  def _cut(self, start: int, num_tokens: int | None) -> tuple[int, ...]:
    """Return a piece of the text with EOS; of None tokens, nothing."""
    if num_tokens is None:
      return ()
    piece = self._text.ids[start : start + num_tokens].tolist()
    return (*piece, *self._ending)


class FileText(DocumentText):
  """Windows of the user's files."""

  def __init__(
    self,
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    vocabulary: Vocabulary,
    decoder_only: bool = False,
    **options: Any,
  ):
    """Read files; see `documents` for which, and `DocumentText` for the rest.

    Args:
      paths: one or several files, folders and patterns.
      vocabulary: the model's.
      decoder_only: inputs then have no EOS, and targets are empty.
      **options: those of `DocumentText`.

    Raises:
      FileNotFoundError: nothing is at one of the paths.
      ValueError: a file that is no text, with file and byte or line; or there
        is no text at all.
    """
    if isinstance(paths, str | os.PathLike):
      paths = [paths]
    files = documents_lib.find_files(paths)
    name = ', '.join(str(path) for path in paths[:5])
    if len(paths) > 5:
      name += f' and {len(paths) - 5} more'
    super().__init__(
      [documents_lib.read_documents(file) for file in files],
      f'{name} ({len(files)} file{"s" if len(files) > 1 else ""})',
      vocabulary,
      decoder_only,
      **options,
    )


class PlainText(DocumentText):
  """Windows of strings."""

  def __init__(
    self,
    texts: Sequence[str],
    vocabulary: Vocabulary,
    decoder_only: bool = False,
    **options: Any,
  ):
    """Take the texts as documents; the options are those of `DocumentText`."""
    if isinstance(texts, str):
      raise TypeError('Wanted a list of strings, got one string.')
    name = f'{len(texts)} text{"s" if len(texts) != 1 else ""}'
    super().__init__([texts], name, vocabulary, decoder_only, **options)


class GeneratedText(CalibrationText):
  """Prompts of the task families in turn, in the first wording of each.

  A prompt is as long as its units allow, at most `length`. An encoder reads the
  prompt and its decoder the answer; a decoder alone reads both as one text.
  """

  def __init__(
    self,
    vocabulary: Vocabulary,
    decoder_only: bool = False,
    families: Sequence[str] = FAMILIES,
    split: str = 'dev',
    seed: int = 0,
  ):
    """Choose what is generated.

    Args:
      vocabulary: the model's.
      decoder_only: inputs are then prompt and answer, and targets are empty.
      families: their names.
      split: 'train', 'dev' or 'test'; never the one that is evaluated.
      seed: from 0 up.

    Raises:
      ValueError: an unknown family or split, or a wrong seed.
    """
    if not families:
      raise ValueError('There are no families to generate text of.')
    if split not in task_lib.SPLITS:
      raise ValueError(f"split is '{split}'; wanted one of {task_lib.SPLITS}.")
    if seed < 0:
      raise ValueError(f'seed is {seed}; wanted an integer from 0 up.')
    self._vocabulary = vocabulary
    self._decoder_only = decoder_only
    self._split = split
    self._seed = seed
    for family in families:
      task_lib.name_at(family, 1)  # raises unless it has tasks of any length
    self._families = tuple(families)
    self.source = f'generated {", ".join(families)}; split {split}, seed {seed}'
    definitions = [task_lib.get_family(family) for family in families]
    self.hash = _hash(
      families=[
        (f.name, f.version, f.template(None).hash) for f in definitions
      ],
      split=split,
      seed=seed,
      vocabulary=vocabulary.hash,
      decoder_only=decoder_only,
    )

  def draw(
    self, length: int, count: int, *, within: tuple[int, int] | None = None
  ) -> Sequences:
    del within  # what is generated is of one kind at every length
    _check(length, count)
    num = len(self._families)
    pairs = [
      self._pairs(family, length, len(range(i, count, num)))
      for i, family in enumerate(self._families)
    ]
    in_turn = [pairs[i % num][i // num] for i in range(count)]
    strata = tuple(i % num for i in range(count))
    if self._decoder_only:
      joined = tuple(prompt + answer for prompt, answer in in_turn)
      return Sequences(joined, ((),) * count, strata)
    eos = (self._vocabulary.eos_id,)
    return Sequences(
      tuple(prompt + eos for prompt, _ in in_turn),
      tuple(answer + eos for _, answer in in_turn),
      strata,
    )

  def _pairs(
    self, family: str, length: int, count: int
  ) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the ids of prompts and answers, without EOS."""
    encode = self._vocabulary.encode
    # A task's size counts EOS, which a decoder alone does not read; but it
    # reads the answer, whose room is known only when it has been drawn.
    size, excess = length + self._decoder_only, 0
    while True:
      size -= excess
      task = task_lib.get_task(task_lib.name_at(family, size))
      samples = list(
        task.samples(encode, seed=self._seed, limit=count, split=self._split)
      )
      pairs = [
        (tuple(encode(s.prompt)), tuple(encode(s.target))) for s in samples
      ]
      excess = max((len(p) + len(a) for p, a in pairs), default=0) - length
      if not self._decoder_only or excess <= 0:
        break
    text = ' '.join(f'{s.prompt} {s.target}' for s in samples)
    if lost := self._vocabulary.lost_characters(text):
      raise ValueError(
        f"{family}: the model's vocabulary has no"
        f' {" ".join(sorted(lost))}, of which this text is made. Calibrate on'
        ' files (data) that it can read.'
      )
    return pairs


def text_for(
  vocabulary: Vocabulary,
  decoder_only: bool,
  data: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
  split: str = 'dev',
  seed: int = 0,
) -> CalibrationText:
  """Return the source that a command's options ask for.

  Args:
    vocabulary: the model's.
    decoder_only: whether it has no encoder.
    data: files, folders and patterns; None for generated prompts.
    split: of generated prompts; never the one that is evaluated.
    seed: of generated prompts.
  """
  if data is None:
    return GeneratedText(vocabulary, decoder_only, split=split, seed=seed)
  return FileText(data, vocabulary, decoder_only)


def _check(length: int, count: int) -> None:
  """Raise unless sequences can be like that."""
  if length < 2:
    raise ValueError(f'length is {length}; wanted at least 2 tokens.')
  if count < 1:
    raise ValueError(f'count is {count}; wanted at least 1 sequence.')


def _hash(**content: Any) -> str:
  """Return the SHA-256 of JSON content."""
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
