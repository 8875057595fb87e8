"""The needle: golden values, Monte Carlo, its best temperature, its limits."""

import math

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from t5_align.alignment import needle

# (Δ, σ) -> P at 512 and at 8192 keys, τ that keeps the odds.
GOLDEN = {
  (8, 1): (0.7797, 0.1808, 0.71010),
  (8, 1.5): (0.6544, 0.1057, 0.64959),
  (12, 2): (0.9773, 0.7289, 0.72276),
  (8, 2): (0.4412, 0.0469, math.nan),
}


@pytest.mark.parametrize('case', GOLDEN)
def test_golden(case):
  short, long, temperature = GOLDEN[case]
  assert abs(needle.needle_probability(*case, 512) - short) <= 5.01e-5
  assert abs(needle.needle_probability(*case, 8192) - long) <= 5.01e-5
  tau = needle.odds_keeping_temperature(*case, 512, 8192)
  np.testing.assert_allclose(tau, temperature, atol=5.01e-6)


@pytest.mark.parametrize(
  'case, temperature, mean', [((8, 1), 1.0, 0.7798), ((8, 2), 0.5, 0.927)]
)
def test_a_lower_bound_loose_near_the_best_temperature(case, temperature, mean):
  margin, sigma = case
  others = np.random.default_rng(2).normal(0, sigma, (4000, 511))
  weights = np.exp((others - margin) / temperature)
  sample = 1 / (1 + weights.sum(-1))
  error = 3 * sample.std() / math.sqrt(len(sample))
  assert abs(sample.mean() - mean) <= math.sqrt(2) * error + 5e-4
  bound = needle.needle_probability(*case, 512, temperature)
  assert bound <= sample.mean() + error


@hypothesis.given(
  margin=st.floats(0.1, 40),
  sigma=st.floats(0.1, 6),
  length=st.floats(2, 1e6),
  factor=st.floats(0.2, 5),
)
def test_sharpening_helps_as_far_as_the_best_temperature(
  margin, sigma, length, factor
):
  best = needle.best_temperature(margin, sigma)
  top = needle.needle_probability(margin, sigma, length, best)
  other = needle.needle_probability(margin, sigma, length, best * factor)
  assert other <= top * (1 + 1e-9)
  odds = margin**2 / (2 * sigma**2) - math.log(length - 1)
  np.testing.assert_allclose(top, 1 / (1 + math.exp(-odds)), rtol=1e-9)


@hypothesis.given(
  margin=st.floats(0.1, 40),
  sigma=st.floats(0, 6),
  training_length=st.floats(2, 1e4),
  factor=st.floats(1, 100),
)
def test_odds_are_kept(margin, sigma, training_length, factor):
  length = training_length * factor
  tau = needle.odds_keeping_temperature(margin, sigma, training_length, length)
  log_ratio = math.log((length - 1) / (training_length - 1))
  if np.isnan(tau):
    assert (margin - sigma**2) ** 2 < 2 * sigma**2 * log_ratio * (1 + 1e-9)
    return
  hypothesis.assume(tau > 1e-3)
  assert tau <= 1 + 1e-12 or margin <= sigma**2
  kept = needle.needle_probability(margin, sigma, length, tau)
  wanted = needle.needle_probability(margin, sigma, training_length)
  np.testing.assert_allclose(kept, wanted, rtol=1e-6)


def test_heads_at_once():
  margin = np.array([[8.0, 12.0]])
  sigma = np.array([[1.0], [2.0]])
  tau = needle.odds_keeping_temperature(margin, sigma, 512, 8192)
  assert tau.shape == (2, 2)
  assert np.isnan(tau).tolist() == [[False, False], [True, False]]


def test_without_noise_the_needle_follows_log_n_at_one_margin():
  """1/τ = 1 + ln r/Δ, which is log-n where Δ = ln L_tr."""
  log_ratio = math.log(8191 / 511)
  tau = needle.odds_keeping_temperature(math.log(511), 0, 512, 8192)
  assert tau == pytest.approx(1 / (1 + log_ratio / math.log(511)), rel=1e-12)
  assert tau == pytest.approx(math.log(511) / math.log(8191), rel=1e-12)


def test_past_the_best_temperature_longer_rows_are_flattened():
  """Δ < σ²: τ = 1 is too sharp already."""
  tau = needle.odds_keeping_temperature(3, 2.5, 512, 540)
  assert tau > 1
  kept = needle.needle_probability(3, 2.5, 540, tau)
  assert kept == pytest.approx(needle.needle_probability(3, 2.5, 512))


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: needle.needle_probability(0, 1, 512), 'margin above 0'),
    (lambda: needle.best_temperature(1, -1), 'spread from 0'),
    (lambda: needle.needle_probability(1, 1, 1), 'row of 1'),
    (lambda: needle.odds_keeping_temperature(1, 1, 512, 8), 'below the train'),
  ],
)
def test_bad_arguments(call, message):
  with pytest.raises(ValueError, match=message):
    call()
