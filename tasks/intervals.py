"""How well a score is known: its standard error and 95 % interval.

A score is a ratio of sums over n samples, perhaps transformed:

  value = f(Σ a_i / Σ b_i)        a rate: a in {0, 1}, b = 1, f the identity
                                  perplexity: a nats, b tokens, f = exp

A rate has Wilson's score interval (E. B. Wilson, "Probable Inference, the Law
of Succession, and Statistical Inference", JASA 22, 1927), with z = 1.96,

  (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n).

Two rates over the same samples differ by Newcombe's square-and-add interval
(method 10 of R. G. Newcombe, "Improved confidence intervals for the difference
between binomial proportions based on paired data", Statistics in Medicine 17,
1998), with e1, e2 the distances to their Wilson limits and phi their
correlation,

  d -/+ sqrt(e1² - 2 phi e1 e2 + e2²).

All else has a percentile bootstrap (B. Efron, "Bootstrap Methods", Annals of
Statistics 7, 1979), widened as Student's t is (expanded percentiles, T. C.
Hesterberg, "What Teachers Should Know About the Bootstrap", American
Statistician 69, 2015): its ends are at

  Φ(-/+ sqrt(n / (n - 1)) t(0.975, n - 1)).

Samples of one cluster, such as a document, are drawn together: they are not
independent, and n counts clusters. Fewer than six have no interval.

Synopsis:

    estimate([1, 0, 1])                               # 0.67, Wilson
    estimate(nats, tokens, clusters=documents, transform=math.exp)
    estimate_difference(Samples(nats, tokens), Samples(other_nats, tokens))
"""

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_RESAMPLES = 10_000
# Fewer resamples of very many samples, so that a row takes a second at most.
_MAX_DRAWS = 20_000_000
_DRAWS_AT_A_TIME = 2_000_000
# No resample leaves the range of n values, and this holds their median with
# probability 1 - 2^(1 - n): 95 % from 6 on.
_FEWEST_FOR_INTERVAL = 6

Transform = Callable[[float], float]


class Samples(NamedTuple):
  """What a score is made of, one entry a sample."""

  numerators: npt.ArrayLike
  denominators: npt.ArrayLike | None = None
  """None: one each."""


class Estimate(NamedTuple):
  """A score and how well it is known."""

  value: float
  stderr: float | None
  """None where a single sample says nothing of it."""
  ci95: tuple[float, float] | None
  """The 95 % interval; None where so few samples do not tell it."""
  method: str
  """Of the interval."""


def estimate(
  numerators: npt.ArrayLike,
  denominators: npt.ArrayLike | None = None,
  *,
  clusters: Sequence[Any] | None = None,
  transform: Transform | None = None,
) -> Estimate:
  """Return f(Σ numerators / Σ denominators) with its 95 % interval.

  Args:
    numerators: one a sample, [n].
    denominators: one a sample; None: one each.
    clusters: what each sample shares with others; None for nothing.
    transform: f, rising; None for the identity.

  Raises:
    ValueError: no samples, or denominators that sum to nothing.
  """
  samples = Samples(numerators, denominators)
  if _is_rate(samples, transform) and not _has_clusters(clusters):
    return _rate(np.asarray(numerators, float))
  table = _table([samples], clusters)
  name = 'clustered_bootstrap' if _has_clusters(clusters) else 'bootstrap'
  return _bootstrap(table, lambda sums: _ratio(sums[:, 0], transform), name)


def estimate_difference(
  samples: Samples,
  baseline: Samples,
  *,
  clusters: Sequence[Any] | None = None,
  transform: Transform | None = None,
) -> Estimate:
  """Return the value of `samples` less that of `baseline`, paired.

  Args:
    samples: in the order of the baseline's.
    baseline: of the same questions.
    clusters: as for `estimate`.
    transform: as for `estimate`.
  """
  if not _has_clusters(clusters) and all(
    _is_rate(one, transform) for one in (samples, baseline)
  ):
    return _newcombe(
      np.asarray(samples.numerators, float),
      np.asarray(baseline.numerators, float),
    )
  table = _table([samples, baseline], clusters)
  name = 'paired_bootstrap'
  if _has_clusters(clusters):
    name = 'paired_clustered_bootstrap'
  return _bootstrap(
    table,
    lambda sums: _ratio(sums[:, 0], transform) - _ratio(sums[:, 1], transform),
    name,
  )


def _is_rate(samples: Samples, transform: Transform | None) -> bool:
  plain = samples.denominators is None and transform is None
  return plain and bool(np.isin(samples.numerators, (0.0, 1.0)).all())


def _has_clusters(clusters: Sequence[Any] | None) -> bool:
  return clusters is not None and any(c is not None for c in clusters)


def _table(
  sides: Sequence[Samples], clusters: Sequence[Any] | None
) -> np.ndarray:
  """Return sums, [clusters, sides, numerator and denominator]."""
  columns = []
  for numerators, denominators in sides:
    top = np.asarray(numerators, float)
    bottom = np.ones(len(top)) if denominators is None else denominators
    columns.append(np.stack([top, np.asarray(bottom, float)], axis=-1))
  rows = np.stack(columns, axis=1)
  if not len(rows) or not (rows[..., 1].sum(axis=0) > 0).all():
    raise ValueError(f'{len(rows)} samples with nothing to divide by.')
  if clusters is not None:
    # A sample without a cluster is one of its own.
    names = [
      i if name is None else str(name) for i, name in enumerate(clusters)
    ]
    index = {name: place for place, name in enumerate(dict.fromkeys(names))}
    sums = np.zeros((len(index), *rows.shape[1:]))
    np.add.at(sums, [index[name] for name in names], rows)
    rows = sums
  # Whatever the order of the samples, the same ones are drawn.
  return rows[np.lexsort(rows.reshape(len(rows), -1).T)]


def _ratio(sums: np.ndarray, transform: Transform | None) -> np.ndarray:
  """Return the scores of sums, [..., numerator and denominator]."""
  with np.errstate(divide='ignore', invalid='ignore'):
    ratios = sums[..., 0] / sums[..., 1]
  if transform is None:
    return ratios
  return np.array([transform(ratio) for ratio in ratios])


def _bootstrap(
  table: np.ndarray, score: Callable[[np.ndarray], np.ndarray], method: str
) -> Estimate:
  """Resample the rows of a table; `score` takes sums of rows."""
  value = float(score(table.sum(axis=0)[None])[0])
  n = len(table)
  if n < 2:
    return Estimate(value, None, None, method)
  generator = np.random.default_rng(0)
  resamples = max(min(_RESAMPLES, _MAX_DRAWS // n), 1000)
  at_a_time = max(_DRAWS_AT_A_TIME // n, 1)
  scores = []
  for start in range(0, resamples, at_a_time):
    count = min(at_a_time, resamples - start)
    drawn = generator.integers(0, n, (count, n))
    sums = sum_of_rows(table, drawn)
    scores.append(score(sums))
  values = np.concatenate(scores)
  # Resamples spread as a population of these n would, not as what they are
  # drawn from.
  stderr = float(np.nanstd(values) * math.sqrt(n / (n - 1)))
  if n < _FEWEST_FOR_INTERVAL:
    return Estimate(value, stderr, None, method)
  low, high = np.nanquantile(values, _expanded_levels(n))
  return Estimate(value, stderr, (float(low), float(high)), method)


@functools.cache
def _expanded_levels(n: int) -> tuple[float, float]:
  """Return which quantiles of resamples of n values are a 95 % interval."""
  from scipy import stats

  low = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
  return float(low), float(1 - low)


def sum_of_rows(table: np.ndarray, drawn: np.ndarray) -> np.ndarray:
  """Return for each resample the sum of the rows that it drew.

  Args:
    table: [n, ...].
    drawn: indices of rows, [R, n].
  """
  n = len(table)
  offsets = np.arange(len(drawn))[:, None] * n
  counts = np.bincount((drawn + offsets).ravel(), minlength=drawn.size)
  return np.tensordot(counts.reshape(len(drawn), n), table, axes=1)


def rate_interval(successes: int | float, n: int) -> tuple[float, float]:
  """Return Wilson's 95 % interval of a rate of `successes` among `n`.

  Raises:
    ValueError: no samples, or more successes than samples.
  """
  # Half a second to import, which a list of tasks should not pay for.
  from scipy import stats

  if n < 1 or not 0 <= successes <= n or successes != int(successes):
    raise ValueError(
      f'{successes} successes among {n} samples; wanted a whole number from 0'
      ' to n, and n at least 1.'
    )
  interval = stats.binomtest(int(successes), n).proportion_ci(method='wilson')
  return float(interval.low), float(interval.high)


def _rate(scores: np.ndarray) -> Estimate:
  n = len(scores)
  interval = rate_interval(float(scores.sum()), n)
  stderr = float(scores.std(ddof=1) / math.sqrt(n)) if n > 1 else None
  return Estimate(float(scores.mean()), stderr, interval, 'wilson')


def _newcombe(scores: np.ndarray, baseline: np.ndarray) -> Estimate:
  """Newcombe's method 10 for paired 0/1 scores."""
  n = len(scores)
  p1, p2 = float(scores.mean()), float(baseline.mean())
  low1, high1 = rate_interval(float(scores.sum()), n)
  low2, high2 = rate_interval(float(baseline.sum()), n)
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
  spread = (scores - baseline).std(ddof=1) / math.sqrt(n) if n > 1 else None
  return Estimate(
    difference,
    None if spread is None else float(spread),
    (
      difference - half_width(p1 - low1, high2 - p2),
      difference + half_width(high1 - p1, p2 - low2),
    ),
    'newcombe_paired',
  )
