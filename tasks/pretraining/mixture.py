"""What a model is trained on: text and generated tasks, at rates.

Each example is drawn from a random generator and nothing else: first the task,
by its rate, then a window of text or a sample of the task's family. As the
evaluation does it, an encoder's input ends in EOS and a decoder-only model's
prompt does not; EOS ends an answer.

Synopsis:

    mixture = Mixture((
        TextTask(LanguageModel(256), rate=0.7),
        RetrievalTask('passkey', rate=0.3, longest_tokens=200,
                      loss_weight=10.0)))
    examples = Examples(mixture, (stream, None), 'model', decoder_only=True,
                        target_tokens=256)
    examples(np.random.default_rng(0))     # Example(inputs, targets, …)
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from t5_align.tasks import generators
from t5_align.tasks.generators.haystack import Encode
from t5_align.tasks.pretraining import token_stream
from t5_align.tasks.pretraining.objectives import LanguageModel, Objective
from t5_align.tasks.pretraining.token_stream import TokenStream

Ids = Sequence[int] | np.ndarray
# Of a sample for which there is no room; its length, wording or answer differ
# the next time.
_TRIES = 100


class Example(NamedTuple):
  """Token ids as a model reads and writes them."""

  inputs: Ids
  """Of the encoder, or before the targets; may be empty."""
  targets: Ids
  """What the loss is of."""
  loss_weight: float = 1.0
  """Of each target token."""
  task: int = 0
  """Its place in the mixture."""


# Makes an example, from a random generator and nothing else.
Draw = Callable[[np.random.Generator], Example]


@dataclasses.dataclass(frozen=True)
class TextTask:
  """An objective on windows of text.

  Attributes:
    objective: of `objectives`.
    data: file, folder or pattern of the text; None: that of the run.
    rate: how often it is drawn, relative to the other tasks.
    loss_weight: of its target tokens.
  """

  objective: Objective = LanguageModel()
  data: str | None = None
  rate: float = 1.0
  loss_weight: float = 1.0

  @property
  def name(self) -> str:
    """In logs and settings."""
    return self.objective.name


@dataclasses.dataclass(frozen=True)
class RetrievalTask:
  """Samples of a generated family, at random lengths and in all wordings.

  Attributes:
    family: its name, such as 'passkey'.
    rate: how often it is drawn, relative to the other tasks.
    shortest_tokens: of the prompts, in the model's own tokens, EOS included.
    longest_tokens: of the prompts; lengths are uniform in between.
    default_template_share: how often a prompt has its family's first wording;
      otherwise it has one of the others.
    loss_weight: of its target tokens.
  """

  family: str = 'passkey'
  rate: float = 1.0
  shortest_tokens: int = 64
  longest_tokens: int = 128
  default_template_share: float = 0.5
  loss_weight: float = 1.0

  def __post_init__(self):
    generators.get_family(self.family)
    if not 0 < self.shortest_tokens <= self.longest_tokens:
      raise ValueError(
        f'{self.family}: prompts of {self.shortest_tokens} to'
        f' {self.longest_tokens} tokens; wanted ascending lengths.'
      )

  @property
  def name(self) -> str:
    """In logs and settings."""
    return self.family

  def sample(
    self, rng: np.random.Generator, encode: Encode
  ) -> generators.Sample:
    """Draw one sample; `encode` measures its length."""
    template, *others = generators.get_family(self.family).templates
    if others and rng.random() >= self.default_template_share:
      template = others[rng.integers(len(others))]
    length = rng.integers(self.shortest_tokens, self.longest_tokens + 1)
    return generators.training_sample(
      rng, encode, int(length), family=self.family, template=template
    )


@dataclasses.dataclass(frozen=True)
class Mixture:
  """What a model is trained on.

  Attributes:
    tasks: text and generated tasks.
  """

  tasks: tuple[TextTask | RetrievalTask, ...] = (
    RetrievalTask('passkey'),
    RetrievalTask('line_retrieval'),
  )

  def __post_init__(self):
    # gin hands over lists.
    object.__setattr__(self, 'tasks', tuple(self.tasks))
    rates = [task.rate for task in self.tasks]
    if not rates or min(rates) < 0 or not sum(rates) > 0:
      raise ValueError(
        f'The tasks of a mixture have rates {rates}; wanted one task or more,'
        ' rates from 0 up, and one above 0.'
      )

  @property
  def names(self) -> tuple[str, ...]:
    """Of the tasks; of those of one name, the others with a number."""
    names: list[str] = []
    for task in self.tasks:
      number = sum(
        other.name == task.name for other in self.tasks[: len(names)]
      )
      names.append(f'{task.name}_{number + 1}' if number else task.name)
    return tuple(names)

  def texts(self, num_samples: int) -> Iterator[str]:
    """Yield generated text to train a vocabulary on, at about full length."""
    tasks = [task for task in self.tasks if isinstance(task, RetrievalTask)]
    rng = np.random.default_rng(0)
    for _ in range(num_samples if tasks else 0):
      task = tasks[rng.integers(len(tasks))]
      # No vocabulary yet: a word counts as two tokens.
      sample = _persist(task, rng, lambda text: [0, 0] * len(text.split()))
      yield sample.prompt
      yield sample.target

  def describe(self) -> dict[str, Any]:
    """Return what decides an example, but for the text, in JSON types."""
    found = {}
    for name, task in zip(self.names, self.tasks, strict=True):
      found[name] = dataclasses.asdict(task)
      found[name].pop('data', None)
    return found


@dataclasses.dataclass(frozen=True)
class Examples:
  """Draw the examples of a mixture; small enough to be pickled.

  Attributes:
    mixture: what is drawn.
    streams: the text of each task, None for a generated one.
    vocabulary: its file or folder.
    decoder_only: whether inputs and targets share a row.
    input_tokens: of an encoder's input at most.
    target_tokens: of a target at most, or of a decoder-only model's row. A
      sample that has more is drawn again.
  """

  mixture: Mixture
  streams: tuple[TokenStream | None, ...]
  vocabulary: str
  decoder_only: bool = False
  input_tokens: int = 512
  target_tokens: int = 512

  def __call__(self, rng: np.random.Generator) -> Example:
    """Return an example.

    Raises:
      ValueError: not one sample of a task fits, or less text than a window.
    """
    index = int(np.searchsorted(_shares(self.mixture), rng.random(), 'right'))
    task, stream = self.mixture.tasks[index], self.streams[index]
    if isinstance(task, TextTask):
      assert stream is not None  # a text task has one
      inputs, targets = self._window(task, stream, rng)
    else:
      inputs, targets = self._answer(task, rng)
    return Example(inputs, targets, task.loss_weight, index)

  def _window(
    self, task: TextTask, stream: TokenStream, rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of a window of text."""
    eos, sentinels = _special(self.vocabulary)
    ids = stream.draw(rng, task.objective.window_tokens)
    inputs, targets = task.objective(ids, rng, sentinels)
    if not self.decoder_only:
      inputs = np.append(inputs, eos)
    return inputs, np.append(targets, eos) if task.objective.ends else targets

  def _answer(
    self, task: RetrievalTask, rng: np.random.Generator
  ) -> tuple[list[int], list[int]]:
    """Return prompt and answer of a sample that fits."""
    vocabulary = token_stream.load(self.vocabulary)
    ending = [] if self.decoder_only else [vocabulary.eos_id]
    for _ in range(_TRIES):
      sample = _persist(task, rng, _measure(self.vocabulary))
      inputs = vocabulary.encode(sample.prompt) + ending
      targets = [*vocabulary.encode(sample.target), vocabulary.eos_id]
      before = len(inputs) if self.decoder_only else 0
      is_short = self.decoder_only or len(inputs) <= self.input_tokens
      if is_short and before + len(targets) <= self.target_tokens:
        return inputs, targets
    room = f'a row of {self.target_tokens} tokens'
    if not self.decoder_only:
      room = f'{self.input_tokens} tokens and {self.target_tokens} to answer'
    raise ValueError(
      f'{task.family}: none of {_TRIES} samples fits {room}; the last has'
      f' {len(inputs)} and {len(targets)}. Lower longest_tokens.'
    )


def _persist(
  task: RetrievalTask, rng: np.random.Generator, encode: Encode
) -> generators.Sample:
  """Draw until a length has room for a needle in the wording drawn."""
  for _ in range(_TRIES - 1):
    try:
      return task.sample(rng, encode)
    except ValueError:
      continue
  return task.sample(rng, encode)


@functools.cache
def _shares(mixture: Mixture) -> np.ndarray:
  """Return the cumulated shares of the tasks; the last is 1."""
  total = np.cumsum([task.rate for task in mixture.tasks])
  return total / total[-1]


@functools.cache
def _special(vocabulary: str) -> tuple[int, range]:
  """Return EOS, and the sentinels from the first, which has the last id."""
  pieces: Any = token_stream.load(vocabulary)
  last = pieces.vocab_size - 1
  return pieces.eos_id, range(last, last - pieces.extra_ids, -1)


@functools.cache
def _measure(vocabulary: str) -> Encode:
  """Return a quick encoder to measure lengths by."""
  return generators.by_words(token_stream.load(vocabulary).encode)
