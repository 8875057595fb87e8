"""One HTML page that shows a whole evaluation, without any other file.

Synopsis:

    write_page('out', header, rows, 'out/scores.png')     # out/report.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import html
import os
import pathlib
from typing import Any

from t5_align import results
from t5_align.report import attention, depth, html_document
from t5_align.report import rows as rows_lib
from t5_align.report.rows import Row

_WRONG_ANSWERS = 3  # shown of each row
_COMPARED = ('vs none [95%]', '')

_BODY = """<p>{plot}</p>
<h2>Scores</h2>
<p>Differences are paired over the same samples; bold where their 95% interval
leaves out zero. Of n samples, <em>failed</em> ones gave no finite answer and
count as wrong, <em>cut</em> ones were too long, and of <em>lossy</em> ones the
tokenizer has not all characters.</p>
{scores}
{others}
{depth}
{attention}
<h2>Wrong answers</h2>
<p>The first {wrong} of each row.</p>
{answers}
<h2>How it was made</h2>
{header}"""

_OTHERS = """<h2>Other measures</h2>
<p>Of the same answers.</p>
{table}"""

_DEPTH = """<h2>Where the answer stands</h2>
<p>Mean score by length and by the share of the context before the needle.</p>
<p>{picture}</p>
<details><summary>The same as numbers</summary>
{table}
</details>"""

_ATTENTION = """<h2>Attention</h2>
<p>Attention gets flatter as the input gets longer: the largest probability of a
row falls, and its entropy rises. Alignment divides the logits by a temperature
that is chosen so that one of the two stays what it is at the training length
(dotted).</p>
<p>{picture}</p>
{tables}"""


def write_page(
  output_dir: str | os.PathLike,
  header: Mapping[str, Any],
  rows: Sequence[Row],
  plot: str | os.PathLike,
  depth_maps: Sequence[depth.DepthMap] = (),
  depth_picture: str | os.PathLike | None = None,
  points: Sequence[attention.Point] = (),
  attention_picture: str | os.PathLike | None = None,
) -> pathlib.Path:
  """Write `output_dir/report.html`, with its pictures inside.

  What models and files say is escaped: a page never runs it.

  Args:
    output_dir: of the evaluation.
    header: of its results.
    rows: of its results.
    plot: what `write_plot` wrote.
    depth_maps: what `read_depth_maps` returns.
    depth_picture: what `write_depth_maps` wrote, if it did.
    points: what `read_attention` returns.
    attention_picture: what `write_attention` wrote, if it did.

  Returns:
    The page's path.
  """
  output_dir = pathlib.Path(output_dir)
  model = pathlib.PurePath(header['checkpoint']['path']).name
  body = _BODY.format(
    plot=html_document.image(plot, 'Scores, with 95% intervals'),
    wrong=_WRONG_ANSWERS,
    scores=_scores(rows),
    others=_others(rows),
    depth=_depth(depth_maps, depth_picture),
    attention=_attention(points, attention_picture),
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


def _compared(measure: rows_lib.Measure) -> tuple[str, str]:
  return rows_lib.difference(measure), rows_lib.verdict(measure)


def _class(measure: rows_lib.Measure) -> str:
  return 'sure' if rows_lib.verdict(measure) else ''


def _scores(rows: Sequence[Row]) -> str:
  return html_document.make_table(
    ('task', 'length', 'alignment', 'metric', 'score [95%]', 'n', *_COMPARED),
    [
      (
        row['task'],
        f'{row["length"]:,.0f}',
        row['alignment'],
        row['metric'],
        rows_lib.with_interval(row),
        ', '.join([f'{row["n"]}', *rows_lib.remarks(row)]),
        *_compared(row),
      )
      for row in rows
    ],
    [_class(row) for row in rows],
  )


def _others(rows: Sequence[Row]) -> str:
  """Return every other measure, or nothing where there is none."""
  pairs = [
    (row, one) for row in rows for one in rows_lib.other_measures(row).values()
  ]
  if not pairs:
    return ''
  table = html_document.make_table(
    ('task', 'alignment', 'measure', 'value [95%]', *_COMPARED),
    [
      (
        row['task'],
        row['alignment'],
        one['metric'],
        rows_lib.with_interval(one),
        *_compared(one),
      )
      for row, one in pairs
    ],
    [_class(one) for _, one in pairs],
  )
  return _OTHERS.format(table=table)


def _depth(
  maps: Sequence[depth.DepthMap], picture: str | os.PathLike | None
) -> str:
  if not maps or picture is None:
    return ''
  return _DEPTH.format(
    picture=html_document.image(picture, 'Score by length and depth'),
    table=html_document.make_table(depth.COLUMNS, depth.lines(maps)),
  )


def _attention(
  points: Sequence[attention.Point], picture: str | os.PathLike | None
) -> str:
  if not points or picture is None:
    return ''
  tables = [
    f'<h3>{html.escape(attention.TITLE.format(site))}</h3>'
    + html_document.make_table(attention.columns(own), attention.lines(own))
    for site, own in attention.by_site(points).items()
  ]
  return _ATTENTION.format(
    picture=html_document.image(picture, 'Attention against length'),
    tables='\n'.join(tables),
  )


def _wrong_answers(output_dir: pathlib.Path, row: Row) -> list[tuple[str, ...]]:
  wrong = [
    sample
    for sample in results.read_row_samples(output_dir, row)
    # A likelihood is neither right nor wrong.
    if sample['prediction'] is not None and sample['score'] < 1
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
