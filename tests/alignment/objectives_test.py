"""Names of objectives, and which heads share a temperature."""

import numpy as np
import pytest

from t5_align.alignment.objectives import Objective, check_name, group_heads


@pytest.mark.parametrize(
  'objective, statistic, rises',
  [
    (Objective('entropy'), 'entropy_nats', True),
    (Objective('maximum_probability'), 'max_probability', False),
    (Objective('maximum_probability', 'log'), 'log_max_probability', False),
  ],
)
def test_statistic_of_each(objective, statistic, rises):
  assert objective.statistic == statistic
  assert objective.rises_with_temperature is rises


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: Objective('entropi'), "strategy 'entropi'.*'entropy'"),
    (
      lambda: Objective('max_probability'),
      "strategy 'max_probability'.*'maximum_probability'",
    ),
    (
      lambda: Objective('maximum_probability', 'logs'),
      "averaging 'logs'.*'log'",
    ),
    (lambda: Objective('entropy', 'log'), "use 'arithmetic'"),
    (
      lambda: group_heads('heads', np.ones((1, 1), bool)),
      "granularity 'heads'.*'head'",
    ),
    (lambda: check_name('site', 'crss', ('encoder', 'cross')), "'cross'"),
  ],
)
def test_unknown_names_get_the_nearest(make, message):
  with pytest.raises(ValueError, match=message):
    make()


SELECTED = np.array([[True, False, True], [False, False, False], [True] * 3])


@pytest.mark.parametrize(
  'granularity, names',
  [
    ('model', [(None, None)]),
    ('layer', [(0, None), (2, None)]),
    ('head', [(0, 0), (0, 2), (2, 0), (2, 1), (2, 2)]),
  ],
)
def test_groups_share_out_the_selected_heads(granularity, names):
  groups = group_heads(granularity, SELECTED)
  assert [(layer, head) for layer, head, _ in groups] == names
  # Each selected head is in one group, and no other head in any.
  np.testing.assert_array_equal(
    sum(heads.astype(int) for *_, heads in groups), SELECTED
  )
  for layer, head, heads in groups:
    layers, columns = np.nonzero(heads)
    assert layer is None or set(layers) == {layer}
    assert head is None or set(columns) == {head}


def test_no_group_of_no_head():
  assert group_heads('model', np.zeros((2, 2), bool)) == []
