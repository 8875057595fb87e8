"""A calibration as tables for the terminal.

One table says what was solved, one a site which heads disperse, and a list
what to beware of. Columns of a statistic are named by their length in tokens.

Synopsis:

    console.print(*make_calibration_tables(record))
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np
from rich import box, text
from rich import table as rich_table

from t5_align.report.calibration_record import (
  KINDS,
  LEFT_ALONE,
  CalibrationRecord,
  Solution,
  known_mean,
)

_NAMED_HEADS = 6  # of one status in one layer: more are counted


def number(value: float) -> str:
  """Return two digits below 0.1 and else three, `0.015`; `-` for nan."""
  if not math.isfinite(value):
    return '-'
  if 0 < abs(value) < 1e-3:
    return f'{value:.0e}'
  return f'{value:#.2g}' if abs(value) < 0.1 else f'{value:#.3g}'


def temperature(solution: Solution) -> str:
  """Return `0.707 [0.690, 0.725]`."""
  value = f'{solution.temperature:.3f}'
  if solution.ci95 is None:
    return value
  low, high = solution.ci95
  return f'{value} [{low:.3f}, {high:.3f}]'


def statistic_name(record: CalibrationRecord) -> str:
  """Return what the strategy keeps."""
  if record.strategy == 'entropy':
    return 'entropy (nats)'
  is_log = record.settings['averaging'] == 'log'
  return 'P_max, geometric mean' if is_log else 'P_max'


def solution_columns(record: CalibrationRecord) -> tuple[str, ...]:
  """Return the names of solution_cells."""
  return (
    'site',
    'layer',
    'head',
    'length',
    'keys',
    f'at {record.training_length:,}',
    'longer',
    'aligned',
    'temperature [95%]',
    'status',
  )


def solution_cells(solution: Solution) -> tuple[str, ...]:
  """Return one text for each of solution_columns."""
  return (
    solution.site,
    '' if solution.layer is None else f'{solution.layer}',
    '' if solution.head is None else f'{solution.head}',
    f'{solution.length:,}',
    f'{solution.keys:,.0f}',
    number(solution.target),
    number(solution.before),
    number(solution.after),
    temperature(solution),
    _words(solution.status),
  )


def layer_cells(
  record: CalibrationRecord, site: str, layer: int
) -> tuple[str, ...]:
  """Return a layer's number, its mean P_max and entropy, and kinds of heads.

  Each statistic at the training length, at the longest, and there aligned.
  """
  view = record.view(site)
  shown = (view.training, view.before, view.after)
  kinds = [
    kind
    for (its_site, its_layer, _), kind in record.kinds.items()
    if (its_site, its_layer) == (site, layer)
  ]
  return (
    f'{layer}',
    *(
      number(math.nan if m is None else known_mean(getattr(m, name)[layer]))
      for name in ('max_probability', 'entropy_nats')
      for m in shown
    ),
    *(f'{kinds.count(kind) or "-"}' for kind in KINDS),
  )


def make_calibration_tables(
  record: CalibrationRecord,
) -> list[rich_table.Table]:
  """Return all tables, narrow enough for a terminal of 80 columns."""
  tables = []
  granularity = record.settings['granularity']
  if granularity == 'model':
    tables.append(_model_table(record))
  else:
    make = _layer_table if granularity == 'layer' else _head_table
    tables += [make(record, site) for site in _solved_sites(record)]
  tables += [_dispersion_table(record, site) for site in record.sites]
  if record.warnings:
    tables.append(_warnings(record.warnings))
  return tables


def start_table(
  title: str,
  columns: Sequence[str],
  left: Sequence[str] = (),
  padding: int = 1,
) -> rich_table.Table:
  table = rich_table.Table(
    title=text.Text(title),
    title_justify='left',
    title_style='bold',
    box=box.SIMPLE_HEAD,
    padding=(0, padding),
    pad_edge=False,
    collapse_padding=True,
  )
  for column in columns:
    folds = column in left
    table.add_column(
      column,
      justify='left' if folds else 'right',
      no_wrap=not folds,
      overflow='fold' if folds else 'ellipsis',
    )
  return table


def add_line(
  table: rich_table.Table, cells: Sequence[str], status: str = 'solved'
) -> None:
  """Add a row, never as markup; bold where it needs a look."""
  style = None if status in ('solved', LEFT_ALONE) else 'bold'
  table.add_row(*map(text.Text, cells), style=style)


def _model_table(record: CalibrationRecord) -> rich_table.Table:
  """Return one row a site, length and group of rows."""
  columns = solution_columns(record)
  kept = [i for i, c in enumerate(columns) if c not in ('layer', 'head')]
  table = start_table(
    f'Kept: {statistic_name(record)}',
    [columns[i] for i in kept],
    left=('site', 'temperature [95%]', 'status'),
  )
  for solution in record.solutions:
    cells = solution_cells(solution)
    add_line(table, [cells[i] for i in kept], solution.status)
  return table


def _layer_table(record: CalibrationRecord, site: str) -> rich_table.Table:
  """Return one row a layer, for the rows with the most keys."""
  columns = solution_columns(record)
  kept = [1, *range(5, len(columns))]
  table = start_table(
    _title(record, site),
    [columns[i] for i in kept],
    left=('temperature [95%]', 'status'),
  )
  by_layer = {s.layer: s for s in record.shown_solutions(site)}
  for layer in range(_num_layers(record, site)):
    if layer in by_layer:
      cells = solution_cells(by_layer[layer])
      add_line(table, [cells[i] for i in kept], by_layer[layer].status)
    else:
      add_line(table, (f'{layer}', *'---', '1', _words(LEFT_ALONE)))
  return table


def _head_table(record: CalibrationRecord, site: str) -> rich_table.Table:
  """Return one row a layer, with the range of its heads."""
  table = start_table(
    _title(record, site),
    (
      'layer',
      f'at {record.training_length:,}',
      'longer',
      'aligned',
      'τ min',
      'median',
      'max',
      'heads that need a word',
    ),
    left=('heads that need a word',),
  )
  for layer in range(_num_layers(record, site)):
    own = [s for s in record.shown_solutions(site) if s.layer == layer]
    tau = np.array([s.temperature for s in own])
    add_line(
      table,
      (
        f'{layer}',
        *(
          number(known_mean(np.array([getattr(s, name) for s in own])))
          for name in ('target', 'before', 'after')
        ),
        *(
          f'{function(tau):.3f}' if own else '-'
          for function in (np.min, np.median, np.max)
        ),
        _remarkable_heads(record, site, layer, own),
      ),
    )
  return table


def _remarkable_heads(
  record: CalibrationRecord, site: str, layer: int, own: Sequence[Solution]
) -> str:
  """Return `sharper 3, 7; left alone 20 heads`."""
  status_of = {s.head: s.status for s in own}
  heads = range(record.view(site).training.max_probability.shape[1])
  by_status: dict[str, list[str]] = {}
  for head in heads:
    status = status_of.get(head, LEFT_ALONE)
    if status != 'solved':
      by_status.setdefault(status, []).append(f'{head}')
  return '; '.join(
    f'{_words(status)} '
    + (', '.join(some) if len(some) <= _NAMED_HEADS else f'{len(some)} heads')
    for status, some in by_status.items()
  )


def _dispersion_table(record: CalibrationRecord, site: str) -> rich_table.Table:
  """Return what each layer's attention was, is, and is aligned."""
  lengths = (
    f'{record.training_length:,}',
    f'{record.target_length:,}',
    'aligned',
  )
  table = start_table(
    f'{site}: mean P_max and entropy (nats), and heads of each kind',
    (
      'layer',
      *(f'{name}\n{n}' for name in ('P_max', 'entropy') for n in lengths),
      *('con-\ntent', 'posi-\ntion', 'aver-\naging', 'stea-\ndy'),
    ),
    padding=0,
  )
  for layer in range(_num_layers(record, site)):
    add_line(table, layer_cells(record, site, layer))
  return table


def _warnings(warnings: Sequence[str]) -> rich_table.Table:
  table = rich_table.Table.grid(padding=(0, 1))
  for warning in warnings:
    table.add_row('!', text.Text(warning))
  return table


def _solved_sites(record: CalibrationRecord) -> list[str]:
  return [site for site in record.sites if record.shown_solutions(site)]


def _num_layers(record: CalibrationRecord, site: str) -> int:
  return len(record.view(site).training.max_probability)


def _title(record: CalibrationRecord, site: str) -> str:
  keys = record.shown_solutions(site)[0].keys
  return (
    f'{site}, kept: {statistic_name(record)}; longer:'
    f' {record.target_length:,} tokens, {keys:,.0f} keys'
  )


def _words(status: str) -> str:
  return status.replace('_', ' ')
