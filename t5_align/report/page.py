"""One HTML page that shows a whole evaluation, without any other file.

Synopsis:

    write_page('out', header, rows, 'out/scores.png')     # out/report.html
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import html
import os
import pathlib
from typing import Any

from t5_align import results
from t5_align.report import table
from t5_align.report.table import Row

_WRONG_ANSWERS = 3  # shown of each row

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>t5_align: {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .15rem .8rem .15rem 0;
  border-bottom: 1px solid #ddd; vertical-align: top; }}
td {{ overflow-wrap: anywhere; }}
.sure {{ font-weight: bold; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p><img alt="Score against length, with 95% intervals" src="{plot}"></p>
<h2>Scores</h2>
<p>Differences are paired over the same samples; bold where their 95% interval
leaves out zero.</p>
<div>{scores}</div>
<h2>Wrong answers</h2>
<p>The first {wrong} of each row.</p>
<div>{answers}</div>
<h2>How it was made</h2>
<div>{header}</div>
</body>
</html>
"""


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
  image = base64.b64encode(pathlib.Path(plot).read_bytes()).decode('ascii')
  model = pathlib.PurePath(header['checkpoint']['path']).name
  text = _PAGE.format(
    title=html.escape(f'{model} on long inputs'),
    plot=f'data:image/png;base64,{image}',
    wrong=_WRONG_ANSWERS,
    scores=_table(
      table.COLUMNS,
      [table.cells(row) for row in rows],
      ['sure' if table.is_sure(row) else '' for row in rows],
    ),
    answers=_table(
      ('task', 'alignment', 'sample', 'wanted', 'got'),
      [line for row in rows for line in _wrong_answers(output_dir, row)],
    ),
    header=_table(('field', 'value'), list(_flatten(header))),
  )
  path = output_dir / 'report.html'
  results.write_atomically(path, text)
  return path


def _table(
  columns: Sequence[str],
  lines: Sequence[Sequence[str]],
  classes: Sequence[str] = (),
) -> str:
  def row(tag: str, texts: Sequence[str]) -> str:
    return ''.join(f'<{tag}>{html.escape(text)}</{tag}>' for text in texts)

  body = ''.join(
    f'<tr class="{kind}">{row("td", line)}</tr>\n'
    for line, kind in zip(lines, classes or [''] * len(lines))
  )
  return f'<table>\n<tr>{row("th", columns)}</tr>\n{body}</table>'


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


def _flatten(value: Any, name: str = '') -> list[tuple[str, str]]:
  """Return nested fields as (dotted name, text)."""
  if isinstance(value, Mapping):
    return [
      line
      for key, item in value.items()
      for line in _flatten(item, f'{name}.{key}' if name else key)
    ]
  return [(name, value if isinstance(value, str) else results.to_json(value))]
