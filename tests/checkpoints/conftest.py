"""Tiny models of every variant, with random weights, for all formats."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align.checkpoints import shapes
from t5_align.config import T5Config

_TINY = T5Config(
  vocab_size=40,
  emb_dim=8,
  num_heads=4,
  num_encoder_layers=2,
  num_decoder_layers=2,
  head_dim=3,
  mlp_dim=16,
  logits_via_embedding=True,
)
_GATED = dataclasses.replace(
  _TINY, mlp_activations=('gelu', 'linear'), logits_via_embedding=False
)
VARIANTS = {
  't5': _TINY,
  't5_1_1': _GATED,
  'byt5': dataclasses.replace(
    _GATED, vocab_size=384, num_encoder_layers=3, num_decoder_layers=1
  ),
  'umt5': dataclasses.replace(_GATED, relative_bias_per_layer=True),
  't5_unscaled': dataclasses.replace(_TINY, scale_decoder_outputs=False),
}


@functools.cache
def _expected_shapes(config, decoder_only):
  return shapes.expected_shapes(config, decoder_only=decoder_only)


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def config(request: pytest.FixtureRequest) -> T5Config:
  """Every variant in turn."""
  return request.param


@pytest.fixture
def gated() -> T5Config:
  """T5 1.1: the variant for tests that need one."""
  return _GATED


@pytest.fixture
def random_params() -> Callable[..., dict[str, Any]]:
  """Makes a parameter tree of normal numbers for a config."""

  def make(config: T5Config, dtype='float32', decoder_only=False):
    generator = np.random.default_rng(0)
    expected = _expected_shapes(config, decoder_only)
    flat = {
      path: jnp.asarray(generator.standard_normal(shape), dtype)
      for path, shape in expected.items()
    }
    return flax.traverse_util.unflatten_dict(flat, sep='/')

  return make


@pytest.fixture
def assert_same() -> Callable[[Any, Any], None]:
  """Compares two parameter trees bit for bit, dtypes too."""

  def compare(actual, expected):
    actual = flax.traverse_util.flatten_dict(actual, sep='/')
    expected = flax.traverse_util.flatten_dict(expected, sep='/')
    assert actual.keys() == expected.keys()
    for path, array in expected.items():
      assert actual[path].dtype == array.dtype, path
      assert np.asarray(actual[path]).tobytes() == np.asarray(array).tobytes()

  return compare
