"""Numbers of rows as the code that defines them gives them."""

import math

import pytest

from t5_align.tasks import measures


# lm_eval/api/metrics.py, of log-likelihoods -20 over 10 units, -90 over 30.
@pytest.mark.parametrize(
  ('measure', 'unit', 'value'),
  [
    ('perplexity', 'tokens', 15.642632),
    ('word_perplexity', 'words', 15.642632),
    ('bits_per_byte', 'bytes', 3.967411),
  ],
)
def test_perplexity_is_weighted_by_what_it_counts(measure, unit, value):
  samples = [
    {'nats': nats, 'bits': nats / math.log(2), unit: count}
    for nats, count in ((20.0, 10.0), (90.0, 30.0))
  ]
  estimate = measures.MEASURES[measure].estimate(samples)
  # Other conventions: a mean over windows gives 12.182494 (YaRN), the number
  # 2.71828 for e gives 15.642603 (landmark attention).
  assert estimate.value == pytest.approx(value, abs=5e-7)
