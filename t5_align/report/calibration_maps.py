"""Heat maps of a calibration: its heads, and where their attention goes.

Bright is sharp and dark is flat in all maps of heads. Maps of one statistic
and site share a scale, so that before and after compare by eye.

Synopsis:

    draw_heads(record).savefig('heads.png')
    draw_distances(record)              # None: nobody looked at whole rows
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any

from matplotlib import axes as mpl_axes
from matplotlib import colors as mpl_colors
from matplotlib import figure as mpl_figure
from matplotlib import ticker
import numpy as np

from t5_align.report.calibration_record import (
  STATISTIC_LABELS,
  CalibrationRecord,
  Measurement,
  known_mean,
)
from t5_align.report.plot import COLOURS

_UNKNOWN = '#dddddd'
# Statistic -> the map on which bright is sharp, and the digits of a cell.
_MAPS = {
  'max_probability': ('viridis', '#.2g'),
  'entropy_nats': ('viridis_r', '.1f'),
}
_READABLE_CELLS = 100  # of a heat map: more have no room for their numbers


def draw_heads(record: CalibrationRecord) -> mpl_figure.Figure:
  rows = [(site, name) for site in record.sites for name in _MAPS]
  figure = mpl_figure.Figure(
    figsize=(11, 2.5 * len(rows) + 0.4), layout='constrained'
  )
  panels = figure.subplots(len(rows), 3, squeeze=False)
  titles = (
    f'{record.training_length:,} tokens',
    f'{record.target_length:,} tokens',
    f'{record.target_length:,} tokens,\n{record.aligned_label}',
  )
  for panel, title in zip(panels[0], titles):
    panel.set_title(title, parse_math=False, fontsize=11)
  for row, (site, name) in zip(panels, rows):
    view = record.view(site)
    shown = (view.training, view.before, view.after)
    values = [None if m is None else getattr(m, name) for m in shown]
    colours, digits = _MAPS[name]
    scale = _scale(name, [v for v in values if v is not None])
    for panel, value in zip(row, values):
      image = _heat_map(panel, value, scale, colours, digits)
    row[0].set_ylabel(f'{site}: layer', parse_math=False)
    bar = figure.colorbar(
      image, ax=list(row), label=STATISTIC_LABELS[name], pad=0.01, aspect=12
    )
    if name == 'max_probability':
      bar.ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
      bar.ax.yaxis.set_major_formatter(lambda x, _: f'{x:g}')
      bar.ax.yaxis.set_minor_locator(ticker.NullLocator())
  for panel in panels[-1]:
    panel.set_xlabel('head')
  return figure


def _scale(name: str, values: Sequence[np.ndarray]) -> mpl_colors.Normalize:
  """Return one colour scale for all: probabilities fall by factors."""
  numbers = np.concatenate([v[np.isfinite(v)] for v in values])
  if not numbers.size:
    numbers = np.ones(1)
  if name == 'entropy_nats':
    return mpl_colors.Normalize(numbers.min(), numbers.max() + 1e-3)
  low = np.clip(numbers.min(), 1e-6, 0.5)
  return mpl_colors.LogNorm(low, max(numbers.max(), 1.5 * low))


def _heat_map(
  panel: mpl_axes.Axes,
  values: np.ndarray | None,
  scale: mpl_colors.Normalize,
  colours: str,
  digits: str | None = None,
) -> Any:
  """Draw [rows, columns]; write the numbers, too, where there is room."""
  if values is None:
    panel.text(0.5, 0.5, 'not measured', ha='center', transform=panel.transAxes)
    values = np.full((1, 1), np.nan)
  panel.set_facecolor(_UNKNOWN)
  image = panel.imshow(values, cmap=colours, norm=scale, aspect='auto')
  for axis, size in zip((panel.yaxis, panel.xaxis), values.shape):
    axis.set_ticks(range(0, size, 2 ** ((size - 1) // 8).bit_length()))
  if digits and values.size <= _READABLE_CELLS:
    for (i, n), value in np.ndenumerate(values):
      if np.isfinite(value):
        red, green, blue, _ = image.cmap(scale(value))
        is_bright = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
        panel.text(
          n,
          i,
          f'{value:{digits}}',
          color='black' if is_bright else 'white',
          ha='center',
          va='center',
          fontsize=8,
        )
  return image


def draw_distances(record: CalibrationRecord) -> mpl_figure.Figure | None:
  rows = {}
  for site in record.sites:
    view = record.view(site)
    shown = (view.training, view.before, view.after)
    if any(m and m.distance_mass is not None for m in shown):
      rows[site] = shown
  if not rows:
    return None
  figure = mpl_figure.Figure(
    figsize=(13, 3.3 * len(rows) + 0.5), layout='constrained'
  )
  panels = figure.subplots(
    len(rows), 4, squeeze=False, width_ratios=(1.5, 1, 1, 1)
  )
  titles = (
    f'{record.training_length:,} tokens',
    f'{record.target_length:,} tokens',
    f'{record.target_length:,} tokens, {record.aligned_label}',
  )
  for row, (site, shown) in zip(panels, rows.items()):
    edges = max((m.distances for m in shown if m), key=len)
    masses = [_mass(m, len(edges)) for m in shown]  # each [D, L] or None
    _draw_distance_bars(row[0], edges, masses, titles)
    row[0].set_title(site, loc='left', fontweight='bold', parse_math=False)
    top = max(np.nanmax(mass) for mass in masses if mass is not None)
    for panel, mass, title in zip(row[1:], masses, titles):
      image = _heat_map(
        panel,
        None if mass is None else mass.T,
        mpl_colors.Normalize(0, top),
        'viridis',
      )
      panel.set_title(title.replace(', ', ',\n'), fontsize=9, parse_math=False)
      _name_buckets(panel, edges, 2)
    row[1].set_ylabel('layer')
    figure.colorbar(image, ax=row[-1], label='share of attention', aspect=12)
  handles, labels = panels[0][0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc='outside lower center', ncols=3, frameon=False
  )
  return figure


def _mass(measurement: Measurement | None, size: int) -> np.ndarray | None:
  """Return the mean over heads, [D, L]; no key is further than the last."""
  if measurement is None or measurement.distance_mass is None:
    return None
  mass = known_mean(measurement.distance_mass, 2)
  return np.pad(mass, ((0, size - len(mass)), (0, 0)), constant_values=np.nan)


def _name_buckets(
  panel: mpl_axes.Axes, edges: Sequence[int], step: int = 1
) -> None:
  """Write 0, 1, 2-3, 4-7, … below every bucket, or every other one."""
  names = [
    f'{low:,}' if high == low + 1 else f'{low:,}-{high - 1:,}'
    for low, high in itertools.pairwise(edges)
  ]
  names.append(f'{edges[-1]:,}+')
  panel.set_xticks(
    range(0, len(edges), step),
    names[::step],
    rotation=45,
    ha='right',
    rotation_mode='anchor',
    fontsize=7,
  )
  panel.set_xlabel('distance in tokens')


def _draw_distance_bars(
  panel: mpl_axes.Axes,
  edges: Sequence[int],
  masses: Sequence[np.ndarray | None],
  titles: Sequence[str],
) -> None:
  places = np.arange(len(edges))
  for i, (mass, title, colour) in enumerate(
    zip(masses, titles, ('#aaaaaa', 'black', COLOURS[0]))
  ):
    if mass is not None:
      panel.bar(
        places + 0.27 * (i - 1),
        known_mean(mass, 1),
        width=0.27,
        color=colour,
        label=title,
      )
  _name_buckets(panel, edges)
  panel.set_ylabel('share of attention')
  panel.spines[['top', 'right']].set_visible(False)
