"""Everything that a finished evaluation or calibration shows.

Synopsis:

    show('t5_align_results')     # prints tables; pictures, report.html
    show_calibration('t5_align_calibration')      # four pictures and a page
"""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib
from typing import Any

from rich import console as rich_console

from t5_align import results
from t5_align.report import (
  attention,
  calibration_files,
  calibration_page,
  calibration_plots,
  calibration_table,
  depth,
  page,
  plot,
  table,
)


def show(output_dir: str | os.PathLike) -> None:
  """Print the tables of a folder's results; write its pictures and its page.

  Raises:
    ResultsError: the folder holds no results.
  """
  output_dir = pathlib.Path(output_dir)
  header, rows = results.read_results(output_dir)
  if not rows:
    raise results.ResultsError(
      f'{output_dir}/results.json has no rows yet; finish the evaluation.'
    )
  plot_path = output_dir / 'scores.png'
  plot.write_plot(header, rows, plot_path)
  maps = depth.read_depth_maps(output_dir, rows)
  maps_path = output_dir / 'depth_maps.png' if maps else None
  if maps_path:
    depth.write_depth_maps(maps, maps_path)
  points = attention.read_attention(output_dir, rows)
  attention_path = output_dir / 'attention.png' if points else None
  if attention_path:
    attention.write_attention(points, rows, attention_path)
  page_path = page.write_page(
    output_dir, header, rows, plot_path, maps, maps_path, points, attention_path
  )

  console = rich_console.Console()
  console.print(*table.make_tables(rows))
  for found in attention.make_attention_tables(points):
    console.print(found)
  console.print(f'{_device(header)}', highlight=False, soft_wrap=True)
  for task, characters in header['lost_characters'].items():
    if characters:
      console.print(
        f'{task}: the tokenizer cannot represent {characters!r} of its'
        ' prompts; the model reads them without.',
        highlight=False,
        markup=False,
        soft_wrap=True,
      )
  for path in (
    output_dir / 'results.json',
    plot_path,
    maps_path,
    attention_path,
    page_path,
  ):
    if path:
      console.print(f'{path}', highlight=False, markup=False, soft_wrap=True)


def show_calibration(output_dir: str | os.PathLike) -> None:
  """Print the tables of a calibration; write its pictures and its page.

  Raises:
    ResultsError: the folder does not hold a calibration's two files.
  """
  output_dir = pathlib.Path(output_dir)
  record = calibration_files.read_calibration(output_dir)
  pictures = calibration_plots.write_calibration_plots(record, output_dir)
  page_path = calibration_page.write_calibration_page(
    record, pictures, output_dir
  )
  console = rich_console.Console()
  console.print(*calibration_table.make_calibration_tables(record))
  for path in (
    output_dir / calibration_files.TEMPERATURES_FILE,
    output_dir / calibration_files.STATISTICS_FILE,
    *pictures.values(),
    page_path,
  ):
    console.print(f'{path}', highlight=False, markup=False, soft_wrap=True)


def _device(header: Mapping[str, Any]) -> str:
  device = header['device']
  return (
    f'{device["count"]} x {device["kind"]}, {header["dtype"]},'
    f' shapes compiled: {header["compiled_shapes"]}'
  )
