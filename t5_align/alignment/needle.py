"""How far sharpening helps a row to find one key among many.

One key, the needle, has a logit that is Δ above the mean of the L - 1 others,
which are N(0, σ²). With them replaced by their mean the needle's weight is

    P = 1 / (1 + (L - 1) e^(σ²/2τ² - Δ/τ)).

ln-odds(P) is a parabola in 1/τ with its top at τ* = σ²/Δ, whatever L is:
sharpening past it lifts the largest of the others above the needle. At the top
the odds are Δ²/2σ² - ln(L - 1): the needle stands out iff Δ > σ √(2 ln L). The
model is the random energy model's (gaussian.py) with one level apart; P is
below the mean over rows (Jensen), by little except near τ*.

Synopsis:

    needle_probability(margin=8, sigma=1, length=8192)
    best_temperature(margin=8, sigma=1)
    odds_keeping_temperature(8, 1, training_length=512, length=8192)
"""

from __future__ import annotations

import math

import numpy as np

from t5_align.alignment.gaussian import Number, Numbers, Values


def needle_probability(
  margin: Numbers,
  sigma: Numbers,
  length: Number,
  temperature: Numbers = 1.0,
) -> Values:
  """Return the needle's weight P.

  Args:
    margin: Δ, the needle's logit less the mean of the others; positive.
    sigma: σ, the standard deviation of the others.
    length: L, the number of keys, the needle among them.
    temperature: τ.

  Returns:
    P, of the shape that the arguments broadcast to.
  """
  from scipy import special

  margin, sigma = _check(margin, sigma, length)
  inverse = 1 / np.asarray(temperature, np.float64)
  log_odds = margin * inverse - np.square(sigma * inverse) / 2
  return special.expit(log_odds - math.log(length - 1))


def best_temperature(margin: Numbers, sigma: Numbers) -> Values:
  """Return τ* = σ²/Δ, below which sharpening loses the needle."""
  margin, sigma = _check(margin, sigma)
  return sigma * sigma / margin


def odds_keeping_temperature(
  margin: Numbers, sigma: Numbers, training_length: Number, length: Number
) -> Values:
  """Return the τ nearest 1 that keeps the needle's odds in a longer row.

  Args:
    margin: Δ at τ = 1; positive.
    sigma: σ at τ = 1.
    training_length: L_tr, keys of a row in training.
    length: L_ex, keys of a row now.

  Returns:
    τ: below 1 where Δ > σ²; above 1 where τ = 1 is already past τ*; nan where
    no τ gives the odds back, (Δ - σ²)² < 2σ² ln r.
  """
  margin, sigma = _check(margin, sigma, training_length)
  if length < training_length:
    raise ValueError(
      f'length is {length}, below the training length {training_length}.'
    )
  log_ratio = math.log((length - 1) / (training_length - 1))
  square = sigma * sigma
  discriminant = np.square(margin - square) - 2 * square * log_ratio
  root = np.sqrt(np.where(discriminant >= 0, discriminant, np.nan))
  # σ²/(Δ - root), as a fraction that stays a number where σ = 0.
  sharper = margin > square
  numerator = np.where(sharper, margin + root, square)
  denominator = np.where(
    sharper, 2 * (margin + log_ratio) - square, margin + root
  )
  return numerator / denominator


def _check(margin: Numbers, sigma: Numbers, length: Number = 2):
  margin = np.asarray(margin, np.float64)
  sigma = np.asarray(sigma, np.float64)
  if not (np.all(margin > 0) and np.all(sigma >= 0)):
    raise ValueError(
      f'A needle has a margin above 0 and others of spread from 0; got margin'
      f' {margin} and sigma {sigma}.'
    )
  if not length > 1:
    raise ValueError(f'A needle needs other keys; got a row of {length}.')
  return margin, sigma
