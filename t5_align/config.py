"""T5Config: everything that makes one T5 different from another.

Synopsis:

    config = T5Config(vocab_size=32128, emb_dim=768, num_heads=12,
                      mlp_activations=('gelu', 'linear'))
    dataclasses.replace(config, temperatures=Temperatures(encoder=0.8))
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from t5_align.temperature import Temperatures

_DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes and choices of a T5, with the field names of T5X.

  Attributes:
    vocab_size: V, rows of the embedding; may exceed the vocabulary's pieces.
    dtype: of activations, 'float32' or 'bfloat16'. Parameters, softmax and
      logits are float32 whatever it is.
    emb_dim: D.
    num_heads: N, at every site.
    num_encoder_layers: L of the encoder; not used by a decoder-only model.
    num_decoder_layers: L of the decoder.
    head_dim: H; N · H need not be D.
    mlp_dim: F.
    mlp_activations: ('relu',) for T5 1.0, ('gelu', 'linear') for the gated
      GELU of 1.1 and later; names of flax.linen functions, or 'linear'.
    dropout_rate: used in training only.
    logits_via_embedding: the embedding is also the output layer (T5 1.0).
    float32_attention_logits: accepted for T5X's gin files; the softmax is
      always in float32 here, so only True is valid.
    scale_decoder_outputs: divide what goes to the output layer by sqrt(D). None
      follows T5X: where logits_via_embedding.
    relative_attention_num_buckets: K.
    relative_attention_max_distance: distance in tokens from which on all keys
      share a bucket.
    relative_bias_per_layer: each layer has a bias table (umT5); otherwise one
      serves a whole stack.
    layer_norm_epsilon: added to the mean square.
    temperatures: what divides the attention logits.
    attention: implementation of `attend`, None for the best that can.
  """

  vocab_size: int
  dtype: Any = 'float32'
  emb_dim: int = 512
  num_heads: int = 8
  num_encoder_layers: int = 6
  num_decoder_layers: int = 6
  head_dim: int = 64
  mlp_dim: int = 2048
  mlp_activations: tuple[str, ...] = ('relu',)
  dropout_rate: float = 0.1
  logits_via_embedding: bool = False
  float32_attention_logits: bool = True
  scale_decoder_outputs: bool | None = None
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  relative_bias_per_layer: bool = False
  layer_norm_epsilon: float = 1e-6
  temperatures: Temperatures = Temperatures()
  attention: str | None = None

  def __post_init__(self):
    dtype = jnp.dtype(self.dtype).name
    if dtype not in _DTYPES:
      raise ValueError(
        f'dtype is {dtype}, wanted {" or ".join(_DTYPES)}. T5 was trained in'
        " bfloat16; its activations overflow float16's range."
      )
    object.__setattr__(self, 'dtype', dtype)
    object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))
    if not self.float32_attention_logits:
      raise ValueError(
        'float32_attention_logits=False: the softmax is always in float32'
        ' here; leave the field out.'
      )
    for field in ('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim'):
      if getattr(self, field) < 1:
        raise ValueError(
          f'{field} is {getattr(self, field)}, wanted at least 1.'
        )
    for name in self.mlp_activations:
      if name != 'linear' and not callable(getattr(nn, name, None)):
        raise ValueError(
          f'mlp_activations has {name!r}, which is no function of flax.linen;'
          " wanted for example ('relu',) or ('gelu', 'linear')."
        )
    self.temperatures.check(self)

  @property
  def scales_decoder_outputs(self) -> bool:
    """Whether the decoder's output is divided by sqrt(D) before the logits."""
    if self.scale_decoder_outputs is None:
      return self.logits_via_embedding
    return self.scale_decoder_outputs
