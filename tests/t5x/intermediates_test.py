"""T5X's score_batch returns the attention statistics that our modules sow.

They are those of the kernel: of each query row and head the entropy in nats
and the largest probability, under the path of its attention.
"""

from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align.network import DecoderOnlyTransformer, T5Config, Transformer
from t5_align.temperature import Temperatures

_REASON = 'T5X is not importable; tests/t5x/README.md says how to make it so.'
t5x_models = pytest.importorskip('t5x.models', reason=_REASON)
seqio = pytest.importorskip('seqio', reason=_REASON)

SIZES: dict[str, Any] = dict(
  vocab_size=24,
  emb_dim=16,
  num_heads=2,
  num_encoder_layers=2,
  num_decoder_layers=2,
  head_dim=8,
  mlp_dim=32,
)
WIDTH = 12


def score(decoder_only: bool, **temperatures: float) -> dict[str, Any]:
  """T5X's scores and intermediates, of one of its models around ours."""
  vocabulary = seqio.PassThroughVocabulary(SIZES['vocab_size'], eos_id=1)
  config = T5Config(**SIZES, temperatures=Temperatures(**temperatures))
  tokens = np.random.default_rng(0).integers(2, 24, (2, WIDTH))
  tokens[1, 8:] = 0
  batch: dict[str, Any] = {
    'decoder_input_tokens': np.pad(tokens, ((0, 0), (1, 0)))[:, :-1],
    'decoder_target_tokens': tokens,
    'decoder_loss_weights': (tokens > 0).astype(np.float32),
  }
  if decoder_only:
    module: nn.Module = DecoderOnlyTransformer(config)
    model = t5x_models.DecoderOnlyModel(module, vocabulary, None)
  else:
    module = Transformer(config)
    batch['encoder_input_tokens'] = tokens[:, ::-1]
    model = t5x_models.EncoderDecoderModel(
      module, vocabulary, vocabulary, optimizer_def=None
    )
  batch = jax.tree.map(jnp.asarray, batch)
  # T5X mixes dtypes and ranks.
  with (
    jax.numpy_dtype_promotion('standard'),
    jax.numpy_rank_promotion('allow'),
  ):
    shapes = {name: value.shape for name, value in batch.items()}
    params = model.get_initial_variables(jax.random.key(0), shapes)['params']
    scores, intermediates = jax.jit(
      lambda p, b: model.score_batch(p, b, return_intermediates=True)
    )(params, batch)
    plain = jax.jit(model.score_batch)(params, batch)
  np.testing.assert_allclose(scores, plain, rtol=1e-5)
  found: dict[str, Any] = flatten_dict(intermediates, sep='/')
  return {
    path.removesuffix('/attention_statistics'): value
    for path, (value,) in found.items()
    if path.endswith('/attention_statistics')
  }


def test_encoder_decoder():
  statistics = score(False)
  assert set(statistics) == {
    f'{stack}/layers_{layer}/{site}'
    for layer in range(2)
    for stack, site in (
      ('encoder', 'attention'),
      ('decoder', 'self_attention'),
      ('decoder', 'encoder_decoder_attention'),
    )
  }
  encoder = statistics['encoder/layers_0/attention']
  assert encoder.entropy_nats.shape == (2, SIZES['num_heads'], WIDTH)
  assert np.all(np.asarray(encoder.entropy_nats)[0] <= np.log(WIDTH) + 1e-5)
  assert np.all(np.asarray(encoder.entropy_nats)[0] > 0)


@pytest.mark.parametrize(
  ('decoder_only', 'site', 'path'),
  [
    (False, 'encoder', 'encoder/layers_0/attention'),
    (False, 'decoder', 'decoder/layers_0/self_attention'),
    (False, 'cross', 'decoder/layers_0/encoder_decoder_attention'),
    (True, 'decoder', 'decoder/layers_0/self_attention'),
  ],
)
def test_a_lower_temperature_lowers_the_entropy(decoder_only, site, path):
  before = score(decoder_only)[path]
  after = score(decoder_only, **{site: 0.2})[path]
  assert np.mean(after.entropy_nats[0]) < np.mean(before.entropy_nats[0]) - 0.01
