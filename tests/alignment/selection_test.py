"""Which kind a head is, from made-up statistics at two lengths."""

import dataclasses

import numpy as np
import pytest

from t5_align.alignment.row_sample import distance_edges
from t5_align.alignment.selection import classify
from t5_align.alignment.statistics import RowSample, SiteStatistics


def statistics(keys, max_probability, entropy, content=None):
  """One layer; one value a head, the same in each of two sequences."""
  heads = len(max_probability)
  ones = np.ones((2, 1, heads, 1))
  sums = {
    'max_probability': ones * np.reshape(max_probability, (heads, 1)),
    'entropy_nats': ones * np.reshape(entropy, (heads, 1)),
  }
  sample = None
  if content is not None:
    values = np.zeros((2, 1, heads, 4))
    zeros = np.zeros((1, heads))
    sample = RowSample(
      rows_per_sequence=4,
      max_probability=values,
      entropy_nats=values,
      logit_skewness=zeros,
      logit_excess_kurtosis=zeros,
      bias_overlap=zeros,
      content_nats=np.array([content]),
      distances=distance_edges(1),
      distance_mass=np.zeros((1, 1, heads)),
    )
  return SiteStatistics(
    'encoder', sums, np.ones((2, 1)), np.full((2, 1), keys), sample=sample
  )


def test_each_kind():
  #                       keeps P_max  averages      position  content
  short = statistics(128, [0.5, 0.02, 0.5, 0.5], [2.0, 4.6, 2.0, 2.0],
                     [3.0, 3.0, 0.4, 0.6])  # fmt: skip
  long = statistics(1024, [0.48, 0.01, 0.2, 0.2], [2.0, 6.7, 4.0, 4.0])
  wanted = [['steady', 'averaging', 'position', 'content']]
  assert classify(short, long).tolist() == wanted
  # ln 128 = 4.85: at 4.3 nats it looks at 58 % of all keys.
  sums = dict(short.sums)
  sums['entropy_nats'] = np.full((2, 1, 4, 1), 4.3)
  sharper = dataclasses.replace(short, sums=sums)
  assert classify(sharper, long)[0, 1] == 'content'


def test_cross_attention_has_no_positions():
  short = statistics(128, [0.5], [2.0], [0.0])
  sample = dataclasses.replace(short.sample, content_nats=None)
  short = dataclasses.replace(short, sample=sample)
  assert classify(short, statistics(1024, [0.2], [4.0])) == [['content']]


def test_needs_whole_rows():
  plain = statistics(128, [0.5], [2.0])
  with pytest.raises(ValueError, match='rows_per_sequence'):
    classify(plain, plain)
