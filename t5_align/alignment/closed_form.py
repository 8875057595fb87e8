"""Temperatures from the spread of the logits at the training length alone.

The logits of a row are taken for Gaussian (`gaussian`), and those of a group of
heads to have the root mean variance of theirs. One measurement at the training
length is all that this takes; where tails are fatter it sharpens too much.

Synopsis:

    solutions, tau = apply_closed_form(objective, unknowns, training, before)
    wide_heads(training, before, tau)        # heads that it does not hold for
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools

import numpy as np

from t5_align.alignment import gaussian
from t5_align.alignment.objectives import Objective
from t5_align.alignment.solve import Solution, Unknown
from t5_align.alignment.statistics import AttentionStatistics, SiteStatistics

_NARROWEST = 1e-6  # spread of logits that the formulas are asked for


def apply_closed_form(
  objective: Objective,
  unknowns: Sequence[Unknown],
  training: AttentionStatistics,
  before: AttentionStatistics,
) -> tuple[list[Solution], dict[str, np.ndarray]]:
  """Find every unknown temperature by formula.

  Args:
    objective: what is kept.
    unknowns: the temperatures; heads and rows of none of them keep τ = 1.
    training: statistics at the training length.
    before: statistics at the target length, for the key counts of its rows and
      to show what was there; neither is needed for anything else.

  Returns:
    As `solve`, with `after` not known (nan).
  """
  tau = {
    site: np.ones(statistics.mean('logit_std').shape)
    for site, statistics in before.sites.items()
  }
  formula = _formula(objective)
  solutions = []
  for unknown in unknowns:
    short, long = training.sites[unknown.site], before.sites[unknown.site]
    sigma, error = _spread(short, unknown.heads)
    first = float(short.keys[0])
    # A decoder beside an encoder sees no more keys than it did.
    keys = max(first, float(long.keys[unknown.group]))
    value, low, high = (
      float(formula(max(s, _NARROWEST), first, keys))
      for s in (sigma, sigma - error, sigma + error)
    )
    tau[unknown.site][unknown.heads, unknown.group] = value
    solutions.append(
      Solution(
        unknown=unknown,
        temperature=value,
        before=float(unknown.mean(long.mean(objective.statistic))),
        after=float('nan'),
        ci95=(low, high) if error > 0 else None,  # nan: not known
        status='solved',
      )
    )
  return solutions, tau


def model_curve(
  objective: Objective, training: SiteStatistics, num_keys: Sequence[float]
) -> list[float]:
  """Return the one temperature of a whole site, for rows of so many keys.

  Args:
    objective: what is kept.
    training: the site at the training length.
    num_keys: from the training length up.
  """
  heads = np.ones(training.mean('logit_std').shape[:2], bool)
  sigma = max(_spread(training, heads)[0], _NARROWEST)
  formula, first = _formula(objective), float(training.keys[0])
  return [float(formula(sigma, first, max(n, first))) for n in num_keys]


def wide_heads(
  training: AttentionStatistics,
  before: AttentionStatistics,
  tau: Mapping[str, np.ndarray],
) -> list[str]:
  """Name the heads, as site layer.head, that the formulas don't hold for.

  Args:
    training: statistics at the training length.
    before: statistics at the target length.
    tau: the temperatures there, site -> [L, N, G].

  Returns:
    Heads with a variance of the logits of ln(keys) or more, before or after
    they are divided by τ.
  """
  names = []
  for site, statistics in training.sites.items():
    spread = statistics.mean('logit_std')[..., 0]
    aligned = spread / tau[site][..., -1]
    holds = gaussian.entropy_valid(spread, statistics.keys[0])
    holds &= gaussian.entropy_valid(aligned, before.sites[site].keys[-1])
    names += [f'{site} {i}.{n}' for i, n in zip(*np.nonzero(~holds))]
  return names


def _formula(objective: Objective) -> Callable[..., gaussian.Values]:
  if objective.strategy == 'entropy':
    return gaussian.entropy_temperature
  return functools.partial(
    gaussian.maximum_probability_temperature, averaging=objective.averaging
  )


def _spread(short, heads):
  """Root mean variance of some heads, and half of its 95 % interval or 0."""
  from scipy import stats

  each = short.by_sequence('logit_variance')[..., 0][:, heads].mean(-1)
  sigma = float(np.sqrt(short.mean('logit_variance')[heads, 0].mean()))
  error = float(short.stderr_of_mean(each))
  if not np.isfinite(error) or sigma == 0:
    return sigma, 0.0
  quantile = stats.t.ppf(0.975, short.degrees_of_freedom)
  return sigma, float(quantile * error / (2 * sigma))
