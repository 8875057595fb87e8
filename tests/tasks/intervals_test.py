"""Standard errors and intervals, against published values and simulation."""

import math

import numpy as np
import pytest

from t5_align.tasks.intervals import (
  Samples,
  estimate,
  estimate_difference,
  rate_interval,
  sum_of_rows,
)


def difference(scores, baseline):
  return estimate_difference(Samples(scores), Samples(baseline))


# p, z = 1.959964: from the formula in the module's docstring.
@pytest.mark.parametrize(
  ('successes', 'n', 'low', 'high'),
  [
    (37, 50, 0.604468, 0.841285),
    (0, 10, 0.0, 0.277533),
    (10, 10, 0.722467, 1.0),
    (1, 1, 0.206549, 1.0),
  ],
)
def test_rate_interval_is_wilsons(successes, n, low, high):
  assert rate_interval(successes, n) == pytest.approx((low, high), abs=1e-6)


def test_standard_error_is_that_of_the_sample_mean():
  # Scores 1, 1, 1, 0: variance 0.25 with n - 1, over n.
  assert estimate([1, 1, 1, 0]).stderr == pytest.approx(0.25)


@pytest.mark.parametrize(
  ('successes', 'n'), [(1, 0), (-1, 5), (6, 5), (0.5, 5)]
)
def test_impossible_rates(successes, n):
  with pytest.raises(ValueError, match='successes among'):
    rate_interval(successes, n)


def test_a_single_sample_says_nothing_of_its_spread():
  assert estimate([1.0]).stderr is None
  assert estimate([1.0]).ci95 is not None  # Wilson's is of any n
  assert estimate([0.5]) == (0.5, None, None, 'bootstrap')
  # Ten windows of one document are one cluster.
  assert estimate(np.arange(10.0), clusters=['a'] * 10).ci95 is None


def test_other_scores_are_bootstrapped_and_repeatable():
  scores = np.linspace(0.1, 0.9, 40)
  found = estimate(scores)
  assert found.method == 'bootstrap'
  # Student's interval, which 40 even values satisfy within 3%.
  stderr = scores.std(ddof=1) / math.sqrt(40)
  half = 2.0227 * stderr
  np.testing.assert_allclose(found.ci95, [0.5 - half, 0.5 + half], atol=0.005)
  assert found.stderr == pytest.approx(stderr, rel=0.03)
  assert estimate(scores) == found


def table(both, only_first, only_second, neither):
  first = [1.0] * (both + only_first) + [0.0] * (only_second + neither)
  second = (
    [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * neither
  )
  return np.array(first), np.array(second)


@pytest.mark.parametrize(
  'counts, wanted',
  [
    # Newcombe 1998, table III, method 10.
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    # Airway reactivity data of Fagerland, Lydersen and Laake 2014.
    ((1, 1, 7, 12), (-0.507, -0.026)),
  ],
)
def test_newcombe_published_values(counts, wanted):
  _, _, interval, method = difference(*table(*counts))
  assert method == 'newcombe_paired'
  np.testing.assert_allclose(interval, wanted, atol=6e-4)


def test_newcombe_covers_the_truth():
  """About 95% of intervals hold the difference, also near 0 and 1."""
  generator = np.random.default_rng(1)
  for probabilities in ([0.5, 0.3, 0.1, 0.1], [0.05, 0.25, 0.0, 0.7]):
    truth = probabilities[1] - probabilities[2]
    counts = generator.multinomial(30, probabilities, size=400)
    intervals = [difference(*table(*c)).ci95 for c in counts]
    inside = [low <= truth <= high for low, high in intervals]
    assert np.mean(inside) > 0.92


def test_equal_scores_differ_by_nothing_but_not_surely():
  scores = np.ones(20)
  low, high = difference(scores, scores).ci95
  assert low < 0 < high and low == -high


def test_a_ratio_of_sums_is_weighted_and_transformed():
  found = estimate([20, 90] * 4, [10, 30] * 4, transform=math.exp)
  assert found.value == pytest.approx(math.exp(110 / 40))
  low, high = found.ci95
  assert math.exp(2) <= low < found.value < high <= math.exp(3)
  other = estimate_difference(
    Samples([20, 90], [10, 30]), Samples([30, 90], [10, 30])
  )
  assert other.value == pytest.approx(-10 / 40)
  with pytest.raises(ValueError, match='nothing to divide by'):
    estimate([1.0], [0.0])


def test_clusters_widen_the_interval_as_they_should():
  """20 documents of 10 equal samples know as much as 20 samples."""
  generator = np.random.default_rng(0)
  documents = generator.normal(size=20)
  scores = np.repeat(documents, 10)
  clusters = np.repeat(np.arange(20), 10).tolist()
  assert estimate(scores, clusters=clusters).ci95 == pytest.approx(
    estimate(documents).ci95
  )
  wide = np.ptp(estimate(scores, clusters=clusters).ci95)
  assert wide > 2.5 * np.ptp(estimate(scores).ci95)
  # Binary scores, too: Wilson's interval takes them for independent.
  binary = estimate((scores > 0).astype(float), clusters=clusters)
  assert binary.method == 'clustered_bootstrap'


def test_few_clusters_have_an_error_but_no_interval():
  scores = [0.1, 0.9, 0.4, 0.3, 0.8]
  found = estimate(scores)
  assert found.ci95 is None
  assert found.stderr == pytest.approx(
    np.std(scores, ddof=1) / 5**0.5, rel=0.03
  )
  assert estimate([*scores, 0.5]).ci95 is not None
  clusters = ['a', 'a', 'a', 'b', 'b', 'b']
  assert estimate([*scores, 0.5], clusters=clusters).ci95 is None
  pair = Samples(scores), Samples(scores[::-1])
  assert estimate_difference(*pair).ci95 is None


@pytest.mark.parametrize('count', [6, 8, 12])
def test_bootstrap_of_few_clusters_covers_the_truth(count):
  """Plain percentiles hold it in 85, 89 and 90% of cases."""
  generator = np.random.default_rng(3)
  intervals = [estimate(generator.normal(size=count)).ci95 for _ in range(300)]
  inside = [low <= 0 <= high for low, high in intervals]
  assert 0.91 < np.mean(inside) <= 0.99


def test_bootstrap_covers_the_truth():
  generator = np.random.default_rng(2)
  inside = []
  for _ in range(200):
    scores = generator.exponential(size=(15, 1)) + generator.normal(
      size=(15, 4)
    )
    low, high = estimate(
      scores.ravel(), clusters=np.repeat(np.arange(15), 4).tolist()
    ).ci95
    inside.append(low <= 1.0 <= high)
  # A bootstrap of 15 skewed clusters is a little short of 95 %.
  assert 0.89 < np.mean(inside) <= 0.99


def test_sums_of_drawn_rows():
  generator = np.random.default_rng(0)
  table, drawn = (
    generator.normal(size=(7, 2, 3)),
    generator.integers(0, 7, (5, 7)),
  )
  np.testing.assert_allclose(
    sum_of_rows(table, drawn), table[drawn].sum(axis=1)
  )


def test_the_order_of_samples_makes_no_difference():
  generator = np.random.default_rng(0)
  scores, order = generator.normal(size=40), generator.permutation(40)
  clusters = generator.integers(0, 9, 40)
  assert estimate(scores) == estimate(scores[order])
  one = estimate(scores, clusters=clusters.tolist())
  assert estimate(scores[order], clusters=clusters[order].tolist()).ci95 == (
    pytest.approx(one.ci95)
  )
