"""The tasks as seqio tasks, for T5X and for seqio's own Evaluator.

A seqio task is tied to one vocabulary, and here the length of a prompt is
counted in that vocabulary, so tasks are registered on request:

  samples -> tokenize -> refuse what is too long -> append EOS

Registering again with the same arguments does nothing. With other arguments the
later ones win: the name now stands for the new task, and mixtures made before
keep the old one. A name that somebody else registered is never taken.

Synopsis:

    registered = register(load_vocabulary('flan-t5-base'), ['passkey_4096'])
    seqio.get_mixture_or_task('passkey_4096').get_dataset(lengths, split='test')
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import os
from typing import Any

import seqio
import tensorflow as tf

from t5_align import vocabulary as vocabulary_lib
from t5_align.tasks import metrics
from t5_align.tasks.generators import task as task_lib

# seqio's usual name of a split -> ours.
_SPLITS = {'train': 'train', 'validation': 'dev', 'test': 'test'}

# Task name -> the arguments it was registered with.
_registered: dict[str, tuple] = {}


def register(
  vocabulary: vocabulary_lib.Vocabulary | seqio.Vocabulary,
  names: Iterable[str] | None = None,
  *,
  seed: int = 0,
  num_samples: int = task_lib.DEFAULT_NUM_SAMPLES,
  template: str | os.PathLike | None = None,
  data: str | os.PathLike | None = None,
) -> list[str]:
  """Register tasks for one vocabulary.

  Args:
    vocabulary: the model's, ours or seqio's.
    names: tasks such as 'passkey_4096'; None: all families at typical sizes.
    seed: of the samples.
    num_samples: in each split, at most.
    template: name or file of a wording; None: the family's default.
    data: file or folder of published samples to read instead.

  Returns:
    The names, all of them registered now.

  Raises:
    ValueError: unknown task or template, or a name that is already taken.
  """
  # TensorFlow only reads data here, and would take all of a GPU's memory. It
  # refuses once it runs; then whoever started it has decided.
  with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], 'GPU')
  own = isinstance(vocabulary, vocabulary_lib.Vocabulary)
  theirs: seqio.Vocabulary = vocabulary.to_seqio() if own else vocabulary
  definitions = [
    task_lib.get_task(name)
    for name in (task_lib.list_tasks() if names is None else names)
  ]
  options: dict[str, Any] = {
    'seed': seed,
    'limit': num_samples,
    'template': template,
    'data': data,
  }
  arguments = (theirs, *options.values())
  taken = set(seqio.TaskRegistry.names())
  for definition in definitions:
    if definition.name in taken - _registered.keys():
      raise ValueError(
        f"seqio already has a task '{definition.name}' that t5_align did not"
        ' register; remove it from seqio.TaskRegistry first.'
      )
    # Asking for samples checks the options; none is made before the first is
    # taken.
    definition.samples(_encode(theirs), **options)
  for definition in definitions:
    name = definition.name
    if name in taken and _registered[name] == arguments:
      continue
    seqio.TaskRegistry.remove(name)
    _add(definition, theirs, options)
    _registered[name] = arguments
  return [definition.name for definition in definitions]


def _encode(vocabulary: seqio.Vocabulary) -> task_lib.Encode:
  """Return text to ids, as a list."""
  return lambda text: list(vocabulary.encode(text))


def _add(
  definition: task_lib.TaskDefinition,
  vocabulary: seqio.Vocabulary,
  options: dict[str, Any],
) -> None:
  """Add one task to seqio's registry."""
  feature = seqio.Feature(vocabulary=vocabulary, add_eos=True)
  seqio.TaskRegistry.add(
    definition.name,
    source=_source(definition, vocabulary, options),
    output_features={'inputs': feature, 'targets': feature},
    preprocessors=[
      seqio.preprocessors.tokenize,
      _refuse_too_long(definition.name),
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=postprocess,
    metric_fns=[mean_of(definition.metric)],
  )


def _source(
  definition: task_lib.TaskDefinition,
  vocabulary: seqio.Vocabulary,
  options: dict[str, Any],
) -> Any:  # seqio's own sources don't fit its type of a source
  """Returns the samples as a seqio source."""

  def examples(split: str):
    samples = definition.samples(
      _encode(vocabulary), split=_SPLITS[split], **options
    )
    for sample in samples:
      yield {
        'id': sample.id,
        'inputs': sample.prompt,
        'targets': sample.target,
        'answers': list(sample.answers),
      }

  def dataset(split: str, shuffle_files: bool = False, seed=None):
    del shuffle_files, seed  # samples are drawn in random order as it is
    text = tf.TensorSpec([], tf.string)
    return tf.data.Dataset.from_generator(
      lambda: examples(split),
      output_signature={
        'id': text,
        'inputs': text,
        'targets': text,
        'answers': tf.TensorSpec([None], tf.string),
      },
    )

  # Published files hold one set of samples, whatever the split is called.
  splits = _SPLITS if options['data'] is None else ('test',)
  return seqio.FunctionDataSource(
    dataset, splits=tuple(splits), caching_permitted=False
  )


def _refuse_too_long(name: str) -> Callable:
  """Return a preprocessor that raises where seqio would cut in silence."""

  def refuse_too_long(dataset, sequence_length=None):
    def check(example):
      for feature in ('inputs', 'targets'):
        limit = (sequence_length or {}).get(feature)
        if limit is None:
          continue
        tokens = tf.size(example[feature]) + 1  # with EOS
        tf.debugging.assert_less_equal(
          tokens,
          limit,
          f'{name}: {feature} are longer than TASK_FEATURE_LENGTHS allows;'
          f" set its '{feature}' above {limit}, or take a smaller task.",
        )
      return example

    return dataset.map(check, num_parallel_calls=tf.data.AUTOTUNE)

  return refuse_too_long


def postprocess(
  text: str, example: Mapping | None = None, is_target: bool = False
) -> str | tuple[str, ...]:
  """Return the answers of a target, or a prediction without unknown marks."""
  if is_target:
    return tuple(
      answer.decode() if isinstance(answer, bytes) else str(answer)
      for answer in (example or {})['answers']
    )
  # What SentencePiece writes for an unknown token, which our own decoding
  # leaves out; the second is what is left of it where a text was stripped.
  return text.replace(' ⁇ ', '').replace('⁇', '')


def mean_of(metric: str) -> Callable[..., dict[str, float]]:
  """Return seqio's metric function of one of `metrics`.

  It gives the mean as the metric's name, and beside it `stderr` and the ends of
  the 95 % interval.
  """
  score = getattr(metrics, metric)

  def mean(
    targets: Sequence[tuple[str, ...]], predictions: Sequence[str]
  ) -> dict[str, float]:
    scores = [
      score(prediction, answers[0])
      for answers, prediction in zip(targets, predictions, strict=True)
    ]
    rate = metrics.rate_interval(sum(scores), len(scores))
    values = {
      metric: rate.value,
      f'{metric}_ci95_low': rate.ci95[0],
      f'{metric}_ci95_high': rate.ci95[1],
    }
    if rate.stderr is not None:
      values[f'{metric}_stderr'] = rate.stderr
    return values

  return mean
