"""Rows as tables for the terminal, of 80 columns.

Tasks that differ in one number have one table of their metric; below it, where
their other measures tell more, a small one of those values, whose intervals are
on the page.

Synopsis:

    Console().print(*make_tables(rows))
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import textwrap

from rich import box, console, text
from rich import table as rich_table

from t5_align.report import rows as rows_lib
from t5_align.report.rows import Row, Setting

_STYLES = {'better': 'bold green', 'worse': 'bold red', '': ''}
_WIDEST_ALIGNMENT = 15  # of a name on one line: temperature=0.8


def make_tables(rows: Sequence[Row]) -> list[console.RenderableType]:
  """Return the tables of all rows."""
  tables: list[console.RenderableType] = []
  for group in rows_lib.groups(rows):
    for setting in rows_lib.settings(group):
      tables.append(_metric_table(setting))
      names = rows_lib.telling_measures(setting.rows)
      if names:
        tables.append(_other_table(setting, names))
  return tables


def _metric_table(setting: Setting) -> console.Group:
  """Return rows with their metric; bold where a difference is sure.

  What is the same in every row stands in the title; samples that failed, were
  cut or lost characters in some of them stand below.
  """
  rows = setting.rows
  # A size in tokens is the length, but for less than a sentence.
  in_tokens = setting.along == 'tokens'
  lengths = [f'{row["length"]:,.0f}' for row in rows]
  same_length = len(set(lengths)) == 1
  has_length = not in_tokens and not same_length
  has_other = any(row['difference'] for row in rows)
  counts = [', '.join([f'{row["n"]}', *rows_lib.remarks(row)]) for row in rows]
  usual = collections.Counter(counts).most_common(1)[0][0]
  facts = [
    *dict.fromkeys(row['metric'] for row in rows),
    *([f'{lengths[0]} tokens'] * (same_length and not in_tokens)),
    f'n = {usual}',
  ]
  table = _table(setting)
  if has_length:
    table.add_column('length', justify='right', no_wrap=True)
  _add_alignment(table, setting)
  table.add_column('score [95%]', no_wrap=True)
  if has_other:
    table.add_column('vs none [95%]', no_wrap=True)
    table.add_column('', no_wrap=True)
  for (row, place, is_last), length in zip(_with_places(setting), lengths):
    verdict = rows_lib.verdict(row)
    cells = [
      *place,
      *([length] * has_length),
      row['alignment'],
      rows_lib.with_interval(row),
      *([rows_lib.difference(row)] * has_other),
    ]
    table.add_row(
      *map(text.Text, cells),  # never as markup
      *([text.Text(verdict, _STYLES[verdict])] * has_other),
      end_section=is_last,
      style='bold' if verdict else None,
    )
  title = f'{setting.name} ({", ".join(facts)})'
  unusual = [
    text.Text(f'{row["task"]} {row["alignment"]}: n = {count}')
    for row, count in zip(rows, counts)
    if count != usual
  ]
  # A table wraps its own title where that is wider than itself.
  notes = [*unusual, ''] if unusual else []
  return console.Group(text.Text(title, 'bold'), table, *notes)


def _other_table(setting: Setting, names: Sequence[str]) -> rich_table.Table:
  """Return the values of other measures; bold where a difference is sure."""
  metric = setting.rows[0]['metric']
  table = _table(setting)
  _add_alignment(table, setting)
  for name in names:
    # Of code_similarity_repaired under code_similarity, what is different.
    label = name.removeprefix(f'{metric}_').replace('_', ' ')
    table.add_column(textwrap.fill(label, 10), justify='right', no_wrap=True)
  for row, place, is_last in _with_places(setting):
    others = rows_lib.other_measures(row)
    values = [
      text.Text(
        rows_lib.written(others[name]['value'], others[name]),
        _STYLES[rows_lib.verdict(others[name])],
      )
      if name in others
      else ''
      for name in names
    ]
    table.add_row(
      *place, text.Text(row['alignment']), *values, end_section=is_last
    )
  return table


def _table(setting: Setting) -> rich_table.Table:
  """Return an empty table, with a column for what its rows differ in."""
  table = rich_table.Table(
    box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
  )
  if setting.along:
    table.add_column(setting.along, justify='right', no_wrap=True)
  return table


def _add_alignment(table: rich_table.Table, setting: Setting) -> None:
  widest = max(len(row['alignment']) for row in setting.rows)
  table.add_column(
    'alignment', overflow='fold', min_width=min(widest, _WIDEST_ALIGNMENT)
  )


def _with_places(
  setting: Setting,
) -> list[tuple[Row, list[str], bool]]:
  """Return each row, its number where it is new, and if it is its last."""
  if setting.along is None:
    return [(row, [], False) for row in setting.rows]
  rows = setting.rows
  places = [f'{rows_lib.numbers(row)[setting.along]:,}' for row in rows]
  return [
    (row, [place if place != before else ''], after not in (None, place))
    for row, place, before, after in zip(
      rows, places, [None, *places], [*places[1:], None]
    )
  ]
