"""The nearest name, and what is said where none is near."""

from t5_align.nearest import nearest


def test_the_nearest_of_several():
  assert (
    nearest('colum', {'column': 1, 'volume': 2}) == "did you mean 'column'?"
  )


def test_where_none_is_near_all_are_named():
  assert nearest('x', ('row', 'column')) == 'known: row, column.'


def test_what_is_no_name():
  """From a JSON file."""
  assert nearest([], ['row']) == 'known: row.'
