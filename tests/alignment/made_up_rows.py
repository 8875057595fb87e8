"""A model of rows of logits in NumPy, measured as `AttentionMeter` does it."""

from collections.abc import Mapping

import numpy as np

from t5_align.alignment.objectives import Objective, group_heads
from t5_align.alignment.solve import Unknown, solve
from t5_align.alignment.statistics import (
  STATISTICS,
  AttentionStatistics,
  SiteStatistics,
)
from tests.alignment import full_attention


class Rows:
  """Logits of one site, [E, L, N, R, S]; one group of rows.

  Attributes:
    logits: at τ = 1 everywhere.
    coupling: how much ln τ of the layers below scales those of a layer.
  """

  def __init__(self, logits: np.ndarray, coupling: float = 0.0):
    self.logits = logits
    self.coupling = coupling
    self.num_passes = 0

  def __call__(self, tau: Mapping[str, np.ndarray], factors=(1.0,)):
    """Measure; `solve` asks so."""
    self.num_passes += 1
    log_tau = np.log(tau['encoder'][..., 0])
    below = np.cumsum(log_tau.mean(1)) - log_tau.mean(1)
    # [L, N] -> [L, N, R, S]
    scale = np.exp(self.coupling * below[:, None] - log_tau)[..., None, None]
    values = self._values(self.logits * scale)
    swept = [self._values(self.logits * scale / f) for f in factors]
    rows = np.full((len(self.logits), 1), float(self.logits.shape[-2]))
    site = SiteStatistics(
      site='encoder',
      sums=values,
      rows=rows,
      key_sum=rows * self.logits.shape[-1],
      sweep={
        name: np.stack([one[name] for one in swept]) for name in STATISTICS[:3]
      },
    )
    return AttentionStatistics(self.logits.shape[-1], {'encoder': site})

  @property
  def ones(self) -> dict[str, np.ndarray]:
    return {'encoder': np.ones((*self.logits.shape[1:3], 1))}

  def _values(self, logits):
    values = full_attention.rows(logits, causal=False)
    return {name: value.sum(-1)[..., None] for name, value in values.items()}


def align(
  short: Rows,
  long: Rows,
  strategy: str = 'entropy',
  granularity: str = 'head',
  averaging: str = 'arithmetic',
  **options,
):
  """Solve for the temperatures of the longer rows; as `calibrate` does it."""
  objective = Objective(strategy, averaging)
  site = short(short.ones).sites['encoder']
  mean = site.mean(objective.statistic)[..., 0]
  each = site.by_sequence(objective.statistic)[..., 0]
  unknowns = [
    Unknown(
      'encoder',
      layer,
      head,
      heads,
      0,
      target=float(mean[heads].mean()),
      target_stderr=float(site.stderr_of_mean(each[:, heads].mean(-1))),
    )
    for layer, head, heads in group_heads(
      granularity, np.ones(mean.shape, bool)
    )
  ]
  shapes = {'encoder': (*mean.shape, 1)}
  return solve(long, objective, unknowns, shapes, **options)


def gaussian(
  seed: int,
  length: int,
  sigma: float = 1.5,
  *,
  sequences: int = 4,
  layers: int = 1,
  heads: int = 1,
  rows: int = 8,
  coupling: float = 0.0,
) -> Rows:
  random = np.random.default_rng(seed)
  shape = (sequences, layers, heads, rows, length)
  return Rows(sigma * random.normal(size=shape), coupling)
