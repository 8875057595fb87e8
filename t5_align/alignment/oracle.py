"""The best constant temperature there is, found by asking: an upper bound.

The encoder's temperature (the decoder's in a model without an encoder), or the
one that several sites share, with the highest log-likelihood of the right
answers on development samples, by bounded search over ln τ (Brent's method, as
in scipy). It needs answers, which no alignment does, so it bounds what choosing
one number can give.

Synopsis:

    temperatures, value = search(mean_log_likelihood, ('encoder',))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from t5_align.temperature import Temperatures

LOWEST, HIGHEST = 0.2, 1.5
_LOG_TOLERANCE = 0.01


def search(
  objective: Callable[[Temperatures], float], sites: Sequence[str]
) -> tuple[Temperatures, float]:
  """Return the temperature of some sites with the highest objective.

  Args:
    objective: of temperatures; higher is better. Taken to have one peak.
    sites: of 'encoder', 'decoder' and 'cross'; they share the temperature.

  Returns:
    The best temperatures, never worse than none, and their objective.
  """
  from scipy import optimize

  def temperatures(log_tau: float) -> Temperatures:
    return Temperatures(**dict.fromkeys(sites, float(np.exp(log_tau))))

  def at(log_tau: float) -> float:
    return objective(temperatures(log_tau))

  found: Any = optimize.minimize_scalar(
    lambda log_tau: -at(log_tau),
    bounds=(np.log(LOWEST), np.log(HIGHEST)),
    method='bounded',
    options={'xatol': _LOG_TOLERANCE},
  )
  unaligned = at(0.0)
  if unaligned >= -found.fun:
    return Temperatures(), unaligned
  return temperatures(found.x), float(-found.fun)
