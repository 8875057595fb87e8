"""Score against length: one panel a family of tasks, one line an alignment.

Lengths are multiples of the training length, where it is known, on a
logarithmic axis; bars are the 95% intervals of the rows.

Synopsis:

    write_plot(header, rows, 'out/scores.png')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
import os
from typing import Any

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker

from t5_align import results
from t5_align.report.table import Row, family

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKERS = 'os^Dvp'


def write_plot(
  header: Mapping[str, Any], rows: Sequence[Row], path: str | os.PathLike
) -> None:
  """Write the plot of all rows as a PNG file."""
  families = list(dict.fromkeys(family(row) for row in rows))
  figure = mpl_figure.Figure(
    figsize=(4.8 * len(families), 3.8), layout='constrained'
  )
  panels = figure.subplots(1, len(families), squeeze=False)[0]
  styles = _styles(rows)
  for panel, name in zip(panels, families):
    own = [row for row in rows if family(row) == name]
    _draw(panel, name, own, header.get('training_length'), styles)
  handles, labels = panels[0].get_legend_handles_labels()
  for panel in panels[1:]:
    for handle, label in zip(*panel.get_legend_handles_labels()):
      if label not in labels:
        handles.append(handle)
        labels.append(label)
  figure.legend(
    handles, labels, loc='outside lower center', ncols=4, frameon=False
  )
  figure.savefig(path, dpi=150)


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
  """Return how each alignment is drawn: 'none' in black and dashed."""
  names = dict.fromkeys(row['alignment'] for row in rows)
  styles = itertools.cycle(
    {'color': colour, 'marker': marker}
    for colour, marker in zip(COLOURS, _MARKERS)
  )
  baseline = {'color': 'black', 'marker': 'x', 'linestyle': '--'}
  return {
    name: baseline if name == results.BASELINE else next(styles)
    for name in names
  }


def _draw(
  panel: mpl_axes.Axes,
  name: str,
  rows: Sequence[Row],
  training_length: int | None,
  styles: Mapping[str, Mapping[str, Any]],
) -> None:
  scale = training_length or 1
  alignments = [
    name for name in styles if any(row['alignment'] == name for row in rows)
  ]
  for index, alignment in enumerate(alignments):
    own = sorted(
      (row for row in rows if row['alignment'] == alignment),
      key=lambda row: row['length'],
    )
    # Lines at the same height stay visible: each a little to one side.
    shift = 1.04 ** (index - (len(alignments) - 1) / 2)
    panel.errorbar(
      [shift * row['length'] / scale for row in own],
      [row['value'] for row in own],
      yerr=_error_bars(own),
      label=alignment,
      capsize=3,
      markersize=5,
      linewidth=1.5,
      elinewidth=1,
      **styles[alignment],
    )
  _set_axes(panel, name, rows, training_length)


def _error_bars(rows: Sequence[Row]) -> list[list[float]]:
  """Return the distances from each value to its interval, below and above."""
  intervals = [row['ci95'] or (row['value'], row['value']) for row in rows]
  values = [row['value'] for row in rows]
  return [
    [max(value - low, 0.0) for value, (low, _) in zip(values, intervals)],
    [max(high - value, 0.0) for value, (_, high) in zip(values, intervals)],
  ]


def _set_axes(
  panel: mpl_axes.Axes,
  name: str,
  rows: Sequence[Row],
  training_length: int | None,
) -> None:
  panel.set_xscale('log', base=2)
  lengths = [row['length'] / (training_length or 1) for row in rows]
  panel.set_xlim(min(lengths) / 1.3, max(lengths) * 1.3)
  panel.xaxis.set_major_locator(ticker.LogLocator(base=2))
  panel.xaxis.set_minor_locator(ticker.NullLocator())
  if training_length:
    panel.xaxis.set_major_formatter(lambda x, _: f'{x:g}×')
    panel.set_xlabel(f'length / training length ({training_length:,} tokens)')
    panel.axvline(1, color='grey', linewidth=0.8, linestyle=':')
  else:
    panel.xaxis.set_major_formatter(lambda x, _: f'{x:,.0f}')
    panel.set_xlabel('length in tokens')
  metrics = {row['metric'] for row in rows}
  panel.set_ylabel(', '.join(sorted(metrics)).replace('_', ' '))
  if all(0 <= row['value'] <= 1 for row in rows):
    panel.set_ylim(-0.04, 1.04)
  panel.set_title(name.replace('_', ' '))
  panel.grid(axis='y', linewidth=0.4, alpha=0.6)
  panel.spines[['top', 'right']].set_visible(False)
