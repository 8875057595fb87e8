"""Every way to choose temperatures, by name."""

import numpy as np
import pytest

from t5_align import temperature
from t5_align.alignment.rules import RULES, Setting, SettingError
from t5_align.config import T5Config
from t5_align.temperature import Law, Temperatures

CONFIG = T5Config(vocab_size=8, head_dim=64)
LENGTHS = (1024, 2048, 4096, 8192, 16384)
# τ at LENGTHS where the training length is 512 and heads have 64 dimensions.
GOLDEN = {
  'log_n': (0.9000, 0.8182, 0.7500, 0.6923, 0.6429),
  'ssmax': (0.9000, 0.8182, 0.7500, 0.6923, 0.6429),
  'infoscale': (0.9537, 0.9140, 0.8797, 0.8495, 0.8229),
  'yarn': (0.8746, 0.7713, 0.6853, 0.6130, 0.5515),
}
STRATEGIES = {
  'entropy': dict(strategy='entropy', method='calibrated'),
  'maximum_probability': dict(
    strategy='maximum_probability', method='calibrated'
  ),
  'entropy_closed_form': dict(strategy='entropy', method='closed_form'),
  'maximum_probability_closed_form': dict(
    strategy='maximum_probability', method='closed_form'
  ),
}
CHOSEN = Temperatures(encoder=0.8)


def setting(training_length=512, **options):
  return Setting(CONFIG, training_length, ('encoder', 'cross'), **options)


def test_no_rule_is_left_out_here():
  assert set(RULES) == {'none', 'oracle', *GOLDEN, *STRATEGIES}
  for rule in RULES.values():
    assert rule.source and rule.description


@pytest.mark.parametrize('name', GOLDEN)
def test_baselines(name):
  chosen = RULES[name].temperatures(setting())
  assert chosen.decoder == 1.0  # not asked for
  for law in (chosen.encoder, chosen.cross):
    assert isinstance(law, Law)
    counts = np.array([LENGTHS])
    tau = np.asarray(temperature.resolve(law, lambda counts=counts: counts))
    np.testing.assert_allclose(tau[0, 0], GOLDEN[name], atol=5e-5)
    at_training = temperature.resolve(law, lambda: np.array([[512]]))
    np.testing.assert_allclose(at_training, 1, rtol=1e-6)


def test_none():
  assert RULES['none'].temperatures(setting(None)) == Temperatures()


@pytest.mark.parametrize('name', STRATEGIES)
def test_strategies_calibrate(name):
  asked = []

  def calibrate(**options):
    asked.append(options)
    return CHOSEN

  chosen = RULES[name].temperatures(setting(calibrate=calibrate))
  assert chosen is CHOSEN and asked == [STRATEGIES[name]]
  with pytest.raises(SettingError, match='needs a model and text'):
    RULES[name].temperatures(setting())


def test_oracle_searches():
  rule = RULES['oracle']
  assert rule.temperatures(setting(search=lambda: CHOSEN)) is CHOSEN
  with pytest.raises(SettingError, match='needs tasks'):
    rule.temperatures(setting())


@pytest.mark.parametrize('name', [*GOLDEN, *STRATEGIES])
def test_unknown_training_length(name):
  unknown = setting(None, calibrate=lambda **options: CHOSEN)
  with pytest.raises(SettingError, match='not known; give it as training_len'):
    RULES[name].temperatures(unknown)
