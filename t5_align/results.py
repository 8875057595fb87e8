"""What an evaluation leaves on disk, and the rows that sum it up.

A row is one task under one alignment. Its value, and those of the task's other
measures, are ratios of sums over the samples, with the intervals of
`tasks.intervals`; each is compared with alignment 'none' over the same samples.

Synopsis:

    row = make_row(task, 'temperature=0.8', samples, baseline=none_samples)
    write_results(output_dir, header, [row])
    header, rows = read_results(output_dir)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import json
import math
import os
import pathlib
import re
from typing import Any

import numpy as np

from t5_align.tasks import intervals
from t5_align.tasks.measures import Measure

BASELINE = 'none'  # the alignment that the others are compared with


class ResultsError(ValueError):
  """An output directory that cannot be read or continued."""


def to_json(value: Any, indent: int | None = None) -> str:
  """Strict JSON: NaN and infinities become null."""
  return json.dumps(
    _finite(value), indent=indent, ensure_ascii=False, allow_nan=False
  )


def _finite(value: Any) -> Any:
  if isinstance(value, float | np.floating):
    return float(value) if math.isfinite(value) else None
  if isinstance(value, np.integer | np.bool_):
    return value.item()
  if isinstance(value, Mapping):
    return {str(key): _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  return value


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Write a file that a reader sees either whole or not at all."""
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    with open(temporary, 'w', encoding='utf-8', newline='\n') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_results(
  output_dir: pathlib.Path,
  header: Mapping[str, Any],
  rows: Sequence[Mapping[str, Any]],
) -> None:
  """Write `output_dir/results.json`, atomically."""
  text = to_json({'header': header, 'rows': list(rows)}, indent=2)
  write_atomically(output_dir / 'results.json', text + '\n')


def read_results(
  output_dir: pathlib.Path,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Return header and rows of `output_dir/results.json`.

  Raises:
    ResultsError: if there is no such file or it does not hold them.
  """
  path = output_dir / 'results.json'
  try:
    contents = json.loads(path.read_text(encoding='utf-8'))
    return contents['header'], contents['rows']
  except FileNotFoundError:
    raise ResultsError(
      f'{output_dir} has no results.json: it is not the output directory of '
      'an evaluation.'
    ) from None
  except (KeyError, TypeError, ValueError) as error:
    raise ResultsError(
      f'{path} does not hold the results of an evaluation ({error}).'
    ) from None


def samples_path(
  output_dir: pathlib.Path, task: str, alignment: str
) -> pathlib.Path:
  """Where the samples of one row are kept: inside `output_dir`, always."""
  name = re.sub(r'[^\w.=@+-]', '_', f'{task}.{alignment}')
  return output_dir / 'samples' / f'{name.lstrip(".")}.jsonl'


def read_samples(path: pathlib.Path) -> list[dict[str, Any]]:
  """Return the samples of a file, less a torn last line.

  A line that a crash cut short has no line break, so it is left out; any
  other line that is not JSON is an error.

  Raises:
    ResultsError: naming file and line.
  """
  whole_lines = path.read_bytes().split(b'\n')[:-1]
  samples = []
  for number, line in enumerate(whole_lines, start=1):
    try:
      sample = json.loads(line)
      _ = sample['id'], sample['quantities'], sample['finite']
    except (KeyError, TypeError, ValueError) as error:
      raise ResultsError(
        f'{path}:{number} is not a sample of an evaluation ({error}); delete '
        'the file to evaluate its samples again.'
      ) from None
    samples.append(sample)
  return samples


def read_row_samples(
  output_dir: pathlib.Path, row: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """Return the samples that a row sums up; none if their file is gone.

  Behind them its file may have more, of an earlier run with a higher limit.

  Raises:
    ResultsError: as `read_samples`.
  """
  path = samples_path(output_dir, row['task'], row['alignment'])
  return read_samples(path)[: row['n']] if path.exists() else []


def make_row(
  task: Any,
  alignment: str,
  samples: Sequence[Mapping[str, Any]],
  baseline: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
  """Return the row of one task and alignment.

  Args:
    task: a TaskDefinition.
    alignment: its name.
    samples: what read_samples returns. A sample that failed has wrong answers,
      or no likelihood and then none has, so that a model never gains by
      failing.
    baseline: the samples of 'none', where it was evaluated; ids that are in
      both are compared.
  """
  main, *others = [_measure(m, samples, baseline) for m in task.measures]
  return {
    'task': task.name,
    'family': task.family,
    'numbers': dict(task.numbers),
    'size': task.size,
    'unit': task.unit,
    'length': float(np.mean([sample['prompt_tokens'] for sample in samples])),
    'alignment': alignment,
    **main,
    'n': len(samples),
    'n_clusters': _num_clusters(samples),
    'n_failed': sum(not sample['finite'] for sample in samples),
    'n_truncated': sum(sample['truncated_tokens'] > 0 for sample in samples),
    'n_lossy': sum(bool(sample['lost_characters']) for sample in samples),
    'other_measures': others,
  }


def _num_clusters(samples: Sequence[Mapping[str, Any]]) -> int | None:
  """Return of how many documents the samples are; None for independent ones."""
  clusters = {sample.get('cluster') for sample in samples}
  return None if clusters == {None} else len(clusters)


def _measure(
  measure: Measure,
  samples: Sequence[Mapping[str, Any]],
  baseline: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Return one measure of a row, and how it differs from the baseline."""
  others = {sample['id']: sample for sample in baseline}
  pairs = [(s, others[s['id']]) for s in samples if s['id'] in others]
  difference = None
  if pairs:
    found = _estimate(measure.estimate_difference, *zip(*pairs, strict=True))
    difference = {'to': BASELINE, **_fields(found), 'n': len(pairs)}
    del difference['stderr']
  return {
    'metric': measure.name,
    'higher_is_better': measure.higher_is_better,
    **_fields(_estimate(measure.estimate, samples)),
    'difference': difference,
  }


def _estimate(
  estimate: Callable[..., intervals.Estimate],
  *sides: Sequence[Mapping[str, Any]],
) -> intervals.Estimate:
  """Apply a measure's estimate to the quantities of samples."""
  quantities = [[sample['quantities'] for sample in side] for side in sides]
  if any(value is None for q in quantities for s in q for value in s.values()):
    return intervals.Estimate(math.nan, None, None, 'a sample failed')
  clusters = [sample.get('cluster') for sample in sides[0]]
  return estimate(*quantities, clusters=clusters)


def _fields(found: intervals.Estimate) -> dict[str, Any]:
  value, stderr, interval, method = found
  return {
    'value': value if math.isfinite(value) else None,
    'stderr': stderr,
    'ci95': None if interval is None else list(interval),
    'ci_method': method,
  }
