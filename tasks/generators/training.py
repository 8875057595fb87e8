"""Samples to train on: any family, any length, as many as are asked for.

Unlike an evaluation, training draws one stream without ids, and nothing keeps
it from being endless.

Synopsis:

    encode = by_words(vocabulary.encode)
    sample = training_sample(rng, encode, 128, family='passkey')
    inputs = encode(sample.prompt) + [vocabulary.eos_id]
    targets = encode(sample.target) + [vocabulary.eos_id]
"""

import os

import numpy as np

from t5_align.tasks.generators import task
from t5_align.tasks.generators.template import Template


def training_sample(
  rng: np.random.Generator,
  encode: task.Encode,
  length: int,
  *,
  family: str = 'passkey',
  template: Template | str | os.PathLike | None = None,
) -> task.Sample:
  """Draw one sample whose prompt has at most `length` tokens with its EOS.

  Args:
    rng: where everything is drawn from; use a seed that no evaluation uses.
    encode: text to ids without EOS; `by_words` makes it quick.
    length: tokens of the prompt, missed by less than one filler unit.
    family: its name.
    template: a template, its name or its file; None: the family's default.

  Raises:
    ValueError: unknown family or template, or a length too small.
  """
  definition = task.get_family(family)
  request = task.Request(
    task.name_at(family, length),
    {'tokens': length},
    encode,
    definition.template(template),
    split='train',
  )
  assert definition.draw is not None  # it has a name at this length
  return definition.draw(rng, request, rng.random())
