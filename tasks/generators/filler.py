"""Natural-looking sentences that say nothing: the haystack around a needle.

A sentence is a pattern whose slots are filled from word lists. Word r of a list
of n is drawn with probability log(1 + 1/r) / log(1 + n), close to Zipf's law
(G. K. Zipf, "Human Behavior and the Principle of Least Effort", 1949), so that
some words are everywhere and some are rare. No digits, and none of the words
that a needle is made of.

Synopsis:

    rng = np.random.default_rng(0)
    next(sentences(rng))     # 'The old farmer watched a quiet river.'
"""

from collections.abc import Iterator
import math
import re

import numpy as np


def _phrases(text: str) -> list[str]:
  """Split at bars."""
  return [' '.join(phrase.split()) for phrase in text.split('|')]


# Most frequent first: the drawing follows the order.
NOUNS = """man house water day child road friend tree dog door room family book
morning table window garden story river horse teacher mother father boat town
bird letter hill winter market train farmer summer bridge doctor kitchen school
neighbor brother sister field bread stone island song fire street village chair
wall storm flower forest paper picture coat wagon cat sailor valley shop hat
baker church lamp ocean basket dinner fence cloud cousin ship corner candle
apple evening soldier mountain roof blanket spring artist barn mirror rope
meadow guest bottle harbor kettle autumn piano shepherd ladder cottage violin
lantern orchard merchant cabin pocket feather tailor whistle butter curtain
cellar saddle miller ribbon pigeon potter barrel weaver tunnel cradle cherry
thunder puppet honey gardener mitten pebble widow acorn sparrow chimney
fiddler lighthouse turnip teapot thimble""".split()
ADJECTIVES = """old little good long new great small young white black big cold
early dark warm quiet happy red tall heavy strange bright green soft deep empty
blue kind gentle wide narrow clean dusty hungry tired brave lonely golden wooden
broken lazy clever silent yellow pleasant gray round noisy wet lovely patient
crooked honest cheerful shy muddy curious graceful sleepy humble faded polite
weary rusty fragrant nimble drowsy mossy solemn""".split()
VERBS = """saw found took left made kept liked heard watched carried knew wanted
loved followed passed bought brought opened painted washed moved reached built
visited sold met cleaned held touched admired noticed mended covered repaired
borrowed crossed lifted described greeted dropped gathered ignored counted
praised trusted guarded measured polished imagined chased sketched rescued
decorated hauled""".split()
INTRANSITIVES = """came went stood sat slept walked waited smiled rested laughed
worked turned stopped sang grew moved played listened danced wandered paused
shivered sighed yawned whistled hurried lingered drifted trembled""".split()
PLACES = _phrases("""at home|in the garden|near the river|by the window|in town
|on the hill|under the tree|along the road|at the market|behind the house|by the
fire|in the kitchen|across the field|near the bridge|in the valley|at the harbor
|beside the barn|on the roof|in the forest|by the old wall|at the edge of the
village|in the far corner|under a gray sky|on the other side of the street|below
the mill""")
TIMES = _phrases("""in the morning|every day|last summer|at night|before dinner
|for a long time|in the evening|after the rain|all winter|on Sunday|at noon
|since the spring|once again|until dark|as always|before the storm|from time to
time|without a word|long ago|at the first light""")
ADVERBS = """then often soon never always slowly again quietly sometimes gently
suddenly later calmly rarely softly eagerly gladly politely""".split()
PEOPLE = """she he they we Anna Tom nobody everyone Mary John Peter somebody
Rose Henry Clara Oscar Ruth Hugo Edith Walter""".split()

PATTERNS = (
  'The {noun} {verb} the {noun} {place}.',
  'The {adjective} {noun} {intransitive} {place}.',
  'A {noun} {intransitive} {place} {time}.',
  '{people} {verb} the {adjective} {noun}.',
  '{people} {adverb} {verb} a {noun} {place}.',
  'The {noun} and the {noun} {intransitive} {time}.',
  '{time}, the {noun} {adverb} {intransitive}.',
  'It was a {adjective} {noun}, and {people} {verb} it {time}.',
  'There was a {noun} {place}.',
  'The {noun} was {adjective} and {adjective}.',
  'When the {noun} {intransitive}, {people} {verb} the {noun}.',
  '{people} {verb} the {noun} because the {noun} was {adjective}.',
  'My {noun} {verb} a {adjective} {noun} {time}.',
  'Was the {noun} {place} {time}?',
  'The {noun} that {people} {verb} was {adverb} {adjective}.',
  '{people} {intransitive} {place}, but the {noun} {intransitive} {time}.',
)

_WORDS = {
  'noun': NOUNS,
  'adjective': ADJECTIVES,
  'verb': VERBS,
  'intransitive': INTRANSITIVES,
  'place': PLACES,
  'time': TIMES,
  'adverb': ADVERBS,
  'people': PEOPLE,
}
# 'A {noun} fell.' -> ('A ', 'noun', ' fell.'): odd entries are slots.
_PARTS = tuple(tuple(re.split(r'\{(\w+)\}', p)) for p in PATTERNS)
_BATCH = 16
_MAX_SLOTS = max(len(parts) // 2 for parts in _PARTS)


def sentences(rng: np.random.Generator) -> Iterator[str]:
  """Yield sentences without end."""
  while True:
    # One call for many sentences: a call costs more than a sentence.
    uniform = iter(rng.random(_BATCH * (1 + _MAX_SLOTS)).tolist())
    for _ in range(_BATCH):
      yield _sentence(uniform)


def _sentence(uniform: Iterator[float]) -> str:
  """Fill one pattern."""
  parts = list(_PARTS[int(next(uniform) * len(_PARTS))])
  for i in range(1, len(parts), 2):
    words = _WORDS[parts[i]]
    parts[i] = words[
      int(math.exp(next(uniform) * math.log(1 + len(words)))) - 1
    ]
  text = ''.join(parts)
  return text[0].upper() + text[1:]
