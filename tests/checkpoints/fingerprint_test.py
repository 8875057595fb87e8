"""Weights are told apart, and formats aren't."""

import jax
import jax.numpy as jnp

from t5_align import load_model
from t5_align.checkpoints import save_orbax, save_t5x
from t5_align.checkpoints.fingerprint import fingerprint


def test_formats_and_dtypes_share_a_fingerprint(tmp_path):
  model = load_model('bundled')
  first = fingerprint(model.params)
  save_t5x(tmp_path / 't5x', model.params, step=1)
  save_orbax(tmp_path / 'orbax', model.config, model.params)
  for folder in ('t5x', 'orbax'):
    loaded = load_model(tmp_path / folder, config=model.config)
    assert loaded.checkpoint.content_hash != model.checkpoint.content_hash
    assert fingerprint(loaded.params) == first
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.params)
  assert fingerprint(half) == first


def test_other_weights_have_another():
  params = load_model('bundled').params
  changed = jax.tree.map(lambda x: x * 1.01, params)
  assert fingerprint(changed) != fingerprint(params)
