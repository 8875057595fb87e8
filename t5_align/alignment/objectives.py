"""What the two strategies of the paper keep at its training-length value.

    maximum_probability   the largest probability of an attention row
    entropy               the entropy of the row

A strategy compares averages over rows, sequences and the heads of a group. The
probability may be averaged as it is or as its logarithm (a geometric mean);
entropy is a logarithm already.

Synopsis:

    objective = Objective('maximum_probability', averaging='log')
    objective.statistic                               # 'log_max_probability'
    group_heads('layer', selected)                    # who shares a temperature
"""

from __future__ import annotations

import dataclasses

import numpy as np

from t5_align.nearest import nearest

STRATEGIES = ('entropy', 'maximum_probability')
AVERAGINGS = ('arithmetic', 'log')
GRANULARITIES = ('model', 'layer', 'head')


def check_name(kind: str, name: str, known: tuple[str, ...]) -> None:
  """Raise a ValueError that names the nearest unless the name is known."""
  if name not in known:
    raise ValueError(f'Unknown {kind} {name!r}; {nearest(name, known)}')


@dataclasses.dataclass(frozen=True)
class Objective:
  """The statistic that an alignment keeps.

  Attributes:
    strategy: 'entropy' or 'maximum_probability'.
    averaging: 'arithmetic' or, for the probability, 'log': over rows,
      sequences, heads and layers alike.
  """

  strategy: str
  averaging: str = 'arithmetic'

  def __post_init__(self):
    check_name('strategy', self.strategy, STRATEGIES)
    check_name('averaging', self.averaging, AVERAGINGS)
    if self.strategy == 'entropy' and self.averaging == 'log':
      raise ValueError(
        "averaging='log' is for the maximum probability: entropy is a"
        " logarithm already; use 'arithmetic'."
      )

  @property
  def statistic(self) -> str:
    """The name of its statistic in `alignment.statistics`."""
    if self.strategy == 'entropy':
      return 'entropy_nats'
    log = self.averaging == 'log'
    return 'log_max_probability' if log else 'max_probability'

  @property
  def rises_with_temperature(self) -> bool:
    """Entropy rises as attention flattens; the largest probability falls."""
    return self.strategy == 'entropy'


def group_heads(
  granularity: str, selected: np.ndarray
) -> list[tuple[int | None, int | None, np.ndarray]]:
  """Return the groups of heads that share a temperature.

  Args:
    granularity: 'model', 'layer' or 'head'.
    selected: which heads are aligned, [L, N].

  Returns:
    (layer, head, mask [L, N]) of each group with a selected head; layer and
    head are None where a group has all of them.
  """
  check_name('granularity', granularity, GRANULARITIES)
  num_layers, num_heads = selected.shape
  index = np.indices(selected.shape)
  if granularity == 'model':
    groups = [(None, None, selected)]
  elif granularity == 'layer':
    groups = [(i, None, selected & (index[0] == i)) for i in range(num_layers)]
  else:
    groups = [
      (i, n, selected & (index[0] == i) & (index[1] == n))
      for i in range(num_layers)
      for n in range(num_heads)
    ]
  return [group for group in groups if group[2].any()]
