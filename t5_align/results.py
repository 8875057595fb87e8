"""What an evaluation leaves on disk, and the statistics of one row of it.

The value of a row is the mean score of its samples. Its 95% interval is
Wilson's score interval where every score is 0 or 1, a percentile bootstrap
elsewhere. A row is compared with alignment 'none' over the same samples: for
paired 0/1 scores by Newcombe's square-and-add interval (method 10 of
R. G. Newcombe, "Improved confidence intervals for the difference between
binomial proportions based on paired data", Statistics in Medicine 17, 1998),

    d -/+ sqrt(e1^2 - 2 phi e1 e2 + e2^2),

with e1, e2 the distances from the two proportions to their Wilson limits and
phi their correlation; for other scores by a bootstrap over the samples.

Synopsis:

    row = make_row(task, 'temperature=0.8', samples, baseline=none_samples)
    write_results(output_dir, header, [row])
    header, rows = read_results(output_dir)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import math
import os
import pathlib
import re
from typing import Any

import numpy as np

from t5_align.tasks import metrics

BASELINE = 'none'  # the alignment that the others are compared with
_RESAMPLES = 10_000


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
      _ = sample['id'], sample['score'], sample['finite']
    except (KeyError, TypeError, ValueError) as error:
      raise ResultsError(
        f'{path}:{number} is not a sample of an evaluation ({error}); delete '
        'the file to evaluate its samples again.'
      ) from None
    samples.append(sample)
  return samples


def mean_interval(scores: np.ndarray) -> tuple[list[float] | None, str]:
  """Return the 95% interval of the mean score, and the method's name."""
  if _is_binary(scores):
    return list(_wilson(scores)), 'wilson'
  return _bootstrap(scores), 'bootstrap'


def difference_interval(
  scores: np.ndarray, baseline: np.ndarray
) -> tuple[list[float] | None, str]:
  """Return the 95% interval of mean(scores - baseline), paired."""
  if _is_binary(scores) and _is_binary(baseline):
    return _newcombe(scores, baseline), 'newcombe_paired'
  return _bootstrap(scores - baseline), 'paired_bootstrap'


def _is_binary(scores: np.ndarray) -> bool:
  return bool(np.isin(scores, (0.0, 1.0)).all())


def _wilson(scores: np.ndarray) -> tuple[float, float]:
  return metrics.rate_interval(float(scores.sum()), len(scores)).ci95


def _bootstrap(values: np.ndarray) -> list[float] | None:
  """Percentile bootstrap of the mean; one value says nothing of its spread."""
  if len(values) < 2:
    return None
  generator = np.random.default_rng(0)
  means = [
    generator.choice(values, len(values)).mean() for _ in range(_RESAMPLES)
  ]
  low, high = np.quantile(means, (0.025, 0.975))
  return [float(low), float(high)]


def _newcombe(scores: np.ndarray, baseline: np.ndarray) -> list[float]:
  """Newcombe's method 10 for paired 0/1 scores."""
  n = len(scores)
  p1, p2 = scores.mean(), baseline.mean()
  (low1, high1), (low2, high2) = _wilson(scores), _wilson(baseline)
  both = float((scores * baseline).sum())
  neither = float(((1 - scores) * (1 - baseline)).sum())
  only1, only2 = scores.sum() - both, baseline.sum() - both
  margins = n**4 * p1 * (1 - p1) * p2 * (1 - p2)
  association = both * neither - only1 * only2
  # Newcombe's continuity correction shrinks a positive correlation only.
  if association > 0:
    association = max(association - n / 2, 0.0)
  phi = association / math.sqrt(margins) if margins > 0 else 0.0

  def half_width(to_limit1: float, to_limit2: float) -> float:
    cross = 2 * phi * to_limit1 * to_limit2
    return math.sqrt(max(to_limit1**2 - cross + to_limit2**2, 0.0))

  difference = p1 - p2
  return [
    float(difference - half_width(p1 - low1, high2 - p2)),
    float(difference + half_width(high1 - p1, p2 - low2)),
  ]


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
    samples: what read_samples returns. A sample that failed has score 0, so
      that a model never gains by failing.
    baseline: the samples of 'none', where it was evaluated; ids that are in
      both are compared.
  """
  scores = np.array([sample['score'] for sample in samples], float)
  n = len(scores)
  interval, method = mean_interval(scores)
  return {
    'task': task.name,
    'size': task.size,
    'unit': task.unit,
    'length': float(np.mean([sample['prompt_tokens'] for sample in samples])),
    'alignment': alignment,
    'metric': task.metric,
    'higher_is_better': task.higher_is_better,
    'value': float(scores.mean()),
    'stderr': float(scores.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
    'ci95': interval,
    'ci_method': method,
    'n': n,
    'n_failed': sum(not sample['finite'] for sample in samples),
    'n_truncated': sum(sample['truncated_tokens'] > 0 for sample in samples),
    'difference': _difference(samples, baseline),
  }


def _difference(
  samples: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
  baseline_scores = {sample['id']: sample['score'] for sample in baseline}
  pairs = np.array(
    [
      (sample['score'], baseline_scores[sample['id']])
      for sample in samples
      if sample['id'] in baseline_scores
    ],
    float,
  )
  if not len(pairs):
    return None
  scores, others = pairs.T
  interval, method = difference_interval(scores, others)
  return {
    'to': BASELINE,
    'value': float((scores - others).mean()),
    'ci95': interval,
    'ci_method': method,
    'n': len(pairs),
  }
