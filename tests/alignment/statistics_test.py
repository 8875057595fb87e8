"""Means, standard errors, merging and records of statistics."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from t5_align import results
from t5_align.alignment.statistics import (
  STATISTICS,
  AttentionStatistics,
  RowSample,
  SiteStatistics,
)

E, L, N, G, R, D = 3, 2, 2, 2, 4, 3
ROWS = np.array([[2.0, 3.0], [4.0, 1.0], [2.0, 0.0]])


def site(num_sequences=E, sample=None, seed=0):
  random = np.random.default_rng(seed)
  rows = ROWS[:num_sequences]
  each = random.uniform(1, 2, (num_sequences, L, N, G))
  return SiteStatistics(
    site='decoder',
    sums={name: each * rows[:, None, None] for name in STATISTICS},
    rows=rows,
    key_sum=rows * 10,
    sweep={'entropy_nats': np.stack([each, 2 * each]) * rows[:, None, None]},
    sample=sample,
  )


def row_sample(num_sequences, num_buckets=D, seed=0):
  random = np.random.default_rng(seed)
  mass = random.dirichlet(np.ones(num_buckets), (L, N))
  return RowSample(
    rows_per_sequence=R,
    max_probability=random.random((num_sequences, L, N, R)),
    entropy_nats=random.random((num_sequences, L, N, R)),
    logit_skewness=random.random((L, N)),
    logit_excess_kurtosis=random.random((L, N)),
    bias_overlap=random.random((L, N)),
    content_nats=random.random((L, N)),
    distances=(0, 1, 2, 4)[:num_buckets],
    distance_mass=np.moveaxis(mass, -1, 0),
  )


def test_every_row_weighs_the_same():
  statistics = site()
  each = statistics.sums['entropy_nats'][..., 0] / ROWS[:, 0, None, None]
  expected = np.tensordot([2 / 8, 4 / 8, 2 / 8], each, 1)
  np.testing.assert_allclose(statistics.mean('entropy_nats')[..., 0], expected)
  np.testing.assert_array_equal(statistics.keys, [10, 10])
  swept = statistics.sweep_mean('entropy_nats')[..., 0]
  np.testing.assert_allclose(swept, [expected, 2 * expected])


def with_rows(rows, values):
  """One head and group, with a mean of each sequence."""
  return SiteStatistics(
    site='encoder',
    sums={'entropy_nats': (values * rows)[:, None, None, None]},
    rows=rows[:, None],
    key_sum=rows[:, None],
  )


def test_standard_error_is_over_sequences():
  values = np.array([1.0, 3.0, 2.0])
  statistics = with_rows(np.full(3, 5.0), values)
  each = statistics.by_sequence('entropy_nats')[:, 0, 0, 0]
  np.testing.assert_allclose(each, values)
  error = statistics.stderr('entropy_nats').item()
  assert error == pytest.approx(stats.sem(values))
  one = with_rows(np.array([5.0]), np.array([1.0]))
  assert np.isnan(one.stderr('entropy_nats')).all()


def test_standard_error_where_some_sequences_have_more_rows_or_none():
  """Against the spread of the mean itself, over draws of the values."""
  random = np.random.default_rng(0)
  rows = np.array([8.0, 4, 4, 0, 6, 2, 8, 4] * 4)
  each = random.normal(1, 0.1, (2000, len(rows)))
  measured = [with_rows(rows, values) for values in each]
  means = [m.mean('entropy_nats').item() for m in measured]
  variances = [m.stderr('entropy_nats').item() ** 2 for m in measured]
  np.testing.assert_allclose(
    [m.by_sequence('entropy_nats').mean() for m in measured], means
  )
  # The spread of 2000 numbers is known to 2 %; the ratio's form to 1 / E.
  assert np.sqrt(np.mean(variances)) == pytest.approx(np.std(means), rel=0.06)


def test_standard_error_does_not_have_what_kinds_of_text_differ_by():
  values = np.array([1.0, 11.0, 1.2, 11.2])
  statistics = with_rows(np.full(4, 5.0), values)
  assert statistics.degrees_of_freedom == 3
  stratified = dataclasses.replace(statistics, strata=np.array([0, 1, 0, 1]))
  assert stratified.degrees_of_freedom == 2
  error = stratified.stderr('entropy_nats').item()
  assert error == pytest.approx(0.1 / np.sqrt(2))


def test_deviation_is_the_root_of_the_mean_variance():
  statistics = site(2)
  variance = statistics.mean('logit_variance')
  np.testing.assert_allclose(statistics.mean('logit_std'), np.sqrt(variance))
  error = statistics.stderr('logit_variance')
  np.testing.assert_allclose(
    statistics.stderr('logit_std'),
    (np.sqrt(variance + 1e-6 * error) - np.sqrt(variance)) / 1e-6,
    rtol=1e-5,
  )


def test_group_without_rows_is_no_number_and_has_no_record():
  statistics = site()
  empty = dataclasses.replace(
    statistics,
    sums={name: x * [1.0, 0.0] for name, x in statistics.sums.items()},
    rows=ROWS * [1.0, 0.0],
    key_sum=ROWS * [10.0, 0.0],
  )
  assert np.isnan(empty.keys[1])
  records = AttentionStatistics(40, {'decoder': empty}).to_json('none')
  assert [record['keys'] for record in records] == [10]


def test_merged_samples_weigh_by_sequences():
  first, second = row_sample(1), row_sample(3, D + 1, seed=1)
  merged = SiteStatistics.merge([site(1, first), site(3, second)]).sample
  assert merged.max_probability.shape == (4, L, N, R)
  np.testing.assert_allclose(
    merged.bias_overlap, (first.bias_overlap + 3 * second.bias_overlap) / 4
  )
  # A longer batch has more buckets; nothing is that far in the other.
  assert merged.distances == second.distances
  np.testing.assert_allclose(
    merged.distance_mass[-1], second.distance_mass[-1] * 3 / 4
  )
  np.testing.assert_allclose(merged.distance_mass.sum(0), 1)


def test_merged_samples_of_cross_attention_have_no_position():
  nothing = dict(bias_overlap=None, content_nats=None, distance_mass=None)
  sample = dataclasses.replace(row_sample(1), **nothing, distances=())
  merged = SiteStatistics.merge([site(1, sample), site(1, sample)]).sample
  assert merged.distance_mass is None and merged.bias_overlap is None
  np.testing.assert_allclose(merged.logit_skewness, sample.logit_skewness)


def test_no_sample_where_a_part_has_none():
  assert SiteStatistics.merge([site(1, row_sample(1)), site(2)]).sample is None


def test_percentiles_are_over_all_rows():
  sample = row_sample(E)
  rows = sample.entropy_nats[:, 1, 0].ravel()
  np.testing.assert_allclose(
    sample.percentiles('entropy_nats', (5, 50))[:, 1, 0],
    np.percentile(rows, (5, 50)),
  )


def test_lengths_are_not_mixed():
  parts = [AttentionStatistics(n, {'decoder': site()}) for n in (40, 80)]
  with pytest.raises(ValueError, match=r'\[40, 80\] tokens can not be merged'):
    AttentionStatistics.merge(parts)


def test_site_that_was_not_measured():
  statistics = AttentionStatistics(40, {'decoder': site()})
  assert statistics.decoder.site == 'decoder'
  with pytest.raises(AttributeError, match="'cross' was not.*: decoder"):
    _ = statistics.cross


def test_sweep_that_was_not_asked_for():
  statistics = dataclasses.replace(site(), sweep=None)
  with pytest.raises(ValueError, match='without a sweep'):
    statistics.sweep_mean('entropy_nats')


@pytest.mark.parametrize('num_sequences', [1, E])
def test_record_is_json(num_sequences):
  statistics = AttentionStatistics(
    40, {'decoder': site(num_sequences, row_sample(num_sequences))}
  )
  records = statistics.to_json('entropy')
  results.to_json(records)
  first = records[0]
  assert first['alignment'] == 'entropy' and first['length'] == 40
  assert first['rows'] == ROWS[:num_sequences, 0].sum()
  np.testing.assert_allclose(
    first['logit_std'], statistics.decoder.mean('logit_std')[..., 0]
  )
  assert np.shape(first['sample']['entropy_percentiles']) == (5, L, N)
  assert np.shape(first['sample']['distance_mass']) == (D, L, N)
