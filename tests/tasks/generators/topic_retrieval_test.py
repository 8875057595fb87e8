"""Topic retrieval: what conversations say, and where their topics stand."""

import itertools
import re

import numpy as np
import pytest

from t5_align.tasks import generators
from t5_align.tasks.generators import conversations


def encode(text):
  return list(text.encode())


def samples(name, **options):
  return list(generators.get_task(name).samples(encode, **options))


def topics_of(sample):
  """The topics of a prompt in the default wording, in order."""
  opened = re.findall('^User: Let us talk about (.+)\\.$', sample.prompt, re.M)
  closed = re.findall('^User: So much for (.+)\\.$', sample.prompt, re.M)
  assert opened == closed
  return opened


def test_no_topic_is_part_of_another():
  topics = [
    f'the {aspect} of {subject}'
    for aspect, subject in itertools.product(
      conversations.ASPECTS, conversations.SUBJECTS
    )
  ]
  assert len(set(topics)) == conversations.NUM_TOPICS > 900
  text = '\n'.join(topics)
  assert all(text.count(topic) == 1 for topic in topics)


def test_conversations_differ_and_name_no_topic():
  drawn = list(conversations.conversations(np.random.default_rng(0)))
  assert len({topic for topic, _ in drawn}) == conversations.NUM_TOPICS
  texts = ['\n'.join(turns) for _, turns in drawn]
  text = '\n'.join(texts)
  assert len(set(texts)) == len(texts)
  aspects = '|'.join(conversations.ASPECTS)
  assert not re.search(rf'[\d{{}}]|the ({aspects}) of ', text)
  said = [turn for _, turns in drawn for turn in turns]
  num_different = len(set(said))
  assert num_different > 0.8 * len(said)
  for _, turns in drawn:
    roles = [turn.partition(':')[0] for turn in turns]
    assert roles == ['User', 'Assistant'] * (len(turns) // 2)


@pytest.mark.parametrize('size', [1, 2, 10])
def test_so_many_topics_and_the_first_is_asked_for(size):
  for sample in samples(f'topic_retrieval_{size}', limit=5):
    topics = topics_of(sample)
    assert len(set(topics)) == len(topics) == size
    assert sample.answers == (topics[0],)
    assert sample.prompt.count(topics[0]) == 2  # opened and closed
    assert sample.depth == 0


def test_a_size_in_tokens_ends_the_last_conversation_early():
  (long,) = samples('topic_retrieval_10', limit=1)
  lengths = set()
  for size in range(300, 6000, 300):
    (sample,) = samples(f'topic_retrieval_tokens_{size}', limit=1)
    topics = topics_of(sample)
    lengths.add(len(topics))
    assert topics == topics_of(long)[: len(topics)]
    body = sample.prompt.rpartition('\nUser: So much')[0]
    assert long.prompt.startswith(body)
  assert len(lengths) > 3


def test_a_template_may_count_the_topics():
  for name, counts in (('3', {3}), ('tokens_4000', {2, 3, 4})):
    for sample in samples(
      f'topic_retrieval_{name}', template='counted', limit=4
    ):
      count = int(re.search(r'number of topics is (\d+)', sample.prompt)[1])
      assert sample.prompt.count('My next questions are about') == count
      assert count in counts


def test_more_topics_than_there_are():
  limit = conversations.NUM_TOPICS
  with pytest.raises(ValueError, match=f'too many; there are {limit}'):
    samples(f'topic_retrieval_{limit + 1}', limit=1)


# Other texts here make every published number another: raise the version.
def test_samples_stay_what_they_are():
  (sample,) = samples('topic_retrieval_tokens_300', limit=1)
  assert generators.get_task('topic_retrieval_5').version == '1.0'
  assert sample.prompt == (
    'User: Let us talk about the cost of lighthouses.\n'
    'User: How much of this comes down to memory?\n'
    'User: So much for the cost of lighthouses.\n\n'
    'Which topic did we talk about first?'
  )
