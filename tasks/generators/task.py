"""What a task is: a name, seeded or published samples, and measures.

A task's name is one of its family's forms with the numbers filled in:
`multi_doc_qa_{documents}_gold_{gold}` is `multi_doc_qa_20_gold_9`. The first
number is the task's size, and its field says what it counts. A family is a
module beside this one with a `FAMILY` (or several in `FAMILIES`); nothing else
needs to know of it.

A task draws each sample from its own random generator, so that sample 17 is the
same whether 20 samples are asked for or 20,000, or it reads them from files.

Synopsis:

    task = get_task('passkey_4096')
    for sample in task.samples(vocabulary.encode, seed=0, limit=50):
      quantities = task.score(answer(sample.prompt), sample)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import difflib
import fnmatch
import functools
import importlib
import itertools
import os
import pkgutil
import re
import string
import zlib

import numpy as np

from t5_align.tasks import measures
from t5_align.tasks.data import sources
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
  """The text that a model is trained to write, or whose likelihood counts."""
  answers: tuple[str, ...]
  """What the metric compares a prediction with; any of them is right."""
  depth: float | None
  """Share of the context that stands before the needle, 0 to 1."""
  cluster: str | None = None
  """The document, say, that it shares with other samples; None: independent."""


@dataclasses.dataclass(frozen=True)
class Request:
  """One task, and how its samples are wanted."""

  name: str
  """Of the task."""
  numbers: Mapping[str, int]
  """Field of the form -> its number, in order."""
  encode: Encode
  """Text to token ids without EOS, of the model's own vocabulary."""
  template: template_lib.Template
  """The wording of prompts."""
  split: str = 'test'
  """'train', 'dev' or 'test'."""
  seed: int = 0
  """Of generated samples."""
  data: str | None = None
  """File or folder of published samples, if one was named."""

  @property
  def unit(self) -> str | None:
    """What the first number counts: 'tokens', 'lines', …"""
    return next(iter(self.numbers), None)

  @property
  def size(self) -> int | None:
    """The first number."""
    return next(iter(self.numbers.values()), None)


# (rng, request, depth) -> a sample without an id.
Draw = Callable[[np.random.Generator, Request, float], Sample]


def _as_it_is(prediction: str) -> str:
  return prediction


@dataclasses.dataclass(frozen=True)
class Family:
  """How the samples of one kind of task are made and scored."""

  name: str
  """Its name in results, such as 'line_retrieval'."""
  version: str
  """Changes whenever the same seed would give other samples or scores."""
  description: str
  """One line for the list of tasks."""
  forms: tuple[str, ...]
  """Names of tasks, with fields for numbers: 'passkey_{tokens}'."""
  typical: tuple[str, ...]
  """Tasks that a list shows, and that a pattern matches."""
  measures: tuple[str, ...]
  """Of `measures.MEASURES`; the first one is the row's metric."""
  max_new_tokens: int = 0
  """Room for an answer in any vocabulary, bytes included."""
  templates: tuple[template_lib.Template, ...] = (
    template_lib.Template(name='plain', prompt='{context}'),
  )
  """The wordings that come with it; the first is the default."""
  placeholders: template_lib.Placeholders = dataclasses.field(
    default_factory=lambda: {
      'prompt': (frozenset({'context'}), frozenset({'context'}))
    }
  )
  """What each field of a template must and may name in braces."""
  draw: Draw | None = None
  """Makes one sample; None for a task that is always read."""
  read: Callable[[Request], Iterator[Sample]] | None = None
  """Yields the samples of published files; None for a task without any."""
  source: sources.DataSource | None = None
  """What is published, and how to get it."""
  data_splits: tuple[str, ...] = ('test',)
  """Those that its data has; most files are one set of samples."""
  data_limit: int | None = None
  """Samples to read of its data where no limit is set; None: all of them."""
  has_prompts: bool = False
  """Whether what is published holds whole prompts, so takes no template."""
  scored: bool = False
  """Whether the target's likelihood counts, and nothing is generated."""
  needs_line_breaks: bool = False
  """Whether prompts mean something else where line breaks are lost."""
  clean: Callable[[str], str] = _as_it_is
  """What the authors do to a prediction before they score it."""

  def template(
    self, wanted: template_lib.Template | str | os.PathLike | None
  ) -> template_lib.Template:
    """Return the template of a name or a file; the default one for None."""
    return template_lib.resolve(
      wanted, self.templates, self.placeholders, self.name
    )


@dataclasses.dataclass(frozen=True)
class TaskDefinition:
  """One family with the numbers of one name."""

  name: str
  """Such as 'multi_doc_qa_20_gold_9'."""
  numbers: Mapping[str, int]
  """Field of the form -> its number: {'documents': 20, 'gold': 9}."""
  definition: Family
  """The family itself."""

  @property
  def family(self) -> str:
    return self.definition.name

  @property
  def size(self) -> int | None:
    """The first number of the name."""
    return next(iter(self.numbers.values()), None)

  @property
  def unit(self) -> str | None:
    """What the size counts."""
    return next(iter(self.numbers), None)

  @property
  def version(self) -> str:
    return self.definition.version

  @property
  def measures(self) -> tuple[measures.Measure, ...]:
    """What is reported; the first one is the row's metric."""
    return tuple(measures.MEASURES[name] for name in self.definition.measures)

  @property
  def metric(self) -> str:
    return self.definition.measures[0]

  @property
  def higher_is_better(self) -> bool:
    return self.measures[0].higher_is_better

  @property
  def scored(self) -> bool:
    return self.definition.scored

  @property
  def max_new_tokens(self) -> int:
    return self.definition.max_new_tokens

  @property
  def is_generated(self) -> bool:
    """Whether it has samples without any data."""
    return self.definition.draw is not None

  def splits(self, data: str | os.PathLike | None = None) -> tuple[str, ...]:
    """Return the splits that it has, generated or of some data."""
    is_drawn = data is None and self.is_generated
    return SPLITS if is_drawn else self.definition.data_splits

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
      limit: how many; None: 100 generated ones, or every one of the files
        (200 of texts to score, which may have no end).
      template: a template, the name of one of the family's, or a JSON file.
      split: 'train', 'dev' or 'test'; no two share a sample.
      data: file or folder of published samples to read instead.

    Raises:
      ValueError: unknown split or template, a size too small for one needle, or
        what is wrong with a file, and where.
      FileNotFoundError: the data isn't there; says how to get it.
    """
    if limit is not None and limit < 0:
      raise ValueError(f'limit is {limit}; wanted a number from 0 up, or None.')
    if split not in SPLITS:
      raise ValueError(f"split is '{split}'; wanted one of {SPLITS}.")
    if split not in self.splits(data):
      raise ValueError(
        f"{self.name} has no split '{split}'; its data has"
        f' {", ".join(self.splits(data))}.'
      )
    if seed < 0:
      raise ValueError(f'seed is {seed}; wanted an integer from 0 up.')
    request = Request(
      self.name,
      self.numbers,
      encode,
      self.definition.template(template),
      split,
      seed,
      None if data is None else os.fspath(data),
    )
    if data is None and self.definition.draw is not None:
      count = DEFAULT_NUM_SAMPLES if limit is None else limit
      return self._draw(request, count)
    return self._read(request, limit, template)

  def _draw(self, request: Request, count: int) -> Iterator[Sample]:
    """Yield `count` generated samples."""
    draw = self.definition.draw
    assert draw is not None
    # The numbers are left out: where a family draws its question first, sample
    # 17 asks for the same at every length. Line retrieval draws its lines all
    # at once, and does not.
    split = SPLITS.index(request.split)
    root = (zlib.crc32(self.family.encode()), split, request.seed)
    for i in range(count):
      block = np.random.default_rng((*root, 0, i // DEPTH_BINS))
      depth_bin = int(block.permutation(DEPTH_BINS)[i % DEPTH_BINS])
      rng = np.random.default_rng((*root, 1, i))
      depth = (depth_bin + rng.random()) / DEPTH_BINS
      try:
        sample = draw(rng, request, depth)
      except ValueError as error:
        raise ValueError(f'{self.name}: {error}') from None
      yield dataclasses.replace(
        sample, id=f'{self.name}-{request.split}-{i:06d}'
      )

  def _read(self, request, limit, template) -> Iterator[Sample]:
    """Return the samples of published files."""
    read = self.definition.read
    # A prompt of so many tokens depends on the vocabulary: none is published.
    generated_only = self.is_generated and self.unit == 'tokens'
    if read is None or generated_only:
      raise ValueError(
        f'{self.name} is always generated; leave data out (got {request.data}).'
      )
    if template is not None and self.definition.has_prompts:
      raise ValueError(
        f'{self.name}: published files have their own prompts; leave out'
        f' either template ({template}) or data ({request.data}).'
      )
    if limit is None:
      limit = self.definition.data_limit
    return itertools.islice(read(request), limit)

  def score(
    self,
    prediction: str,
    sample: Sample,
    readable_answers: Sequence[str] | None = None,
  ) -> dict[str, float]:
    """Return the quantities of a prediction that its measures need.

    Args:
      prediction: what the model wrote.
      sample: what it was asked.
      readable_answers: the answers as the vocabulary can write them; None if it
        can write all.
    """
    return measures.answer_quantities(
      self.definition.measures,
      self.definition.clean(prediction),
      sample.answers,
      readable_answers or sample.answers,
    )


@functools.cache
def _families() -> dict[str, Family]:
  """Return every family by name: those of the modules beside this."""
  package = 't5_align.tasks.generators'
  found: list[Family] = []
  for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
    content = vars(importlib.import_module(f'{package}.{module.name}'))
    found += content.get('FAMILIES', ())
    found += [content['FAMILY']] if 'FAMILY' in content else []
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
  return [name for family in _families().values() for name in family.typical]


def get_task(name: str) -> TaskDefinition:
  """Return the task of a name such as 'passkey_4096'.

  Raises:
    ValueError: no family has a form of this name.
  """
  for family in _families().values():
    for form in family.forms:
      numbers = _parse(form, name)
      if numbers is None:
        continue
      if 0 in list(numbers.values())[:1]:
        raise ValueError(f"Task '{name}' has size 0; wanted a size from 1 up.")
      return TaskDefinition(name, numbers, family)
  raise ValueError(f"Unknown task '{name}'. {_suggest(name)}")


def select_tasks(names: Sequence[str]) -> list[TaskDefinition]:
  """Return the tasks of names and globs, each once, in the order asked for.

  Raises:
    ValueError: an unknown name, with the nearest one; a glob without a match.
  """
  selected: dict[str, TaskDefinition] = {}
  for name in names:
    matches = [name]
    if any(c in name for c in '*?['):
      matches = fnmatch.filter(list_tasks(), name)
      if not matches:
        raise ValueError(
          f"No task's name matches {name!r}; `t5-align tasks` lists them."
        )
    for match in matches:
      selected[match] = get_task(match)
  if not selected:
    raise ValueError('no task was named; `t5-align tasks` lists them.')
  return list(selected.values())


def _parse(form: str, name: str) -> dict[str, int] | None:
  """Return the numbers of a name, or None where it isn't of the form."""
  pattern = re.sub(r'\\\{(\w+)\\\}', r'(?P<\1>[0-9]{1,9})', re.escape(form))
  match = re.fullmatch(pattern, name)
  return match and {field: int(n) for field, n in match.groupdict().items()}


def fields(form: str) -> list[str]:
  """Return the fields of a form: ['documents', 'gold']."""
  return [name for _, name, _, _ in string.Formatter().parse(form) if name]


def name_at(family: str, tokens: int) -> str:
  """Return a family's task of so many tokens: 'line_retrieval_tokens_512'.

  Raises:
    ValueError: an unknown family, or one that has none.
  """
  definition = get_family(family)
  forms = [form for form in definition.forms if fields(form) == ['tokens']]
  if definition.draw is None or not forms:
    raise ValueError(
      f'{family} has no size in tokens; it cannot be generated at a length.'
    )
  return forms[0].format(tokens=tokens)


def _suggest(name: str) -> str:
  """Say which task may be meant: the nearest form with the numbers given."""
  forms = [form for family in _families().values() for form in family.forms]
  numbers = re.findall('[0-9]+', name)
  filled = []
  for form in forms:
    own = itertools.chain(numbers, itertools.repeat('4096'))
    filled.append(form.format(**dict(zip(fields(form), own))))
  close = difflib.get_close_matches(name, filled, n=1)
  if close:
    return f"Did you mean '{close[0]}'?"
  return f'Known: {", ".join(forms)}.'


def _nearest(name: str, known: Sequence[str]) -> str:
  """Say which known name is meant, or list them."""
  close = difflib.get_close_matches(name, known, n=1)
  if close:
    return f"Did you mean '{close[0]}'?"
  return f'Known: {", ".join(known)}.'
