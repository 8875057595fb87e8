"""Curves of a calibration: statistics and temperatures against length.

Without alignment is black and dashed, with it blue. Where a decoder's rows see
different numbers of keys, they are placed by these; other sites by the length
of the input.

Synopsis:

    draw_lengths(record).savefig('lengths.png')
    draw_temperatures(record)           # None: neither solved nor compared
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
from typing import Any

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np

from t5_align import results
from t5_align.report.calibration_record import (
  STATISTIC_LABELS,
  CalibrationRecord,
  Rule,
  Solution,
  known_mean,
)
from t5_align.report.plot import COLOURS

_BEFORE, _AFTER = 'black', COLOURS[0]
_RULE_COLOURS = (*COLOURS[1:], '#7F3C8D', '#795548')
_LINE_HEIGHT = 0.06  # of a label beside a panel, as a share of the panel's


def draw_lengths(record: CalibrationRecord) -> mpl_figure.Figure:
  figure = mpl_figure.Figure(
    figsize=(10, 3.1 * len(record.sites) + 0.5), layout='constrained'
  )
  panels = figure.subplots(len(record.sites), 2, squeeze=False)
  for row, site in zip(panels, record.sites):
    for panel, name in zip(row, STATISTIC_LABELS):
      _draw_length_panel(panel, record, site, name)
    row[0].set_title(site, loc='left', fontweight='bold', parse_math=False)
  handles, labels = panels[0][0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc='outside lower center', ncols=2, frameon=False
  )
  return figure


def _draw_length_panel(
  panel: mpl_axes.Axes, record: CalibrationRecord, site: str, name: str
) -> None:
  by_keys = record.has_groups(site)
  training = getattr(record.view(site).training, name)
  shown = []
  for alignment, label, style in (
    (results.BASELINE, 'without alignment', (_BEFORE, 'x--')),
    (record.aligned, record.aligned_label, (_AFTER, 'o-')),
  ):
    found = record.find(site, alignment)
    if not found:
      continue
    colour, form = style
    lengths = [m.keys if by_keys else float(m.length) for m in found]
    values = np.stack([getattr(m, name) for m in found])  # [points, L, N]
    panel.plot(
      lengths,
      known_mean(values, 2),
      f'.{form[1:]}',
      markersize=3,
      color=colour,
      linewidth=0.7,
      alpha=0.35,
      label=[f'one layer, {label}'] + ['_'] * (values.shape[1] - 1),
    )
    panel.plot(
      lengths,
      known_mean(values, (1, 2)),
      form,
      color=colour,
      linewidth=2.2,
      markersize=6,
      label=f'mean, {label}',
    )
    shown += lengths
  panel.axhline(
    known_mean(training), color='grey', linewidth=0.8, linestyle=':'
  )
  set_length_axis(panel, shown, record.training_length, by_keys)
  panel.set_ylabel(STATISTIC_LABELS[name])
  panel.set_ylim(0, 1.06 * panel.get_ylim()[1])


def set_length_axis(
  panel: mpl_axes.Axes,
  lengths: Sequence[float],
  training_length: int,
  by_keys: bool,
) -> None:
  """Make a base-2 logarithmic axis on which the training length is marked."""
  panel.set_xscale('log', base=2)
  panel.set_xlim(
    min(training_length, *lengths) / 1.2, max(training_length, *lengths) * 1.2
  )
  panel.xaxis.set_major_locator(ticker.LogLocator(base=2, numticks=12))
  panel.xaxis.set_minor_locator(ticker.NullLocator())
  panel.xaxis.set_major_formatter(lambda x, _: f'{x:,.0f}')
  panel.set_xlabel('keys that a row sees' if by_keys else 'length in tokens')
  panel.axvline(training_length, color='grey', linewidth=0.8, linestyle=':')
  panel.annotate(
    'training length',
    (training_length, 0),
    (3, 3),
    xycoords=('data', 'axes fraction'),
    textcoords='offset points',
    va='bottom',
    fontsize=8,
    color='grey',
  )
  panel.spines[['top', 'right']].set_visible(False)


def draw_temperatures(record: CalibrationRecord) -> mpl_figure.Figure | None:
  sites = [
    site
    for site in record.sites
    if any(part.site == site for part in (*record.solutions, *record.rules))
  ]
  if not sites:
    return None
  figure = mpl_figure.Figure(
    figsize=(8.5, 4.2 * len(sites)), layout='constrained'
  )
  panels = figure.subplots(len(sites), 1, squeeze=False)[:, 0]
  names = dict.fromkeys(rule.name for rule in record.rules)
  # Rules may coincide: dashes let the one below show through.
  styles = (
    {'color': colour, 'linestyle': line}
    for colour, line in zip(
      itertools.cycle(_RULE_COLOURS), itertools.cycle(('-', '--', '-.', ':'))
    )
  )
  own_style = {
    results.BASELINE: {'color': 'grey', 'linestyle': '--'},
    record.aligned: {'color': _AFTER},
  }
  styles = {name: own_style.get(name) or next(styles) for name in names}
  for panel, site in zip(panels, sites):
    rules = [rule for rule in record.rules if rule.site == site]
    _draw_temperature_panel(panel, record, site, rules, styles)
  return figure


def _draw_temperature_panel(
  panel: mpl_axes.Axes,
  record: CalibrationRecord,
  site: str,
  rules: Sequence[Rule],
  styles: Mapping[str, Mapping[str, Any]],
) -> None:
  is_one = record.settings['granularity'] == 'model'
  is_one = is_one and not record.settings['selective']
  own_label = record.aligned_label + ('' if is_one else ', mean')
  ends = {}  # label -> (keys, τ, colour): what is named at the right
  for rule in rules:
    if not rule.points:
      continue
    keys, tau = zip(*rule.points)
    style: dict[str, Any] = dict(styles[rule.name])
    if len(keys) == 1:
      style |= {'marker': 'D', 'linestyle': 'none'}
    panel.plot(keys, tau, linewidth=1.4, **style)
    label = own_label if rule.name == record.aligned else rule.label
    ends[label] = (keys[-1], tau[-1], style['color'])
  lengths = [keys for rule in rules for keys, _ in rule.points]
  solutions = [s for s in record.solutions if s.site == site]
  if solutions:
    num_layers = len(record.view(site).training.max_probability)
    _draw_solutions(panel, solutions, num_layers)
    last = max(solutions, key=lambda s: s.keys)
    ends.setdefault(own_label, (last.keys, last.temperature, _AFTER))
    lengths += [s.keys for s in solutions]
  set_length_axis(panel, lengths, record.training_length, by_keys=True)
  panel.set_ylabel('temperature τ')
  panel.set_title(site, loc='left', fontweight='bold', parse_math=False)
  _label_ends(panel, ends)


def _draw_solutions(
  panel: mpl_axes.Axes, solutions: Sequence[Solution], num_layers: int
) -> None:
  """Draw what was calibrated, with intervals where they can be told apart.

  Layers stand side by side, from the first on the left to the last.
  """
  is_fine = any(s.layer is not None for s in solutions)
  for solution in solutions:
    place = 0.0
    if solution.layer is not None and num_layers > 1:
      place = solution.layer / (num_layers - 1) - 0.5
    error = None
    if solution.ci95 is not None and solution.head is None:
      low, high = solution.ci95
      error = [
        [max(solution.temperature - low, 0.0)],
        [max(high - solution.temperature, 0.0)],
      ]
    panel.errorbar(
      [solution.keys * 1.25**place],
      [solution.temperature],
      yerr=error,
      fmt='o',
      color=_AFTER,
      alpha=(0.2 if len(solutions) > 99 else 0.5) if is_fine else 1.0,
      markersize=4 if is_fine else 7,
      markeredgewidth=0,
      capsize=0 if is_fine else 3,
      linewidth=1.0 if is_fine else 1.5,
      zorder=3,
    )


def _label_ends(
  panel: mpl_axes.Axes, ends: Mapping[str, tuple[float, float, str]]
) -> None:
  """Name points to the right of a panel, each label clear of the others."""
  bottom, top = panel.get_ylim()
  order = sorted(ends, key=lambda label: ends[label][1])
  heights = [(ends[label][1] - bottom) / (top - bottom) for label in order]
  # Neighbours that are too close push each other apart until none is.
  for i in itertools.chain(*itertools.repeat(range(1, len(ends)), 100)):
    excess = _LINE_HEIGHT - (heights[i] - heights[i - 1])
    if excess > 0:
      heights[i] += excess / 2
      heights[i - 1] -= excess / 2
  for label, height in zip(order, heights):
    keys, tau, colour = ends[label]
    panel.annotate(
      label,
      (keys, tau),
      (1.03, height),
      textcoords='axes fraction',
      va='center',
      fontsize=9,
      color=colour,
      parse_math=False,
      annotation_clip=False,
      arrowprops={
        'arrowstyle': '-',
        'color': colour,
        'linewidth': 0.6,
        'shrinkA': 0,
        'shrinkB': 0,
        'relpos': (0, 0.5),
      },
    )
