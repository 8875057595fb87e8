"""One HTML page that explains a calibration, without any other file.

It is for someone who has never heard of dispersed attention: each picture has
a few plain words above it, with the numbers of this very run.

Synopsis:

    paths = write_calibration_plots(record, 'out')
    write_calibration_page(record, paths, 'out')      # out/calibration.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import html
import math
import os
import pathlib

import numpy as np

from t5_align.report import calibration_words as words
from t5_align.report import html_document
from t5_align.report.calibration_record import KINDS, CalibrationRecord
from t5_align.report.calibration_table import (
  layer_cells,
  number,
  solution_cells,
  solution_columns,
  statistic_name,
  temperature,
)

_SHORT_TABLE = 12  # rows: longer ones are folded away
# Name of a picture -> heading, what it shows, and what is said of each site.
_PICTURES: dict[
  str, tuple[str, str, Callable[[CalibrationRecord, str], str]]
] = {
  'heads': (
    'Which heads disperse',
    'One square a head. Bright is sharp and dark is flat. Where the middle map'
    ' is darker than the left one, attention dispersed; the right one shows'
    ' what the temperatures make of it.',
    words.about_heads,
  ),
  'lengths': (
    'Attention against length',
    'Black and dashed is the model as it is, blue is the model aligned; thin'
    ' lines are its layers. The dotted line is the mean at the training'
    ' length, where alignment wants to be.',
    words.about_lengths,
  ),
  'temperatures': (
    'Temperature against length',
    'A temperature of 1 changes nothing; the lower, the sharper. Dots are what'
    ' was solved here, with 95% intervals where they are known and there is'
    ' room; lines are rules, and the blue one is the mean of what this'
    ' calibration does.',
    words.about_rules,
  ),
  'distances': (
    'Where attention goes',
    'The share of attention by distance between the two tokens, from a sample'
    ' of rows: over all layers on the left, and layer by layer. Dispersion'
    ' shows as attention that moves far away. Grey: there is no such distance.',
    words.about_distances,
  ),
}


def write_calibration_page(
  record: CalibrationRecord,
  pictures: Mapping[str, str | os.PathLike],
  output_dir: str | os.PathLike,
) -> pathlib.Path:
  """Write `output_dir/calibration.html` and return its path.

  Args:
    record: what the calibration left.
    pictures: name -> file, of those that were drawn.
    output_dir: the folder.
  """
  parts = [
    _paragraph(words.introduction(record)),
    '<h2>In short</h2>',
    *(
      _paragraph(f'{site}: {words.about_site(record, site)}')
      for site in record.sites
    ),
  ]
  if record.warnings:
    parts += ['<h2>What to beware of</h2>', _list(record.warnings)]
  parts += ['<h2>Temperatures</h2>', _solutions(record)]
  for name, (heading, explanation, about) in _PICTURES.items():
    if name not in pictures:
      continue
    parts += [
      f'<h2>{heading}</h2>',
      _paragraph(explanation),
      _list([about(record, site) for site in record.sites]),
      f'<p>{html_document.image(pictures[name], heading)}</p>',
    ]
    if name == 'heads':
      parts += [_kinds(record), _layers(record), _heads(record)]
  parts += ['<h2>How it was made</h2>', _fields(record)]
  return html_document.write_document(
    pathlib.Path(output_dir) / 'calibration.html',
    f'{record.model}: attention at {record.target_length:,} tokens',
    '\n'.join(parts),
  )


def _paragraph(text: str) -> str:
  return f'<p>{html.escape(text)}</p>'


def _list(texts: Sequence[str]) -> str:
  """Return a list of those that say something."""
  items = ''.join(f'<li>{html.escape(text)}</li>' for text in texts if text)
  return f'<ul>{items}</ul>' if items else ''


def _meanings(meanings: Mapping[str, str]) -> str:
  return _list([f'{name}: {text}.' for name, text in meanings.items()])


def _folded(summary: str, content: str) -> str:
  return (
    f'<details><summary>{html.escape(summary)}</summary>{content}</details>'
  )


def _solutions(record: CalibrationRecord) -> str:
  lines = [solution_cells(solution) for solution in record.solutions]
  if not lines:
    return _paragraph('No head was aligned.')
  content = html_document.make_table(solution_columns(record), lines)
  if len(lines) > _SHORT_TABLE:
    content = _folded(f'All {len(lines):,} temperatures', content)
  content = (
    _paragraph(
      f'What is kept: {statistic_name(record)}, mean over rows and heads; at'
      f' the training length, at the longer one, and there with the'
      f' temperature.'
    )
    + content
  )
  statuses = {cells[-1] for cells in lines}
  return content + _meanings(
    {s: text for s, text in words.STATUS_MEANINGS.items() if s in statuses}
  )


def _kinds(record: CalibrationRecord) -> str:
  found = set(record.kinds.values())
  return _list(
    [words.about_kinds(record, site) for site in record.sites]
  ) + _meanings(
    {k: text for k, text in words.KIND_MEANINGS.items() if k in found}
  )


def _statistic_columns(record: CalibrationRecord) -> list[str]:
  return [
    f'{name} {where}'
    for name in ('P_max', 'entropy')
    for where in (
      f'at {record.training_length:,}',
      f'at {record.target_length:,}',
      'aligned',
    )
  ]


def _layers(record: CalibrationRecord) -> str:
  lines = [
    (site, *layer_cells(record, site, layer))
    for site in record.sites
    for layer in range(len(record.view(site).training.max_probability))
  ]
  columns = ('site', 'layer', *_statistic_columns(record), *KINDS)
  return _folded('Every layer', html_document.make_table(columns, lines))


def _heads(record: CalibrationRecord) -> str:
  """Return the table of all heads."""
  lines = []
  for site in record.sites:
    view = record.view(site)
    solutions = record.head_solutions(site)
    for layer, head in np.ndindex(view.training.max_probability.shape):
      solution = solutions.get((layer, head))
      overlap = math.nan
      if view.training.bias_overlap is not None:
        overlap = float(view.training.bias_overlap[layer, head])
      lines.append(
        (
          site,
          f'{layer}',
          f'{head}',
          record.kinds.get((site, layer, head), '-'),
          *(
            number(math.nan if m is None else getattr(m, name)[layer, head])
            for name in ('max_probability', 'entropy_nats')
            for m in (view.training, view.before, view.after)
          ),
          '-' if math.isnan(overlap) else f'{overlap:.0%}',
          temperature(solution) if solution else '1',
          solution.status.replace('_', ' ') if solution else 'left alone',
        )
      )
  columns = (
    'site',
    'layer',
    'head',
    'kind',
    *_statistic_columns(record),
    'position alone',
    'temperature [95%]',
    'status',
  )
  explanation = _paragraph(
    'Position alone: the share of attention at the training length that'
    ' distances would give without what the tokens say.'
  )
  return _folded(
    f'Every head ({len(lines):,})',
    html_document.make_table(columns, lines) + explanation,
  )


def _fields(record: CalibrationRecord) -> str:
  """Return header and settings; what both files say is said once."""
  fields = {**record.settings, **record.header}
  return html_document.make_table(
    ('field', 'value'), html_document.flatten(fields)
  )
