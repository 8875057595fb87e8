"""The tasks as seqio tasks, for T5X and for seqio's own Evaluator.

A seqio task is tied to one vocabulary, and here the length of a prompt is
counted in that vocabulary, so tasks are registered on request:

  samples -> tokenize -> refuse what is too long -> append EOS

A task that scores likelihoods has no EOS after its targets, which are cut out
of a text, and a metric function of scores in place of one of predictions.

Registering again with the same arguments does nothing. With other arguments the
later ones win: the name now stands for the new task, and mixtures made before
keep the old one. A name that somebody else registered is never taken.

Synopsis:

    registered = register(load_vocabulary('flan-t5-base'), ['passkey_4096'])
    seqio.get_mixture_or_task('passkey_4096').get_dataset(lengths, split='test')
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import hashlib
import json
import math
import os
from typing import Any

import seqio
import tensorflow as tf

from t5_align import vocabulary as vocabulary_lib
from t5_align.tasks import measures
from t5_align.tasks.generators import task as task_lib

# seqio's usual name of a split -> ours.
_SPLITS = {'train': 'train', 'validation': 'dev', 'test': 'test'}

_MAX_FLOAT32 = 3.4e38

# Task name -> the arguments it was registered with.
_registered: dict[str, tuple] = {}


def register(
  vocabulary: vocabulary_lib.Vocabulary | seqio.Vocabulary,
  names: Iterable[str] | None = None,
  *,
  seed: int = 0,
  num_samples: int | None = None,
  prompt_template: str | os.PathLike | None = None,
  data: str | os.PathLike | None = None,
  decoder_only: bool = False,
) -> list[str]:
  """Register tasks for one vocabulary.

  Args:
    vocabulary: the model's, ours or seqio's.
    names: tasks such as 'passkey_4096'; None: those that are generated, at
      typical sizes.
    seed: of the samples.
    num_samples: in each split, at most; None: 100 generated ones, or all.
    prompt_template: name or file of a wording; None: the family's default.
    data: file or folder of published samples to read.
    decoder_only: for a model that reads prompt and answer as one text; no EOS
      comes between them.

  Returns:
    The names, all of them registered now.

  Raises:
    ValueError: unknown task or template, or a name that is already taken.
    FileNotFoundError: a task's data isn't there; says how to get it.
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
  if names is None:
    definitions = [d for d in definitions if d.is_generated]
  options: dict[str, Any] = {
    'seed': seed,
    'limit': num_samples,
    'template': prompt_template,
    'data': data,
  }
  arguments = (theirs, decoder_only, *options.values())
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
    _add(definition, theirs, options, decoder_only)
    _registered[name] = arguments
  return [definition.name for definition in definitions]


def mixture_or_task(
  names: str | Sequence[str],
  vocabulary: vocabulary_lib.Vocabulary | seqio.Vocabulary,
  **options: Any,
) -> str:
  """Register tasks where they are named, as a gin file does.

  Args:
    names: one, several with commas or in a sequence, globs too; or the name of
      a task or mixture that somebody else registered.
    vocabulary: the model's, ours or seqio's.
    **options: those of `register`.

  Returns:
    The name under which seqio has it: of the task, or of a mixture of several.

  Raises:
    ValueError: what is wrong with a name; a task's data that isn't there.
  """
  if isinstance(names, str):
    names = names.split(',')
  names = [name.strip() for name in names]
  known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  if len(names) == 1 and names[0] in known - _registered.keys():
    return names[0]
  chosen = [task.name for task in task_lib.select_tasks(names)]
  register(vocabulary, chosen, **options)
  if len(chosen) == 1:
    return chosen[0]
  # Such a name may have letters and digits alone; results are named by task.
  digest = hashlib.sha256(' '.join(chosen).encode()).hexdigest()
  mixture = f't5_align_{len(chosen)}_tasks_{digest[:8]}'
  seqio.MixtureRegistry.remove(mixture)
  seqio.MixtureRegistry.add(mixture, chosen, default_rate=1.0)
  return mixture


def _encode(vocabulary: seqio.Vocabulary) -> task_lib.Encode:
  """Return text to ids, as a list."""
  return lambda text: list(vocabulary.encode(text))


def _add(
  definition: task_lib.TaskDefinition,
  vocabulary: seqio.Vocabulary,
  options: dict[str, Any],
  decoder_only: bool,
) -> None:
  """Add one task to seqio's registry."""
  # A scored target goes on in its text: nothing ends there.
  has_end = not definition.scored
  metric_fn = _of_scores if definition.scored else _of_predictions
  seqio.TaskRegistry.add(
    definition.name,
    source=_source(definition, vocabulary, options),
    output_features={
      'inputs': seqio.Feature(vocabulary, add_eos=not decoder_only),
      'targets': seqio.Feature(vocabulary, add_eos=has_end),
    },
    preprocessors=[
      seqio.preprocessors.tokenize,
      _refuse_too_long(definition.name),
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=postprocess,
    metric_fns=[metric_fn(definition)],
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
        'judged_by': json.dumps(_judged_by(definition, vocabulary, sample)),
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
        'judged_by': text,
      },
    )

  own = definition.splits(options['data'])
  splits = [theirs for theirs, ours in _SPLITS.items() if ours in own]
  return seqio.FunctionDataSource(
    dataset, splits=tuple(splits), caching_permitted=False
  )


def _judged_by(
  definition: task_lib.TaskDefinition,
  vocabulary: seqio.Vocabulary,
  sample: task_lib.Sample,
) -> dict[str, Any]:
  """Return all that scoring a sample needs, in JSON types."""
  judged_by: dict[str, Any] = {'cluster': sample.cluster}
  if definition.scored:
    judged_by['text'] = sample.target
    judged_by['tokens'] = [int(i) for i in vocabulary.encode(sample.target)]
    judged_by['unknown_id'] = vocabulary.unk_id
    return judged_by
  judged_by['answers'] = list(sample.answers)
  judged_by['readable_answers'] = [
    without_unknown(vocabulary.decode(list(vocabulary.encode(answer))))
    for answer in sample.answers
  ]
  return judged_by


def _refuse_too_long(name: str) -> Callable:
  """Return a preprocessor that raises where seqio would cut in silence."""

  def refuse_too_long(dataset, sequence_length=None, output_features=None):
    def check(example):
      for feature in ('inputs', 'targets'):
        limit = (sequence_length or {}).get(feature)
        if limit is None:
          continue
        has_end = output_features is None or output_features[feature].add_eos
        tokens = tf.size(example[feature]) + int(has_end)
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
) -> str | dict[str, Any]:
  """Return what a target is judged by, or a prediction as we decode it."""
  if is_target:
    content = (example or {})['judged_by']
    return json.loads(content)
  return without_unknown(text)


def without_unknown(text: str) -> str:
  """Drop what SentencePiece writes for a token that it doesn't know.

  Our own decoding leaves it out. The second is what is left of it where a text
  was stripped.
  """
  return text.replace(' ⁇ ', '').replace('⁇', '')


def _of_predictions(definition: task_lib.TaskDefinition) -> Callable:
  """Return seqio's metric function of a task that generates."""

  def metrics_of_predictions(
    targets: Sequence[Mapping[str, Any]], predictions: Sequence[str]
  ) -> dict[str, float]:
    family = definition.definition
    quantities = [
      measures.answer_quantities(
        family.measures,
        family.clean(prediction),
        target['answers'],
        target['readable_answers'],
      )
      for target, prediction in zip(targets, predictions, strict=True)
    ]
    return _values(definition, quantities, targets)

  return metrics_of_predictions


def _of_scores(definition: task_lib.TaskDefinition) -> Callable:
  """Return seqio's metric function of a task that scores likelihoods."""

  def metrics_of_scores(
    targets: Sequence[Mapping[str, Any]], scores: Iterable[float]
  ) -> dict[str, float]:
    quantities = [
      measures.text_quantities(
        target['text'], -float(score), target['tokens'], target['unknown_id']
      )
      for target, score in zip(targets, scores, strict=True)
    ]
    return _values(definition, quantities, targets)

  return metrics_of_scores


def _values(
  definition: task_lib.TaskDefinition,
  quantities: Sequence[measures.Quantities],
  targets: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
  """Return every measure by its name, with error and interval beside it."""
  clusters = [target['cluster'] for target in targets]
  values = {}
  for measure in definition.measures:
    found = measure.estimate(quantities, clusters)
    values[measure.name] = found.value
    if found.ci95 is not None:
      values[f'{measure.name}_ci95_low'] = found.ci95[0]
      values[f'{measure.name}_ci95_high'] = found.ci95[1]
    if found.stderr is not None:
      values[f'{measure.name}_stderr'] = found.stderr
  # TensorBoard's numbers are float32, and seqio fails on what those can't hold.
  return {
    name: value if abs(value) < _MAX_FLOAT32 else math.inf
    for name, value in values.items()
  }
