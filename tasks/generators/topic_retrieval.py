"""Topic retrieval: the first of several topics of conversation.

The task of LongEval (Li et al., "How Long Can Open-Source LLMs Truly Promise on
Context Length?", lmsys.org/blog/2023-06-29-longchat; LongChat repository,
`longeval/utils.py`), in our own words: conversations stand one after the other,
each opened and closed with its topic's name, and the first topic is asked for.
So what is sought always stands first, at depth 0. The size counts topics
(`topic_retrieval_10`) or tokens of the model's own vocabulary, EOS included
(`topic_retrieval_tokens_2048`), where as many turns as fit are taken and the
last conversation ends early.

Synopsis:

    task = get_task('topic_retrieval_5')
    next(task.samples(encode)).prompt
    next(task.samples(encode, data='LongChat')).prompt    # as published
"""

import bisect
from collections.abc import Iterator
import itertools

import numpy as np

from t5_align.tasks.generators import conversations, haystack, longeval, task
from t5_align.tasks.generators.template import Template

TEMPLATES = (
  Template(
    name='plain',
    needle=(
      'User: Let us talk about {topic}.\n{turns}\nUser: So much for {topic}.'
    ),
    prompt='{context}\n\nWhich topic did we talk about first?',
    target='{topic}',
    separator='\n\n',
  ),
  Template(
    name='record',
    needle=(
      'Here begins the talk on {topic}.\n{turns}\n'
      'Here ends the talk on {topic}.'
    ),
    prompt=(
      'These talks were recorded one after the other.\n\n{context}\n\n'
      'The very first of these talks was on'
    ),
    target='{topic}',
    separator='\n\n',
  ),
  Template(
    name='counted',
    needle=(
      'User: My next questions are about {topic}.\n{turns}\n'
      'User: I have no more questions about {topic}.'
    ),
    prompt=(
      'Remember what the user wants to know about; the number of topics is'
      ' {topics}.\n\n{context}\n\nName the topic that the user began with, and'
      ' nothing else.'
    ),
    target='The user began with {topic}.',
    separator='\n\n',
  ),
)


class _Record:
  """The conversations of one sample, turn by turn."""

  def __init__(self, rng: np.random.Generator, request: task.Request):
    self._template = request.template
    self._drawn = conversations.conversations(rng)
    self._starts: list[int] = []  # of each conversation, in characters
    self._endings: list[str] = []
    self.topics: list[str] = []

  def turns(self, num_topics: int | None) -> Iterator[str]:
    """Yield the text of a turn and what stands between it and the last."""
    length = 0
    for topic, turns in itertools.islice(self._drawn, num_topics):
      opening, _, ending = self._template.needle.format(
        topic=topic, turns='\0'
      ).partition('\0')
      if self.topics:
        opening = self._endings[-1] + self._template.separator + opening
      self.topics.append(topic)
      self._starts.append(length)
      self._endings.append(ending)
      for before, turn in zip(
        itertools.chain([opening], itertools.repeat('\n')), turns
      ):
        length += len(before + turn)
        yield before + turn

  def render(self, context: str) -> str:
    """Return the prompt with the turns so far, after ending the last talk."""
    count = bisect.bisect_left(self._starts, len(context))
    return self._template.prompt.format(
      context=context + self._endings[count - 1], topics=count
    )


def draw(
  rng: np.random.Generator, request: task.Request, depth: float
) -> task.Sample:
  """Draw one sample of so many topics or tokens; `depth` is always 0."""
  del depth
  size = request.numbers.get('topics')
  if size is not None and size > conversations.NUM_TOPICS:
    raise ValueError(
      f'{size} topics are too many; there are {conversations.NUM_TOPICS}.'
    )
  record = _Record(rng, request)
  turns = record.turns(size)
  if size is not None:
    prompt = record.render(''.join(turns))
  else:
    first = next(turns)
    tokens, encode = request.numbers['tokens'], request.encode
    prompt, _ = haystack.bury(
      first, turns, tokens, encode, '', record.render, depth=0.0
    )
  topic = record.topics[0]
  return task.Sample(
    id='',
    prompt=prompt,
    target=request.template.target.format(topic=topic),
    answers=(topic,),
    depth=0.0,
  )


FAMILY = task.Family(
  name='topic_retrieval',
  version='1.0',
  description='The first of several topics of conversation.',
  forms=('topic_retrieval_{topics}', 'topic_retrieval_tokens_{tokens}'),
  typical=tuple(
    [f'topic_retrieval_{n}' for n in (5, 10, 15, 20, 25)]
    + [f'topic_retrieval_tokens_{2**n}' for n in range(9, 15)]
  ),
  measures=('topic_retrieval_match',),
  max_new_tokens=100,
  templates=TEMPLATES,
  placeholders={
    'needle': (frozenset({'topic', 'turns'}), frozenset({'topic', 'turns'})),
    'prompt': (frozenset({'context'}), frozenset({'context', 'topics'})),
    'target': (frozenset({'topic'}), frozenset({'topic'})),
  },
  draw=draw,
  read=longeval.read_topics,
  source=longeval.TOPICS,
  has_prompts=True,
)
