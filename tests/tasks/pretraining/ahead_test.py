"""Results ahead of their use: the order, and how far ahead."""

import itertools
import math

import pytest

from t5_align.tasks.pretraining.ahead import map_ahead


@pytest.mark.parametrize('workers', [0, 1])
def test_order_is_that_of_the_items(workers):
  items = [float(i) for i in range(20)]
  assert list(map_ahead(math.sqrt, items, workers)) == [
    math.sqrt(i) for i in items
  ]


def test_items_are_read_as_they_are_needed():
  items = itertools.count()
  found = map_ahead(math.sqrt, items, workers=0)
  assert next(found) == 0.0
  found.close()
  assert next(items) <= 6


def test_an_error_reaches_the_caller():
  with pytest.raises(ValueError, match='math domain|nonnegative'):
    list(map_ahead(math.sqrt, [1.0, -1.0], workers=0))
