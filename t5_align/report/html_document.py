"""HTML that stands alone: its style and its pictures are inside.

What models and files say is escaped: a page never runs it.

Synopsis:

    body = f'<h2>Scores</h2>{make_table(columns, lines)}{image("a.png", "…")}'
    write_document('out/report.html', 'My model', body)
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import html
import os
import pathlib
from typing import Any

from t5_align import results

_DOCUMENT = """<!DOCTYPE html>
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
summary {{ cursor: pointer; margin: .5rem 0; }}
.sure {{ font-weight: bold; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_document(
  path: str | os.PathLike, title: str, body: str
) -> pathlib.Path:
  """Write a page and return its path.

  Args:
    path: the file.
    title: as text.
    body: as HTML.
  """
  path = pathlib.Path(path)
  text = _DOCUMENT.format(title=html.escape(title), body=body)
  results.write_atomically(path, text)
  return path


def image(path: str | os.PathLike, description: str) -> str:
  """Return a PNG file as an element that has it inside."""
  data = base64.b64encode(pathlib.Path(path).read_bytes()).decode('ascii')
  return (
    f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'
  )


def make_table(
  columns: Sequence[str],
  lines: Sequence[Sequence[str]],
  classes: Sequence[str] = (),
) -> str:
  """Return a table that scrolls where it is too wide.

  Args:
    columns: their names, as text.
    lines: the cells of each, as text.
    classes: of each line, as the style has them.
  """

  def row(tag: str, texts: Sequence[str]) -> str:
    return ''.join(f'<{tag}>{html.escape(text)}</{tag}>' for text in texts)

  body = ''.join(
    f'<tr class="{kind}">{row("td", line)}</tr>\n'
    for line, kind in zip(lines, classes or [''] * len(lines))
  )
  return f'<div><table>\n<tr>{row("th", columns)}</tr>\n{body}</table></div>'


def flatten(value: Any, name: str = '') -> list[tuple[str, str]]:
  """Return nested fields as (dotted name, text)."""
  if isinstance(value, Mapping):
    return [
      line
      for key, item in value.items()
      for line in flatten(item, f'{name}.{key}' if name else key)
    ]
  return [(name, value if isinstance(value, str) else results.to_json(value))]
