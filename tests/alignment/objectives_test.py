"""What is kept, over which heads, and what is refused."""

import numpy as np
import pytest

from t5_align.alignment.objectives import Objective, group_heads


def test_statistics():
  assert Objective('entropy').statistic == 'entropy_nats'
  assert Objective('maximum_probability').statistic == 'max_probability'
  log = Objective('maximum_probability', 'log')
  assert log.statistic == 'log_max_probability'
  assert Objective('entropy').rises_with_temperature
  assert not log.rises_with_temperature


@pytest.mark.parametrize(
  'arguments, message',
  [
    (('entrpy',), "strategy 'entrpy'; did you mean 'entropy'"),
    (('entropy', 'mean'), 'averaging'),
    (('entropy', 'log'), 'logarithm already'),
  ],
)
def test_bad_objectives(arguments, message):
  with pytest.raises(ValueError, match=message):
    Objective(*arguments)


def test_groups_are_disjoint_and_cover_what_is_selected():
  selected = np.array([[True, False, True], [False, False, False]])
  sizes = {'model': 1, 'layer': 1, 'head': 2}
  for granularity, size in sizes.items():
    groups = group_heads(granularity, selected)
    assert len(groups) == size
    covered = sum(mask.astype(int) for _, _, mask in groups)
    np.testing.assert_array_equal(covered, selected)
  assert [group[:2] for group in group_heads('head', selected)] == [
    (0, 0),
    (0, 2),
  ]
  assert group_heads('layer', selected)[0][:2] == (0, None)
  assert group_heads('model', selected)[0][:2] == (None, None)
  with pytest.raises(ValueError, match="did you mean 'layer'"):
    group_heads('layers', selected)
