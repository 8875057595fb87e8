"""The vocabulary of a training run: a given one, or one trained on its data.

Synopsis:

    put('model', None, VocabularyTraining(keep_whitespace=True), 4096,
        mixture, training_files('corpus'))        # model/spiece.model, …
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import os
import pathlib

import numpy as np

from t5_align import vocabulary as vocabulary_lib
from t5_align.bundled import find_bundled
from t5_align.tasks.pretraining import token_stream
from t5_align.tasks.pretraining.mixture import Mixture

# No more of one document, so that there are many.
_DOCUMENT_CHARACTERS = 20_000


@dataclasses.dataclass(frozen=True)
class VocabularyTraining:
  """The text that a vocabulary is trained on, where none is given.

  Attributes:
    num_samples: generated samples of the mixture.
    num_characters: about so many of the mixture's text, of any documents.
    keep_whitespace: for source code: line breaks and runs of spaces are kept.
  """

  num_samples: int = 20_000
  num_characters: int = 4_000_000
  keep_whitespace: bool = False


def put(
  folder: pathlib.Path,
  given: str | os.PathLike | None,
  options: VocabularyTraining,
  vocab_size: int,
  mixture: Mixture,
  files: Sequence[str],
) -> None:
  """Write a vocabulary into a model's folder, unless it is there already.

  Args:
    folder: the model's; is there.
    given: file or folder of a vocabulary, or 'bundled'; None trains one.
    options: how.
    vocab_size: ids at most, sentinels included.
    mixture: whose generated text it is trained on.
    files: whose text it is trained on, too.

  Raises:
    FileNotFoundError: the given one isn't there.
    ValueError: it is none, it has more ids, or the folder has another one.
  """
  own = vocabulary_lib.load_vocabulary(folder)
  if given is not None:
    path = os.fspath(find_bundled(given))
    vocabulary = token_stream.load(path)
    if own is not None and own.hash != vocabulary.hash:
      raise ValueError(
        f'{folder} has another vocabulary than {path}; choose a new model_dir.'
      )
  elif own is not None:
    vocabulary = own
  else:
    texts = itertools.chain(
      mixture.texts(options.num_samples), _texts(files, options)
    )
    vocabulary = vocabulary_lib.SentencePieceVocabulary(
      vocabulary_lib.train_sentencepiece(
        texts, vocab_size, keep_whitespace=options.keep_whitespace
      )
    )
  if vocabulary.vocab_size > vocab_size:
    raise ValueError(
      f'the vocabulary has {vocabulary.vocab_size} pieces, the network has'
      f' vocab_size={vocab_size}; raise it or use a smaller vocabulary.'
    )
  if own is None:
    vocabulary.save(folder)


def _texts(files: Sequence[str], options: VocabularyTraining) -> Iterator[str]:
  """Yield documents in random order, by lines where these matter."""
  documents = [t[:_DOCUMENT_CHARACTERS] for t in token_stream.read_texts(files)]
  size = 0
  for i in np.random.default_rng(0).permutation(len(documents)):
    if size >= options.num_characters:
      return
    size += len(documents[i])
    if options.keep_whitespace:
      # A sentence of SentencePiece: longer ones take it a long time.
      yield from documents[i].splitlines(keepends=True)
    else:
      yield documents[i]
