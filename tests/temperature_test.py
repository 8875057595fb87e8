"""Temperatures: granularities, laws, files, and what is refused."""

import dataclasses
import json
import math

from etils import epath
import hypothesis
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import temperature
from t5_align.config import T5Config
from t5_align.temperature import Law, TemperatureError, Temperatures

CONFIG = T5Config(
  vocab_size=8, num_heads=3, num_encoder_layers=2, num_decoder_layers=4
)

numbers = st.floats(0.01, 10.0, allow_nan=False)
sites = st.one_of(
  numbers,
  st.lists(numbers, min_size=2, max_size=2).map(tuple),
  st.lists(
    st.lists(numbers, min_size=3, max_size=3).map(tuple),
    min_size=2,
    max_size=2,
  ).map(tuple),
  numbers.map(lambda x: Law('log_n', (x + 1,))),
)


@hypothesis.given(encoder=sites)
def test_json_there_and_back(encoder):
  value = Temperatures(encoder=encoder)
  text = json.dumps(value.to_json(), allow_nan=False)
  assert Temperatures.from_json(json.loads(text)) == value


@hypothesis.given(encoder=sites)
@hypothesis.settings(deadline=None, max_examples=15)
def test_layers_of_arrays_are_layers_of_the_configuration(encoder):
  value = Temperatures(encoder=encoder)
  arrays = value.as_arrays(CONFIG)

  def counts():
    return jnp.array([[1, 5, 700]])

  for layer in range(2):
    static = temperature.resolve(
      temperature.at_layer(value.encoder, layer), counts
    )
    traced = temperature.resolve(
      temperature.at_layer(arrays.encoder, layer), counts
    )
    shape = (1, 3, 3) if isinstance(encoder, Law) else (3,)
    np.testing.assert_allclose(
      np.broadcast_to(static, shape), np.broadcast_to(traced, shape), rtol=1e-6
    )


def test_all_granularities_have_the_same_arrays():
  for encoder in (0.5, (0.5, 0.5), ((0.5,) * 3,) * 2):
    arrays = Temperatures(encoder=encoder).as_arrays(CONFIG)
    np.testing.assert_array_equal(arrays.encoder, np.full((2, 3), 0.5))
    assert arrays.decoder.shape == (4, 3)


def test_gin_gives_lists_and_configuration_stays_hashable():
  value = Temperatures(encoder=[[0.5, 0.6, 0.7], [0.8, 0.9, 1.0]])
  hash(dataclasses.replace(CONFIG, temperatures=value))
  assert value.encoder == ((0.5, 0.6, 0.7), (0.8, 0.9, 1.0))


def test_log_n_values():
  """The table of baselines: ln 512 / ln n, and 1 up to 512."""
  law = Law('log_n', (512.0,))
  counts = jnp.array([[1, 512, 1024, 2048, 4096, 8192, 16384]])
  tau = temperature.resolve(law, lambda: counts)[0, 0]
  expected = [1, 1, 0.9, 0.8182, 0.75, 0.6923, 0.6429]
  np.testing.assert_allclose(tau, expected, atol=5e-5)


@pytest.mark.parametrize('bad', [0, -1.0, math.nan, math.inf, True, '0.8'])
def test_what_can_not_divide_logits(bad):
  with pytest.raises(TemperatureError, match='encoder'):
    Temperatures(encoder=bad)
  with pytest.raises(TemperatureError, match='cross'):
    Temperatures(cross=((0.5, bad),))


@pytest.mark.parametrize('bad', [np.float32(0), np.array([1, np.nan]), None])
def test_arrays_that_can_not_divide_logits(bad):
  """A model refuses what a pytree must accept, such as a gradient."""
  with pytest.raises(TemperatureError, match='can not divide logits'):
    Temperatures(encoder=bad).check(CONFIG)


@pytest.mark.parametrize('training_length', [1, 0.5, np.float32(1)])
def test_log_n_needs_a_logarithm_above_zero(training_length):
  """ln 1 / ln 1 is no number, and ln 1 / ln n is 0."""
  with pytest.raises(TemperatureError, match='training_length.*above 1'):
    Law('log_n', (training_length,))


def test_other_models_temperatures():
  with pytest.raises(TemperatureError, match='3 layers, but the model has 2'):
    dataclasses.replace(CONFIG, temperatures=Temperatures(encoder=(1, 1, 1)))
  with pytest.raises(TemperatureError, match='2 heads, but the model has 3'):
    Temperatures(cross=((1, 1),) * 4).check(CONFIG)
  with pytest.raises(TemperatureError, match='different numbers of heads'):
    Temperatures(encoder=((1, 1, 1), (1, 1))).check(CONFIG)


def test_unknown_law_names_the_nearest():
  with pytest.raises(TemperatureError, match="did you mean 'log_n'"):
    Law('log-n', (512,))
  with pytest.raises(TemperatureError, match='training_length'):
    Law('log_n', ())


def test_file_there_and_back(tmp_path):
  value = Temperatures(encoder=(0.5, 0.75), cross=Law('log_n', (512.0,)))
  temperature.save(tmp_path / 't.json', value, strategy='entropy')
  assert temperature.load(tmp_path / 't.json') == value
  document = json.loads((tmp_path / 't.json').read_text())
  assert document['calibration'] == {'strategy': 'entropy'}


@pytest.mark.parametrize(
  'text, message',
  [
    ('', 'no temperatures here'),
    ('[1]', 'wanted an object'),
    ('{"version": 9, "temperatures": {}}', 'version 9'),
    ('{"version": 1, "temperatures": {"encodr": 1}}', "mean 'encoder'"),
    ('{"version": 1, "temperatures": {"encoder": null}}', 'encoder: wanted'),
    ('{"version": 1, "temperatures": {"encoder": 0}}', 'can not divide'),
    ('{"version": 1, "temperatures": {"encoder": NaN}}', 'can not divide'),
    ('{"version": 1, "temperatures": {"encoder": 1e39}}', 'can not divide'),
    ('{"version": 1, "temperatures": {"encoder": [{}]}}', 'wanted a number'),
    ('{"version": 1, "temperatures": {"encoder": 0.8}', 'no temperatures here'),
    ('{"version": 1, "temperatures": {}, "calibration": 1}', 'is int, wanted'),
    ('{"version": 1, "temperatures": {"cross": {"law": "log_n"}}}', 'a law is'),
    (
      '{"version": 1, "temperatures":'
      ' {"cross": {"law": [], "coefficients": [2]}}}',
      'Unknown law',
    ),
  ],
)
def test_files_that_are_none(tmp_path, text, message):
  (tmp_path / 't.json').write_text(text)
  with pytest.raises(TemperatureError, match=message) as caught:
    temperature.load(tmp_path / 't.json')
  assert 't.json' in str(caught.value)


def test_interrupted_save_leaves_the_earlier_file(tmp_path, monkeypatch):
  path = tmp_path / 't.json'
  temperature.save(path, Temperatures(encoder=0.5))

  def interrupt(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(type(epath.Path(path)), 'replace', interrupt)
  with pytest.raises(KeyboardInterrupt):
    temperature.save(path, Temperatures(encoder=0.7))
  assert temperature.load(path) == Temperatures(encoder=0.5)
  assert list(tmp_path.iterdir()) == [path]


def test_file_by_hand_needs_no_calibration(tmp_path):
  path = tmp_path / 't.json'
  path.write_text('{"version": 1, "temperatures": {"encoder": [0.5, 1]}}')
  found = temperature.load_calibrated(path)
  assert found == (Temperatures(encoder=(0.5, 1)), {})


def test_mean_over_heads():
  keys = [100.0, 512.0, 262144.0]
  for value in (0.5, (0.25, 0.75), ((0.25, 0.5, 0.75), (0.5, 0.5, 0.5))):
    mean = temperature.mean_over_heads(value, keys)
    np.testing.assert_allclose(mean, [0.5] * 3)
  # ln 512 / ln 512^2 is a half.
  law = temperature.mean_over_heads(Law('log_n', (512.0,)), keys)
  np.testing.assert_allclose(law, [1, 1, 0.5], rtol=1e-6)
  by_layer = Law('interpolated', (512.0, 1.0, 262144.0, (0.25, 0.75)))
  mean = temperature.mean_over_heads(by_layer, keys)
  np.testing.assert_allclose(mean, [1, 1, 0.5], rtol=1e-6)
  by_head = Law(
    'interpolated', (512.0, 1.0, 262144.0, ((0.2, 0.4, 0.6), (0.4, 0.6, 0.8)))
  )
  mean = temperature.mean_over_heads(by_head, keys)
  np.testing.assert_allclose(mean, [1, 1, 0.5], rtol=1e-6)


def test_missing_file(tmp_path):
  with pytest.raises(TemperatureError, match='none.json'):
    temperature.load(tmp_path / 'none.json')
