"""The pictures of a calibration, from its files alone.

    heads.png         P_max and entropy by layer and head
    lengths.png       both against length, without and with alignment
    temperatures.png  τ against length, for every rule
    distances.png     where attention goes, by distance

What the files leave out isn't drawn.

Synopsis:

    paths = write_calibration_plots(record, 'out')    # {'heads': …, …}
"""

from __future__ import annotations

import os
import pathlib

from t5_align.report import calibration_curves, calibration_maps
from t5_align.report.calibration_record import CalibrationRecord

_DRAW = {
  'heads': calibration_maps.draw_heads,
  'lengths': calibration_curves.draw_lengths,
  'temperatures': calibration_curves.draw_temperatures,
  'distances': calibration_maps.draw_distances,
}


def write_calibration_plots(
  record: CalibrationRecord, output_dir: str | os.PathLike
) -> dict[str, pathlib.Path]:
  """Write the pictures that the record has numbers for; return their paths.

  One of an earlier calibration that this record has no numbers for is removed.
  """
  paths = {}
  for name, draw in _DRAW.items():
    path = pathlib.Path(output_dir) / f'{name}.png'
    figure = draw(record)
    if figure is None:
      path.unlink(missing_ok=True)
    else:
      figure.savefig(path, dpi=130)
      paths[name] = path
  return paths
