"""Closed forms against tables, Monte Carlo, exact identities and each other.

The tables' Monte Carlo columns have 4000 rows up to 2048 keys and 1500 beyond;
tolerances are three standard errors, plus half a unit of the last digit. The
same seeds draw the same rows, so what passes here passes always.
"""

import functools
import math
import time

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import optimize, special

from t5_align import laws
from t5_align.alignment import gaussian

# L -> the mean of the largest of L normal numbers.
EXPECTED_MAXIMUM = {
  128: 2.59460,
  512: 3.04390,
  1024: 3.24824,
  2048: 3.44180,
  4096: 3.62608,
  8192: 3.80228,
  16384: 3.97135,
}

# s, L, H closed, H and its sd over rows, P square, P finite, P conditional,
# mean of P over rows, e to the mean of ln P.
ROWS = np.loadtxt(
  """
    0.5 512   6.1133  6.1139 0.009 0.01008  0.007896 0.008030 0.008056 0.007917
    1   512   5.7383  5.7420 0.056 0.04052  0.02486  0.02653  0.02678  0.02502
    1.5 512   5.1133  5.1392 0.200 0.1268   0.06096  0.06923  0.07049  0.06187
    2   512   4.2383  4.3842 0.430 0.3092   0.1164   0.1396   0.1437   0.1214
    3   512   1.7383  2.9673 0.752 0.8679   0.2006   0.3069   0.3219   0.2741
    4   512   -1.7617 2.0521 0.804 0.8964   0.1271   0.4408   0.4667   0.4115
    1   2048  7.1246  7.1256 0.028 0.01471  0.009253 0.009807 0.009865 0.009299
    2   2048  5.6246  5.6786 0.325 0.1629   0.06450  0.07762  0.07906  0.06574
    1   8192  8.5109  8.5111 0.014 0.005166 0.003317 0.003490 0.003525 0.003353
    2   8192  7.0109  7.0259 0.208 0.08042  0.03316  0.03993  0.04069  0.03395
    3   8192  4.5109  4.9428 0.729 0.4606   0.1220   0.1622   0.1687   0.1342
    1   16384 9.2041  9.2042 0.010 0.003032 0.001964 0.002060 0.002094 0.001990
    3   16384 5.2041  5.5018 0.727 0.3725   0.1013   0.1341   0.1410   0.1092
""".strip().split('\n')
)

# σ, L_ex, τ_H closed and Monte Carlo, τ_P square, finite, conditional, Monte
# Carlo; L_tr = 512.
TEMPERATURES = (
  (1, 2048, 0.5148, 0.508, 0.7284, 0.6918, 0.6919, 0.691),
  (1.5, 2048, 0.6693, 0.653, 0.8009, 0.7648, 0.7653, 0.764),
  (2, 2048, 0.7685, 0.737, 0.8429, 0.8018, 0.8057, 0.804),
  (3, 2048, 0.8743, 0.813, 0.8895, math.nan, 0.8452, 0.844),
  (1, 8192, 0.3909, 0.380, 0.5838, 0.5415, 0.5416, 0.538),
  (1.5, 8192, 0.5373, 0.513, 0.6778, 0.6310, 0.6318, 0.627),
  (2, 8192, 0.6473, 0.602, 0.7372, 0.6793, 0.6858, 0.679),
  (3, 8192, 0.7866, 0.695, 0.8080, math.nan, 0.7420, 0.732),
  (1, 16384, 0.3551, 0.344, 0.5338, 0.4916, 0.4916, 0.490),
  (2, 16384, 0.6049, 0.560, 0.6961, 0.6337, 0.6413, 0.637),
  (3, 16384, 0.7516, 0.655, 0.7745, math.nan, 0.7020, 0.692),
)

# Unit-variance tails scaled by σ: (τ_H, τ_P) from 512 keys to 2048 and to
# 8192; (H, ln P) at 512 and at 8192.
FAT_TAILS = {
  ('laplace', 1): (
    (0.762, 0.886),
    (0.687, 0.830),
    (5.300, -2.553),
    (7.860, -3.381),
  ),
  ('laplace', 2): (
    (0.960, 0.982),
    (0.951, 0.982),
    (2.459, -0.954),
    (2.747, -0.985),
  ),
  ('laplace', 3): (
    (0.992, 0.995),
    (1.00, 1.00),
    (1.240, -0.523),
    (1.239, -0.525),
  ),
  ('t5', 1): ((0.873, 1.016), (0.905, 1.114), (5.067, -2.380), (5.918, -1.930)),
  ('t5', 2): ((1.103, 1.161), (1.289, 1.408), (2.277, -0.856), (1.143, -0.418)),
  ('t5', 3): ((1.188, 1.222), (1.482, 1.566), (1.110, -0.452), (0.523, -0.234)),
}


def statistics(logits):
  """Entropy and ln P of each row of logits that were divided already."""
  largest = logits.max(-1)
  weights = np.exp(logits - largest[:, None])
  total = weights.sum(-1)
  mean = np.einsum('TS,TS->T', weights, logits) / total
  return largest + np.log(total) - mean, -np.log(total)


def test_expected_maximum():
  for length, expected in EXPECTED_MAXIMUM.items():
    assert abs(gaussian.expected_maximum(length) - expected) <= 5e-6
  # Of two it is 1/√π, of three 3/(2√π), exactly.
  for length, exact in ((2, 1.0), (3, 1.5)):
    value = gaussian.expected_maximum(length)
    assert value == pytest.approx(exact / math.sqrt(math.pi), rel=1e-13)


@pytest.mark.parametrize(
  'row', ROWS, ids=lambda row: f's{row[0]:g}-L{row[1]:g}'
)
def test_closed_columns(row):
  spread, length, entropy, _, _, square, finite, conditional, _, _ = row
  assert abs(gaussian.entropy_nats(spread, length) - entropy) <= 5.01e-5
  for form, printed in (
    ('square', square),
    ('finite', finite),
    ('conditional', conditional),
  ):
    value = gaussian.maximum_probability(spread, length, form)
    assert value == pytest.approx(printed, rel=5e-4 if printed < 0.2 else 3e-4)


@pytest.mark.parametrize(
  'row', ROWS, ids=lambda row: f's{row[0]:g}-L{row[1]:g}'
)
def test_closed_forms_are_as_near_as_they_say(row):
  """Against the tables' Monte Carlo columns."""
  spread, length, _, entropy, deviation, _, _, _, mean, geometric = row
  error = 3 * deviation / math.sqrt(4000 if length <= 2048 else 1500) + 5e-5
  if gaussian.entropy_accurate(spread, length):
    first = gaussian.entropy_nats(spread, length)
    assert abs(first / entropy - 1) <= 0.03
    better = gaussian.entropy_nats(spread, length, next_order=True)
    assert abs(better - entropy) <= error
  # The other keys' sum is taken at its mean: 6 % at most.
  assert gaussian.maximum_probability(spread, length) == pytest.approx(
    mean, rel=0.06
  )
  log_mean = gaussian.maximum_probability(spread, length, averaging='log')
  assert log_mean == pytest.approx(geometric, rel=0.06)
  if spread <= 2.5:
    finite = gaussian.maximum_probability(spread, length, 'finite')
    assert finite == pytest.approx(geometric, rel=0.12)


@pytest.mark.parametrize('length', [512, 2048])
def test_tables_are_monte_carlo(length):
  """Other rows, drawn here, have the printed means."""
  count = 1000
  normal = np.random.default_rng(7).standard_normal((count, length))
  for row in ROWS:
    if row[1] != length:
      continue
    entropy, log_largest = statistics(row[0] * normal)
    largest = np.exp(log_largest)
    for sample, printed in ((entropy, row[3]), (largest, row[8])):
      error = 3 * sample.std() * math.sqrt(1 / count + 1 / 4000)
      assert abs(sample.mean() - printed) <= error
    error = 3 * log_largest.std() * math.sqrt(1 / count + 1 / 4000)
    assert abs(log_largest.mean() - math.log(row[9])) <= error


@pytest.mark.parametrize('length', [2048, 8192, 16384])
def test_aligning_temperatures(length):
  """The conditional column keeps the mean of ln P, not of P."""
  table = np.array([row for row in TEMPERATURES if row[1] == length]).T
  sigma, _, entropy, entropy_sampled, square, finite, conditional, sampled = (
    table
  )
  tau = gaussian.entropy_temperature(sigma, 512, length)
  np.testing.assert_allclose(tau, entropy, atol=5.01e-5)
  solve = functools.partial(
    gaussian.maximum_probability_temperature, sigma, 512, length
  )
  np.testing.assert_allclose(solve('square'), square, atol=5.01e-5)
  np.testing.assert_allclose(solve('finite'), finite, atol=5.01e-5)
  np.testing.assert_allclose(solve(), conditional, atol=5.01e-5)
  assert np.all(np.abs(solve(averaging='arithmetic') - conditional) > 0.008)
  # The columns of bisection, good to 0.01.
  np.testing.assert_allclose(solve(), sampled, atol=0.012)
  assert np.all(tau > entropy_sampled - 0.01)


def aligned_on_rows(short, long, statistic):
  """τ that gives the long rows the short rows' mean, and its error.

  The error is of the mean over four quarters of the rows, each solved alone.
  """

  def solve(short, long):
    target = statistics(short)[statistic].mean()
    return optimize.brentq(
      lambda tau: statistics(long / tau)[statistic].mean() - target,
      0.2,
      2.5,
      xtol=1e-4,
    )

  quarters = [
    solve(s, q) for s, q in zip(np.split(short, 4), np.split(long, 4))
  ]
  return solve(short, long), np.std(quarters, ddof=1) / 2


@pytest.mark.parametrize('sigma', [1, 2])
def test_aligning_temperatures_on_rows(sigma):
  random = np.random.default_rng(3)
  short = sigma * random.standard_normal((1200, 512))
  long = sigma * random.standard_normal((1200, 2048))
  (row,) = (r for r in TEMPERATURES if r[:2] == (sigma, 2048))
  for statistic, printed in ((0, row[3]), (1, row[7])):
    tau, error = aligned_on_rows(short, long, statistic)
    assert abs(tau - printed) <= 3 * error + 0.01
  closed = gaussian.maximum_probability_temperature(sigma, 512, 2048)
  assert abs(closed - tau) <= 3 * error + 0.01


@pytest.mark.slow
@pytest.mark.parametrize('length, count', [(2048, 1200), (8192, 400)])
@pytest.mark.parametrize('tails, sigma', FAT_TAILS)
def test_fat_tails_need_less(tails, sigma, length, count):
  """The Gaussian formula sharpens such rows too much, by far more than noise.

  The tables' rows are not known; their error is taken to be as large as here.
  """
  random = np.random.default_rng(5)

  def rows(length):
    if tails == 'laplace':
      return random.laplace(0, sigma / math.sqrt(2), (count, length))
    return sigma * math.sqrt(3 / 5) * random.standard_t(5, (count, length))

  short, long = rows(512), rows(length)
  to_2048, to_8192, before, after = FAT_TAILS[tails, sigma]
  taus = to_2048 if length == 2048 else to_8192
  formulas = (
    gaussian.entropy_temperature(sigma, 512, length),
    gaussian.maximum_probability_temperature(sigma, 512, length),
  )
  for statistic in (0, 1):
    tau, error = aligned_on_rows(short, long, statistic)
    # 0.005: two of the printed numbers have two digits.
    assert abs(tau - taus[statistic]) <= 3 * math.sqrt(2) * error + 5e-3
    assert formulas[statistic] < tau - 5 * error
    if tails == 't5' and taus[statistic] > 1.1:
      assert tau > 1  # longer rows are sharper already: no formula says so
    for sample, mean in ((short, before), (long, after))[: 1 + (length > 2048)]:
      values = statistics(sample)[statistic]
      error = 3 * math.sqrt(2 / count) * values.std()
      assert abs(values.mean() - mean[statistic]) <= error + 5e-4


@hypothesis.given(
  sigma=st.floats(1e-2, 50.0),
  training_length=st.integers(2, 10**4),
  factors=st.lists(st.floats(1.0, 300.0), min_size=2, max_size=2),
)
@hypothesis.settings(deadline=None, max_examples=100)
def test_temperatures_sharpen_more_at_greater_lengths(
  sigma, training_length, factors
):
  near, far = sorted(factors)
  sigmas = np.array([sigma, 1.5 * sigma])
  for solve in (
    gaussian.entropy_temperature,
    functools.partial(gaussian.maximum_probability_temperature, form='square'),
    gaussian.maximum_probability_temperature,
  ):
    tau = solve(sigmas, training_length, training_length * near)
    further = solve(sigmas, training_length, training_length * far)
    assert np.all(tau > 0) and np.all(tau <= 1)
    assert np.all(further <= tau + 1e-12)
    assert tau[0] <= tau[1] + 1e-12


@hypothesis.given(
  sigma=st.floats(1e-2, 50.0),
  training_length=st.integers(2, 10**4),
  factor=st.floats(1.0, 300.0),
  averaging=st.sampled_from(gaussian.AVERAGINGS),
)
@hypothesis.settings(deadline=None, max_examples=100)
def test_conditional_form_is_solved(sigma, training_length, factor, averaging):
  length = training_length * factor
  tau = gaussian.maximum_probability_temperature(
    sigma, training_length, length, averaging=averaging
  )
  kept = gaussian.maximum_probability(sigma / tau, length, averaging=averaging)
  wanted = gaussian.maximum_probability(
    sigma, training_length, averaging=averaging
  )
  assert kept == pytest.approx(wanted, rel=1e-7)


@hypothesis.given(
  logits=st.lists(st.floats(-30, 30), min_size=2, max_size=40),
  inverse=st.floats(0.05, 2.0),
  more=st.floats(1.01, 3.0),
)
def test_entropy_falls_and_the_largest_weight_rises(logits, inverse, more):
  """Of any logits, which makes the aligned temperature unique."""
  row = np.array([logits])
  entropy, log_largest = statistics(row * inverse)
  sharper_entropy, sharper_largest = statistics(row * inverse * more)
  assert sharper_entropy <= entropy + 1e-9
  assert sharper_largest >= log_largest - 1e-9


def test_derivatives_by_inverse_temperature():
  """dH/dβ = -β Var_p(z) and d ln P/dβ = z_max - E_p(z)."""
  row = np.random.default_rng(0).normal(0, 2, (1, 50))
  beta, step = 1.3, 1e-5
  weights = special.softmax(beta * row)
  mean = (weights * row).sum()
  variance = (weights * row**2).sum() - mean**2
  above = statistics((beta + step) * row)
  below = statistics((beta - step) * row)
  slopes = [(a - b)[0] / (2 * step) for a, b in zip(above, below)]
  np.testing.assert_allclose(
    slopes, [-beta * variance, row.max() - mean], rtol=1e-6
  )


def test_forms_meet_where_they_should():
  # σ at which the strategies' square forms say what log-n does.
  log_n = math.log(512) / math.log(8192)
  assert gaussian.entropy_temperature(2.26, 512, 8192) == pytest.approx(
    log_n, abs=1e-3
  )
  square = gaussian.maximum_probability_temperature(1.60, 512, 8192, 'square')
  assert square == pytest.approx(log_n, abs=1e-3)
  # At freezing both are √(ln L_tr / ln L_ex); the entropy's is below before.
  freezing = gaussian.freezing_spread(512)
  for tau in (
    gaussian.entropy_temperature(freezing, 512, 8192),
    gaussian.maximum_probability_temperature(freezing, 512, 8192, 'square'),
  ):
    assert tau == pytest.approx(math.sqrt(log_n), rel=1e-12)
  # Frozen rows are a few keys about m_L, at distances of 1/m_L.
  frozen = gaussian.maximum_probability_temperature(1e3, 512, 8192)
  ratio = gaussian.expected_maximum(512) / gaussian.expected_maximum(8192)
  assert frozen == pytest.approx(ratio, abs=1e-3)


def test_parabola_has_no_solution_near_freezing():
  """512 -> 8192 fails at 2.45 < σ, and past its top never holds again."""
  sigma = np.array([2.4, 2.5, 3.0, 3.6, 3.7, 10.0])
  tau = gaussian.maximum_probability_temperature(sigma, 512, 8192, 'finite')
  assert np.isfinite(tau).tolist() == [True] + [False] * 5
  same = gaussian.maximum_probability_temperature(sigma, 512, 512, 'finite')
  np.testing.assert_allclose(same[:3], 1, rtol=1e-12)


def test_auto_takes_the_square_form_where_that_is_near():
  for length in (520, 2048):
    values = {
      form: gaussian.maximum_probability_temperature(
        np.linspace(0.2, 6, 30), 512, length, form
      )
      for form in ('square', 'conditional', 'auto')
    }
    near = np.abs(values['square'] / values['conditional'] - 1) <= 0.01
    assert np.any(near) == (length == 520)
    expected = np.where(near, values['square'], values['conditional'])
    np.testing.assert_array_equal(values['auto'], expected)


def test_laws_are_the_closed_forms():
  sigma = np.geomspace(0.05, 20, 12).reshape(3, 4)
  arguments = [np.float32(x) for x in (8192, 512)]
  for name, expected in (
    ('gaussian_entropy', gaussian.entropy_temperature(sigma, 512, 8192)),
    (
      'gaussian_maximum_probability',
      gaussian.maximum_probability_temperature(sigma, 512, 8192, 'square'),
    ),
  ):
    tau = laws.LAWS[name].function(*arguments, sigma.astype(np.float32))
    np.testing.assert_allclose(tau, expected, rtol=1e-6)


def test_validity_names_heads():
  """ln 512 = 6.24: spreads up to 2.49 mean something, up to 1.76 are good."""
  sigma = np.array([[0.5, 1.7], [1.8, 2.45], [2.52, 9.0]])
  valid = gaussian.entropy_valid(sigma, 512)
  assert np.argwhere(~valid).tolist() == [[2, 0], [2, 1]]
  accurate = gaussian.entropy_accurate(sigma, 512)
  assert np.argwhere(accurate).tolist() == [[0, 0], [0, 1]]
  # The aligned row may be beyond the limit where the training row was not.
  tau = gaussian.entropy_temperature(2.0, 512, 8192)
  assert gaussian.entropy_valid(2.0, 512)
  assert not gaussian.entropy_valid(2.0 / tau, 8192)


def test_heads_of_a_large_model_take_no_time():
  sigma = np.random.default_rng(0).uniform(0.1, 12, (24, 32))
  tau = gaussian.maximum_probability_temperature(sigma, 512, 16384)
  assert tau.shape == (24, 32) and tau.dtype == np.float64
  start = time.perf_counter()
  gaussian.maximum_probability_temperature(sigma, 512, 16384)
  # 15 ms alone; other processes may be running.
  assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: gaussian.entropy_temperature(1, 512, 128), '128, below .* 512'),
    (lambda: gaussian.entropy_temperature(0, 512, 8192), 'is 0; .* above 0'),
    (lambda: gaussian.entropy_temperature([1, math.nan], 2, 3), 'is nan'),
    (lambda: gaussian.entropy_nats(-1, 512), 'is -1; .* from 0'),
    (lambda: gaussian.entropy_nats(1, 1), 'row of 1 keys'),
    (
      lambda: gaussian.maximum_probability_temperature(1, 2, 3, 'squared'),
      "did you mean 'square'",
    ),
    (
      lambda: gaussian.maximum_probability(1, 512, averaging='geometric'),
      'known: .*arithmetic.*log',
    ),
  ],
)
def test_bad_arguments(call, message):
  with pytest.raises(ValueError, match=message):
    call()
