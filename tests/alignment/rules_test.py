"""Every rule by name: its temperatures, what it needs, where it is from."""

import numpy as np
import pytest

from t5_align import temperature
from t5_align.alignment import rules
from t5_align.alignment.rules import RULES, Setting, SettingError
from t5_align.config import T5Config
from t5_align.temperature import Temperatures

CONFIG = T5Config(vocab_size=8, num_heads=2, num_encoder_layers=1, head_dim=64)
KEYS = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0]
# L_tr = 512. Sources: see `laws`; YaRN and InfoScale from their codes.
EXPECTED = {
  'none': [1.0] * 5,
  'log_n': [0.9, 0.8182, 0.75, 0.6923, 0.6429],
  'ssmax': [0.9, 0.8182, 0.75, 0.6923, 0.6429],
  'infoscale': [0.9537, 0.9140, 0.8797, 0.8495, 0.8229],
  'yarn': [0.8746, 0.7713, 0.6853, 0.6130, 0.5515],
}


@pytest.mark.parametrize('name', EXPECTED)
def test_rules_of_length(name):
  setting = Setting(CONFIG, 512, ('encoder', 'cross'))
  found = RULES[name].temperatures(setting)
  for site in ('encoder', 'cross'):
    tau = temperature.mean_over_heads(getattr(found, site), KEYS)
    np.testing.assert_allclose(tau, EXPECTED[name], atol=5.1e-5)
  assert found.decoder == 1.0


def test_every_rule_has_a_source_and_does_what_it_says():
  """Whoever adds a rule adds its expectation here."""
  calibrated = {
    f'{strategy}{end}'
    for strategy in ('entropy', 'maximum_probability')
    for end in ('', '_closed_form')
  }
  assert set(RULES) == {*EXPECTED, *calibrated, 'oracle'}
  assert all(rule.source and rule.description for rule in RULES.values())


@pytest.mark.parametrize(
  'name, options',
  [
    ('entropy', ('entropy', 'calibrated')),
    ('maximum_probability', ('maximum_probability', 'calibrated')),
    ('entropy_closed_form', ('entropy', 'closed_form')),
    (
      'maximum_probability_closed_form',
      ('maximum_probability', 'closed_form'),
    ),
  ],
)
def test_strategies_calibrate(name, options):
  wanted = Temperatures(encoder=0.7)

  def calibrate(strategy, method):
    assert (strategy, method) == options
    return wanted

  setting = Setting(CONFIG, 512, ('encoder',), calibrate=calibrate)
  assert RULES[name].temperatures(setting) is wanted
  with pytest.raises(SettingError, match='text to measure on'):
    RULES[name].temperatures(Setting(CONFIG, 512, ('encoder',)))


def test_what_a_rule_needs_and_lacks():
  for name in ('log_n', 'ssmax', 'yarn', 'infoscale', 'entropy'):
    with pytest.raises(SettingError, match='training_length'):
      RULES[name].temperatures(Setting(CONFIG, None, ('encoder',)))
  with pytest.raises(SettingError, match='development samples'):
    RULES['oracle'].temperatures(Setting(CONFIG, 512, ('encoder',)))
  wanted = Temperatures(encoder=0.5)
  setting = Setting(CONFIG, 512, ('encoder',), search=lambda: wanted)
  assert RULES['oracle'].temperatures(setting) is wanted


def test_unknown_rule_names_the_nearest():
  with pytest.raises(ValueError, match="did you mean 'yarn'"):
    rules.get_rule('yran')
