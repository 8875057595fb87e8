"""Options of a calibration: what is refused, and what they mean."""

import pytest

from t5_align.alignment.calibration import CalibrationOptions
from t5_align.alignment.objectives import Objective


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(strategy='entropi'), "strategy 'entropi'.*'entropy'"),
    (dict(granularity='heads'), "granularity 'heads'.*'head'"),
    (dict(method='closedform'), "method 'closedform'.*'closed_form'"),
    (dict(form='bylength'), "form 'bylength'.*'by_length'"),
    (
      dict(strategy='maximum_probability', averaging='logs'),
      "averaging 'logs'.*'log'",
    ),
    (dict(averaging='log'), 'entropy is a logarithm already'),
    (dict(sites=('encodr',)), "site 'encodr'.*'encoder'"),
    (dict(sites=()), 'sites is empty; wanted some of encoder, decoder, cross'),
    (dict(tolerance=0.0), 'tolerance is 0.0; wanted a share'),
    (dict(tolerance=1.0), 'tolerance is 1.0; wanted a share'),
    (dict(tolerance=float('nan')), 'tolerance is nan'),
    (dict(num_sequences=0), 'num_sequences is 0; wanted a number from 1 up'),
    (dict(num_training_sequences=0), 'num_training_sequences is 0'),
    (dict(rows_per_sequence=0), 'rows_per_sequence is 0'),
    (dict(tokens_per_batch=0), 'tokens_per_batch is 0'),
    (dict(length_ratio=1), 'length_ratio is 1'),
  ],
)
def test_wrong_options(options, message):
  with pytest.raises(ValueError, match=message):
    CalibrationOptions(**options)


def test_sites_may_be_one_name_or_a_list():
  assert CalibrationOptions(sites='cross').sites == ('cross',)
  assert CalibrationOptions(sites=['encoder', 'cross']).sites == (
    'encoder',
    'cross',
  )


def test_objective():
  options = CalibrationOptions(strategy='maximum_probability', averaging='log')
  assert options.objective == Objective('maximum_probability', 'log')
