"""The search finds the peak, and never does worse than no temperature."""

import math

import pytest

from t5_align.alignment import oracle
from t5_align.temperature import Temperatures


@pytest.mark.parametrize('best', [0.3, 0.62, 1.2])
def test_finds_the_peak(best):
  calls = []

  def objective(temperatures):
    calls.append(temperatures)
    return -(math.log(temperatures.encoder / best) ** 2)

  found, value = oracle.search(objective, 'encoder')
  assert found.encoder == pytest.approx(best, rel=0.02)
  assert value == objective(found)
  assert found.decoder == found.cross == 1.0
  assert len(calls) < 40  # each is an evaluation of the model


def test_never_worse_than_none():
  """A narrow peak at 1 that a search passes by."""
  found, value = oracle.search(
    lambda temperatures: 1.0 if temperatures.cross == 1.0 else 0.0, 'cross'
  )
  assert (found, value) == (Temperatures(), 1.0)
