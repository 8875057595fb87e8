"""Score by length and depth: does a model see the start, the middle, the end?

The depth of a sample is the share of its context that stands before its
needle. Samples of a group of tasks are sorted into the tasks' sizes and tenths
of depth, and each cell has the mean of their scores. Tasks without depths, or
with a single one, have no map.

Synopsis:

    maps = read_depth_maps('out', rows)
    write_depth_maps(maps, 'out/depth_maps.png')
    lines(maps)                                    # the same as a table
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import os
import pathlib

from matplotlib import axes as mpl_axes
from matplotlib import cm
from matplotlib import colors as mpl_colors
from matplotlib import figure as mpl_figure
import numpy as np

from t5_align import results
from t5_align.report.rows import Row, groups

BINS = 10
COLUMNS = ('task', 'size', 'depth', 'alignment', 'score', 'n')
_COLOURS = 'viridis'
_SCALE = mpl_colors.Normalize(0, 1)
_UNKNOWN = '#dddddd'


@dataclasses.dataclass(frozen=True)
class DepthMap:
  """The samples of one group of tasks under one alignment.

  Attributes:
    group: name of the tasks, without numbers.
    unit: what the sizes count; None for a task without a size.
    alignment: its name.
    sizes: of the tasks, rising, [S].
    scores: mean of each size and tenth of depth, [S, BINS]; NaN where none is.
    counts: of samples, [S, BINS].
  """

  group: str
  unit: str | None
  alignment: str
  sizes: tuple[int | None, ...]
  scores: np.ndarray
  counts: np.ndarray


def read_depth_maps(
  output_dir: str | os.PathLike, rows: Sequence[Row]
) -> list[DepthMap]:
  """Return the maps of all rows whose samples have more than one depth.

  Raises:
    ResultsError: a samples file that cannot be read.
  """
  # Of a name without places and one with them, samples may stand together.
  by_unit: dict[tuple[str, str | None], list[Row]] = {}
  for group in groups(rows):
    unit = next(iter(group.fields), None)
    by_unit.setdefault((group.name, unit), []).extend(group.rows)
  return [
    found
    for (name, unit), own in by_unit.items()
    for alignment in dict.fromkeys(row['alignment'] for row in own)
    if (
      found := _depth_map(pathlib.Path(output_dir), name, unit, own, alignment)
    )
  ]


def _depth_map(
  output_dir: pathlib.Path,
  name: str,
  unit: str | None,
  rows: Sequence[Row],
  alignment: str,
) -> DepthMap | None:
  """Return the map of a group under one alignment, if it has one."""
  own = [row for row in rows if row['alignment'] == alignment]
  sizes = sorted({row['size'] for row in own}, key=lambda size: size or 0)
  sums = np.zeros((len(sizes), BINS))
  counts = np.zeros((len(sizes), BINS), int)
  depths = set()
  for row in own:
    for depth, score in _scored_depths(output_dir, row):
      depths.add(depth)
      cell = sizes.index(row['size']), min(int(depth * BINS), BINS - 1)
      sums[cell] += score
      counts[cell] += 1
  if len(depths) < 2:
    return None
  scores = np.where(counts, sums / np.maximum(counts, 1), np.nan)
  return DepthMap(name, unit, alignment, tuple(sizes), scores, counts)


def _scored_depths(
  output_dir: pathlib.Path, row: Row
) -> Iterator[tuple[float, float]]:
  """Yield depth and score of a row's samples that have both."""
  for sample in results.read_row_samples(output_dir, row):
    depth, score = sample.get('depth'), sample.get('score')
    if depth is not None and score is not None:
      yield depth, score


def lines(maps: Sequence[DepthMap]) -> list[tuple[str, ...]]:
  """Return the cells of maps that have samples, a line each, as COLUMNS."""
  return [
    (
      found.group,
      _size(found, i),
      f'{bin_ / BINS:.1f}-{(bin_ + 1) / BINS:.1f}',
      found.alignment,
      f'{found.scores[i, bin_]:.2f}',
      f'{found.counts[i, bin_]}',
    )
    for found in maps
    for i, bin_ in np.argwhere(found.counts).tolist()
  ]


def _size(found: DepthMap, index: int) -> str:
  size = found.sizes[index]
  return '' if size is None else f'{size:,} {found.unit}'


def write_depth_maps(maps: Sequence[DepthMap], path: str | os.PathLike) -> None:
  """Write all maps as a PNG file: a line a group, a column an alignment."""
  names = list(dict.fromkeys(found.group for found in maps))
  alignments = list(dict.fromkeys(found.alignment for found in maps))
  by_key = {(found.group, found.alignment): found for found in maps}
  widest = max(len(found.sizes) for found in maps)
  figure = mpl_figure.Figure(
    figsize=(
      1.8 + len(alignments) * max(2.6, 0.55 * widest + 0.8),
      3.4 * len(names),
    ),
    layout='constrained',
  )
  panels = figure.subplots(len(names), len(alignments), squeeze=False)
  for name, row in zip(names, panels):
    for alignment, panel in zip(alignments, row):
      if found := by_key.get((name, alignment)):
        _draw(panel, found, panel is row[0])
      else:
        panel.set_axis_off()
  figure.colorbar(
    cm.ScalarMappable(_SCALE, _COLOURS),
    ax=list(panels[:, -1]),
    label='mean score',
    aspect=14 * len(names),
    pad=0.03,
  )
  figure.savefig(path, dpi=150)


def _draw(panel: mpl_axes.Axes, found: DepthMap, is_first: bool) -> None:
  """Draw one map, the start of the context at the top."""
  panel.set_facecolor(_UNKNOWN)
  panel.imshow(found.scores.T, cmap=_COLOURS, norm=_SCALE, aspect='auto')
  for (i, bin_), score in np.ndenumerate(found.scores):
    if found.counts[i, bin_]:
      panel.text(
        i,
        bin_,
        f'{score:.2f}',
        ha='center',
        va='center',
        fontsize=8,
        color='black' if score > 0.55 else 'white',
      )
  labels = ['' if size is None else f'{size:,}' for size in found.sizes]
  panel.set_xticks(
    range(len(labels)), labels, rotation=45 if len(labels) > 4 else 0
  )
  panel.set_yticks(
    np.arange(BINS + 1)[::2] - 0.5,
    [f'{tenth / BINS:.0%}' for tenth in range(0, BINS + 1, 2)],
  )
  panel.set_ylim(BINS - 0.5, -0.5)
  used = found.counts[found.counts > 0]
  few, many = used.min(), used.max()
  n = f'{few}' if few == many else f'{few} to {many}'
  panel.set_xlabel(f'{found.unit or ""}\n(n = {n} in a cell)'.lstrip())
  if is_first:
    panel.set_ylabel('context before the needle')
  title = f'{found.group.replace("_", " ")}\n{found.alignment}'
  panel.set_title(title, parse_math=False, fontsize=11)
