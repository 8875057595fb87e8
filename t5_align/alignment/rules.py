"""Every way to choose temperatures, by name, with its source.

A rule takes what is known of the model (`Setting`) and returns temperatures. A
rule from the literature needs the training length at most; a strategy measures
the model; the oracle asks for answers on development data. One entry makes a
new rule known to Python, the commands and gin.

Synopsis:

    RULES['yarn'].temperatures(Setting(config, 512, ('encoder',)))
    RULES['entropy'].source
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import Any

from t5_align.laws import LAWS
from t5_align.temperature import Law, Temperatures

_PAPER = 'Chi, Fan and Rudnicky 2024, arXiv 2311.00684'
_GAUSSIAN = 'random energy model, derived in alignment/gaussian.py'


class SettingError(ValueError):
  """A rule that needs something which isn't known here."""


@dataclasses.dataclass(frozen=True)
class Setting:
  """What rules may use.

  Attributes:
    config: the model's T5Config.
    training_length: tokens; None where it is not known.
    sites: where the logits are to be divided.
    calibrate: runs a calibration with some of its options replaced.
    search: finds the temperature of the sites with the best answers on
      development data.
  """

  config: Any
  training_length: int | None
  sites: tuple[str, ...]
  calibrate: Callable[..., Temperatures] | None = None
  search: Callable[[], Temperatures] | None = None

  def known_training_length(self) -> float:
    """Return the training length, or say that it is missing."""
    if self.training_length is None:
      raise SettingError(
        'the length that the model was trained at is not known; give it as'
        ' training_length.'
      )
    return float(self.training_length)


@dataclasses.dataclass(frozen=True)
class Rule:
  """One way to choose temperatures.

  Attributes:
    temperatures: does it.
    description: one line for people.
    source: where it is from.
  """

  temperatures: Callable[[Setting], Temperatures]
  description: str
  source: str


# Name of a law's coefficient -> what a model has for it.
_COEFFICIENTS: dict[str, Callable[[Setting], float]] = {
  'training_length': Setting.known_training_length,
  'scale': lambda setting: 1 / math.log(setting.known_training_length()),
  'head_dim': lambda setting: float(setting.config.head_dim),
}


def _law(name: str, description: str) -> Rule:
  """Return the law of that name in `laws` as a rule."""
  definition = LAWS[name]

  def temperatures(setting: Setting) -> Temperatures:
    values = (_COEFFICIENTS[c](setting) for c in definition.coefficients)
    law = Law(name, tuple(values))
    return Temperatures(**dict.fromkeys(setting.sites, law))

  return Rule(temperatures, description, definition.source)


def _calibrated(**options):
  def calibrate(setting):
    setting.known_training_length()
    if setting.calibrate is None:
      raise SettingError('a calibration needs a model and text to measure on.')
    return setting.calibrate(**options)

  return calibrate


def _oracle(setting):
  if setting.search is None:
    raise SettingError('the oracle needs tasks with development samples.')
  return setting.search()


RULES: dict[str, Rule] = {
  'none': Rule(lambda _: Temperatures(), 'no temperature', 'T5'),
  'entropy': Rule(
    _calibrated(strategy='entropy', method='calibrated'),
    'calibrated: entropy of attention as at the training length',
    _PAPER,
  ),
  'maximum_probability': Rule(
    _calibrated(strategy='maximum_probability', method='calibrated'),
    'calibrated: largest probability as at the training length',
    _PAPER,
  ),
  'entropy_closed_form': Rule(
    _calibrated(strategy='entropy', method='closed_form'),
    'entropy by formula, from the spread of the logits',
    _GAUSSIAN,
  ),
  'maximum_probability_closed_form': Rule(
    _calibrated(strategy='maximum_probability', method='closed_form'),
    'largest probability by formula, from the spread of the logits',
    _GAUSSIAN,
  ),
  'log_n': _law('log_n', 'ln(training length) / ln(keys)'),
  'ssmax': _law('ssmax', 'as log_n, and above 1 below the training length'),
  'yarn': _law('yarn', "YaRN's attention scale"),
  'infoscale': _law('infoscale', 'InfoScale, by the head dimension'),
  'oracle': Rule(
    _oracle, 'best answers on development data, by search', 'a bound'
  ),
}
