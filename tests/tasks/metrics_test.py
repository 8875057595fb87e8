"""Scores as the benchmarks' own code gives them, and Wilson's interval."""

import pytest

from t5_align.tasks import metrics


# Golden values of landmark-attention's run_test.py.
@pytest.mark.parametrize(
  ('prediction', 'key', 'score'),
  [
    (' 12345.', '12345', 1),
    (' 12345, or 999', '12345', 1),
    (' 012345', '12345', 1),
    ('1 2345', '12345', 0),
    (' 12,345', '12345', 0),
    ('is unknown', '12345', 0),
    ('', '12345', 0),
    ('999 or 12345', '12345', 0),
    ('9' * 5000, '12345', 0),
  ],
)
def test_passkey_takes_the_first_number(prediction, key, score):
  assert metrics.passkey_match(prediction, key) == score


# Golden values of LongEval's utils.py, all for 2416.
@pytest.mark.parametrize(
  ('prediction', 'score'),
  [
    ('The <REGISTER_CONTENT> in line torpid-kid is <2416>.', 1),
    ('<2416> is in line torpid-kid (line 7)', 0),
    ('2,416', 0),
    ('line 12 is 2416', 1),
    ('02416', 1),
    ('I do not know', 0),
    ('2416' + '0' * 5000, 0),
  ],
)
def test_line_retrieval_takes_the_last_number(prediction, score):
  assert metrics.line_retrieval_match(prediction, '2416') == score


def test_exact_match_ignores_white_space_around():
  assert metrics.exact_match(' a b\n', 'a b') == 1
  assert metrics.exact_match('a  b', 'a b') == 0


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
  rate = metrics.rate_interval(successes, n)
  assert rate.value == successes / n
  assert rate.n == n
  assert rate.ci95 == pytest.approx((low, high), abs=1e-6)


def test_standard_error_is_that_of_the_sample_mean():
  # Scores 1, 1, 1, 0: variance 0.25 with n - 1, over n.
  assert metrics.rate_interval(3, 4).stderr == pytest.approx(0.25)
  assert metrics.rate_interval(1, 1).stderr is None


@pytest.mark.parametrize(
  ('successes', 'n'), [(0, 0), (5, 4), (-1, 4), (0.5, 4)]
)
def test_impossible_counts_are_refused(successes, n):
  with pytest.raises(ValueError, match='successes among'):
    metrics.rate_interval(successes, n)
