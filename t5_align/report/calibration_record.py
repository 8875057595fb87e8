"""A calibration as its files tell it.

A measurement is one site at one length under one alignment; where a decoder's
rows see different numbers of keys, one such group of them. What a site looked
like before and after is told by its rows with the most keys.

Synopsis:

    record = read_calibration('out')                  # calibration_files
    record.find('encoder', 'none', 1024)              # measurements, by keys
    view = record.view('encoder')
    view.training, view.before, view.after            # each one measurement
    record.head_solutions('encoder')[0, 3].temperature
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from jaxtyping import Float
import numpy as np

from t5_align import results
from t5_align.temperature import SITES

LEFT_ALONE = 'left_alone'  # the status of what was not aligned
KINDS = ('content', 'position', 'averaging', 'steady')
STATISTIC_LABELS = {
  'max_probability': 'P_max',
  'entropy_nats': 'entropy (nats)',
}
# How a rule is called, where its name doesn't say it.
_RULE_LABELS = {
  'log_n': 'log-n',
  'ssmax': 'SSMax',
  'yarn': 'YaRN',
  'infoscale': 'InfoScale',
}


def known_mean(values: np.ndarray, axis: Any = None) -> Any:
  """Return the mean of the numbers that are known; nan where none is."""
  masked = np.ma.masked_invalid(values).mean(axis)
  return np.ma.filled(np.ma.asarray(masked, np.float64), np.nan)[()]


@dataclasses.dataclass(frozen=True)
class Measurement:
  """Attention of one site at one length, under one alignment; nan: unknown.

  Attributes:
    site: encoder, decoder or cross.
    length: tokens of the input.
    keys: mean number of keys that the rows see.
    alignment: 'none', or what the calibration is called.
    max_probability: mean over rows of the largest probability.
    entropy_nats: mean over rows of the entropy.
    bias_overlap: the share that position alone would give; None if not known.
    distances: lower edges of the buckets of |key - query|, in tokens.
    distance_mass: attention in each bucket; None if not known.
  """

  site: str
  length: int
  keys: float
  alignment: str
  max_probability: Float[np.ndarray, 'L N']
  entropy_nats: Float[np.ndarray, 'L N']
  bias_overlap: Float[np.ndarray, 'L N'] | None
  distances: tuple[int, ...]
  distance_mass: Float[np.ndarray, 'D L N'] | None


@dataclasses.dataclass(frozen=True)
class Solution:
  """One temperature, and the statistic that it was solved for; nan: unknown.

  Attributes:
    site: whose attention it divides.
    layer: None where it has all layers.
    head: None where it has all heads.
    length: tokens of the input.
    keys: mean number of keys that its rows see.
    target: the statistic at the training length.
    before: the statistic at this length, without the temperature.
    after: with it.
    temperature: τ.
    ci95: its interval, or None.
    status: solved, sharper, saturated, clamped or left_alone.
  """

  site: str
  layer: int | None
  head: int | None
  length: int
  keys: float
  target: float
  before: float
  after: float
  temperature: float
  ci95: tuple[float, float] | None
  status: str


@dataclasses.dataclass(frozen=True)
class Rule:
  """τ by number of keys, of one rule to compare with.

  Attributes:
    name: such as 'log_n'.
    site: where it was evaluated.
    points: (keys, τ), ascending.
  """

  name: str
  site: str
  points: tuple[tuple[float, float], ...]

  @property
  def label(self) -> str:
    """What people call it."""
    return _RULE_LABELS.get(self.name, self.name.replace('_', ' '))


@dataclasses.dataclass(frozen=True)
class View:
  """One site before and after: its rows with the most keys.

  Attributes:
    training: at the training length.
    before: at the longest length, without alignment; None if not measured.
    after: at the longest length, aligned; None if not measured.
  """

  training: Measurement
  before: Measurement | None
  after: Measurement | None


@dataclasses.dataclass(frozen=True)
class CalibrationRecord:
  """A calibration, from its files.

  Attributes:
    header: how it was made: versions, device, weights.
    settings: how temperatures were chosen, and on what data.
    measurements: all of them.
    rules: to compare with; may be none.
    solutions: the temperatures, in the unit of the strategy's statistic.
    kinds: (site, layer, head) -> why it disperses or doesn't, of KINDS.
    warnings: what to know before trusting the result.
  """

  header: Mapping[str, Any]
  settings: Mapping[str, Any]
  measurements: tuple[Measurement, ...]
  rules: tuple[Rule, ...]
  solutions: tuple[Solution, ...]
  kinds: Mapping[tuple[str, int, int], str]
  warnings: tuple[str, ...]

  @property
  def model(self) -> str:
    """The last part of the checkpoint's path."""
    return pathlib.PurePath(self.header['checkpoint']['path']).name

  @property
  def strategy(self) -> str:
    """What is kept: 'entropy' or 'maximum_probability'."""
    return self.settings['strategy']

  @property
  def training_length(self) -> int:
    return self.settings['training_length']

  @property
  def target_length(self) -> int:
    """The longest length that was calibrated, in tokens."""
    return max(self.settings['lengths'])

  @property
  def sites(self) -> tuple[str, ...]:
    """All that were measured, the encoder first."""
    found = dict.fromkeys(m.site for m in self.measurements)
    return tuple(sorted(found, key=(*SITES, *found).index))

  @property
  def aligned(self) -> str:
    """The name of what is compared with 'none'."""
    names = [m.alignment for m in self.measurements]
    return next((n for n in names if n != results.BASELINE), self.strategy)

  @property
  def aligned_label(self) -> str:
    """How tables and pictures name that."""
    return f'aligned ({self.aligned.replace("_", " ")})'

  def find(
    self, site: str, alignment: str, length: int | None = None
  ) -> list[Measurement]:
    """Return measurements by ascending number of keys; None: of any length."""
    found = [
      m
      for m in self.measurements
      if (m.site, m.alignment) == (site, alignment)
      and length in (None, m.length)
    ]
    return sorted(found, key=lambda m: m.keys)

  def has_groups(self, site: str) -> bool:
    """Return whether rows of one input were told apart by their keys."""
    places = [
      (m.alignment, m.length) for m in self.measurements if m.site == site
    ]
    return len(places) > len(set(places))

  def view(self, site: str) -> View:
    """Return a site before and after."""

    def last(alignment: str, length: int) -> Measurement | None:
      return (self.find(site, alignment, length) or [None])[-1]

    training = last(results.BASELINE, self.training_length)
    assert training is not None  # the reader has checked
    return View(
      training,
      last(results.BASELINE, self.target_length),
      last(self.aligned, self.target_length),
    )

  def shown_solutions(self, site: str) -> list[Solution]:
    """Return those for the rows with the most keys, in order of layers."""
    own = [s for s in self.solutions if s.site == site]
    most = max((s.keys for s in own), default=0)
    return [s for s in own if s.keys == most]

  def head_solutions(self, site: str) -> dict[tuple[int, int], Solution]:
    """Return (layer, head) -> its temperature; others were left alone."""
    found = {}
    by_place = {(s.layer, s.head): s for s in self.shown_solutions(site)}
    for layer, head in np.ndindex(self.view(site).training.entropy_nats.shape):
      kind = self.kinds.get((site, layer, head))
      if self.settings['selective'] and kind != 'content':
        continue
      for place in ((layer, head), (layer, None), (None, None)):
        if place in by_place:
          if by_place[place].status != LEFT_ALONE:
            found[layer, head] = by_place[place]
          break
    return found
