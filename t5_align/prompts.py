"""A task's samples as the token ids that a model reads.

Nothing is cut silently. T5's relative positions set no maximum, so there is no
limit unless one is asked for; a prompt over it is an error, or is cut where
the caller chose, and then each cut is counted. With room for 5 tokens and EOS
(`$`), `a b c d e f g h $` becomes

    left   d e f g h $        right   a b c d e $       middle   a b c g h $

What a vocabulary cannot represent is counted, too: characters of a prompt that
it drops, and answers that it cannot write.

Synopsis:

    prepared = prepare(task, model, Settings(limit=50))
    prepared.prompts[0].tokens, prepared.prompts[0].truncated_tokens
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import hashlib
import json
from typing import Any

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
    max_input_tokens: the longest prompt in tokens, EOS included; of a model
      without an encoder the longest prompt and answer, which share its window.
      None for no limit.
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
    target_tokens: what is scored, [T], where that is the task; else empty.
    prompt_tokens: how many there were before any cut.
    truncated_tokens: how many of them were cut.
    readable_answers: the answers as the vocabulary can write them.
    lost_characters: those of prompt and target that the vocabulary has not.
  """

  sample: task_lib.Sample
  tokens: list[int]
  target_tokens: list[int]
  prompt_tokens: int
  truncated_tokens: int
  readable_answers: tuple[str, ...]
  lost_characters: str

  @functools.cached_property
  def hash(self) -> str:
    """What the model is asked, as 16 hexadecimal digits of a SHA-256."""
    content = json.dumps([self.tokens, self.target_tokens])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A task with its prompts.

  Attributes:
    task: the task.
    prompts: one a sample, in the task's order.
    fingerprint: what decides them, in JSON types.
    keeps_line_breaks: whether the vocabulary has them and indentation.
  """

  task: task_lib.TaskDefinition
  prompts: list[Prompt]
  fingerprint: dict[str, Any]
  keeps_line_breaks: bool

  @property
  def lost_characters(self) -> str:
    """All characters that the vocabulary cannot represent, sorted."""
    return ''.join(sorted({c for p in self.prompts for c in p.lost_characters}))

  def warnings(self) -> list[str]:
    """Return what is lost before the model reads it, a sentence each."""
    lossy = [prompt for prompt in self.prompts if prompt.lost_characters]
    found = []
    if lossy:
      first = lossy[0]
      place = first.sample.prompt.find(first.lost_characters[0])
      excerpt = first.sample.prompt[max(place - 20, 0) : max(place, 0) + 20]
      found.append(
        f'{self.task.name}: the tokenizer cannot represent'
        f' {self.lost_characters!r}, in {len(lossy)} of {len(self.prompts)}'
        f' samples; the model reads them without, as in {first.sample.id}:'
        f' {excerpt!r}.'
      )
    unwritable = sum(
      prompt.readable_answers != prompt.sample.answers
      for prompt in self.prompts
    )
    if unwritable and not self.task.scored:
      found.append(
        f'{self.task.name}: the tokenizer cannot write the answers of'
        f' {unwritable} of {len(self.prompts)} samples exactly; no model with'
        ' it can score them in full.'
      )
    broken = sum('\n' in prompt.sample.prompt for prompt in self.prompts)
    if self.task.definition.needs_line_breaks and not self.keeps_line_breaks:
      found.append(
        f'{self.task.name}: the tokenizer has no line breaks and no'
        f' indentation; the model reads spaces, in {broken} of'
        f' {len(self.prompts)} samples.'
      )
    return found


def prepare(
  task: task_lib.TaskDefinition,
  model: Any,
  settings: Settings,
  check: Callable[[], None] = lambda: None,
) -> Prepared:
  """Return a task's samples in the model's tokens, each within the limit.

  Args:
    task: the task.
    model: what load_model returns.
    settings: which samples, and how long they may be.
    check: is called again and again, and may raise to end it.

  Raises:
    PromptTooLongError: naming the sample, its tokens and the limit.
    DataError: published samples that cannot be read, or none.
  """

  def encode(text: str) -> list[int]:
    check()
    return model.vocabulary.encode(text)

  samples, source = _samples(task, encode, settings)
  ready = []
  for sample in samples:
    check()
    ready.append(_prompt(sample, task, model, settings))
  fingerprint = {
    'version': task.version,
    'samples': source,
    'max_new_tokens': _max_new_tokens(task, settings),
  }
  probe = 'a\n  b'
  return Prepared(
    task,
    ready,
    fingerprint,
    model.vocabulary.decode(model.vocabulary.encode(probe)) == probe,
  )


def _prompt(
  sample: task_lib.Sample,
  task: task_lib.TaskDefinition,
  model: Any,
  settings: Settings,
) -> Prompt:
  """Return one sample in the model's tokens."""
  vocabulary = model.vocabulary
  ending = [vocabulary.eos_id]
  target = vocabulary.encode(sample.target) if task.scored else []
  if task.scored and not target:
    raise DataError(f'{sample.id} has an empty target: nothing to score.')
  num_others = len(ending)  # tokens that share the prompt's window
  if model.checkpoint.decoder_only:
    ending = []
    num_others = len(target) if task.scored else _max_new_tokens(task, settings)
  body = vocabulary.encode(sample.prompt)
  kept = _cut(body, num_others, sample.id, settings)
  return Prompt(
    sample,
    kept + ending,
    target,
    len(body) + len(ending),
    len(body) - len(kept),
    sample.answers
    if task.scored
    else tuple(vocabulary.decode(vocabulary.encode(a)) for a in sample.answers),
    vocabulary.lost_characters(
      sample.prompt + (sample.target if task.scored else '')
    ),
  )


def _samples(
  task: task_lib.TaskDefinition, encode: task_lib.Encode, settings: Settings
) -> tuple[list[task_lib.Sample], str]:
  """Return the samples, and what they are made from."""
  wording = task.definition.template(settings.template)
  drawn = task.samples(
    encode,
    seed=settings.seed,
    limit=settings.limit,
    template=settings.template,
    split=settings.split,
    data=settings.data,
  )
  if task.is_generated and settings.data is None:
    return list(drawn), f'template {wording.hash}'
  # Options that contradict each other are no fault of the data.
  try:
    samples = list(drawn)
  except ValueError as error:
    raise DataError(str(error)) from error
  place = settings.data or 'its data'
  if not samples:
    raise DataError(f'{task.name} has no samples in {place}.')
  if len({sample.id for sample in samples}) < len(samples):
    raise DataError(f'{task.name}: {place} has two samples with the same id.')
  # Which samples are there is known by the hash of each, so that a run may go
  # on with a higher limit.
  return samples, f'data, template {wording.hash}'


def _max_new_tokens(task: task_lib.TaskDefinition, settings: Settings) -> int:
  return settings.max_new_tokens or task.max_new_tokens


def _cut(
  tokens: list[int], num_others: int, sample_id: str, settings: Settings
) -> list[int]:
  """Return the tokens that fit under the limit, with others beside them."""
  limit = settings.max_input_tokens
  if limit is None or len(tokens) + num_others <= limit:
    return tokens
  room = limit - num_others
  if room < 1:
    raise PromptTooLongError(
      f'{sample_id}: max_input_tokens={limit} leaves no room for a prompt'
      f' beside {num_others} tokens of EOS or answer.'
    )
  if settings.truncation == 'error':
    answer = '' if num_others == 1 else f', {num_others} of them for the answer'
    raise PromptTooLongError(
      f'{sample_id} has {len(tokens) + num_others} tokens{answer}, over the'
      f' limit max_input_tokens={limit}; raise it, or choose a truncation:'
      ' left, right or middle.'
    )
  head = {'left': 0, 'right': room, 'middle': (room + 1) // 2}
  first = head[settings.truncation]
  return tokens[:first] + tokens[len(tokens) - (room - first) :]
