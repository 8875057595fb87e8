"""Search for the best constant."""

import math

import pytest

from t5_align.alignment import oracle
from t5_align.temperature import SITES, Temperatures


@pytest.mark.parametrize('sites', [('encoder',), ('decoder',), SITES[::2]])
@pytest.mark.parametrize('best', [0.3, 0.62, 1.3])
def test_finds_the_peak(best, sites):
  asked = []

  def quadratic(temperatures):
    asked.append(getattr(temperatures, sites[0]))
    return 5 - math.log(asked[-1] / best) ** 2

  temperatures, value = oracle.search(quadratic, sites)
  found = getattr(temperatures, sites[0])
  assert found == pytest.approx(best, rel=0.02)
  assert temperatures == Temperatures(**dict.fromkeys(sites, found))
  assert value == pytest.approx(5, abs=1e-3)
  assert len(asked) < 15
  assert all(oracle.LOWEST <= tau <= oracle.HIGHEST for tau in asked)


@pytest.mark.parametrize(
  'objective',
  [
    # Anywhere else is worse, but the search can't know where to look.
    lambda t: 1.0 if t.encoder == 1 else -abs(t.encoder - 0.3),
    lambda t: 0.0,
  ],
)
def test_never_worse_than_none(objective):
  temperatures, value = oracle.search(objective, ('encoder',))
  assert temperatures == Temperatures()
  assert value == objective(Temperatures())
