"""Laws of temperature: golden values, limits, shapes, and what is refused."""

import functools
import math

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import laws, temperature
from t5_align.config import T5Config
from t5_align.temperature import Law, TemperatureError, Temperatures

CONFIG = T5Config(
  vocab_size=8, num_heads=3, num_encoder_layers=2, num_decoder_layers=4
)
LENGTHS = (1024, 2048, 4096, 8192, 16384)

# τ at LENGTHS, of models that were trained at 512.
GOLDEN = {
  'log_n': ((512.0,), (0.9000, 0.8182, 0.7500, 0.6923, 0.6429)),
  # With this scale it is log_n, without a training length.
  'ssmax': ((1 / math.log(512),), (0.9000, 0.8182, 0.7500, 0.6923, 0.6429)),
  'infoscale': ((512.0, 64.0), (0.9537, 0.9140, 0.8797, 0.8495, 0.8229)),
  'yarn': ((512.0,), (0.8746, 0.7713, 0.6853, 0.6130, 0.5515)),
}
# The closed forms, σ -> τ at 2048, 8192 and 16384.
GAUSSIAN = {
  'gaussian_entropy': {
    1.0: (0.5148, 0.3909, 0.3551),
    2.0: (0.7685, 0.6473, 0.6049),
    3.0: (0.8743, 0.7866, 0.7516),
  },
  'gaussian_maximum_probability': {
    1.0: (0.7284, 0.5838, 0.5338),
    2.0: (0.8429, 0.7372, 0.6961),
    3.0: (0.8895, 0.8080, 0.7745),
  },
}
KNOTS = (512.0, 1.0, 2048.0, 0.8, 8192.0, 0.7)

# Coefficients of every law, for what holds for all of them.
EXAMPLES = {
  **{name: coefficients for name, (coefficients, _) in GOLDEN.items()},
  **dict.fromkeys(GAUSSIAN, (512.0, 1.5)),
  'interpolated': KNOTS,
}


def resolve(law, lengths, config=None):
  """τ at each number of keys: static, or by way of a model's arrays."""
  if config is not None:
    arrays = Temperatures(encoder=law).as_arrays(config)
    law = temperature.at_layer(arrays.encoder, 1)
  counts = jnp.asarray([lengths])
  return np.asarray(temperature.resolve(law, lambda: counts))[0]


@pytest.mark.parametrize('config', [None, CONFIG], ids=['static', 'arrays'])
@pytest.mark.parametrize('name', GOLDEN)
def test_baselines(name, config):
  coefficients, expected = GOLDEN[name]
  tau = resolve(Law(name, coefficients), LENGTHS, config)
  np.testing.assert_allclose(tau[-1], expected, atol=5e-5)


@pytest.mark.parametrize('name', GAUSSIAN)
def test_gaussian_laws_by_head(name):
  """One σ a head: what the law is for."""
  sigmas = tuple(GAUSSIAN[name])
  law = Law(name, (512, (sigmas, sigmas)))
  tau = resolve(law, (2048, 8192, 16384), CONFIG)
  np.testing.assert_allclose(tau, list(GAUSSIAN[name].values()), atol=5e-5)


def test_gaussian_laws_meet_log_n():
  """Both are log-n where a row is about to freeze, σ = √(2 ln L_tr)."""
  sigma = math.sqrt(2 * math.log(512))
  for name in GAUSSIAN:
    tau = resolve(Law(name, (512, sigma)), LENGTHS)[0]
    expected = np.sqrt(np.log(512) / np.log(LENGTHS))
    np.testing.assert_allclose(tau, expected, rtol=1e-5)


def test_infoscale_of_wide_heads():
  """d → ∞: √(ln L_tr / ln n), which 1 - n^(-2/d) loses to rounding."""
  tau = resolve(Law('infoscale', (512, 1e7)), LENGTHS)[0]
  expected = np.sqrt(np.log(512) / np.log(LENGTHS))
  np.testing.assert_allclose(tau, expected, rtol=1e-5)


def test_interpolated_goes_through_its_knots():
  law = Law('interpolated', KNOTS)
  tau = resolve(law, (512, 1024, 2048, 4096, 8192))[0]
  between = [math.sqrt(1.0 * 0.8), math.sqrt(0.8 * 0.7)]
  expected = [1.0, between[0], 0.8, between[1], 0.7]
  np.testing.assert_allclose(tau, expected, rtol=1e-5)
  beyond = resolve(law, (0, 1, 511, 8193, 10**6))[0]
  np.testing.assert_allclose(beyond, [1, 1, 1, 0.7, 0.7], rtol=1e-6)


def test_interpolated_with_one_knot_is_a_number():
  tau = resolve(Law('interpolated', (512, 0.8)), (1, 512, 9999))
  np.testing.assert_allclose(tau, np.full((1, 3), 0.8), rtol=1e-6)


def test_interpolated_knots_of_every_head():
  """Knots may stand elsewhere in each layer and head."""
  law = Law(
    'interpolated',
    ((100, 200), ((1.0, 0.9, 0.8),) * 2, 800, 0.5),
  )
  tau = resolve(law, (100, 200, 400, 800), CONFIG)
  assert tau.shape == (3, 4)
  middle = np.sqrt(np.array([1.0, 0.9, 0.8]) * 0.5)
  expected = np.stack([[1, 0.9, 0.8], [1, 0.9, 0.8], middle, [0.5] * 3], 1)
  np.testing.assert_allclose(tau, expected, rtol=1e-5)


@pytest.mark.parametrize('name', laws.LAWS)
def test_rows_of_no_or_one_key(name):
  tau = resolve(Law(name, EXAMPLES[name]), (0, 1, 2))
  assert np.all(np.isfinite(tau)) and np.all(tau > 0)


@pytest.mark.parametrize('name', laws.LAWS)
def test_gradients_are_finite(name):
  """Everywhere: at rows without keys, at the knots, and at L_tr itself."""
  counts = jnp.array([0.0, 1.0, 512.0, 2048.0, 8192.0, 1e5])

  @jax.jit
  def total(*coefficients):
    tau = laws.LAWS[name].function(counts[None], *coefficients)
    return jnp.sum(tau)

  coefficients = [jnp.full((2, 1), c) for c in EXAMPLES[name]]
  indices = tuple(range(len(coefficients)))
  for gradient in jax.grad(total, indices)(*coefficients):
    assert gradient.shape == (2, 1)
    assert np.all(np.isfinite(gradient))
  step = jax.grad(total, len(coefficients) - 1)(*coefficients)
  assert np.any(step != 0)


@functools.cache
def _compiled(name):
  return jax.jit(laws.LAWS[name].function)


@hypothesis.given(
  name=st.sampled_from(sorted(set(laws.LAWS) - {'interpolated', 'ssmax'})),
  training_length=st.integers(2, 4096),
  second=st.floats(0.125, 128.0),
  lengths=st.lists(st.integers(0, 10**6), min_size=2, max_size=2),
)
@hypothesis.settings(deadline=None, max_examples=200)
def test_longer_rows_are_sharpened_more(name, training_length, second, lengths):
  count = len(laws.LAWS[name].coefficients)
  coefficients = jnp.array([training_length, second], jnp.float32)[:count]
  lengths = jnp.array(sorted([*lengths, training_length]), jnp.float32)
  tau = np.asarray(_compiled(name)(lengths, *coefficients))
  # 1e-6: a few roundings of float32.
  assert np.all(tau > 0) and np.all(tau <= 1 + 1e-6)
  assert np.all(np.diff(tau) <= 1e-6)
  short = np.asarray(lengths) <= training_length
  np.testing.assert_allclose(tau[short], 1, rtol=1e-6)


@pytest.mark.parametrize('name', GAUSSIAN)
def test_sharp_heads_need_less(name):
  sigma = jnp.linspace(0.1, 30, 100)
  tau = laws.LAWS[name].function(jnp.float32(8192), jnp.float32(512), sigma)
  assert np.all(np.diff(np.asarray(tau)) > 0)


def test_every_law_is_documented_and_tested():
  assert set(EXAMPLES) == set(laws.LAWS)
  for name, definition in laws.LAWS.items():
    assert 'arXiv' in definition.source or 'https://' in definition.source
    assert name in (laws.__doc__ or '')


@pytest.mark.parametrize('name', laws.LAWS)
def test_json_there_and_back(name):
  value = Temperatures(cross=Law(name, EXAMPLES[name]))
  assert Temperatures.from_json(value.to_json()) == value


@pytest.mark.parametrize(
  'name, coefficients, message',
  [
    ('gaussian-entropy', (512, 1), "did you mean 'gaussian_entropy'"),
    ('yarn', (), '0 coefficients, wanted 1: training_length'),
    ('infoscale', (512,), '1 coefficients, wanted 2: training_length, head_di'),
    ('interpolated', (), '0 coefficients, wanted 2 for every knot: n, tau'),
    ('interpolated', (512, 1, 1024), '3 coefficients, wanted 2 for every knot'),
    ('interpolated', (512, 1, 512, 0.9), 'ascend in n.*got 512 before 512'),
    ('interpolated', (512, (1, 0.9), 8, 0.9), 'got 512 before 8'),
    ('interpolated', (512, 1, 1024, 0), 'tau_2 0 '),
    ('interpolated', (0, 1), 'n_1 0 '),
    ('gaussian_entropy', (512, 0), 'sigma 0 '),
    ('gaussian_maximum_probability', (1, 1), 'training_length 1 .*above 1'),
    ('ssmax', (-0.4,), 'scale -0.4'),
    ('yarn', ((512, math.nan),), 'training_length nan'),
    ('infoscale', (512, 0), 'head_dim 0 '),
  ],
)
def test_bad_laws(name, coefficients, message):
  with pytest.raises(TemperatureError, match=message):
    Law(name, coefficients)


def test_knots_of_layers_must_ascend():
  """Where each layer has its own, a model is needed to compare them."""
  law = Law('interpolated', ((100, 900), 1.0, 800, 0.9))
  with pytest.raises(TemperatureError, match='encoder.*got 900 before 800'):
    Temperatures(encoder=law).check(CONFIG)
