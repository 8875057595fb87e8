"""Temperatures by formula, from statistics."""

import dataclasses

import numpy as np
import pytest

from t5_align.alignment import gaussian
from t5_align.alignment.closed_form import (
  apply_closed_form,
  model_curve,
  wide_heads,
)
from t5_align.alignment.objectives import Objective, group_heads
from t5_align.alignment.solve import Unknown
from t5_align.alignment.statistics import (
  STATISTICS,
  AttentionStatistics,
  SiteStatistics,
)

SIGMAS = np.array([[1.0, 2.0], [0.5, 3.0]])
FORMULAS = {
  ('entropy', 'arithmetic'): gaussian.entropy_temperature,
  ('maximum_probability', 'log'): gaussian.maximum_probability_temperature,
  ('maximum_probability', 'arithmetic'): lambda *x: (
    gaussian.maximum_probability_temperature(*x, averaging='arithmetic')
  ),
}


def measured(keys, sigmas=SIGMAS, sequences=4, noise=0.01):
  """Rows of one number of keys, with spreads that vary with the sequence."""
  random = np.random.default_rng(0)
  each = 1 + noise * random.normal(size=(sequences, 1, 1, 1))
  each /= each.mean()
  rows = np.full((sequences, 1), 5.0)
  sums = {name: np.ones((sequences, *sigmas.shape, 1)) for name in STATISTICS}
  sums['logit_variance'] = each * 5 * sigmas[None, ..., None] ** 2
  return AttentionStatistics(
    keys, {'encoder': SiteStatistics('encoder', sums, rows, rows * keys)}
  )


def solve(granularity, training, before, objective=('entropy', 'arithmetic')):
  unknowns = [
    Unknown('encoder', layer, head, heads, 0, target=1.0)
    for layer, head, heads in group_heads(granularity, np.ones((2, 2), bool))
  ]
  return apply_closed_form(Objective(*objective), unknowns, training, before)


@pytest.mark.parametrize('objective', FORMULAS)
def test_each_head_by_its_own_spread(objective):
  solutions, tau = solve('head', measured(512), measured(8192), objective)
  expected = FORMULAS[objective](SIGMAS, 512, 8192)
  np.testing.assert_allclose(tau['encoder'][..., 0], expected, rtol=1e-6)
  for solution in solutions:
    unknown = solution.unknown
    assert solution.temperature == tau['encoder'][unknown.heads].item()
    assert np.isnan(solution.after) and solution.status == 'solved'


@pytest.mark.parametrize(
  'granularity, variances',
  [('layer', [2.5, 4.625]), ('model', [3.5625, 3.5625])],
)
def test_heads_together_by_their_mean_variance(granularity, variances):
  _, tau = solve(granularity, measured(512), measured(8192))
  expected = gaussian.entropy_temperature(np.sqrt(variances), 512, 8192)
  np.testing.assert_allclose(
    tau['encoder'][..., 0], np.repeat(expected[:, None], 2, 1), rtol=1e-6
  )


def test_interval_is_that_of_the_spread():
  """σ² has a relative error of e, so σ one of e / 2."""
  training = measured(512, noise=0.1)
  solutions, _ = solve('head', training, measured(8192))
  each = training.encoder.by_sequence('logit_variance')[:, 0, 0, 0]
  half = 3.182 * each.std(ddof=1) / np.sqrt(4) / 2  # of t with 3 degrees
  bounds = gaussian.entropy_temperature([1 - half, 1 + half], 512, 8192)
  np.testing.assert_allclose(solutions[0].ci95, bounds, rtol=1e-4)
  assert bounds[0] < solutions[0].temperature < bounds[1]


def test_no_interval_from_one_sequence():
  one = measured(512, sequences=1)
  solutions, tau = solve('head', one, measured(8192))
  assert {s.ci95 for s in solutions} == {None}
  expected = gaussian.entropy_temperature(SIGMAS, 512, 8192)
  np.testing.assert_allclose(tau['encoder'][..., 0], expected, rtol=1e-6)


def test_equal_logits_have_no_spread():
  """Nothing tells keys apart, however sharp; but no division by zero."""
  flat = measured(512, sigmas=np.zeros((2, 2)))
  solutions, _ = solve('head', flat, measured(8192))
  for solution in solutions:
    assert 0 < solution.temperature < 1e-5 and solution.ci95 is None


def test_as_many_keys_need_no_temperature():
  _, tau = solve('head', measured(512), measured(500))
  np.testing.assert_allclose(tau['encoder'], 1)


def test_heads_of_no_unknown_keep_one():
  first = np.array([[True, False], [False, False]])
  unknown = Unknown('encoder', 0, 0, first, 0, target=1.0)
  _, tau = apply_closed_form(
    Objective('entropy'), [unknown], measured(512), measured(8192)
  )
  np.testing.assert_array_equal(tau['encoder'][..., 0] == 1, ~first)


def test_curve_of_a_whole_site():
  curve = model_curve(
    Objective('entropy'), measured(512).encoder, [256.0, 512.0, 2048.0, 8192.0]
  )
  sigma = np.sqrt((SIGMAS**2).mean())
  longer = [gaussian.entropy_temperature(sigma, 512, n) for n in (2048, 8192)]
  np.testing.assert_allclose(curve, [1, 1, *longer], rtol=1e-6)


def test_heads_that_it_does_not_hold_for():
  """Before they are divided by τ (9 > ln 512), and after (4 / .65²)."""
  training, before = measured(512), measured(8192)
  ones = {'encoder': np.ones((2, 2, 1))}
  assert wide_heads(training, before, ones) == ['encoder 1.1']
  _, tau = solve('head', training, before)
  assert wide_heads(training, before, tau) == ['encoder 0.1', 'encoder 1.1']


def test_sequences_of_two_kinds_of_text():
  training = measured(512, noise=0.1)
  kinds = np.array([0, 0, 1, 1])
  stratified = dataclasses.replace(training.encoder, strata=kinds)
  solutions, _ = solve(
    'model', AttentionStatistics(512, {'encoder': stratified}), measured(8192)
  )
  low, high = solutions[0].ci95
  assert low < solutions[0].temperature < high
