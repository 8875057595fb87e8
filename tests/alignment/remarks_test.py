"""What a user is told of a calibration."""

import re

import numpy as np
import pytest

from t5_align.alignment.calibration import CalibrationOptions
from t5_align.alignment.remarks import remarks
from t5_align.alignment.solve import Solution, Unknown

OPTIONS = CalibrationOptions(num_sequences=8)


def solution(status='solved', layer=1, head=2):
  heads = np.ones((2, 4), bool)
  unknown = Unknown('encoder', layer, head, heads, 0, target=1.0)
  return Solution(unknown, 1.0, 2.0, 1.0, None, status)


def test_nothing_to_say():
  assert remarks(OPTIONS, {1024: 8}, [], {1024: [solution()]}) == ()


@pytest.mark.parametrize(
  'num_sequences, count, told',
  [
    (8, 7, ['The text gives 7 of the 8 sequences of 4,096 tokens']),
    (8, 1, ['The text gives 1 of the 8 sequences of 4,096 tokens']),
    (1, 1, ['One sequence of 4,096 tokens was measured']),
    (2, 2, []),
  ],
)
def test_few_sequences(num_sequences, count, told):
  options = CalibrationOptions(num_sequences=num_sequences)
  found = remarks(options, {4096: count}, [], {4096: [solution()]})
  assert len(found) == len(told)
  assert all(one.startswith(start) for one, start in zip(found, told))


@pytest.mark.parametrize(
  'status, says',
  [
    ('sharper', 'above 1 .clamp sets it to 1.: '),
    ('clamped', 'was clamped to 1: '),
    ('saturated', 'left at 1: '),
    ('left_alone', 'no rows that see more keys than in training'),
  ],
)
@pytest.mark.parametrize(
  'layer, head, name',
  [
    (1, 2, 'encoder layer 1 head 2'),
    (0, None, 'encoder layer 0'),
    (None, None, 'encoder'),
  ],
)
def test_status_names_what_has_it(status, says, layer, head, name):
  solutions = {2048: [solution(), solution(status, layer, head)]}
  (found,) = remarks(OPTIONS, {2048: 8}, [], solutions)
  assert found.endswith(f'{name} at 2,048 tokens.')
  assert re.search(says, found)


def test_long_lists_are_cut():
  solutions = {64: [solution('sharper', 0, n) for n in range(20)]}
  (found,) = remarks(OPTIONS, {64: 8}, [], solutions)
  assert 'head 11 at 64 tokens and 8 more.' in found and 'head 12' not in found


def test_nothing_to_align():
  selective = CalibrationOptions(num_sequences=8, selective=True)
  (found,) = remarks(selective, {64: 8}, [], {64: []})
  assert 'leaves all of them alone' in found
  assert remarks(OPTIONS, {64: 8}, [], {64: []}) == ()


def test_heads_beyond_the_closed_form():
  (found,) = remarks(
    OPTIONS, {64: 8}, ['encoder 0.1', 'cross 3.2'], {64: [solution()]}
  )
  assert 'ln(keys)' in found and found.endswith('encoder 0.1, cross 3.2.')
