"""What an evaluation's attention was at each length, and is when aligned.

Read from what it calibrated on the way, `alignments/NAME.json`: the largest
probability of a row and its entropy, means over rows, layers and heads.

Synopsis:

    points = read_attention('out', rows)        # []: nothing was calibrated
    Console().print(*make_attention_tables(points))
    write_attention(points, rows, 'out/attention.png')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
import typing
from typing import Any, NamedTuple

from matplotlib import axes as mpl_axes
from matplotlib import figure as mpl_figure
from rich import table as rich_table

from t5_align import results
from t5_align import temperature as temperature_lib
from t5_align.report.calibration_curves import set_length_axis
from t5_align.report.calibration_table import add_line, number, start_table
from t5_align.report.plot import alignment_styles, legend_columns
from t5_align.report.rows import Row

TITLE = 'attention ({}), mean over layers and heads'
_LABELS = {
  'maximum_probability': 'largest probability',
  'entropy_nats': 'entropy in nats',
}


class Point(NamedTuple):
  """Attention of one site at one length under one alignment."""

  site: str
  """encoder, decoder or cross."""
  length: int
  """Tokens of the input."""
  keys: float
  """Mean number of keys that the rows see."""
  alignment: str
  maximum_probability: float
  entropy_nats: float
  temperature: float
  """Mean over layers and heads of what divides the logits."""

  @property
  def by_keys(self) -> bool:
    """Whether the rows of one input see different numbers of keys."""
    return self.site == 'decoder'

  @property
  def place(self) -> float:
    """Where a table or a picture has it."""
    return self.keys if self.by_keys else float(self.length)


_TYPES: Mapping[str, Any] = typing.get_type_hints(Point)


def read_attention(
  output_dir: str | os.PathLike, rows: Sequence[Row]
) -> list[Point]:
  """Read what was measured for the alignments of some rows.

  Returns:
    Points in order of sites and places, those without alignment once. None of
    a version that did not keep them.

  Raises:
    ResultsError: a file is not what an evaluation writes.
  """
  found: dict[tuple, Point] = {}
  for name in dict.fromkeys(row['alignment'] for row in rows):
    path = pathlib.Path(output_dir) / 'alignments' / f'{name}.json'
    if not path.is_file():
      continue
    try:
      _, record = temperature_lib.load_calibrated(path)
      for value in record.get('attention_statistics', ()):
        point = Point(*(of(value[field]) for field, of in _TYPES.items()))
        # Each calibration measured anew what there is without alignment.
        found.setdefault((point.site, point.place, point.alignment), point)
    except (KeyError, TypeError, ValueError) as error:
      raise results.ResultsError(
        f'{path} is not what an evaluation writes: {error}. Evaluate again.'
      ) from error
  sites = [*dict.fromkeys(point.site for point in found.values())]
  return sorted(found.values(), key=lambda p: (sites.index(p.site), p.place))


def by_site(points: Sequence[Point]) -> dict[str, list[Point]]:
  """Return each site's points."""
  found: dict[str, list[Point]] = {}
  for point in points:
    found.setdefault(point.site, []).append(point)
  return found


def columns(points: Sequence[Point]) -> tuple[str, ...]:
  """Return the names of a site's `lines`."""
  along = 'keys' if points[0].by_keys else 'length'
  return (along, 'alignment', *_LABELS.values(), 'temperature')


def lines(points: Sequence[Point]) -> list[tuple[str, ...]]:
  """Return the cells of a site's points; a length stands where it is new."""
  places = [f'{point.place:,.0f}' for point in points]
  return [
    (
      place if place != before else '',
      point.alignment,
      number(point.maximum_probability),
      number(point.entropy_nats),
      f'{point.temperature:.3f}',
    )
    for point, place, before in zip(points, places, ['', *places])
  ]


def make_attention_tables(points: Sequence[Point]) -> list[rich_table.Table]:
  """Return a table a site, for a terminal of 80 columns."""
  tables = []
  for site, own in by_site(points).items():
    heads = [column.replace(' ', '\n', 1) for column in columns(own)]
    table = start_table(TITLE.format(site), heads, left=('alignment',))
    for line in lines(own):
      if line[0]:
        table.add_section()
      add_line(table, line)
    tables.append(table)
  return tables


def write_attention(
  points: Sequence[Point], rows: Sequence[Row], path: str | os.PathLike
) -> None:
  """Write both statistics against length as a PNG file, a row of panels a site.

  Rows of the results tell how alignments look in scores.png, and here, too.
  """
  measured = [{'alignment': point.alignment} for point in points]
  styles = alignment_styles([*rows, *measured])
  sites = by_site(points)
  size = (9.6, 3.4 * len(sites) + 0.4)
  figure = mpl_figure.Figure(figsize=size, layout='constrained')
  panels = figure.subplots(len(sites), 2, squeeze=False)
  for (site, own), pair in zip(sites.items(), panels):
    for panel, name in zip(pair, _LABELS):
      _draw(panel, own, name, styles)
    pair[0].set_title(site, loc='left', fontweight='bold', parse_math=False)
  handles, labels = panels[0][0].get_legend_handles_labels()
  legend = figure.legend(
    handles,
    labels,
    loc='outside lower center',
    ncols=legend_columns(figure.get_figwidth(), labels),
    frameon=False,
  )
  for text in legend.get_texts():
    text.set_parse_math(False)
  figure.savefig(path, dpi=150)


def _draw(
  panel: mpl_axes.Axes,
  points: Sequence[Point],
  name: str,
  styles: Mapping[str, Mapping[str, Any]],
) -> None:
  """Draw one statistic of one site, a line an alignment."""
  training = min(points, key=lambda point: point.length)
  for alignment, style in styles.items():
    own = [point for point in points if point.alignment == alignment]
    if not own:
      continue
    if alignment != results.BASELINE and not training.by_keys:
      own = [training, *own]  # where every temperature is 1
    panel.plot(
      [point.place for point in own],
      [getattr(point, name) for point in own],
      label=alignment,
      markersize=5,
      linewidth=1.5,
      **style,
    )
  kept = getattr(training, name)
  panel.axhline(kept, color='grey', linewidth=0.8, linestyle=':')
  places = [point.place for point in points]
  set_length_axis(panel, places, training.length, training.by_keys)
  panel.set_ylabel(_LABELS[name])
  panel.set_ylim(0, 1.06 * panel.get_ylim()[1])
