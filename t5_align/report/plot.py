"""Every score in one picture: a panel a kind of task, a line an alignment.

What a panel has along its side is what its tasks differ in:

  size            lengths in tokens, as multiples of the training length where
                  it is known, logarithmic
  second number   of a name, such as the place of the right document: a panel
                  for each size, as in "Lost in the Middle" (arXiv 2307.03172)
  nothing         where the task has no size

Bars are the 95% intervals of the rows. Perplexity has a logarithmic axis.

Synopsis:

    write_plot(header, rows, 'out/scores.png')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import itertools
import math
import os
from typing import Any

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker

from t5_align import results
from t5_align.report import rows as rows_lib
from t5_align.report.rows import Row, Setting, numbers, settings

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKERS = 'os^Dvp'
_COLUMNS = 3  # of panels


def write_plot(
  header: Mapping[str, Any], rows: Sequence[Row], path: str | os.PathLike
) -> None:
  """Write the plot of all rows as a PNG file."""
  shown = [one for group in rows_lib.groups(rows) for one in settings(group)]
  columns = min(_COLUMNS, len(shown))
  lines = math.ceil(len(shown) / columns)
  figure = mpl_figure.Figure(
    figsize=(4.8 * columns, 3.4 * lines + 0.4), layout='constrained'
  )
  panels = figure.subplots(lines, columns, squeeze=False).ravel()
  styles = alignment_styles(rows)
  for panel, content in zip(panels, shown):
    _draw(panel, content, header.get('training_length'), styles)
  for panel in panels[len(shown) :]:
    panel.set_axis_off()
  handles = {}
  for panel in panels:
    for handle, label in zip(*panel.get_legend_handles_labels()):
      handles.setdefault(label, handle)
  legend = figure.legend(
    [*handles.values()],
    [*handles],
    loc='outside lower center',
    ncols=legend_columns(figure.get_figwidth(), handles),
    frameon=False,
  )
  for text in legend.get_texts():
    text.set_parse_math(False)
  figure.savefig(path, dpi=150)


def legend_columns(width_inches: float, names: Iterable[str]) -> int:
  """Return how many names stand side by side in a figure."""
  longest = max(map(len, names), default=0)
  # A line with its marker, and letters of 10 points.
  return max(1, int(width_inches / (0.7 + 0.09 * longest)))


def alignment_styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
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
  content: Setting,
  training_length: int | None,
  styles: Mapping[str, Mapping[str, Any]],
) -> None:
  """Draw a line an alignment; the lines a little beside each other."""
  by_length = content.along is not None and content.along == _unit(content)
  present = {row['alignment'] for row in content.rows}
  names = [name for name in styles if name in present]
  scale = training_length or 1
  places = [
    row['length'] / scale
    if by_length
    else numbers(row).get(content.along or '', 0)
    for row in content.rows
  ]
  step = 0.02 * (max(places) - min(places))
  for index, name in enumerate(names):
    own = sorted(
      (place, i)
      for i, (place, row) in enumerate(zip(places, content.rows))
      if row['alignment'] == name
    )
    rows = [content.rows[i] for _, i in own]
    offset = index - (len(names) - 1) / 2
    panel.errorbar(
      [
        place * 1.04**offset if by_length else place + (step or 1) * offset
        for place, _ in own
      ],
      [_or_nan(row['value']) for row in rows],
      yerr=_error_bars(rows),
      label=name,
      capsize=3,
      markersize=5,
      linewidth=1.5,
      elinewidth=1,
      **styles[name],
    )
  _set_values_axis(panel, content.rows)
  panel.set_title(content.name.replace('_', ' '), parse_math=False)
  panel.spines[['top', 'right']].set_visible(False)
  if by_length:
    _set_length_axis(panel, places, training_length)
  elif content.along:
    panel.set_xticks(sorted(set(places)))
    panel.set_xlabel(f'{content.along} position')
  else:
    mean = sum(row['length'] for row in content.rows) / len(content.rows)
    panel.set_xlim(-len(names) / 2 - 0.3, len(names) / 2 + 0.3)
    panel.set_xticks([])
    panel.set_xlabel(f'{mean:,.0f} tokens on average')


def _unit(setting: Setting) -> str | None:
  return next(iter(numbers(setting.rows[0])), None)


def _or_nan(value: float | None) -> float:
  return math.nan if value is None else value


def _error_bars(rows: Sequence[Row]) -> list[list[float]]:
  """Return the distances from each value to its interval, below and above."""
  bars = []
  for row in rows:
    value = _or_nan(row['value'])
    low, high = row['ci95'] or (value, value)
    bars.append([max(value - _or_nan(low), 0), max(_or_nan(high) - value, 0)])
  return [list(side) for side in zip(*bars)]


def _set_values_axis(panel: mpl_axes.Axes, rows: Sequence[Row]) -> None:
  """Show a rate from 0 to 1, and what has no upper end on a log axis."""
  metrics = dict.fromkeys(row['metric'] for row in rows)
  name = ', '.join(metrics).replace('_', ' ')
  values = [row['value'] for row in rows if row['value'] is not None]
  panel.grid(axis='y', linewidth=0.4, alpha=0.6)
  if all(row['higher_is_better'] for row in rows):
    panel.set_ylabel(name)
    if all(0 <= value <= 1 for value in values):
      panel.set_ylim(-0.04, 1.04)
    return
  panel.set_ylabel(f'{name} (lower is better)')
  if not values or min(values) <= 0:
    return
  panel.set_yscale('log')
  # A log axis puts ticks at powers of ten, of which there may be none.
  is_wide = max(values) > 10 * min(values)
  panel.yaxis.set_major_locator(
    ticker.LogLocator(subs=(1, 2, 5)) if is_wide else ticker.MaxNLocator(6)
  )
  panel.yaxis.set_major_formatter(lambda y, _: f'{y:,.4g}')
  panel.yaxis.set_minor_locator(ticker.NullLocator())


def _set_length_axis(
  panel: mpl_axes.Axes, lengths: Sequence[float], training_length: int | None
) -> None:
  panel.set_xscale('log', base=2)
  panel.set_xlim(min(lengths) / 1.3, max(lengths) * 1.3)
  # About one length: there need be no power of two near it.
  is_one = max(lengths) < 1.5 * min(lengths)
  panel.xaxis.set_major_locator(
    ticker.FixedLocator([max(lengths)]) if is_one else ticker.LogLocator(base=2)
  )
  panel.xaxis.set_minor_locator(ticker.NullLocator())
  if training_length:
    panel.xaxis.set_major_formatter(lambda x, _: f'{x:.3g}×')
    panel.set_xlabel(f'length / training length ({training_length:,} tokens)')
    panel.axvline(1, color='grey', linewidth=0.8, linestyle=':')
  else:
    panel.xaxis.set_major_formatter(lambda x, _: f'{x:,.0f}')
    panel.set_xlabel('length in tokens')
