"""The encoder's and the decoder's stacks of layers.

Pre-norm residual layers: self-attention, in the decoder attention to the
encoder's output, and an MLP. One table of relative position biases serves a
stack, or in umT5 a layer.

Synopsis:

    x = Encoder(config, embedding)(tokens, mask, temperature, True)  # [B, S, D]
    y = Decoder(config, embedding)(tokens, mask, temperatures, cross=cross)
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align import temperature as temperature_lib
from t5_align.attention import (
  CacheMode,
  CrossAttention,
  SelfAttention,
)
from t5_align.config import T5Config
from t5_align.layers import (
  DenseGeneral,
  Embed,
  LayerNorm,
  MlpBlock,
  RelativePositionBias,
)
from t5_align.mask import AttentionMask
from t5_align.temperature import Temperatures


class EncoderLayer(nn.Module):
  """Self-attention and MLP, each behind a norm and beside a residual."""

  config: T5Config

  @nn.compact
  def __call__(
    self,
    inputs: Float[Array, 'B S D'],
    mask: AttentionMask,
    temperature: Any,
    bias_table: Float[Array, 'N K'] | None,
    deterministic: bool,
  ) -> Float[Array, 'B S D']:
    cfg = self.config
    if cfg.relative_bias_per_layer:
      bias_table = RelativePositionBias(cfg, name='relpos_bias')()
    drop = _residual_dropout(cfg, deterministic)

    x = LayerNorm(cfg, name='pre_attention_layer_norm')(inputs)
    x = SelfAttention(cfg, name='attention')(
      x,
      mask,
      temperature,
      bias_table=bias_table,
      bidirectional=True,
      deterministic=deterministic,
    )
    x = drop(x) + inputs

    y = LayerNorm(cfg, name='pre_mlp_layer_norm')(x)
    y = MlpBlock(cfg, name='mlp')(y, deterministic=deterministic)
    return drop(y) + x


class DecoderLayer(nn.Module):
  """Self-attention, attention to the encoder if there is one, and MLP."""

  config: T5Config

  @nn.compact
  def __call__(
    self,
    inputs: Float[Array, 'B T D'],
    self_mask: AttentionMask,
    temperatures: tuple[Any, Any],
    bias_table: Float[Array, 'N K'] | None,
    cross: dict[str, Any] | None,
    deterministic: bool,
    cache: CacheMode,
    prefill_lengths: Int[Array, 'B'] | None,
  ) -> Float[Array, 'B T D']:
    cfg = self.config
    if cfg.relative_bias_per_layer:
      bias_table = RelativePositionBias(cfg, name='relpos_bias')()
    drop = _residual_dropout(cfg, deterministic)
    self_attention = SelfAttention(cfg, name='self_attention')
    is_first_step = None
    if cache == 'step' and cross is not None:
      index = self_attention.get_variable('cache', 'cache_index')
      is_first_step = jnp.all(index == 0)

    x = LayerNorm(cfg, name='pre_self_attention_layer_norm')(inputs)
    x = self_attention(
      x,
      self_mask,
      temperatures[0],
      bias_table=bias_table,
      bidirectional=False,
      cache=cache,
      prefill_lengths=prefill_lengths,
      deterministic=deterministic,
    )
    x = drop(x) + inputs

    if cross is not None:
      y = LayerNorm(cfg, name='pre_cross_attention_layer_norm')(x)
      y = CrossAttention(cfg, name='encoder_decoder_attention')(
        y,
        temperature=temperatures[1],
        cache=cache,
        is_first_step=is_first_step,
        deterministic=deterministic,
        **cross,
      )
      x = drop(y) + x

    z = LayerNorm(cfg, name='pre_mlp_layer_norm')(x)
    z = MlpBlock(cfg, name='mlp')(z, deterministic=deterministic)
    return drop(z) + x


class Encoder(nn.Module):
  """A stack of encoder layers over the shared embedding."""

  config: T5Config
  shared_embedding: nn.Module

  @nn.compact
  def __call__(
    self,
    tokens: Int[Array, 'B S'],
    mask: AttentionMask,
    temperature: Any,
    deterministic: bool,
  ) -> Float[Array, 'B S D']:
    cfg = self.config
    bias_table = None
    if not cfg.relative_bias_per_layer:
      bias_table = RelativePositionBias(cfg, name='relpos_bias')()
    # [B, S] -> [B, S, D]
    x = self.shared_embedding(tokens)
    x = _residual_dropout(cfg, deterministic)(x)
    for i in range(cfg.num_encoder_layers):
      x = EncoderLayer(cfg, name=f'layers_{i}')(
        x,
        mask,
        temperature_lib.at_layer(temperature, i),
        bias_table,
        deterministic,
      )
    x = LayerNorm(cfg, name='encoder_norm')(x)
    return nn.Dropout(cfg.dropout_rate)(x, deterministic=deterministic)


class Decoder(nn.Module):
  """A stack of decoder layers, called, and the output layer, `logits`.

  Attributes:
    config: the model's.
    shared_embedding: of an encoder-decoder; a decoder alone makes its own.
  """

  config: T5Config
  shared_embedding: nn.Module | None = None

  def setup(self):
    cfg = self.config
    if self.shared_embedding is None:
      self.token_embedder = Embed(cfg)
    if not cfg.logits_via_embedding:
      self.logits_dense = DenseGeneral(
        (cfg.vocab_size,), ('embed', 'vocab'), 'float32'
      )

  @nn.compact
  def __call__(
    self,
    tokens: Int[Array, 'B T'],
    self_mask: AttentionMask,
    temperatures: Temperatures,
    *,
    cross: dict[str, Any] | None = None,
    deterministic: bool = True,
    cache: CacheMode = 'off',
    prefill_lengths: Int[Array, 'B'] | None = None,
  ) -> Float[Array, 'B T D']:
    """Run the layers.

    Args:
      tokens: input tokens, the targets shifted right by one.
      self_mask: which tokens each row sees.
      temperatures: of the decoder and cross sites.
      cross: what CrossAttention takes of the encoder: encoded, mask and
        cross_cache; None in a decoder-only model.
      deterministic: no dropout.
      cache: what self-attention does with its cache.
      prefill_lengths: tokens of each sequence that 'prefill' keeps.

    Returns:
      What `logits` reads, in the config's dtype.
    """
    cfg = self.config
    bias_table = None
    if not cfg.relative_bias_per_layer:
      bias_table = RelativePositionBias(cfg, name='relpos_bias')()
    # [B, T] -> [B, T, D]
    y = self._embedding(tokens)
    y = _residual_dropout(cfg, deterministic)(y)
    for i in range(cfg.num_decoder_layers):
      y = DecoderLayer(cfg, name=f'layers_{i}')(
        y,
        self_mask,
        (
          temperature_lib.at_layer(temperatures.decoder, i),
          temperature_lib.at_layer(temperatures.cross, i),
        ),
        bias_table,
        cross,
        deterministic,
        cache,
        prefill_lengths,
      )
    y = LayerNorm(cfg, name='decoder_norm')(y)
    return _residual_dropout(cfg, deterministic)(y)

  def logits(self, y: Float[Array, 'B T D']) -> Float[Array, 'B T V']:
    """Return logits of the next token at each position, float32."""
    cfg = self.config
    if cfg.scales_decoder_outputs:
      y = y.astype(jnp.float32) / jnp.sqrt(jnp.float32(cfg.emb_dim))
    if cfg.logits_via_embedding:
      return self._embedding.attend(y)
    return self.logits_dense(y)

  @property
  def _embedding(self):
    shared = self.shared_embedding
    return self.token_embedder if shared is None else shared


def _residual_dropout(config, deterministic):
  """Drop features of a whole sequence at once, as T5X does."""

  def drop(x):
    return nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))(
      x, deterministic=deterministic
    )

  return drop
