"""A training mixture as seqio tasks, for T5X's train.

Each task of the mixture becomes a seqio task, and all of them a seqio mixture
with the same rates. Examples are those that our own trainer draws, as token
ids with their EOS; batches, packing and the shift are T5X's.

  split       text is drawn from           example i depends on
  train       train.jsonl, or all of it    (seed, i)
  validation  dev.jsonl, where there is    (seed, i), another stream
              one; generated tasks too

T5X weighs every target token alike, so a task's weight is its rate alone.

Synopsis:

    name = register('model', Mixture((TextTask(SpanCorruption(512)),)),
                    data='corpus', cache_dir='/tmp/tokens')
    seqio.get_mixture_or_task(name).get_dataset(lengths, split='train')
"""

import contextlib
import hashlib
import json
import os
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from t5_align.tasks.pretraining import token_stream
from t5_align.tasks.pretraining.mixture import (
  Examples,
  Mixture,
  RetrievalTask,
  TextTask,
)
from t5_align.tasks.pretraining.token_stream import TokenStream

_SPLITS = ('train', 'validation')
# Feature -> what T5X's models call it is seqio's business.
_FEATURES = ('inputs', 'targets')


def seqio_vocabulary(path: str | os.PathLike) -> seqio.Vocabulary:
  """Return the vocabulary of a file or folder, for a gin file's VOCABULARY."""
  return token_stream.load(os.fspath(path)).to_seqio()


def register(
  vocabulary: str | os.PathLike,
  mixture: Mixture,
  data: str | os.PathLike | list[str] | None = None,
  cache_dir: str | os.PathLike = 't5_align_tokens',
  decoder_only: bool = False,
  input_tokens: int = 512,
  target_tokens: int = 512,
  seed: int = 0,
  num_examples: int = 2**20,
  num_validation_examples: int = 2**12,
) -> str:
  """Register a mixture and its tasks; asking again does nothing.

  Args:
    vocabulary: file or folder of the model's vocabulary.
    mixture: what to train on; every loss weight is 1.
    data: text of the tasks that name none: file, folder or pattern, or several.
    cache_dir: where tokenized text is kept.
    decoder_only: for a model without an encoder.
    input_tokens: of an encoder's input at most.
    target_tokens: of a target at most, or of a decoder-only model's row.
    seed: of the examples.
    num_examples: of each task, in 'train'; T5X begins again after them.
    num_validation_examples: of each task, in 'validation'.

  Returns:
    The mixture's name; those of its tasks are this and theirs.

  Raises:
    ValueError: a loss weight other than 1, or a text task without text.
    FileNotFoundError: text or vocabulary isn't there.
  """
  _check_weights(mixture)
  # TensorFlow only reads data here, and would take all of a GPU's memory. It
  # refuses once it runs; then whoever started it has decided.
  with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], 'GPU')
  vocabulary = os.path.abspath(vocabulary)
  options = (decoder_only, input_tokens, target_tokens)
  counts = {'train': num_examples, 'validation': num_validation_examples}
  found: dict[str, dict[str, Examples]] = {}
  for task_name, task in zip(mixture.names, mixture.tasks, strict=True):
    streams = _streams(task_name, task, data, vocabulary, cache_dir)
    found[task_name] = {
      split: Examples(Mixture((task,)), (stream,), vocabulary, *options)
      for split, stream in streams.items()
    }
  decided = [
    mixture.describe(),
    [[_decided(e) for e in splits.values()] for splits in found.values()],
    [seed, counts, *options, token_stream.load(vocabulary).hash],
  ]
  digest = hashlib.sha256(json.dumps(decided, sort_keys=True).encode())
  name = f't5_align_mixture_{digest.hexdigest()[:8]}'
  if name in seqio.MixtureRegistry.names():
    return name
  pieces = seqio_vocabulary(vocabulary)
  rates = []
  for (task_name, splits), task in zip(
    found.items(), mixture.tasks, strict=True
  ):
    whole = f'{name}_{task_name}'
    seqio.TaskRegistry.add(
      whole,
      source=_source(splits, counts, seed),
      # EOS is where the examples have it.
      output_features={
        feature: seqio.Feature(pieces, add_eos=False) for feature in _FEATURES
      },
      preprocessors=[],
      metric_fns=[],
    )
    rates.append((whole, task.rate))
  seqio.MixtureRegistry.add(name, rates)
  return name


def _check_weights(mixture: Mixture) -> None:
  """Raise ValueError where our trainer would weigh tokens and T5X doesn't."""
  for name, task in zip(mixture.names, mixture.tasks, strict=True):
    if task.loss_weight != 1:
      raise ValueError(
        f'{name} has loss_weight={task.loss_weight}; T5X weighs every target'
        ' token alike: leave it at 1 and change its rate.'
      )


def _streams(
  name: str,
  task: TextTask | RetrievalTask,
  data: Any,
  vocabulary: str,
  cache_dir: str | os.PathLike,
) -> dict[str, TokenStream | None]:
  """Return the text of each split that a task has."""
  if isinstance(task, RetrievalTask):
    return dict.fromkeys(_SPLITS)
  place = data if task.data is None else task.data
  if place is None:
    raise ValueError(f'{name} has no text: set its data, or data for all.')
  files = {
    'train': token_stream.training_files(place),
    'validation': token_stream.held_out_files(place),
  }
  return {
    split: token_stream.tokenize(some, vocabulary, cache_dir)
    for split, some in files.items()
    if some
  }


def _decided(examples: Examples) -> Any:
  """Return what decides the text of some examples, wherever it is kept."""
  return [
    stream and os.path.basename(stream.path) for stream in examples.streams
  ]


def _source(
  splits: dict[str, Examples], counts: dict[str, int], seed: int
) -> Any:  # seqio's own sources don't fit its type of a source
  """Return a task's examples as a seqio source."""

  def examples(split: str):
    for i in range(counts[split]):
      rng = np.random.default_rng([seed, _SPLITS.index(split), i])
      example = splits[split](rng)
      yield dict(zip(_FEATURES, (example.inputs, example.targets)))

  def dataset(split: str, shuffle_files: bool = False, seed=None):
    del shuffle_files, seed  # examples are random as they are
    ids = tf.TensorSpec([None], tf.int32)
    return tf.data.Dataset.from_generator(
      lambda: examples(split), output_signature=dict.fromkeys(_FEATURES, ids)
    )

  return seqio.FunctionDataSource(
    dataset,
    splits=tuple(splits),
    num_input_examples={split: counts[split] for split in splits},
    caching_permitted=False,
  )
