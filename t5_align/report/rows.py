"""How a report reads a row: what it is compared with, and in which digits.

Tasks of one name but for its numbers are one group: `passkey_512` and
`passkey_1024`; `multi_doc_qa_10_gold_4` and `multi_doc_qa_20_gold_9`. Rates are
written with two decimals; losses and perplexities, which have no upper end,
with about four digits.

Synopsis:

    for group in groups(rows):
      print(group.name, group.fields)             # 'passkey', ('tokens',)
      for setting in settings(group):
        print(with_interval(setting.rows[0]))     # '0.75 [0.60, 0.85]'
        print(verdict(setting.rows[1]))           # 'better', 'worse' or ''
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]
# A row is a measure itself; its others have the same fields.
Measure = Mapping[str, Any]


class Group(NamedTuple):
  """Tasks of one name but for its numbers."""

  name: str
  """Their name without numbers."""
  fields: tuple[str, ...]
  """What the numbers count, the size first: ('documents', 'gold')."""
  rows: list[Row]
  """In the order of the results."""

  def shared(self, field: str, number: int) -> str:
    """Return '20 documents', of the size, or 'gold 9'."""
    is_size = field == self.fields[0]
    return f'{number:,} {field}' if is_size else f'{field} {number}'


class Setting(NamedTuple):
  """Rows of a group that differ in one number at most, and in alignment."""

  name: str
  """The group's, and the numbers they share: 'multi_doc_qa, 20 documents'."""
  along: str | None
  """The number that they differ in; None for a task without numbers."""
  rows: list[Row]
  """In the order of the results."""


def groups(rows: Sequence[Row]) -> list[Group]:
  """Return the rows by group, in the order that they come in."""
  found: dict[tuple[str, tuple[str, ...]], Group] = {}
  for row in rows:
    key = (group_name(row), tuple(numbers(row)))
    found.setdefault(key, Group(*key, [])).rows.append(row)
  return list(found.values())


def settings(group: Group) -> list[Setting]:
  """Return a group's rows by all numbers but one, rising.

  That one is the last of the name, such as the place of the right document, or
  the size where every size has one place.
  """
  if not group.fields:
    return [Setting(group.name, None, group.rows)]
  found: list[Setting] = []
  for along in (group.fields[-1], group.fields[0]):
    others = [field for field in group.fields if field != along]
    shared = sorted({_numbers_of(row, others) for row in group.rows})
    found = [
      Setting(
        ', '.join([group.name, *map(group.shared, others, values)]),
        along,
        [row for row in group.rows if _numbers_of(row, others) == values],
      )
      for values in shared
    ]
    if any(len(_values(one)) > 1 for one in found):
      break
  return found


def _values(setting: Setting) -> set[int]:
  return {numbers(row)[setting.along or ''] for row in setting.rows}


def _numbers_of(row: Row, fields: Sequence[str]) -> tuple[int, ...]:
  return tuple(numbers(row)[field] for field in fields)


def group_name(row: Row) -> str:
  """Return a task's name without numbers."""
  if len(numbers(row)) > 1:
    return row['family']
  return row['task'].removesuffix(f'_{row["size"]}')


def numbers(row: Row) -> Mapping[str, int]:
  """Return what the numbers of a task's name count, and the numbers."""
  own = {} if row['size'] is None else {row['unit']: row['size']}
  return row.get('numbers') or own  # older results have the size alone


def written(value: float | None, measure: Measure, sign: str = '') -> str:
  """Return a number in the digits that suit the measure's value."""
  if value is None:
    return '-'
  scale = measure['value']
  if measure['higher_is_better'] or scale is None:
    return f'{value:{sign}.2f}'
  if scale < 10_000:
    decimals = 3 if scale < 10 else 1 if scale < 1000 else 0
    return f'{value:{sign},.{decimals}f}'
  if scale < 1_000_000:
    return f'{value / 1000:{sign},.{1 if scale < 100_000 else 0}f}k'
  return f'{value:{sign}.1e}'


def with_interval(measure: Measure) -> str:
  """Return `0.75 [0.60, 0.85]`."""
  return _interval(measure, measure, '')


def difference(measure: Measure) -> str:
  """Return `+0.15 [+0.03, +0.27]`; nothing where there is no other."""
  found = measure['difference']
  return _interval(found, measure, '+') if found else ''


def _interval(found: Mapping[str, Any], measure: Measure, sign: str) -> str:
  number = written(found['value'], measure, sign)
  if not found['ci95']:
    return number
  low, high = (written(end, measure, sign) for end in found['ci95'])
  return f'{number} [{low}, {high}]'


def verdict(measure: Measure) -> str:
  """Return 'better' or 'worse' where the difference's interval says so."""
  interval = measure['difference'] and measure['difference']['ci95']
  if not interval or None in interval or interval[0] <= 0 <= interval[1]:
    return ''
  return (
    'better' if (interval[0] > 0) == measure['higher_is_better'] else 'worse'
  )


def remarks(row: Row) -> list[str]:
  """Return what is to know of samples: ['9 documents', '2 failed']."""
  counted = {
    'n_clusters': 'documents',
    'n_failed': 'failed',
    'n_truncated': 'cut',
    'n_lossy': 'lossy',
  }
  if row.get('n_clusters') == 1:
    counted['n_clusters'] = 'document'
  return [f'{row[key]} {name}' for key, name in counted.items() if row.get(key)]


def other_measures(row: Row) -> dict[str, Measure]:
  """Return a row's measures beside its metric, by name."""
  return {one['metric']: one for one in row.get('other_measures', ())}


def telling_measures(rows: Sequence[Row]) -> list[str]:
  """Return the names of other measures that tell more than the metric does.

  A repaired metric that equals its original everywhere doesn't, nor does a
  ceiling that nothing touches or a share that is nowhere.
  """
  names = dict.fromkeys(name for row in rows for name in other_measures(row))
  return [name for name in names if any(_tells(row, name) for row in rows)]


def _tells(row: Row, name: str) -> bool:
  one = other_measures(row).get(name)
  if one is None:
    return False
  silent = {'ceiling': 1.0, 'unknown_share': 0.0}
  return one['value'] != silent.get(name, row['value'])
