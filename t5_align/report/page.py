"""One HTML page that shows a whole evaluation, without any other file.

Synopsis:

    write_page('out', header, rows, 'out/scores.png')     # out/report.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

from t5_align import results
from t5_align.report import html_document, table
from t5_align.report.table import Row

_WRONG_ANSWERS = 3  # shown of each row

_BODY = """<p>{plot}</p>
<h2>Scores</h2>
<p>Differences are paired over the same samples; bold where their 95% interval
leaves out zero.</p>
{scores}
<h2>Wrong answers</h2>
<p>The first {wrong} of each row.</p>
{answers}
<h2>How it was made</h2>
{header}"""


def write_page(
  output_dir: str | os.PathLike,
  header: Mapping[str, Any],
  rows: Sequence[Row],
  plot: str | os.PathLike,
) -> pathlib.Path:
  """Write `output_dir/report.html`, with the plot inside, and return its path.

  What models and files say is escaped: a page never runs it.
  """
  output_dir = pathlib.Path(output_dir)
  model = pathlib.PurePath(header['checkpoint']['path']).name
  body = _BODY.format(
    plot=html_document.image(plot, 'Score against length, with 95% intervals'),
    wrong=_WRONG_ANSWERS,
    scores=html_document.make_table(
      table.COLUMNS,
      [table.cells(row) for row in rows],
      ['sure' if table.is_sure(row) else '' for row in rows],
    ),
    answers=html_document.make_table(
      ('task', 'alignment', 'sample', 'wanted', 'got'),
      [line for row in rows for line in _wrong_answers(output_dir, row)],
    ),
    header=html_document.make_table(
      ('field', 'value'), html_document.flatten(header)
    ),
  )
  return html_document.write_document(
    output_dir / 'report.html', f'{model} on long inputs', body
  )


def _wrong_answers(output_dir: pathlib.Path, row: Row) -> list[tuple[str, ...]]:
  path = results.samples_path(output_dir, row['task'], row['alignment'])
  if not path.exists():
    return []
  wrong = [
    sample for sample in results.read_samples(path) if sample['score'] < 1
  ]
  return [
    (
      row['task'],
      row['alignment'],
      sample['id'],
      sample['target'],
      sample['prediction'] if sample['finite'] else '(not finite)',
    )
    for sample in wrong[:_WRONG_ANSWERS]
  ]
