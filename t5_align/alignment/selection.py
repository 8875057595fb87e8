"""Which heads to align: those that disperse because of content.

Sharpening a head that averages over everything on purpose, or that looks at
positions, changes what it is for. From the statistics at the training length
and at a longer one, each head is of one kind, the first that holds:

    steady      P_max at the longer length is at least 0.95 of what it was
    averaging   ln(keys) - H < 0.5 nats at the training length: it looks at
                more than 60 % of all keys (e^H is their effective number)
    position    Σ p ln(p / p of the bias alone) < 0.5 nats there: content adds
                little to what position gives
    content     everything else: it disperses, and content is why

Selective alignment gives a temperature to heads of the last kind alone.

Synopsis:

    kinds = classify(short.encoder, long.encoder)            # [L, N] of names
    selected = kinds == 'content'
"""

from __future__ import annotations

import numpy as np

from t5_align.alignment.statistics import SiteStatistics

KINDS = ('content', 'position', 'averaging', 'steady')
_STEADY_SHARE = 0.95
_AVERAGING_NATS = 0.5
_CONTENT_NATS = 0.5


def classify(short: SiteStatistics, long: SiteStatistics) -> np.ndarray:
  """Return the kind of each head, [L, N] of KINDS.

  Args:
    short: at the training length, with a sample of whole rows; its first group
      of rows counts.
    long: at a longer length, both without temperatures; its last group counts.

  Raises:
    ValueError: `short` has no sample.
  """
  if short.sample is None:
    raise ValueError(
      'Heads can only be told apart with a sample of whole rows: measure with'
      ' rows_per_sequence above 0.'
    )
  entropy = short.mean('entropy_nats')[..., 0]
  before = short.mean('max_probability')[..., 0]
  after = long.mean('max_probability')[..., -1]
  is_averaging = np.log(short.keys[0]) - entropy < _AVERAGING_NATS
  is_position = np.zeros_like(is_averaging)
  if short.sample.content_nats is not None:
    is_position = short.sample.content_nats < _CONTENT_NATS
  return np.select(
    [after >= _STEADY_SHARE * before, is_averaging, is_position],
    ['steady', 'averaging', 'position'],
    'content',
  )
