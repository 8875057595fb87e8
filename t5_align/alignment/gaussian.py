"""What temperature does to a row of Gaussian logits, in closed form.

The logits of a row over L keys are taken as independent, N(0, σ²), and divided
by τ: their spread is s = σ/τ. That is the random energy model (Derrida 1981,
https://doi.org/10.1103/PhysRevB.24.2613), which says of the softmax

    entropy          H = ln L - s²/2
    largest weight   ln P = -½ (√(2 ln L) - s)²                    'square'
                     ln P = s m_L - s²/2 - ln L                    'finite'
                     P(x) = 1 / (1 + (L-1) e^(s²/2 - s x) Φ(x-s)/Φ(x)),
                       x the largest of L normal numbers           'conditional'

with m_L the mean of x. A row of L_ex keys gets back what it had with L_tr keys,
at τ = 1 (the strategies of Chi, Fan and Rudnicky 2024, arXiv 2311.00684), at

    τ_H = σ / √(σ² + 2 ln(L_ex / L_tr))
    τ_P = σ / (σ + √(2 ln L_ex) - √(2 ln L_tr))                    'square'

Both lie in (0, 1] for every σ, right or wrong. Of the three forms of P only the
conditional one holds where rows freeze, near s = √(2 ln L); the square one is
up to three times too large, of which most, but not all, cancels in τ. The
entropy holds to 3 % while s² ≤ ½ ln L and means nothing beyond s² = ln L. The
aligned row has the larger spread, so its own validity is the one to ask for.
Logits with fatter tails than a normal distribution need less sharpening than
this, or none: measure first.

Synopsis:

    entropy_temperature(sigma, 512, 8192)               # of sigma's shape
    maximum_probability_temperature(sigma, 512, 8192)   # conditional form
    entropy_valid(sigma / tau, 8192)                    # True where H has sense
    maximum_probability(spread, 8192, 'finite')

Arrays are float64 NumPy; functions take σ or s of any shape, such as [L, N],
and one length.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import math
from typing import Any

from jaxtyping import Bool, Float, Real
import numpy as np

from t5_align.alignment.objectives import AVERAGINGS, check_name

FORMS = ('square', 'finite', 'conditional')
# Below this share of difference the forms are one: 'auto' takes the square.
AGREEMENT = 0.01

Number = float | int | np.number
Numbers = Number | Sequence[Any] | Real[np.ndarray, '...']
Values = Float[np.ndarray, '...'] | np.float64


def expected_maximum(length: Number) -> float:
  """Return m_L, the mean of the largest of L standard normal numbers."""
  largest, weight = _largest(_check_length(length))
  return float(weight @ largest)


def entropy_nats(
  spread: Numbers, length: Number, next_order: bool = False
) -> Values:
  """Return the expected entropy of a row.

  Args:
    spread: s, the standard deviation of the logits divided by τ.
    length: L, the number of keys.
    next_order: add the terms in 1/L, which improve it while s² ≤ ½ ln L and
      spoil it beyond.

  Returns:
    H in nats. Where `entropy_valid` is False it may even be negative.
  """
  square = np.square(_check_spread(spread))
  entropy = math.log(_check_length(length)) - square / 2
  if next_order:
    growth = np.expm1(square)
    entropy = entropy + (square * (growth + 1) - growth / 2) / length
  return entropy


def maximum_probability(
  spread: Numbers,
  length: Number,
  form: str = 'conditional',
  averaging: str = 'arithmetic',
) -> Values:
  """Return the expected largest weight of a row.

  Args:
    spread: s, the standard deviation of the logits divided by τ.
    length: L, the number of keys.
    form: 'square', 'finite' or 'conditional'.
    averaging: 'arithmetic' for the mean of P over rows, or 'log' for e to the
      mean of ln P. The conditional form alone tells them apart.

  Returns:
    P, of the shape of `spread`.
  """
  spread = _check_spread(spread)
  length = _check_length(length)
  check_name('form', form, FORMS)
  check_name('averaging', averaging, AVERAGINGS)
  if form == 'square':
    return np.exp(-np.square(freezing_spread(length) - spread) / 2)
  if form == 'finite':
    return np.exp(_finite_log_probability(spread, length))
  return np.exp(_conditional_log_probability(spread, length, averaging)[0])


def freezing_spread(length: Number) -> float:
  """Return √(2 ln L): beyond it a few keys hold all of the weight."""
  return math.sqrt(2 * math.log(_check_length(length)))


def entropy_valid(
  spread: Numbers, length: Number
) -> Bool[np.ndarray, '...'] | np.bool_:
  """Tell where the Gaussian entropy means something: s² < ln L.

  The sum of the exponentials is then close to its mean. Ask with the spread
  and length of the training rows, and again with those of the aligned rows.
  """
  return np.square(_check_spread(spread)) < math.log(_check_length(length))


def entropy_accurate(
  spread: Numbers, length: Number
) -> Bool[np.ndarray, '...'] | np.bool_:
  """Tell where the Gaussian entropy is within about 3 %: s² ≤ ½ ln L."""
  limit = math.log(_check_length(length)) / 2
  return np.square(_check_spread(spread)) <= limit


def entropy_temperature(
  sigma: Numbers, training_length: Number, length: Number
) -> Values:
  """Return τ_H, at which the longer row has the entropy of the shorter.

  Args:
    sigma: σ, the standard deviation of the logits at the training length.
    training_length: L_tr, keys of a row in training.
    length: L_ex, keys of a row now.

  Returns:
    τ in (0, 1], of the shape of `sigma`; the law `gaussian_entropy`.

  Raises:
    ValueError: a σ that is not positive, or the length below the training's.
  """
  sigma = _check_spread(sigma, zero=False)
  _check_lengths(training_length, length)
  return sigma / np.sqrt(sigma * sigma + 2 * math.log(length / training_length))


def maximum_probability_temperature(
  sigma: Numbers,
  training_length: Number,
  length: Number,
  form: str = 'conditional',
  averaging: str = 'log',
) -> Values:
  """Return τ_P, at which the longer row's largest weight is the shorter's.

  Args:
    sigma: σ, the standard deviation of the logits at the training length.
    training_length: L_tr, keys of a row in training.
    length: L_ex, keys of a row now.
    form: 'conditional'; 'square', which is the law
      `gaussian_maximum_probability`; 'finite', which is nan where it has no
      solution; or 'auto': square where that is within AGREEMENT of conditional,
      conditional elsewhere.
    averaging: what the conditional form keeps: the mean over rows of ln P,
      'log', or of P, 'arithmetic'. The other forms are of ln P.

  Returns:
    τ in (0, 1], of the shape of `sigma`.

  Raises:
    ValueError: a σ that is not positive, the length below the training's, or
      an unknown form or averaging.
  """
  sigma = _check_spread(sigma, zero=False)
  _check_lengths(training_length, length)
  check_name('form', form, (*FORMS, 'auto'))
  check_name('averaging', averaging, AVERAGINGS)
  later = freezing_spread(length) - freezing_spread(training_length)
  square = sigma / (sigma + later)
  if form == 'square':
    return square
  if form == 'finite':
    return _finite_temperature(sigma, training_length, length)
  conditional = sigma / _conditional_spread(
    sigma, training_length, length, averaging, start=sigma / square
  )
  # Rounding leaves 1 + 1e-13 where the lengths are equal.
  conditional = np.minimum(conditional, 1.0)
  if form == 'conditional':
    return conditional
  agree = np.abs(square / conditional - 1) <= AGREEMENT
  return np.where(agree, square, conditional)


def _finite_log_probability(spread, length):
  maximum = expected_maximum(length)
  return spread * maximum - np.square(spread) / 2 - math.log(length)


def _finite_temperature(sigma, training_length, length):
  """Solve the parabola in s, whose top, at s = m_L, may be too low."""
  maximum = expected_maximum(length)
  discriminant = (
    maximum**2
    - 2 * math.log(length)
    - 2 * _finite_log_probability(sigma, training_length)
  )
  # Past the top P would fall with s, which no row's does.
  real = (discriminant >= 0) & (sigma <= expected_maximum(training_length))
  return np.where(
    real, sigma / (maximum - np.sqrt(np.maximum(discriminant, 0))), np.nan
  )


def _conditional_spread(sigma, training_length, length, averaging, start):
  """Solve the conditional form for s by Newton's method.

  ln P(x) rises with s and is concave, for every x, as the logarithm of a sum of
  exponentials is convex; so does its mean. So from anywhere the first step ends
  below the solution and the others climb to it without passing: no bracket is
  needed. (The logarithm of the mean of P was found to be concave as well.)
  """
  target, _ = _conditional_log_probability(sigma, training_length, averaging)
  spread = start
  for _ in range(50):
    value, slope = _conditional_log_probability(spread, length, averaging)
    step = (target - value) / slope
    spread = spread + step
    if np.all(np.abs(step) <= 1e-9 * spread):
      break
  return spread


def _conditional_log_probability(spread, length, averaging):
  """Log of the mean P over rows, and its derivative by s."""
  from scipy import special

  odds, slope = _conditional_log_odds(spread, length)
  weight = _largest(length)[1]
  rest = special.expit(-odds)
  if averaging == 'log':
    return -np.logaddexp(0, -odds) @ weight, (rest * slope) @ weight
  probability = special.expit(odds)
  mean = probability @ weight
  return np.log(mean), (probability * rest * slope) @ weight / mean


def _conditional_log_odds(spread, length):
  """Log-odds of the largest weight given each x, [..., Q], and d/ds of it."""
  from scipy import special

  spread = np.asarray(spread)[..., None]
  largest, _ = _largest(length)
  shifted = largest - spread
  below = special.log_ndtr(shifted)
  odds = -(
    math.log(length - 1)
    + spread * (spread / 2 - largest)
    + below
    - special.log_ndtr(largest)
  )
  density = np.exp(-shifted * shifted / 2 - below) / math.sqrt(2 * math.pi)
  return odds, shifted + density


@functools.lru_cache(maxsize=256)
def _largest(length):
  """Nodes and weights, [Q] each: a mean over the largest of L normal numbers.

  Gauss-Legendre over all but 1e-17 of its density at either end; 64 nodes give
  twelve digits at every length up to millions.
  """
  from scipy import special

  low = special.ndtri_exp(math.log(1e-17) / length)
  high = -special.ndtri(1e-17 / length)
  node, weight = np.polynomial.legendre.leggauss(64)
  largest = (low + high) / 2 + (high - low) / 2 * node
  log_density = (
    math.log(length / math.sqrt(2 * math.pi))
    - largest * largest / 2
    + (length - 1) * special.log_ndtr(largest)
  )
  return largest, weight * (high - low) / 2 * np.exp(log_density)


def _check_length(length):
  if not (math.isfinite(length) and length > 1):
    raise ValueError(
      f'A row of {length} keys has no softmax to scale; wanted a finite number'
      ' above 1.'
    )
  return float(length)


def _check_lengths(training_length, length):
  _check_length(training_length)
  _check_length(length)
  if length < training_length:
    raise ValueError(
      f'length is {length}, below the training length {training_length}:'
      ' nothing is dispersed. Give the longer one, or the two in order.'
    )


def _check_spread(spread, zero=True):
  spread = np.asarray(spread, np.float64)
  wrong = ~(np.isfinite(spread) & (spread >= 0 if zero else spread > 0))
  if np.any(wrong):
    raise ValueError(
      f'A standard deviation of logits is {spread[wrong][0]:g}; wanted a finite'
      f' number {"from" if zero else "above"} 0.'
    )
  return spread
