"""What a task is: a name, a size, seeded samples and a score.

A task's name ends in its size: `passkey_4096` is the family `passkey` at 4,096
tokens. A family says how one sample is drawn; a task draws many of them, each
from its own random generator, so that sample 17 is the same whether 20 samples
are asked for or 20,000.

Synopsis:

    task = get_task('passkey_4096')
    for sample in task.samples(vocabulary.encode, seed=0, limit=50):
      prediction = answer(sample.prompt)
      score = task.score(prediction, sample)
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import difflib
import functools
import importlib
import os
import pkgutil
import re
import zlib

import numpy as np

from t5_align.tasks import metrics
from t5_align.tasks.generators import template as template_lib

Encode = Callable[[str], list[int]]

# A split is part of the seed, so no two splits share a random stream.
SPLITS = ('train', 'dev', 'test')
DEFAULT_NUM_SAMPLES = 100
# Needle depths are drawn one per tenth of the context in every ten samples.
DEPTH_BINS = 10


@dataclasses.dataclass(frozen=True)
class Sample:
  """One question about one long text."""

  id: str
  """Stable over runs, such as 'passkey_4096-test-000017'."""
  prompt: str
  """The whole input of the model."""
  target: str
  """The text that a model is trained to write."""
  answers: tuple[str, ...]
  """What the metric compares a prediction with."""
  depth: float | None
  """Share of the context that stands before the needle, 0 to 1."""


# (rng, size, unit, encode, template, depth) -> a sample without an id.
Draw = Callable[
  [np.random.Generator, int, str, Encode, template_lib.Template, float],
  Sample,
]


@dataclasses.dataclass(frozen=True)
class Family:
  """How the samples of one kind of task are made and scored."""

  name: str
  """Its name in results, such as 'line_retrieval'."""
  version: str
  """Changes whenever the same seed would give other samples or scores."""
  description: str
  """One line for the list of tasks."""
  units: Mapping[str, str]
  """Task name without size -> what the size counts ('tokens', 'lines')."""
  typical_sizes: Mapping[str, tuple[int, ...]]
  """Task name without size -> the sizes that a list of tasks shows."""
  metric: str
  """The function of `metrics` that scores a prediction."""
  max_new_tokens: int
  """Room for an answer in any vocabulary, bytes included."""
  templates: tuple[template_lib.Template, ...]
  """The wordings that come with it; the first is the default."""
  placeholders: template_lib.Placeholders
  """What each field of a template must and may name in braces."""
  draw: Draw
  """Makes one sample."""
  read: Callable[[str, int, str], Iterator[Sample]] | None = None
  """(task name, size, path) -> the samples of published files, if any."""

  def template(
    self, wanted: template_lib.Template | str | os.PathLike | None
  ) -> template_lib.Template:
    """Return the template of a name or a file; the default one for None."""
    return template_lib.resolve(
      wanted, self.templates, self.placeholders, self.name
    )


@dataclasses.dataclass(frozen=True)
class TaskDefinition:
  """One family at one size."""

  name: str
  """Such as 'passkey_4096'."""
  size: int
  """The number in the name."""
  unit: str
  """What the size counts: 'tokens' of the model's vocabulary, or 'lines'."""
  definition: Family
  """The family itself."""

  @property
  def family(self) -> str:
    return self.definition.name

  @property
  def version(self) -> str:
    return self.definition.version

  @property
  def description(self) -> str:
    return self.definition.description

  @property
  def metric(self) -> str:
    return self.definition.metric

  @property
  def higher_is_better(self) -> bool:
    return True

  @property
  def max_new_tokens(self) -> int:
    return self.definition.max_new_tokens

  def samples(
    self,
    encode: Encode,
    *,
    seed: int = 0,
    limit: int | None = None,
    template: template_lib.Template | str | os.PathLike | None = None,
    split: str = 'test',
    data: str | os.PathLike | None = None,
  ) -> Iterator[Sample]:
    """Yield the samples of one split, in order.

    Args:
      encode: text to token ids without EOS, of the model's own vocabulary.
      seed: any integer from 0 up; another seed gives other samples.
      limit: how many; None: 100, or every sample of the files.
      template: a template, the name of one of the family's, or a JSON file.
      split: 'train', 'dev' or 'test'; no two share a sample.
      data: file or folder of published samples to read instead.

    Raises:
      ValueError: unknown split or template, or a size too small for one needle.
    """
    if limit is not None and limit < 0:
      raise ValueError(f'limit is {limit}; wanted a number from 0 up, or None.')
    if data is not None:
      return self._read(data, limit, template)
    if split not in SPLITS:
      raise ValueError(f"split is '{split}'; wanted one of {SPLITS}.")
    if seed < 0:
      raise ValueError(f'seed is {seed}; wanted an integer from 0 up.')
    count = DEFAULT_NUM_SAMPLES if limit is None else limit
    return self._draw(
      encode, seed, count, self.definition.template(template), split
    )

  def _draw(self, encode, seed, count, template, split):
    """Yield `count` generated samples."""
    # The size is left out: sample 17 asks for the same key at every length, so
    # that lengths are compared on the same questions.
    root = (zlib.crc32(self.family.encode()), SPLITS.index(split), seed)
    for i in range(count):
      block = np.random.default_rng((*root, 0, i // DEPTH_BINS))
      depth_bin = int(block.permutation(DEPTH_BINS)[i % DEPTH_BINS])
      rng = np.random.default_rng((*root, 1, i))
      depth = (depth_bin + rng.random()) / DEPTH_BINS
      try:
        sample = self.definition.draw(
          rng, self.size, self.unit, encode, template, depth
        )
      except ValueError as error:
        raise ValueError(f'{self.name}: {error}') from None
      yield dataclasses.replace(sample, id=f'{self.name}-{split}-{i:06d}')

  def _read(self, data, limit, template):
    """Return the samples of published files."""
    if self.definition.read is None or self.unit == 'tokens':
      raise ValueError(
        f'{self.name} is always generated; leave data out (got {data}).'
      )
    if template is not None:
      raise ValueError(
        f'{self.name}: published files have their own prompts; leave out'
        f' either template ({template}) or data ({data}).'
      )
    samples = self.definition.read(self.name, self.size, os.fspath(data))
    return (s for i, s in enumerate(samples) if limit is None or i < limit)

  def score(self, prediction: str, sample: Sample) -> float:
    """Score one prediction, 0 to 1."""
    return getattr(metrics, self.metric)(prediction, sample.answers[0])


@functools.cache
def _families() -> dict[str, Family]:
  """Return every family by name: the `FAMILY` of each module beside this."""
  package = 't5_align.tasks.generators'
  modules = [
    importlib.import_module(f'{package}.{module.name}')
    for module in pkgutil.iter_modules(
      importlib.import_module(package).__path__
    )
  ]
  found = [module.FAMILY for module in modules if hasattr(module, 'FAMILY')]
  return {family.name: family for family in found}


def list_families() -> list[str]:
  """Return the names of all families."""
  return list(_families())


def get_family(name: str) -> Family:
  """Return a family by name; an unknown one is a ValueError."""
  families = _families()
  if name not in families:
    raise ValueError(
      f"Unknown task family '{name}'. {_nearest(name, list(families))}"
    )
  return families[name]


def list_tasks() -> list[str]:
  """Return the names of every family's tasks at typical sizes."""
  return [
    f'{prefix}_{size}'
    for family in _families().values()
    for prefix, sizes in family.typical_sizes.items()
    for size in sizes
  ]


def get_task(name: str) -> TaskDefinition:
  """Return the task of a name such as 'passkey_4096'.

  Raises:
    ValueError: there is no such family, or the name has no size.
  """
  prefixes = {p: f for f in _families().values() for p in f.units}
  match = re.fullmatch(r'(.+)_([0-9]{1,9})', name)
  if match is None or match[1] not in prefixes:
    asked, size = (match[1], match[2]) if match else (name, '4096')
    known = [f'{prefix}_{size}' for prefix in prefixes]
    raise ValueError(
      f"Unknown task '{name}'. {_nearest(f'{asked}_{size}', known)} A name"
      ' ends in its size, in tokens or lines.'
    )
  family, size = prefixes[match[1]], int(match[2])
  if size == 0:
    raise ValueError(f"Task '{name}' has size 0; wanted a size from 1 up.")
  return TaskDefinition(name, size, family.units[match[1]], family)


def _nearest(name: str, known: list[str]) -> str:
  """Say which known name is meant, or list them."""
  close = difflib.get_close_matches(name, known, n=1)
  if close:
    return f"Did you mean '{close[0]}'?"
  return f'Known: {", ".join(known)}.'
