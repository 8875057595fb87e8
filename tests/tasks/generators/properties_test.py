"""What holds for every generated family, found by itself, and any seed.

A family joins by a reader in `READERS`, which finds the answer in the text of a
prompt as a careful human would, knowing only the template.
"""

from collections.abc import Callable
import functools
import itertools
import os
import re
import string
from typing import NamedTuple

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from t5_align import vocabulary as vocabulary_lib
from t5_align.tasks import generators
from t5_align.tasks.generators import filler
from t5_align.tasks.generators import task as task_lib

GENERATED = [
  name
  for name in generators.list_families()
  if generators.get_family(name).draw is not None
]


class Reading(NamedTuple):
  """What a reader finds in a prompt."""

  answer: str
  needle: str  # where the answer stands
  before: int  # units of the haystack before it
  units: int  # of the haystack


def pattern(text: str) -> str:
  """A template's text as a regular expression, its fields as groups."""
  parts = []
  for literal, field, _, _ in string.Formatter().parse(text):
    parts.append(re.escape(literal))
    if field is not None:
      parts.append('(?P<context>.*)' if field == 'context' else '(.+?)')
  return ''.join(parts)


def split_prompt(prompt, template):
  """The haystack, and what else the prompt's fields are."""
  found = re.fullmatch(pattern(template.prompt), prompt, re.DOTALL)
  others = [x for x in found.groups() if x != found['context']]
  return found['context'], *others


def read_passkey(prompt, template):
  (context,) = split_prompt(prompt, template)
  units = re.split('(?<=[.?]) ', context)
  needle = pattern(template.needle)
  (place,) = [i for i, unit in enumerate(units) if re.fullmatch(needle, unit)]
  answer = re.fullmatch(needle, units[place])[1]
  return Reading(answer, units[place], place, len(units) - 1)


def read_pair(prompt, template):
  context, key = split_prompt(prompt, template)
  ending = rf'(?:{re.escape(template.separator)}|\Z)'
  pairs = list(re.finditer(pattern(template.needle) + ending, context))
  assert ''.join(pair[0] for pair in pairs) == context
  (place,) = [i for i, pair in enumerate(pairs) if pair[1] == key]
  value = pairs[place][2]
  needle = template.needle.format(key=key, value=value)
  return Reading(value, needle, place, len(pairs) - 1)


def read_topic(prompt, template):
  context, *_ = split_prompt(prompt, template)
  opening = pattern(template.needle.partition('{turns}')[0])
  found = re.match(opening, context)
  talks = len(re.findall(opening, context))
  turns = len([line for line in context.split('\n') if line]) - 2 * talks
  return Reading(found[1], found[0], 0, turns)


READERS: dict[str, Callable] = {
  'passkey': read_passkey,
  'line_retrieval': read_pair,
  'kv_retrieval': read_pair,
  'topic_retrieval': read_topic,
}


@functools.cache
def encoder(vocabulary: str) -> Callable[[str], list[int]]:
  """How a vocabulary of each kind turns text into ids."""
  if vocabulary == 'bytes':
    return lambda text: list(text.encode())
  if vocabulary == 'runs':  # tokens that cross words
    return lambda text: [0] * ((len(text) + 7) // 8)
  if vocabulary == 'bundled':
    folder = os.path.dirname(vocabulary_lib.__file__)
    return vocabulary_lib.load_vocabulary(f'{folder}/bundled').encode
  # As T5's: neither braces nor line breaks.
  sentences = itertools.islice(filler.sentences(np.random.default_rng(0)), 500)
  texts = [f'{s} 3f7a-9b0c: "d8e1" = 24; 56, (q)' for s in sentences]
  model = vocabulary_lib.train_sentencepiece(texts, 500, byte_fallback=False)
  return vocabulary_lib.SentencePieceVocabulary(model).encode


VOCABULARIES = ('bytes', 'bundled', 'runs', 'without_braces')
TEMPLATES = st.sampled_from(
  [
    (family, template.name)
    for family in GENERATED
    for template in generators.get_family(family).templates
  ]
)
SEEDS = st.integers(0, 2**40)


def check(task, sample, template):
  """Find the needle where it should be and the answer in it."""
  template = task.definition.template(template)
  found = READERS[task.family](sample.prompt, template)
  assert (found.answer,) == sample.answers
  assert sample.prompt.count(found.needle) == 1
  assert 0 <= sample.depth <= 1
  assert found.before == round(sample.depth * found.units)
  for prediction in (found.answer, sample.target):
    assert task.score(prediction, sample)[task.metric] == 1
  return found


# More than a unit has in any vocabulary.
SPARE = 1000


@pytest.mark.slow
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  wording=TEMPLATES,
  size=st.integers(1, 1200),
  vocabulary=st.sampled_from(VOCABULARIES),
  seed=SEEDS,
)
def test_a_size_in_tokens(wording, size, vocabulary, seed):
  (family, template), encode = wording, encoder(vocabulary)
  # One task for any budget, since the size may be part of what is drawn: so
  # many tokens of each prompt are taken already.
  task = generators.get_task(task_lib.name_at(family, size + SPARE))
  ending = task.definition.template(template).prompt.rpartition('}')[2]

  def at(budget):
    taken = [0] * (size + SPARE - budget)

    def encode_prompt(text):
      return encode(text) + (taken if text.endswith(ending) else [])

    (sample,) = task.samples(
      encode_prompt, limit=1, seed=seed, template=template
    )
    found = check(task, sample, template)
    length = len(encode(sample.prompt)) + 1
    assert length <= budget
    return found.units, length

  try:
    units, _ = at(size)
  except ValueError as error:
    assert f'{size + SPARE} tokens are too few' in str(error)
    assert size < 600
    return
  # A prompt of one unit more would have been too long.
  more, length = at(size + SPARE)
  while more > units + 1:
    more, length = at(length - 1)
  assert (more, length) > (units, size)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
  wording=TEMPLATES,
  size=st.integers(1, 12),
  other=st.integers(0, 11),
  seed=SEEDS,
)
def test_a_size_in_something_else(wording, size, other, seed):
  (family, template), encode = wording, encoder('bytes')
  for form in generators.get_family(family).forms:
    fields = task_lib.fields(form)
    if fields == ['tokens']:
      continue
    numbers = {field: other % size for field in fields} | {fields[0]: size}
    task = generators.get_task(form.format(**numbers))
    for sample in task.samples(encode, limit=2, seed=seed, template=template):
      found = check(task, sample, template)
      if family != 'topic_retrieval':  # whose units are turns
        assert found.units == size - 1
      assert found.before == numbers.get('gold', found.before)


@pytest.mark.parametrize('family', GENERATED)
def test_too_small_a_size_says_which_would_do(family):
  for vocabulary in VOCABULARIES:
    encode = encoder(vocabulary)
    task = generators.get_task(task_lib.name_at(family, 1))
    with pytest.raises(ValueError, match='1 tokens are too few') as error:
      next(task.samples(encode))
    smallest = int(re.search(r'take (\d+) tokens', str(error.value))[1])
    task = generators.get_task(task_lib.name_at(family, smallest + 50))
    check(task, next(task.samples(encode)), None)


@pytest.mark.parametrize('family', GENERATED)
def test_seeds_and_splits_share_no_sample(family):
  task = generators.get_task(task_lib.name_at(family, 400))

  def prompts(**options):
    drawn = task.samples(encoder('bytes'), limit=10, **options)
    return [sample.prompt for sample in drawn]

  assert prompts(seed=3) == prompts(seed=3)
  streams = [
    prompts(seed=seed, split=split)
    for seed in (0, 1, 2**40)
    for split in task.splits()
  ]
  assert len(streams) == 9
  assert len(set(itertools.chain(*streams))) == 10 * len(streams)


@pytest.mark.parametrize('family', GENERATED)
def test_the_stream_to_train_on(family):
  task = generators.get_task(task_lib.name_at(family, 300))
  rng = np.random.default_rng(0)
  encode = generators.by_words(encoder('bundled'))
  samples = [
    generators.training_sample(rng, encode, 300, family=family)
    for _ in range(40)
  ]
  for sample in samples:
    check(task, sample, None)
    assert len(encode(sample.prompt)) + 1 <= 300
  assert len({sample.prompt for sample in samples}) == 40
  assert len({sample.answers for sample in samples}) > 36
  with pytest.raises(ValueError, match='too few'):
    generators.training_sample(rng, encode, 5, family=family)


def test_every_generated_family_has_a_reader():
  assert sorted(READERS) == sorted(GENERATED)
