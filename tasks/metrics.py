"""How predictions are scored: one function a metric, one sample at a time.

Each takes strings and returns 0.0 to 1.0, exactly as the benchmark's authors
score it. A rate over n samples comes with Wilson's interval (E. B. Wilson,
"Probable Inference, the Law of Succession, and Statistical Inference", JASA
22, 1927):

  (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n),   z = 1.96

Synopsis:

    passkey_match(' 12345, or 999', '12345')      # 1.0
    rate_interval(37, 50).ci95                    # (0.604, 0.841)
"""

import re
from typing import NamedTuple

# Python refuses to read integers of more digits than this by default.
_MAX_DIGITS = 4300


def _same_number(digits: str, wanted: str) -> float:
  """Compare two strings of digits as integers: leading zeros don't count."""
  if len(digits) > _MAX_DIGITS:
    return 0.0
  return float(int(digits) == int(wanted))


def passkey_match(prediction: str, key: str) -> float:
  """Score 1 if the first number in the prediction is the key.

  As published (landmark-attention, `llama/run_test.py`): a number is a run of
  digits, so '1 2345' and '12,345' are wrong for 12345, '012345' is right.
  """
  found = re.search(r'\d+', prediction)
  return _same_number(found[0], key) if found else 0.0


def line_retrieval_match(prediction: str, value: str) -> float:
  """Score 1 if the last number in the prediction is the value.

  As published (LongChat, `longeval/utils.py`): '2,416' is 416, and a line
  number that follows the value is taken for it.
  """
  found = re.findall(r'\d+', prediction)
  return _same_number(found[-1], value) if found else 0.0


def exact_match(prediction: str, reference: str) -> float:
  """Score 1 if both are the same but for white space around them."""
  return float(prediction.strip() == reference.strip())


class Rate(NamedTuple):
  """A share of successes and how well it is known."""

  value: float
  stderr: float | None
  """Standard error of the mean; None for a single sample."""
  ci95: tuple[float, float]
  """Wilson's 95 % interval."""
  n: int


def rate_interval(successes: int | float, n: int) -> Rate:
  """Return the rate of `successes` among `n` samples with its 95 % interval.

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
  rate = successes / n
  stderr = (rate * (1 - rate) / (n - 1)) ** 0.5 if n > 1 else None
  interval = stats.binomtest(int(successes), n).proportion_ci(method='wilson')
  return Rate(rate, stderr, (float(interval.low), float(interval.high)), n)
