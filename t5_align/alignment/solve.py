"""Find the temperatures that give attention its training-length statistic.

For any logits z, with β = 1/τ,

    dH/dβ = -β Var_p(z) <= 0        d ln P_max / dβ = z_max - E_p z >= 0

so each statistic is monotone in its own temperature, and there is one solution
or none. One pass of the model measures every layer at several temperatures (a
sweep), and each moves to the root of its own curve. That changes what the
layers above read, so the next pass does the same again: heads of one layer
don't act on each other, so the first layer stays where it is after one pass,
the second after another, and in practice all settle together in a few.

Where layers share a temperature, moving it also moves what they read, and the
curve of one pass is not the whole answer. Its step is scaled by Aitken's factor
(B. M. Irons and R. C. Tuck, "A version of the Aitken accelerator for computer
iteration", 1969), which learns that answer from the last two passes.

Synopsis:

    unknowns = [Unknown('encoder', 0, None, heads, group=0, target=2.6)]
    solutions, tau = solve(measure, objective, unknowns,
                           shapes={'encoder': (L, N, G)})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses

import numpy as np

from t5_align.alignment.objectives import Objective
from t5_align.alignment.statistics import AttentionStatistics

# ln τ stays in here: a root further out is taken for none.
_BOUND = np.log(64.0)
_NUM_FACTORS = 9
_FIRST_SPAN = np.log(8.0)
_NARROWEST_SPAN = 0.01
_MAX_PASSES = 60
_ROUNDING = 1e-5  # nats, of the entropy of logits of 40 in float32

# (site -> τ [L, N, G], factors [M]) -> statistics under them.
Measure = Callable[[Mapping[str, np.ndarray], np.ndarray], AttentionStatistics]


class SolveError(ValueError):
  """Temperatures that did not settle."""


@dataclasses.dataclass(frozen=True)
class Unknown:
  """One temperature to find, and the heads and rows that share it.

  Attributes:
    site: whose attention it divides.
    layer: of its heads; None where it has those of all layers.
    head: None where it has all heads.
    heads: True where a head has this temperature, [L, N].
    group: index of its group of rows.
    target: the statistic that it should have, averaged as the objective says.
    target_stderr: of the target, over sequences; nan if not known.
  """

  site: str
  layer: int | None
  head: int | None
  heads: np.ndarray
  group: int
  target: float
  target_stderr: float = float('nan')

  @property
  def rank(self) -> int:
    """Its place in a forward pass, which later places depend on."""
    if self.site == 'encoder':
      return (self.layer or 0) - 1_000_000
    return 2 * (self.layer or 0) + (self.site == 'cross')

  def mean(self, values: np.ndarray) -> np.ndarray:
    """Average over its heads and rows: [..., L, N, G] -> [...]."""
    return np.asarray(values[..., self.group][..., self.heads].mean(-1))


@dataclasses.dataclass(frozen=True)
class Solution:
  """A temperature that was found.

  Attributes:
    unknown: what it was looked for.
    temperature: τ; 1 where nothing was found or it was clamped.
    before: the statistic at τ = 1 at this site.
    after: the statistic at the temperature.
    ci95: interval of τ from the spread over sequences, at the training length
      and at this one; None where it can't be known (one sequence).
    status: 'solved'; 'sharper', where attention is sharper than at the training
      length: τ is above 1, and so is its interval, if known; 'clamped', where τ
      would be above 1 and was set to 1; 'saturated', where no temperature
      reaches the target; 'left_alone', where the rows see no more keys than in
      training, or than at a shorter length, and have the temperature of those.
  """

  unknown: Unknown
  temperature: float
  before: float
  after: float
  ci95: tuple[float, float] | None
  status: str


def solve(
  measure: Measure,
  objective: Objective,
  unknowns: Sequence[Unknown],
  shapes: Mapping[str, tuple[int, int, int]],
  *,
  tolerance: float = 2e-3,
  clamp: bool = False,
) -> tuple[list[Solution], dict[str, np.ndarray]]:
  """Find every unknown temperature.

  Args:
    measure: runs the model.
    objective: what is compared.
    unknowns: disjoint; heads and rows of none of them keep τ = 1.
    shapes: site -> (L, N, G).
    tolerance: how close the statistic must be, as a share of its target.
    clamp: set temperatures above 1 to 1.

  Returns:
    A solution for each unknown, and all temperatures, site -> [L, N, G].

  Raises:
    SolveError: the passes did not settle.
  """
  state = _State(objective, unknowns, tolerance, clamp)
  span = _FIRST_SPAN
  for _ in range(_MAX_PASSES):
    steps = np.linspace(-span, span, _NUM_FACTORS)
    tau = _spread(unknowns, state.log_tau, shapes)
    statistics = measure(tau, np.exp(steps))
    state.read(statistics)
    if state.settled.all():
      return state.solutions(statistics, steps), tau
    # The next sweep covers twice the largest move: both shrink together.
    largest = state.move(steps)
    span = float(np.clip(2 * largest, _NARROWEST_SPAN, _FIRST_SPAN))
  raise SolveError(
    f'{(~state.settled).sum()} of {len(unknowns)} temperatures did not settle'
    f' in {_MAX_PASSES} passes; raise the tolerance, {tolerance:g}.'
  )


class _State:
  """Where each unknown is, and what the last pass said of it."""

  def __init__(self, objective, unknowns, tolerance, clamp):
    self.objective = objective
    self.unknowns = unknowns
    self.clamp = clamp
    self.targets = np.array([u.target for u in unknowns])
    # A logarithm's own scale is 1.
    is_log = objective.statistic.startswith('log')
    self.tolerance = tolerance * (1.0 if is_log else np.abs(self.targets))
    if objective.strategy == 'entropy':
      self.tolerance = np.maximum(self.tolerance, _ROUNDING)
    self.ranks = np.array([u.rank for u in unknowns])
    self.is_shared = np.array([u.layer is None for u in unknowns])
    self.log_tau = np.zeros(len(unknowns))
    self.before = np.full(len(unknowns), np.nan)
    self.status = np.full(len(unknowns), 'solved', object)
    self.scale = np.ones(len(unknowns))  # Aitken's factor
    self.last_roots = None

  def read(self, statistics: AttentionStatistics) -> None:
    """Take a pass: values, curves, and who has settled."""
    name = self.objective.statistic
    means = {k: v.mean(name) for k, v in statistics.sites.items()}
    swept = {k: v.sweep_mean(name) for k, v in statistics.sites.items()}
    self.values = np.array([u.mean(means[u.site]) for u in self.unknowns])
    self.curves = np.stack([u.mean(swept[u.site]) for u in self.unknowns])
    if np.isnan(self.before).all():
      self.before = self.values
    close = np.abs(self.values - self.targets) <= self.tolerance
    reset = self._give_up(close)
    # One more pass under what was reset, which the layers above read.
    self.settled = (close | (self.status != 'solved')) & ~reset

  def _give_up(self, close):
    """Leave alone what has no solution; tell whose τ went back to 1."""
    is_open = ~close & (self.status == 'solved')
    if not is_open.any():
      return is_open
    # Layers above may yet change, as what they read does.
    lowest = is_open & (self.ranks == self.ranks[is_open].min())
    saturated = lowest & (np.abs(self.log_tau) >= _BOUND)
    self.status[saturated] = 'saturated'
    self.log_tau[saturated] = 0.0
    if self.clamp:
      flatter = self.values > self.targets
      if not self.objective.rises_with_temperature:
        flatter = ~flatter
      clamped = lowest & ~flatter & (self.log_tau == 0) & ~saturated
      self.status[clamped] = 'clamped'
    return saturated

  def move(self, steps: np.ndarray) -> float:
    """Go to the roots of the curves; return the largest move."""
    # What np.interp wants of a monotone curve: rising values. Where it is flat
    # the root is at the end that sharpens or flattens as the target asks.
    if not self.objective.rises_with_temperature:
      steps = steps[::-1]
    curves = self.curves if steps[0] < 0 else self.curves[:, ::-1]
    roots = np.array(
      [
        np.interp(t, np.maximum.accumulate(curve), steps)
        for curve, t in zip(curves, self.targets)
      ]
    )
    if self.last_roots is not None:
      change = self.last_roots - roots
      factor = self.last_roots / np.where(change == 0, np.inf, change)
      learned = np.clip(self.scale * factor, 0.2, 2.0)
      use = self.is_shared & (change != 0) & (factor > 0)
      self.scale = np.where(use, learned, self.scale)
    self.last_roots = roots
    moved = self.log_tau + self.scale * roots
    moved = np.clip(moved, -_BOUND, 0.0 if self.clamp else _BOUND)
    moved = np.where(self.status == 'solved', moved, self.log_tau)
    largest = np.abs(moved - self.log_tau).max()
    self.log_tau = moved
    return largest

  def solutions(self, statistics, steps) -> list[Solution]:
    found = []
    for i, unknown in enumerate(self.unknowns):
      status, interval = str(self.status[i]), None
      tau = float(np.exp(self.log_tau[i]))
      if status == 'solved':
        interval = self._interval(i, statistics, steps)
        # Where 1 is in the interval, chance alone may have made it sharper.
        if (tau if interval is None else interval[0]) > 1:
          status = 'sharper'
      found.append(
        Solution(
          unknown=unknown,
          temperature=tau,
          before=float(self.before[i]),
          after=float(self.values[i]),
          ci95=interval,
          status=status,
        )
      )
    return found

  def _interval(self, i, statistics, steps):
    """Interval of τ by the delta method, t-distributed over sequences."""
    from scipy import stats

    unknown = self.unknowns[i]
    site = statistics.sites[unknown.site]
    if site.degrees_of_freedom < 1 or not np.isfinite(unknown.target_stderr):
      return None
    each = unknown.mean(site.by_sequence(self.objective.statistic))
    here = site.stderr_of_mean(each)
    slope = np.gradient(self.curves[i], steps)[_NUM_FACTORS // 2]
    # Of one kind of text there may be one sequence only.
    if slope == 0 or not np.isfinite(here):
      return None
    # What the whole model does to it, not the one layer alone.
    slope = slope / self.scale[i]
    error = np.hypot(here, unknown.target_stderr) / abs(slope)
    width = stats.t.ppf(0.975, site.degrees_of_freedom) * error
    low, high = np.exp(self.log_tau[i] + np.array([-width, width]))
    return float(low), float(high)


def _spread(unknowns, log_tau, shapes) -> dict[str, np.ndarray]:
  """Give each head and group its unknown's τ, site -> [L, N, G]."""
  tau = {site: np.ones(shape) for site, shape in shapes.items()}
  for unknown, value in zip(unknowns, log_tau):
    tau[unknown.site][unknown.heads, unknown.group] = np.exp(value)
  return tau
