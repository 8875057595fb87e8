"""Rows as tables for the terminal.

Synopsis:

    console.print(*make_tables(rows))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box, text
from rich import table as rich_table

Row = Mapping[str, Any]
COLUMNS = (
  'task',
  'size',
  'length',
  'alignment',
  'score [95%]',
  'n',
  'vs none [95%]',
)


def family(row: Row) -> str:
  """Return the name of a row's task without its size: rows that compare."""
  return row['task'].removesuffix(f'_{row["size"]}')


def with_interval(
  value: float | None, interval: Sequence[float] | None, sign: str = ''
) -> str:
  """Return `0.75 [0.60, 0.85]`."""
  if value is None:
    return '-'
  number = f'{value:{sign}.2f}'
  if interval is None:
    return number
  low, high = interval
  return f'{number} [{low:{sign}.2f}, {high:{sign}.2f}]'


def cells(row: Row) -> tuple[str, ...]:
  """Return what the table shows of a row, one text for each of COLUMNS."""
  difference = row['difference']
  remarks = [
    f'{row[key]} {label}'
    for key, label in (('n_failed', 'failed'), ('n_truncated', 'cut'))
    if row[key]
  ]
  number = f'{row["n"]} ({", ".join(remarks)})' if remarks else f'{row["n"]}'
  return (
    family(row),
    f'{row["size"]:,} {row["unit"]}',
    f'{row["length"]:,.0f}',
    row['alignment'],
    with_interval(row['value'], row['ci95']),
    number,
    with_interval(difference['value'], difference['ci95'], '+')
    if difference
    else '',
  )


def make_tables(rows: Sequence[Row]) -> list[rich_table.Table]:
  """Return one table a family, narrow enough for a terminal of 80 columns."""
  families = dict.fromkeys(family(row) for row in rows)
  return [
    _make_table(name, [row for row in rows if family(row) == name])
    for name in families
  ]


def _make_table(name: str, rows: Sequence[Row]) -> rich_table.Table:
  """Return rows of one family; bold where a difference is sure."""
  metrics = ', '.join(sorted({row['metric'] for row in rows}))
  table = rich_table.Table(
    title=f'{name} ({metrics})',
    title_justify='left',
    title_style='bold',
    box=box.SIMPLE_HEAD,
    pad_edge=False,
    collapse_padding=True,
  )
  for column in COLUMNS[1:]:
    right = column in ('size', 'length', 'n')
    folds = column in ('alignment', 'n')
    table.add_column(
      rows[0]['unit'] if column == 'size' else column,
      justify='right' if right else 'left',
      no_wrap=not folds,
      overflow='fold' if folds else 'ellipsis',
    )
  for previous, row, following in zip([None, *rows], rows, [*rows[1:], None]):
    is_first = previous is None or previous['size'] != row['size']
    is_last = following is not None and following['size'] != row['size']
    table.add_row(
      f'{row["size"]:,}' if is_first else '',
      *(text.Text(cell) for cell in cells(row)[2:]),  # never as markup
      end_section=is_last,
      style='bold' if is_sure(row) else None,
    )
  return table


def is_sure(row: Row) -> bool:
  """Return whether the interval of the difference leaves out zero."""
  interval = row['difference'] and row['difference']['ci95']
  return bool(interval) and not interval[0] <= 0 <= interval[1]
