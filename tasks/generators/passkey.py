"""Passkey retrieval: one number hidden in text that says nothing.

The task of Mohtashami and Jaggi, "Landmark Attention" (arXiv 2305.16300,
`llama/run_test.py`), in our own words: a five-digit key is told once, at a
controlled depth of a long text, and asked for at the end. Its size is the
prompt's tokens in the model's own vocabulary, EOS included.
"""

from collections.abc import Iterator

import numpy as np

from t5_align.tasks.generators import filler, haystack, task
from t5_align.tasks.generators.template import Template

TEMPLATES = (
  Template(
    name='plain',
    needle='The pass key is {key}.',
    prompt='{context} What is the pass key?',
    target='{key}',
  ),
  Template(
    name='secret',
    needle='Remember that the secret number is {key}.',
    prompt=(
      'A secret number is told somewhere in this text. {context}'
      ' Question: what is the secret number? Answer:'
    ),
    target='The secret number is {key}.',
  ),
  Template(
    name='locker',
    needle='My locker opens with the code {key}.',
    prompt=(
      'Read the following pages with care.\n\n{context}\n\nWhich code'
      ' opens my locker? Answer with the code only.'
    ),
    target='{key}',
  ),
)


def _units(
  rng: np.random.Generator, sentences: tuple[str, ...]
) -> Iterator[str]:
  """Yield the haystack, from the template's own sentences if it has some."""
  if not sentences:
    yield from filler.sentences(rng)
  while True:
    yield sentences[rng.integers(len(sentences))]


def draw(
  rng: np.random.Generator, request: task.Request, depth: float
) -> task.Sample:
  """Draw one sample of so many tokens; `depth` of its text before the key."""
  key = str(rng.integers(10_000, 100_000))
  template = request.template
  prompt, depth = haystack.bury(
    template.needle.format(key=key),
    _units(rng, template.filler),
    request.numbers['tokens'],
    request.encode,
    template.separator,
    lambda context: template.prompt.format(context=context),
    depth,
  )
  return task.Sample(
    id='',
    prompt=prompt,
    target=template.target.format(key=key),
    answers=(key,),
    depth=depth,
  )


FAMILY = task.Family(
  name='passkey',
  version='1.0',
  description='A five-digit number told once in a long text of no content.',
  forms=('passkey_{tokens}',),
  typical=tuple(f'passkey_{2**n}' for n in range(9, 15)),
  measures=('passkey_match', 'passkey_match_repaired'),
  max_new_tokens=32,
  templates=TEMPLATES,
  placeholders={
    'needle': (frozenset({'key'}), frozenset({'key'})),
    'prompt': (frozenset({'context'}), frozenset({'context'})),
    'target': (frozenset({'key'}), frozenset({'key'})),
  },
  draw=draw,
)
