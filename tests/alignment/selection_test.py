"""Which heads disperse because of content."""

import dataclasses

import numpy as np
import pytest

from t5_align.alignment.selection import KINDS, classify
from t5_align.alignment.statistics import (
  STATISTICS,
  RowSample,
  SiteStatistics,
)

KEYS = 64


def site(keys, content_nats=None, **means):
  """One layer; statistics are given a head. Two groups of rows."""
  num_heads = len(next(iter(means.values())))
  sums = dict.fromkeys(STATISTICS, np.zeros((1, 1, num_heads, 2)))
  for name, values in means.items():
    values = np.array(values, float)
    # The other group would tell otherwise.
    others = 1 - values if name == 'max_probability' else 0 * values
    groups = [values, others] if keys == KEYS else [others, values]
    sums[name] = np.stack(groups, -1)[None, None] * 10
  sample = None
  if content_nats is not None:
    sample = RowSample(
      1,
      *[np.zeros((1, 1, num_heads, 1))] * 2,
      *[np.zeros((1, num_heads))] * 3,
      content_nats=np.array([content_nats]),
      distances=(),
      distance_mass=None,
    )
  rows = np.full((1, 2), 10.0)
  return SiteStatistics(
    'encoder', sums, rows, key_sum=rows * keys, sample=sample
  )


def test_kind_of_each_head():
  """The first that holds: every head but the last looks at everything."""
  wide, narrow = np.log(KEYS) - 0.49, np.log(KEYS) - 0.51
  short = site(
    KEYS,
    content_nats=[0.0, 0.0, 0.49, 0.51, 0.51],
    entropy_nats=[wide, wide, narrow, narrow, narrow],
    max_probability=[0.4] * 5,
  )
  long = site(512, max_probability=[0.381, 0.37, 0.37, 0.37, 0.9])
  kinds = classify(short, long)
  expected = ['steady', 'averaging', 'position', 'content', 'steady']
  assert kinds.tolist() == [expected]
  assert set(expected) == set(KINDS)


def test_cross_attention_has_no_position():
  short = site(
    KEYS, content_nats=[0.0], entropy_nats=[1.0], max_probability=[0.4]
  )
  short = dataclasses.replace(
    short, sample=dataclasses.replace(short.sample, content_nats=None)
  )
  assert classify(short, site(512, max_probability=[0.1])) == 'content'


def test_needs_a_sample():
  short = site(KEYS, entropy_nats=[1.0], max_probability=[0.4])
  with pytest.raises(ValueError, match='rows_per_sequence above 0'):
    classify(short, site(512, max_probability=[0.1]))
