"""Properties of every sample, whatever its family, length or vocabulary."""

import functools
import itertools
import re
import subprocess
import sys

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from t5_align.tasks import generators
from t5_align.tasks.generators import filler, line_retrieval


def encode_bytes(text):
  return [byte + 3 for byte in text.encode()]


def encode_words(text):
  """A vocabulary of words, each as many ids as it has pairs of letters."""
  return [len(w) for w in text.split() for _ in range((len(w) + 1) // 2)]


def encode_runs(text):
  """A vocabulary whose tokens cross words: eight characters each."""
  return [len(text)] * ((len(text) + 7) // 8)


ENCODERS = {'bytes': encode_bytes, 'words': encode_words, 'runs': encode_runs}
TOKEN_TASKS = ('passkey', 'line_retrieval_tokens')


def read_exactly(task, sample, template):
  """Answers from the prompt's text alone."""
  pattern = re.escape(template.needle)
  if task.family == 'line_retrieval':
    # The key as the question has it, behind the last line.
    asked = re.escape(template.prompt.rpartition('{context}')[2]).replace(
      r'\{key\}', '(.+?)'
    )
    key = re.search(asked + r'\Z', sample.prompt)[1]
    pattern = pattern.replace(r'\{key\}', re.escape(key))
  (found,) = re.findall(re.sub(r'\\{\w+\\}', r'(\\d+)', pattern), sample.prompt)
  return found


@functools.cache
def longest_sentence(encode):
  sentences = filler.sentences(np.random.default_rng(0))
  return max(len(encode(' ' + s)) for s in itertools.islice(sentences, 9000))


def longest_unit(task, sample, template, encode):
  """Tokens of the longest unit that one more could have been."""
  if task.family == 'line_retrieval':
    key = f'{"x" * 6} {"x" * 6}'
    unit = template.needle.format(key=key, value=50_000)
    return len(encode(template.separator + unit)) + 1
  return longest_sentence(encode) + 1


GENERATED_AT_ANY_LENGTH = ('passkey', 'line_retrieval')


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  prefix=st.sampled_from(TOKEN_TASKS),
  size=st.integers(64, 1500),
  vocabulary=st.sampled_from(sorted(ENCODERS)),
  template=st.sampled_from([0, 1, 2]),
  seed=st.integers(0, 2**40),
)
def test_samples_of_a_token_budget(prefix, size, vocabulary, template, seed):
  encode = ENCODERS[vocabulary]
  size = max(size, 64 if template == 0 else 300)
  task = generators.get_task(f'{prefix}_{size}')
  template = task.definition.templates[template]
  samples = list(
    task.samples(encode, seed=seed, limit=3, template=template.name)
  )
  assert [s.id for s in samples] == [
    f'{prefix}_{size}-test-{i:06d}' for i in range(3)
  ]
  for sample in samples:
    answer = read_exactly(task, sample, template)
    assert (answer,) == sample.answers
    assert set(task.score(answer, sample).values()) == {1}
    assert set(task.score(sample.target, sample).values()) == {1}
    length = len(encode(sample.prompt)) + 1
    assert length <= size
    assert size - length < longest_unit(task, sample, template, encode)
    assert 0 <= sample.depth <= 1


@pytest.mark.parametrize('lines', [1, 2, 200, 680])
def test_a_size_in_lines_is_exact(lines):
  task = generators.get_task(f'line_retrieval_{lines}')
  template = task.definition.templates[0]
  for sample in task.samples(encode_bytes, limit=3):
    assert len(re.findall(r'^line ', sample.prompt, re.M)) == lines
    assert read_exactly(task, sample, template) == sample.answers[0]


def test_depth_is_where_the_needle_is_and_covers_the_context():
  for name in ('passkey_4096', 'line_retrieval_200'):
    task = generators.get_task(name)
    needle = task.definition.templates[0].needle.partition('{')[0]
    depths = []
    for sample in task.samples(encode_bytes, limit=40):
      if task.family == 'passkey':
        place = sample.prompt.index(needle) / len(sample.prompt)
        assert place == pytest.approx(sample.depth, abs=0.05)
      else:
        lines = sample.prompt.splitlines()
        key = sample.target.partition(':')[0]
        (place,) = [i for i in range(200) if f'line {key}:' in lines[i]]
        assert place == round(sample.depth * 199)
      depths.append(sample.depth)
    # Each ten samples have one depth in every tenth, up to a unit's rounding.
    for i in range(0, 40, 10):
      expected = np.arange(10) / 10 + 0.05
      np.testing.assert_allclose(
        sorted(depths[i : i + 10]), expected, atol=0.06
      )
    assert depths != sorted(depths)


@pytest.mark.parametrize('name', ['passkey_200', 'line_retrieval_5'])
def test_seeds_and_splits(name):
  task = generators.get_task(name)

  def prompts(**options):
    return [s.prompt for s in task.samples(encode_bytes, limit=20, **options)]

  assert prompts(seed=3) == prompts(seed=3)
  streams = [
    prompts(seed=seed, split=split)
    for seed in (0, 1)
    for split in ('train', 'dev', 'test')
  ]
  assert len(set(itertools.chain(*streams))) == 20 * len(streams)


def test_a_sample_does_not_depend_on_how_many_are_asked_for():
  task = generators.get_task('passkey_300')
  few = list(task.samples(encode_bytes, limit=7))
  assert few == list(task.samples(encode_bytes))[:7]
  assert len(list(task.samples(encode_bytes))) == 100
  assert list(task.samples(encode_bytes, limit=0)) == []


def test_lengths_are_compared_on_the_same_questions():
  short, long = (
    [s.answers for s in generators.get_task(n).samples(encode_bytes, limit=9)]
    for n in ('passkey_100', 'passkey_1000')
  )
  assert short == long


@pytest.mark.parametrize('prefix', TOKEN_TASKS)
def test_too_small_a_size_names_the_smallest(prefix):
  task = generators.get_task(f'{prefix}_40')
  with pytest.raises(
    ValueError, match=f'{prefix}_40: 40 tokens are too few'
  ) as e:
    list(task.samples(encode_bytes, limit=1))
  smallest = int(re.search(r'take (\d+) tokens', str(e.value))[1])
  task = generators.get_task(f'{prefix}_{smallest}')
  (sample,) = task.samples(encode_bytes, limit=1)
  assert len(encode_bytes(sample.prompt)) + 1 == smallest


@pytest.mark.slow
@pytest.mark.parametrize('encode', ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize('prefix', TOKEN_TASKS)
def test_64_tokens_always_suffice(prefix, encode):
  for sample in generators.get_task(f'{prefix}_64').samples(encode, limit=300):
    assert len(encode(sample.prompt)) + 1 <= 64


def test_the_longest_key_fits_64_bytes():
  assert max(map(len, line_retrieval.KEY_ADJECTIVES)) == 6
  assert max(map(len, line_retrieval.KEY_NOUNS)) == 6
  needle, prompt = (
    getattr(line_retrieval.TEMPLATES[0], field)
    for field in ('needle', 'prompt')
  )
  key = 'golden helmet'
  line = needle.format(key=key, value=50_000)
  assert len(prompt.format(context=line, key=key)) + 1 <= 64


def test_more_lines_than_keys_is_an_error():
  limit = min(line_retrieval.NUM_KEYS, line_retrieval.MAX_VALUE)
  task = generators.get_task(f'line_retrieval_{limit + 1}')
  with pytest.raises(ValueError, match=f'there are {limit} keys'):
    next(task.samples(encode_bytes))
  task = generators.get_task('line_retrieval_tokens_9000000')
  with pytest.raises(ValueError, match='too many'):
    next(task.samples(encode_words))


def test_keys_are_distinct_and_hold_no_digits():
  for words in (line_retrieval.KEY_ADJECTIVES, line_retrieval.KEY_NOUNS):
    assert len(set(words)) == len(words)
    assert all(re.fullmatch('[a-z]+', word) for word in words)


def test_filler_varies_and_holds_nothing_like_a_needle():
  sentences = filler.sentences(np.random.default_rng(1))
  drawn = list(itertools.islice(sentences, 5000))
  text = ' '.join(drawn).lower()
  assert not re.search(
    r'\d|\b(key|pass|code|secret|number|line|locker|account|coins?)\b', text
  )
  assert all(re.fullmatch(r'[A-Z][A-Za-z, ]+[.?]', s) for s in drawn)
  words = re.findall(r'\w+', text)
  counts = sorted((words.count(w) for w in set(words)), reverse=True)
  assert len(counts) > 350
  # As in real text, a few words are most of it and many are rare.
  assert sum(counts[:50]) > 0.5 * len(words)
  assert len(set(drawn)) > 0.8 * len(drawn)


# Other texts here make every published number another: raise the version.
@pytest.mark.parametrize(
  ('name', 'prompt'),
  [
    (
      'line_retrieval_2',
      'line mute salad: 23292\nline candid barrel: 2821\n'
      'What is in line mute salad?',
    ),
    (
      'passkey_120',
      'When the man sang, Edith followed the man. The pass key is 51791.'
      ' What is the pass key?',
    ),
  ],
)
def test_samples_stay_what_they_are(name, prompt):
  task = generators.get_task(name)
  assert task.version == '1.0'
  assert next(task.samples(encode_bytes)).prompt == prompt


def test_by_words_gives_the_same_ids_or_the_same_function():
  rng = np.random.default_rng(0)
  for encode in (encode_bytes, encode_words):
    quick = generators.by_words(encode)
    assert quick is not encode
    for family in GENERATED_AT_ANY_LENGTH:
      sample = generators.training_sample(rng, quick, 300, family=family)
      assert quick(sample.prompt) == encode(sample.prompt)
    assert quick(' a \n\n b ') == encode(' a \n\n b ')
  assert generators.by_words(encode_runs) is encode_runs


def test_training_samples_fill_their_length():
  rng = np.random.default_rng(0)
  for length in (64, 100, 512):
    samples = [
      generators.training_sample(rng, encode_words, length, family=family)
      for family in GENERATED_AT_ANY_LENGTH
      for _ in range(20)
    ]
    lengths = [len(encode_words(s.prompt)) + 1 for s in samples]
    assert max(lengths) <= length
    assert min(lengths) > length - 60
    assert len({s.prompt for s in samples}) == len(samples)


@pytest.mark.parametrize(
  ('name', 'complaint'),
  [
    ('paskey_4096', "Did you mean 'passkey_4096'"),
    ('line_retreival_680', "Did you mean 'line_retrieval_680'"),
    ('passkey', "Did you mean 'passkey_4096'"),
    ('passkey_4k', 'passkey_'),
    ('passkey_0', 'size 0'),
    ('passkey_-5', 'Unknown task'),
    ('../passkey_64', 'Unknown task'),
    ('passkey_6４', 'Unknown task'),
    ('', r'Known: .*passkey_\{tokens\}'),
  ],
)
def test_unknown_tasks_name_the_nearest(name, complaint):
  with pytest.raises(ValueError, match=complaint):
    generators.get_task(name)


def test_wrong_options_are_refused():
  task = generators.get_task('passkey_100')
  for options, complaint in (
    ({'split': 'validation'}, "split is 'validation'"),
    ({'seed': -1}, 'seed is -1'),
    ({'limit': -1}, 'limit is -1'),
    ({'data': 'somewhere'}, 'always generated'),
  ):
    with pytest.raises(ValueError, match=complaint):
      task.samples(encode_bytes, **options)
  with pytest.raises(ValueError, match="Did you mean 'passkey'"):
    generators.training_sample(
      np.random.default_rng(0), encode_bytes, 100, family='paskey'
    )


def test_every_listed_task_exists():
  names = generators.list_tasks()
  assert 'passkey_4096' in names
  assert 'line_retrieval_680' in names
  for name in names:
    task = generators.get_task(name)
    assert task.name == name
    assert task.family in generators.list_families()
    assert generators.get_task(task.name) == task
  assert {generators.get_task(n).family for n in names} == set(
    generators.list_families()
  )


def test_generators_need_neither_seqio_nor_tensorflow():
  code = (
    'import sys, t5_align.tasks.generators; '
    'print([m for m in ("seqio", "tensorflow", "t5x") if m in sys.modules])'
  )
  output = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert output.stdout.strip() == '[]'
