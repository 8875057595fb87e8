"""What the attention of a model looks like at one length, head by head.

For each site, layer and head the mean over rows of

    P_max, ln P_max           the largest probability of a row
    H = -Σ p ln p             its entropy, in nats
    z̄ and σ                   mean and standard deviation of its logits

Values are kept for each sequence, so that batches and hosts merge by being
joined, and a mean has a standard error. Rows that see no key don't count. The
rows of a decoder see from 1 key to all of them: they are grouped by how many.

Synopsis:

    statistics = measure(...)                       # alignment.measure
    statistics.encoder.mean('entropy_nats')         # [L, N, G], G = 1
    statistics.encoder.stderr('max_probability')
    statistics = AttentionStatistics.merge([first, second])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from t5_align.temperature import SITES

# Means over rows. The logits are those that the softmax sees, divided by τ.
STATISTICS = (
  'max_probability',
  'log_max_probability',
  'entropy_nats',
  'logit_mean',
  'logit_variance',
)


@dataclasses.dataclass(frozen=True)
class RowSample:
  """What needs whole rows of attention, from a few rows of each sequence.

  Attributes:
    rows_per_sequence: how many, spread evenly.
    max_probability: of each sampled row, [E, L, N, R].
    entropy_nats: of each, [E, L, N, R].
    logit_skewness: mean over rows of the skewness of the logits, [L, N].
    logit_excess_kurtosis: 0 for Gaussian logits, [L, N].
    bias_overlap: Σ_s min(p, p of the position bias alone), 0 to 1: how much of
      the attention position would have given without content, [L, N]. None for
      cross-attention, which has no bias.
    content_nats: Σ_s p ln(p / p of the position bias alone): what content adds
      to position, [L, N]; None for cross-attention.
    distances: lower edges of the distance buckets, in tokens.
    distance_mass: attention in each bucket of |key - query|, [D, L, N]; None
      for cross-attention.
  """

  rows_per_sequence: int
  max_probability: np.ndarray
  entropy_nats: np.ndarray
  logit_skewness: np.ndarray
  logit_excess_kurtosis: np.ndarray
  bias_overlap: np.ndarray | None
  content_nats: np.ndarray | None
  distances: tuple[int, ...]
  distance_mass: np.ndarray | None

  def percentiles(self, name: str, percents: Sequence[int]) -> np.ndarray:
    """Return percentiles over the sampled rows of all sequences, [P, L, N]."""
    rows = np.moveaxis(getattr(self, name), 0, -1)  # [L, N, R, E]
    return np.percentile(rows.reshape(*rows.shape[:2], -1), percents, axis=-1)


@dataclasses.dataclass(frozen=True)
class SiteStatistics:
  """Statistics of one site; E sequences, G groups of rows by their key count.

  Attributes:
    site: 'encoder', 'decoder' or 'cross'.
    sums: STATISTICS -> sum over a group's rows, [E, L, N, G] float64.
    rows: rows of each sequence and group, [E, G].
    key_sum: sum over those rows of the number of keys they see, [E, G].
    sweep: 'max_probability', 'log_max_probability' and 'entropy_nats' -> their
      sums at M other temperatures, [M, E, L, N, G]; None where none was asked.
    sample: what was read off whole rows; None where none was asked.
    strata: kind of text of each sequence, [E]; each kind has a fixed share of
      them, so differences between kinds are no error. None: all are of one.
  """

  site: str
  sums: Mapping[str, np.ndarray]
  rows: np.ndarray
  key_sum: np.ndarray
  sweep: Mapping[str, np.ndarray] | None = None
  sample: RowSample | None = None
  strata: np.ndarray | None = None

  @property
  def keys(self) -> np.ndarray:
    """Mean number of keys that a group's rows see, [G]; nan without rows."""
    with np.errstate(invalid='ignore'):
      return self.key_sum.sum(0) / self.rows.sum(0)

  @property
  def num_sequences(self) -> int:
    """E."""
    return self.rows.shape[0]

  def mean(self, name: str) -> np.ndarray:
    """Return the mean over all rows, [L, N, G]; `logit_std` is a root mean."""
    if name == 'logit_std':
      return np.sqrt(self.mean('logit_variance'))
    with np.errstate(invalid='ignore'):
      return self.sums[name].sum(0) / self.rows.sum(0)

  def sweep_mean(self, name: str) -> np.ndarray:
    """Return the means at the swept temperatures, [M, L, N, G]."""
    if self.sweep is None:
      raise ValueError('These statistics were measured without a sweep.')
    with np.errstate(invalid='ignore'):
      return self.sweep[name].sum(1) / self.rows.sum(0)

  def by_sequence(self, name: str) -> np.ndarray:
    """Return one value a sequence, whose mean is `mean`, [E, L, N, G].

    Where all have as many rows, it is the mean over them. A sequence with more
    rows is further from the mean, as its weight is: the linear form of a ratio
    of sums (W. G. Cochran, "Sampling Techniques", 1977, section 6.3).
    """
    rows, mean = self.rows[:, None, None, :], self.mean(name)
    with np.errstate(invalid='ignore'):
      return mean + (self.sums[name] - rows * mean) / rows.mean(0)

  def stderr(self, name: str) -> np.ndarray:
    """Return the standard error of `mean`, [L, N, G]; nan for one sequence."""
    if name == 'logit_std':  # dσ = d(σ²) / 2σ
      with np.errstate(invalid='ignore', divide='ignore'):
        return self.stderr('logit_variance') / (2 * self.mean(name))
    return self.stderr_of_mean(self.by_sequence(name))

  def stderr_of_mean(self, values: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean of one value a sequence.

    Args:
      values: [E, …].

    Returns:
      […]; nan where a kind of text has one sequence only.
    """
    strata = np.zeros(len(values)) if self.strata is None else self.strata
    variance = np.zeros(values.shape[1:])
    for stratum in np.unique(strata):
      part = values[strata == stratum]
      if len(part) < 2:
        return np.full(values.shape[1:], np.nan)
      share = len(part) / len(values)
      variance = variance + share**2 * part.var(0, ddof=1) / len(part)
    return np.asarray(np.sqrt(variance))

  @property
  def degrees_of_freedom(self) -> int:
    """Of `stderr_of_mean`: sequences less kinds of text."""
    kinds = 1 if self.strata is None else len(np.unique(self.strata))
    return self.num_sequences - kinds

  @classmethod
  def merge(cls, parts: Sequence[SiteStatistics]) -> SiteStatistics:
    """Join the sequences of several batches or hosts."""

    def join(values, axis):
      return {
        name: np.concatenate([v[name] for v in values], axis)
        for name in values[0]
      }

    first = parts[0]
    strata = [part.strata for part in parts if part.strata is not None]
    sweep = None
    if first.sweep is not None:
      sweep = join([part.sweep for part in parts], 1)
    return cls(
      site=first.site,
      sums=join([part.sums for part in parts], 0),
      rows=np.concatenate([part.rows for part in parts]),
      key_sum=np.concatenate([part.key_sum for part in parts]),
      sweep=sweep,
      sample=_merge_samples(parts),
      strata=np.concatenate(strata) if len(strata) == len(parts) else None,
    )


@dataclasses.dataclass(frozen=True)
class AttentionStatistics:
  """Statistics of the sites of a model at one length.

  Attributes:
    length: tokens of the input.
    sites: site -> its statistics; those that were asked for.
  """

  length: int
  sites: Mapping[str, SiteStatistics]

  def __getattr__(self, name: str) -> SiteStatistics:
    sites = self.__dict__.get('sites', {})
    if name in SITES and name in sites:
      return sites[name]
    raise AttributeError(
      f'{name!r} was not measured; measured: {", ".join(sites)}.'
    )

  @classmethod
  def merge(cls, parts: Sequence[AttentionStatistics]) -> AttentionStatistics:
    """Join the sequences of several batches or hosts, of one length."""
    lengths = {part.length for part in parts}
    if len(lengths) != 1:
      raise ValueError(
        f'Statistics of {sorted(lengths)} tokens can not be merged: wanted one'
        ' length.'
      )
    return cls(
      parts[0].length,
      {
        site: SiteStatistics.merge([part.sites[site] for part in parts])
        for site in parts[0].sites
      },
    )

  def to_json(self, alignment: str) -> list[dict[str, Any]]:
    """Return one record a site and group of rows, in JSON types.

    Args:
      alignment: the name of the temperatures that they were measured under.
    """
    return [
      _record(self.length, site, group, alignment)
      for site in self.sites.values()
      for group in range(site.rows.shape[1])
      if site.rows[:, group].sum()
    ]


_PERCENTS = (5, 25, 50, 75, 95)


def _record(length, site, group, alignment):
  names = (*STATISTICS[:-1], 'logit_std')
  # nan, a standard error of one sequence, is null in JSON.
  return {
    'site': site.site,
    'length': length,
    'keys': float(site.keys[group]),
    'alignment': alignment,
    'sequences': site.num_sequences,
    'rows': int(site.rows[:, group].sum()),
    **{name: site.mean(name)[..., group].tolist() for name in names},
    'stderr': {name: site.stderr(name)[..., group].tolist() for name in names},
    'sample': _sample_record(site.sample),
  }


def _sample_record(sample):
  if sample is None:
    return None
  optional = {
    name: None if value is None else value.tolist()
    for name in ('bias_overlap', 'content_nats', 'distance_mass')
    for value in [getattr(sample, name)]
  }
  return {
    'rows_per_sequence': sample.rows_per_sequence,
    'logit_skewness': sample.logit_skewness.tolist(),
    'logit_excess_kurtosis': sample.logit_excess_kurtosis.tolist(),
    'percentiles': list(_PERCENTS),
    **{
      f'{short}_percentiles': sample.percentiles(name, _PERCENTS).tolist()
      for short, name in (
        ('max_probability', 'max_probability'),
        ('entropy', 'entropy_nats'),
      )
    },
    'distances': list(sample.distances),
    **optional,
  }


def _merge_samples(parts: Sequence[SiteStatistics]) -> RowSample | None:
  samples = [part.sample for part in parts if part.sample is not None]
  if len(samples) < len(parts):
    return None
  weights = np.array([sample.max_probability.shape[0] for sample in samples])

  # A longer batch has more buckets of distance.
  longest = max(samples, key=lambda sample: len(sample.distances))

  def average(name):
    values = [getattr(sample, name) for sample in samples]
    if values[0] is None:
      return None
    if name == 'distance_mass':
      values = [_pad_first(v, len(longest.distances)) for v in values]
    return np.average(values, axis=0, weights=weights)

  def join(name):
    return np.concatenate([getattr(sample, name) for sample in samples])

  averaged = (
    'logit_skewness',
    'logit_excess_kurtosis',
    'bias_overlap',
    'content_nats',
    'distance_mass',
  )
  return dataclasses.replace(
    longest,
    max_probability=join('max_probability'),
    entropy_nats=join('entropy_nats'),
    **{name: average(name) for name in averaged},
  )


def _pad_first(values: np.ndarray, size: int) -> np.ndarray:
  """Append zeros to the first axis."""
  return np.pad(values, [(0, size - len(values)), (0, 0), (0, 0)])
