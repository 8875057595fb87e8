"""Random models whose attention is peaked, and random text for them."""

import dataclasses
import functools
import types

import flax.traverse_util
import numpy as np

from t5_align.config import T5Config
from t5_align.network import DecoderOnlyTransformer, Transformer
from tests.random_parameters import random_parameters

VOCAB_SIZE = 256


def random_model(
  num_layers: int,
  num_heads: int,
  decoder_only: bool = False,
  *,
  spread: float = 2.0,
  attention: str = 'reference',
):
  """Return a network and parameters; `spread` is that of query · key."""
  config = T5Config(
    vocab_size=VOCAB_SIZE,
    emb_dim=32,
    num_heads=num_heads,
    num_encoder_layers=num_layers,
    num_decoder_layers=num_layers,
    head_dim=8,
    mlp_dim=32,
    relative_attention_max_distance=24,
  )
  build = DecoderOnlyTransformer if decoder_only else Transformer
  params = _parameters(build(config), spread)
  return build(dataclasses.replace(config, attention=attention)), params


@functools.cache
def _parameters(network, spread):
  params = random_parameters(
    network.config, decoder_only=isinstance(network, DecoderOnlyTransformer)
  )
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  # Initial logits, before the bias, have a variance of 1.
  flat = {
    path: x * spread if path.endswith('query/kernel') else x
    for path, x in flat.items()
  }
  return flax.traverse_util.unflatten_dict(flat, sep='/')


class RandomText:
  """Tokens drawn at random; `seed` tells texts apart."""

  source = 'random tokens'
  hash = '0' * 64

  def __init__(self, seed: int = 0, target_length: int = 12, most: int = 10**6):
    self.seed = seed
    self.target_length = target_length
    self.most = most  # sequences that there are

  def draw(self, length, count, *, within=None):
    del within
    random = np.random.default_rng((self.seed, length))
    count = min(count, self.most)

    def tokens(num):
      return random.integers(2, VOCAB_SIZE, (count, num)).tolist()

    return types.SimpleNamespace(
      inputs=tokens(length), targets=tokens(self.target_length)
    )
