"""A task's samples as the token ids that a model reads.

Nothing is cut silently. T5's relative positions set no maximum, so there is no
limit unless one is asked for; a prompt over it is an error, or is cut where
the caller chose, and then each cut is counted. With room for 5 tokens and EOS
(`$`), `a b c d e f g h $` becomes

    left   d e f g h $        right   a b c d e $       middle   a b c g h $

Synopsis:

    prepared = prepare(task, model, Settings(limit=50))
    prepared.prompts[0].tokens, prepared.prompts[0].truncated_tokens
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from t5_align import results
from t5_align.tasks.generators import task as task_lib

TRUNCATIONS = ('error', 'left', 'right', 'middle')


class PromptTooLongError(ValueError):
  """A prompt over the limit, and no truncation chosen."""


class DataError(ValueError):
  """Published samples that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Settings:
  """How samples are made and answered; the same for every task.

  Attributes:
    batch_size: prompts generated together; changes speed, never results.
    limit: samples of each task; None for all of them.
    seed: of the generated samples.
    split: of the generated samples: 'train', 'dev' or 'test'.
    max_input_tokens: the longest prompt in tokens, EOS included; None for no
      limit.
    truncation: what happens to a longer prompt: 'error', or a cut at its
      'left' end, its 'right' end or in its 'middle'.
    max_new_tokens: the longest answer in tokens; None for the task's own.
    template: name or JSON file of the prompts' wording; None for the task's.
    data: file or folder of published samples; None to generate them.
  """

  batch_size: int = 8
  limit: int | None = None
  seed: int = 0
  split: str = 'test'
  max_input_tokens: int | None = None
  truncation: str = 'error'
  max_new_tokens: int | None = None
  template: str | None = None
  data: str | None = None

  def __post_init__(self):
    for field in ('batch_size', 'limit', 'max_input_tokens', 'max_new_tokens'):
      value = getattr(self, field)
      if value is not None and value < 1:
        raise ValueError(f'{field} is {value}; wanted a number from 1 up.')
    if self.truncation not in TRUNCATIONS:
      raise ValueError(
        f'truncation is {self.truncation!r}; wanted one of'
        f' {", ".join(TRUNCATIONS)}.'
      )
    if self.truncation != 'error' and self.max_input_tokens is None:
      raise ValueError(
        f'truncation {self.truncation!r} needs a limit: set max_input_tokens.'
      )


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A sample in the model's tokens.

  Attributes:
    sample: where it comes from.
    tokens: what the model reads, [S]; EOS last for an encoder.
    prompt_tokens: how many there were before any cut.
    truncated_tokens: how many of them were cut.
  """

  sample: task_lib.Sample
  tokens: list[int]
  prompt_tokens: int
  truncated_tokens: int


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A task with its prompts.

  Attributes:
    task: the task.
    prompts: one a sample, in the task's order.
    fingerprint: what decides them, in JSON types.
    lost_characters: those of the prompts that the vocabulary cannot represent.
  """

  task: task_lib.TaskDefinition
  prompts: list[Prompt]
  fingerprint: dict[str, Any]
  lost_characters: str


def prepare(
  task: task_lib.TaskDefinition, model: Any, settings: Settings
) -> Prepared:
  """Return a task's samples in the model's tokens, each within the limit.

  Args:
    task: the task.
    model: what load_model returns.
    settings: which samples, and how long they may be.

  Raises:
    PromptTooLongError: naming the sample, its tokens and the limit.
    DataError: published samples that cannot be read, or none.
  """
  vocabulary = model.vocabulary
  samples, source = _samples(task, vocabulary.encode, settings)
  ending = [] if model.checkpoint.decoder_only else [vocabulary.eos_id]
  prompts = []
  for sample in samples:
    body = vocabulary.encode(sample.prompt)
    kept = _cut(body, len(ending), sample.id, settings)
    prompts.append(
      Prompt(
        sample,
        kept + ending,
        len(body) + len(ending),
        len(body) - len(kept),
      )
    )
  lost = {c for s in samples for c in vocabulary.lost_characters(s.prompt)}
  fingerprint = {
    'version': task.version,
    'samples': source,
    'max_new_tokens': settings.max_new_tokens or task.max_new_tokens,
  }
  return Prepared(task, prompts, fingerprint, ''.join(sorted(lost)))


def _samples(
  task: task_lib.TaskDefinition, encode: task_lib.Encode, settings: Settings
) -> tuple[list[task_lib.Sample], str]:
  """Return the samples, and a hash of what they are made from."""
  if settings.data is None:
    samples = task.samples(
      encode,
      seed=settings.seed,
      limit=settings.limit,
      template=settings.template,
      split=settings.split,
    )
    wording = task.definition.template(settings.template)
    return list(samples), f'template {wording.hash}'
  # Options that contradict each other are no fault of the data.
  published = task.samples(
    encode, data=settings.data, template=settings.template
  )
  try:
    samples = list(published)
  except ValueError as error:
    raise DataError(str(error)) from error
  if not samples:
    raise DataError(f'{task.name} has no samples in {settings.data}.')
  if len({sample.id for sample in samples}) < len(samples):
    raise DataError(f'{settings.data} has two samples with the same id.')
  content = results.to_json([dataclasses.asdict(s) for s in samples])
  digest = hashlib.sha256(content.encode()).hexdigest()
  return samples[: settings.limit], f'data {digest}'


def _cut(
  tokens: list[int], num_ending: int, sample_id: str, settings: Settings
) -> list[int]:
  """Return the tokens, without EOS, that fit under the limit with it."""
  limit = settings.max_input_tokens
  if limit is None or len(tokens) + num_ending <= limit:
    return tokens
  if settings.truncation == 'error':
    raise PromptTooLongError(
      f'{sample_id} has {len(tokens) + num_ending} tokens, over the limit'
      f' max_input_tokens={limit}; raise it, or choose a truncation: left,'
      ' right or middle.'
    )
  room = limit - num_ending
  head = {'left': 0, 'right': room, 'middle': (room + 1) // 2}
  first = head[settings.truncation]
  return tokens[:first] + tokens[len(tokens) - (room - first) :]
