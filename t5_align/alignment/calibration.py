"""A calibration: how temperatures are chosen, and what was found.

Synopsis:

    options = CalibrationOptions(strategy='entropy', granularity='head')
    calibration = calibrate(network, params, text, 512, [16_384], options)
    calibration.record()            # beside the temperatures in their file
    calibration.measurements()      # every statistic, for tables and plots
    calibration.attention()         # their means over layers and heads
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from t5_align.alignment.objectives import Objective, check_name, group_heads
from t5_align.alignment.solve import Solution
from t5_align.alignment.statistics import AttentionStatistics
from t5_align.temperature import SITES, Temperatures, mean_over_heads

METHODS = ('calibrated', 'closed_form')
FORMS = ('constant', 'by_length')
_PLACE = ('site', 'length', 'keys', 'alignment')  # of a measurement


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
  """How temperatures are chosen.

  Attributes:
    strategy: 'entropy' or 'maximum_probability': what is kept.
    method: 'calibrated' solves on the model; 'closed_form' takes logits for
      Gaussian and needs their spread at the training length only.
    granularity: 'model' (one temperature a site), 'layer' or 'head'.
    sites: of 'encoder', 'decoder', 'cross'; None: the encoder, or the decoder
      of a model without one.
    form: 'constant', or 'by_length' to follow each row's number of keys. None
      is 'constant', and 'by_length' for a decoder-only model.
    averaging: 'arithmetic', or 'log' for the maximum probability.
    selective: align only heads that disperse because of content.
    clamp: set a temperature above 1, where attention is sharper than at the
      training length, to 1.
    tolerance: how close the statistic must come, as a share of its target.
    num_sequences: at each target length.
    num_training_sequences: at the training length; None for eight times as
      many, which are as much work as one of them at eight times the length.
    rows_per_sequence: whole rows that are looked at.
    measure_between: also measure, for the record, between the training length
      and the longest target, at every octave or another `length_ratio`.
    tokens_per_batch: input tokens that are computed together.
    length_ratio: of one length to the next: of `measure_between`, and where an
      evaluation's prompts decide the lengths.
  """

  strategy: str = 'entropy'
  method: str = 'calibrated'
  granularity: str = 'model'
  sites: Sequence[str] | None = None
  form: str | None = None
  averaging: str = 'arithmetic'
  selective: bool = False
  clamp: bool = False
  tolerance: float = 2e-3
  num_sequences: int = 8
  num_training_sequences: int | None = None
  rows_per_sequence: int = 16
  measure_between: bool = False
  tokens_per_batch: int = 16_384
  length_ratio: int = 2

  def __post_init__(self):
    Objective(self.strategy, self.averaging)
    check_name('method', self.method, METHODS)
    group_heads(self.granularity, np.ones((1, 1), bool))
    if self.form is not None:
      check_name('form', self.form, FORMS)
    if self.sites is not None:
      sites = (self.sites,) if isinstance(self.sites, str) else self.sites
      object.__setattr__(self, 'sites', tuple(sites))
      self._check_sites()
    self._check_numbers()

  def _check_sites(self):
    if not self.sites:
      raise ValueError(f'sites is empty; wanted some of {", ".join(SITES)}.')
    for site in self.sites:
      check_name('site', site, SITES)

  def _check_numbers(self):
    if not isinstance(self.tolerance, float) or not 0 < self.tolerance < 1:
      raise ValueError(
        f'tolerance is {self.tolerance}; wanted a share between 0 and 1, such'
        ' as 0.002.'
      )
    fields = ['num_sequences', 'rows_per_sequence', 'tokens_per_batch']
    if not isinstance(self.length_ratio, int) or self.length_ratio < 2:
      raise ValueError(
        f'length_ratio is {self.length_ratio}; wanted an integer from 2 up.'
      )
    if self.num_training_sequences is not None:
      fields.append('num_training_sequences')
    for field in fields:
      value = getattr(self, field)
      if not isinstance(value, int) or value < 1:
        raise ValueError(f'{field} is {value}; wanted a number from 1 up.')

  @property
  def objective(self) -> Objective:
    return Objective(self.strategy, self.averaging)


@dataclasses.dataclass(frozen=True)
class Calibration:
  """What a calibration found.

  Attributes:
    temperatures: to divide the attention logits by.
    options: how they were chosen.
    training_length: tokens.
    lengths: target lengths, tokens, ascending.
    training: statistics at the training length, without temperatures.
    before: statistics without temperatures, at each target length and those in
      between that were measured, ascending.
    after: statistics with them, at the same lengths.
    solutions: length -> what was found there.
    kinds: site -> the kind of each head, [L, N]; see `selection`.
    num_sequences: length -> sequences that were measured.
    num_passes: passes of the model over the sequences of a length.
    warnings: what a user should know before trusting the result.
  """

  temperatures: Temperatures
  options: CalibrationOptions
  training_length: int
  lengths: tuple[int, ...]
  training: AttentionStatistics
  before: Mapping[int, AttentionStatistics]
  after: Mapping[int, AttentionStatistics]
  solutions: Mapping[int, Sequence[Solution]]
  kinds: Mapping[str, np.ndarray]
  num_sequences: Mapping[int, int]
  num_passes: int
  warnings: tuple[str, ...]

  @property
  def name(self) -> str:
    """What results call its temperatures."""
    strategy = self.options.strategy
    is_closed = self.options.method == 'closed_form'
    return f'{strategy}_closed_form' if is_closed else strategy

  def record(self) -> dict[str, Any]:
    """Return how the temperatures were found, in JSON types."""
    options = dataclasses.asdict(self.options)
    return {
      **options,
      'sites': list(self.options.sites or ()),
      'training_length': self.training_length,
      'lengths': list(self.lengths),
      'forward_passes': self.num_passes,
      'solutions': [
        _solution_record(length, solution, self.before[length])
        for length, found in self.solutions.items()
        for solution in found
      ],
      'heads': [
        {'site': site, 'layer': i, 'head': n, 'kind': str(kinds[i, n])}
        for site, kinds in self.kinds.items()
        for i, n in np.ndindex(kinds.shape)
      ],
      'warnings': list(self.warnings),
    }

  def measurements(self) -> list[dict[str, Any]]:
    """Return all statistics, one record a site, length and alignment."""
    records = self.training.to_json('none')
    for length, before in self.before.items():
      records += before.to_json('none')
      records += self.after[length].to_json(self.name)
    return records

  def attention(self) -> list[dict[str, Any]]:
    """Return means over layers and heads, one a record of `measurements`.

    With the mean temperature of rows that see as many keys.
    """
    return [
      {
        **{name: record[name] for name in _PLACE},
        'maximum_probability': float(np.mean(record['max_probability'])),
        'entropy_nats': float(np.mean(record['entropy_nats'])),
        'temperature': self._temperature(record),
      }
      for record in self.measurements()
    ]

  def _temperature(self, record: Mapping[str, Any]) -> float:
    if record['alignment'] != self.name:
      return 1.0
    tau = getattr(self.temperatures, record['site'])
    return float(mean_over_heads(tau, [record['keys']])[0])


def _solution_record(length, solution, before):
  unknown = solution.unknown
  return {
    'site': unknown.site,
    'layer': unknown.layer,
    'head': unknown.head,
    'length': length,
    'keys': float(before.sites[unknown.site].keys[unknown.group]),
    'target': unknown.target,
    'before': solution.before,
    'after': None if math.isnan(solution.after) else solution.after,
    'temperature': solution.temperature,
    'ci95': solution.ci95 and list(solution.ci95),
    'status': solution.status,
  }
