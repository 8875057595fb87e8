"""What a calibration left on disk, read and checked.

    statistics.json     every measurement, and the rules to compare with
    temperatures.json   what was solved for which heads, and what to beware of

Synopsis:

    record = read_calibration('out')
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from t5_align import results
from t5_align.report.calibration_record import (
  CalibrationRecord,
  Measurement,
  Rule,
  Solution,
)

STATISTICS_FILE = 'statistics.json'
TEMPERATURES_FILE = 'temperatures.json'


def read_calibration(output_dir: str | os.PathLike) -> CalibrationRecord:
  """Read the two files of a calibration.

  Raises:
    ResultsError: one is missing, torn, or not of a calibration, or the two
      are not of the same one.
  """
  output_dir = pathlib.Path(output_dir)
  record = CalibrationRecord(
    **_read(output_dir / STATISTICS_FILE, _parse_statistics),
    **_read(output_dir / TEMPERATURES_FILE, _parse_temperatures),
  )
  for site in record.sites or ('any site',):
    if not record.find(site, results.BASELINE, record.training_length):
      raise results.ResultsError(
        f'{output_dir}: {STATISTICS_FILE} has no measurement of {site} at the'
        f' training length of {TEMPERATURES_FILE}, {record.training_length}'
        ' tokens, without alignment; are both of one calibration?'
      )
  return record


def _read(
  path: pathlib.Path, parse: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
  try:
    return parse(json.loads(path.read_text(encoding='utf-8')))
  except FileNotFoundError:
    raise results.ResultsError(
      f'{path.parent} has no {path.name}: it is not the output directory of a'
      ' calibration.'
    ) from None
  except KeyError as error:
    reason = f'it has no field {error}'
  except (AttributeError, OSError, TypeError, ValueError) as error:
    reason = str(error)
  raise results.ResultsError(
    f'{path} is not what a calibration writes: {reason}. Calibrate again.'
  )


def _parse_statistics(document: Any) -> dict[str, Any]:
  header = document['header']
  _ = header['checkpoint']['path']
  return {
    'header': header,
    'measurements': tuple(map(_measurement, document['measurements'])),
    'rules': tuple(map(_rule, document['rules'])),
  }


def _parse_temperatures(document: Any) -> dict[str, Any]:
  settings = dict(document['calibration'])
  solutions, heads = settings.pop('solutions'), settings.pop('heads')
  warnings = settings.pop('warnings')
  for field in ('strategy', 'granularity', 'averaging', 'selective'):
    _ = settings[field]
  settings['training_length'] = int(settings['training_length'])
  settings['lengths'] = [int(length) for length in settings['lengths']]
  if not settings['lengths']:
    raise ValueError('"lengths" is empty')
  # A mean of logarithms is shown as the geometric mean that it stands for.
  unit = math.exp if settings['averaging'] == 'log' else float
  return {
    'settings': settings,
    'solutions': tuple(_solution(s, unit) for s in solutions),
    'kinds': {
      (h['site'], int(h['layer']), int(h['head'])): str(h['kind'])
      for h in heads
    },
    'warnings': tuple(map(str, warnings)),
  }


def _measurement(value: Mapping[str, Any]) -> Measurement:
  probability = _array(value['max_probability'], 2)
  sample = value['sample'] or {}

  def own(array: Any, name: str, leading: int = 0) -> Any:
    """Check that statistics are of the same layers and heads."""
    if array is None:
      return None
    array = _array(array, 2 + leading)
    if array.shape[leading:] != probability.shape:
      raise ValueError(
        f'{name} is of {array.shape[leading:]} layers and heads, but'
        f' max_probability of {probability.shape}'
      )
    return array

  return Measurement(
    site=str(value['site']),
    length=int(value['length']),
    keys=float(value['keys']),
    alignment=str(value['alignment']),
    max_probability=probability,
    entropy_nats=own(value['entropy_nats'], 'entropy_nats'),
    bias_overlap=own(sample.get('bias_overlap'), 'bias_overlap'),
    distances=tuple(map(int, sample.get('distances', ()))),
    distance_mass=own(sample.get('distance_mass'), 'distance_mass', 1),
  )


def _array(value: Any, rank: int) -> np.ndarray:
  """Return nested lists as float64; null is nan."""
  array = np.asarray(value, np.float64)
  if array.ndim != rank:
    raise ValueError(f'an array has rank {array.ndim}, wanted {rank}')
  return array


def _solution(
  value: Mapping[str, Any], unit: Callable[[float], float]
) -> Solution:
  def number(name: str) -> float:
    return math.nan if value[name] is None else unit(value[name])

  def index(name: str) -> int | None:
    return None if value[name] is None else int(value[name])

  interval = None
  if value['ci95'] is not None:
    low, high = map(float, value['ci95'])
    interval = (low, high)
  return Solution(
    site=str(value['site']),
    layer=index('layer'),
    head=index('head'),
    length=int(value['length']),
    keys=float(value['keys']),
    target=number('target'),
    before=number('before'),
    after=number('after'),
    temperature=float(value['temperature']),
    ci95=interval,
    status=str(value['status']),
  )


def _rule(value: Mapping[str, Any]) -> Rule:
  points = sorted((float(n), float(tau)) for n, tau in value['points'])
  return Rule(str(value['rule']), str(value['site']), tuple(points))
