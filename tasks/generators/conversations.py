"""Conversations on many topics: a user asks, an assistant answers.

A topic is one aspect of one subject, 'the history of tea'. No turn names it,
and any sentence could be said of any topic, so that only what stands around a
conversation tells what it is about. A sentence is a pattern whose slots are
filled from lists, so that no two conversations are alike. No digits.

Synopsis:

    topic, turns = next(conversations(np.random.default_rng(0)))
    turns[0]     # 'User: Why does it look so different on the islands?'
"""

from collections.abc import Iterator
import re

import numpy as np


def _phrases(text: str) -> list[str]:
  """Split at bars."""
  return [' '.join(phrase.split()) for phrase in text.split('|')]


ASPECTS = 'history future science beauty meaning value cost mystery'.split()
SUBJECTS = _phrases("""tea|coffee|chocolate|honey|bread|cheese|salt|spices|olive
oil|apple orchards|rice fields|wine cellars|school lunches|street food|family
recipes|paper|ink|maps|love letters|postage stamps|libraries|dictionaries
|diaries|newspapers|fairy tales|folk songs|nursery rhymes|riddles|proverbs
|handwriting|violins|church bells|drums|pianos|choirs|puppet theater|circus
tents|masks|stage magic|silent films|comic books|portraits|wall paintings
|statues|photographs|pottery|stained glass|silk|wool|leather|lace|carpets
|baskets|buttons|wooden shoes|hats|umbrellas|mirrors|candles|oil lamps|soap
|perfume|jewelry|coins|clocks|tin toys|dolls|kites|board games|chess|playing
cards|sailing ships|lighthouses|harbors|canals|stone bridges|tunnels|railways
|trams|bicycles|balloons|elevators|windmills|water wheels|country roads|inns
|camping|swimming|ice skating|marathons|horse riding|fishing|rose gardens
|greenhouses|city parks|forests|rivers|glaciers|deserts|caves|volcanoes|coral
reefs|tides|clouds|rainbows|snow|thunderstorms|comets|telescopes|microscopes
|magnets|compasses|calendars|batteries|radio plays|beekeeping|bird watching
|sheep dogs|house cats|owls|whales|wolves|butterflies|earthworms|seed banks
|mushrooms|herbs|eyeglasses|hospitals|vaccines|sleep|dreams|laughter|friendship
|flea markets|weddings|birthdays|harvest festivals|village schools|museums
|debate clubs|voting|sign language|secret codes""")
NUM_TOPICS = len(ASPECTS) * len(SUBJECTS)

_WORDS = {
  'people': _phrases("""travelers|teachers|neighbors|children|farmers
|shopkeepers|scholars|workers|sailors|collectors|beginners|experts|grandparents
|engineers|painters|students|doctors|visitors|young people|critics"""),
  'place': _phrases("""in small towns|along the coast|in big cities|in the
mountains|near the border|in most villages|on the islands|in cold countries|at
the old market|around the harbor|in the south|far from the capital|across the
river|in the north|at school|in the countryside"""),
  'time': _phrases("""long ago|after the war|every spring|within a generation
|during hard winters|before the railway came|at the turn of the century|in those
days|for many years|once or twice|almost from the beginning|much too late
|without knowing why|in the end"""),
  'thing': _phrases("""patience|skill|money|weather|memory|trust|luck|habit
|fashion|language|cooperation|curiosity|trade|education|tradition|attention
|practice|courage|competition|good advice"""),
  'quality': _phrases("""surprising|difficult|costly|delicate|common|precious
|quaint|misunderstood|practical|strange|rewarding|dangerous|simple|central
|fragile|curious|neglected|modern|reliable|personal"""),
  'verb': _phrases("""changed|ignored|praised|questioned|studied|improved
|misjudged|protected|recorded|doubted|celebrated|copied|defended|noticed
|rejected|discovered"""),
}
QUESTIONS = (
  'What do {people} find {quality} about it?',
  'Is it true that {people} {verb} it {time}?',
  'How did {thing} come to matter so much {place}?',
  'Why does it look so different {place}?',
  'Which matters more to {people}, {thing} or {thing}?',
  'How would you explain it to {people}?',
  'Did anyone {place} see that coming?',
  'What would you tell {people} who think it is {quality}?',
  'When did {people} {place} begin to see it that way?',
  'Can {thing} make up for a lack of {thing}?',
  'What is the most {quality} mistake that {people} make?',
  'Could it have gone otherwise {place}?',
  'How much of this comes down to {thing}?',
  'Who {verb} it first, {people} or {people}?',
  'Has it become more {quality} {place}?',
  'I heard that {people} {place} see it differently. Why?',
)
ANSWERS = (
  'Most {people} would say that {thing} is the {quality} part.',
  'It was {people} {place} who {verb} it {time}.',
  'Some {people} {verb} it {time} because of {thing}.',
  'Without {thing}, it would have stayed {quality}.',
  'There is a {quality} link between {thing} and {thing}.',
  'I would not call it {quality}, but {people} often do.',
  'Records kept {place} show how {people} {verb} it.',
  'The {quality} thing is that {thing} counts for less than {thing}.',
  'Many {people} learned about it {place}.',
  'Even {people} and {people} still disagree about that.',
  'A little {thing} goes a long way, above all {place}.',
  'For {people}, it has always been more {quality} than it seems.',
  'What looks {quality} {place} may be quite {quality} elsewhere.',
  'One reason is {thing}; another is that {people} {verb} it {time}.',
  'Few {people} {verb} it {time}, and fewer wrote about it.',
  'It takes {thing} to notice that, and {thing} to put it to use.',
  'Some of it is {quality}, some of it only a matter of {thing}.',
  'That depends on {thing}, as {people} {place} found out {time}.',
  'The same happened to {people} {place}, with a more {quality} result.',
  'If {people} had {verb} it {time}, {thing} might have been enough.',
)
REPLIES = _phrases("""I see.|Thank you.|Interesting.|That helps.|Really?|Good to
know.|All right.|I had no idea.""")
# A conversation has so many questions, and as many answers.
MIN_QUESTIONS, MAX_QUESTIONS = 4, 8
MAX_SENTENCES = 3
_SLOT = re.compile(r'\{(\w+)\}')


def conversations(
  rng: np.random.Generator,
) -> Iterator[tuple[str, list[str]]]:
  """Yield (topic, turns), each topic once, `NUM_TOPICS` in all."""
  for topic in rng.permutation(NUM_TOPICS).tolist():
    subject, aspect = divmod(topic, len(ASPECTS))
    turns = []
    for number in range(rng.integers(MIN_QUESTIONS, MAX_QUESTIONS + 1)):
      question = _sentence(rng, QUESTIONS)
      if number and rng.random() < 0.5:
        question = f'{REPLIES[rng.integers(len(REPLIES))]} {question}'
      count = int(rng.integers(1, MAX_SENTENCES + 1))
      answer = ' '.join(_sentence(rng, ANSWERS) for _ in range(count))
      turns += [f'User: {question}', f'Assistant: {answer}']
    yield f'the {ASPECTS[aspect]} of {SUBJECTS[subject]}', turns


def _sentence(rng: np.random.Generator, patterns: tuple[str, ...]) -> str:
  """Fill one pattern, no slot like another."""
  # 'Most {people} agree.' -> ['Most ', 'people', ' agree.']: odd are slots.
  parts = _SLOT.split(patterns[rng.integers(len(patterns))])
  for i in range(1, len(parts), 2):
    words = _WORDS[parts[i]]
    place = int(rng.integers(len(words)))
    while words[place] in parts[:i]:
      place = (place + 1) % len(words)
    parts[i] = words[place]
  return ''.join(parts)
