"""Packing: first fit, segments, positions."""

import numpy as np
import pytest

from t5_align.tasks.pretraining import packing
from t5_align.tasks.pretraining.mixture import Example


def in_turn(sizes):
  """Return a draw of examples with these numbers of inputs and targets."""
  sizes = iter(sizes)

  def draw(rng):
    inputs, targets = next(sizes)
    return Example([2] * inputs, [3] * targets)

  return draw


def packed_sizes(sizes, num_rows, room):
  rows = packing.pack(in_turn(sizes), np.random.default_rng(0), num_rows, room)
  return [[(len(e.inputs), len(e.targets)) for e in row] for row in rows]


def test_first_fit():
  sizes = [(0, 3), (0, 4), (0, 2), (0, 1), (0, 9)]
  assert packed_sizes(sizes, 2, (0, 9)) == [sizes[:3], sizes[3:4]]


def test_inputs_and_targets_must_both_fit():
  sizes = [(4, 1), (4, 1), (1, 4), (5, 1), (1, 1), (1, 5)]
  assert packed_sizes(sizes, 2, (8, 6)) == [
    [(4, 1), (4, 1)],
    [(1, 4), (5, 1), (1, 1)],
  ]


def test_what_shares_a_row_is_added_up():
  sizes = [(3, 2), (1, 2), (2, 2)]
  assert packed_sizes(sizes, 1, (0, 8)) == [sizes[:2]]


def test_longer_than_a_row():
  with pytest.raises(ValueError, match='5 input and 2 target tokens'):
    packed_sizes([(5, 2)], 1, (4, 4))


def test_segments_and_positions():
  assert packing.segments([3, 2], 6).tolist() == [1, 1, 1, 2, 2, 0]
  assert packing.positions([3, 2], 6).tolist() == [0, 1, 2, 0, 1, 0]
