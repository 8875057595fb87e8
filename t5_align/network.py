"""T5: encoder-decoder and decoder-only, called as T5X calls its networks.

Pre-norm residual layers, one table of relative position biases a stack (a
layer, in umT5), no other positions, a temperature at every attention. A T5X
user changes one import: `from t5_align import network`.

Synopsis:

    network = Transformer(T5Config(vocab_size=32128))
    params = network.init(key, inputs, targets, targets)['params']
    logits = network.apply({'params': params}, inputs, shifted, targets,
                           enable_dropout=False)                  # [B, T, V]
    encoded = network.apply({'params': params}, inputs, method='encode',
                            enable_dropout=False)                 # [B, S, D]

Token 0 is padding, and what a decoder starts from.
"""

from __future__ import annotations

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align.attention import (
  CacheMode,
  CrossCache,
)
from t5_align.config import T5Config as T5Config
from t5_align.layers import (
  Embed,
)
from t5_align.mask import AttentionMask
from t5_align.stacks import Decoder, Encoder
from t5_align.temperature import Temperatures

# T5X initializes with floats.
Tokens = Int[Array, 'B T'] | Float[Array, 'B T']
InputTokens = Int[Array, 'B S'] | Float[Array, 'B S']
# While decoding there may be several sequences (beams) an input.
StepInputTokens = Int[Array, 'inputs S'] | Float[Array, 'inputs S']


class Transformer(nn.Module):
  """An encoder-decoder T5."""

  config: T5Config

  def setup(self):
    self.token_embedder = Embed(self.config)
    self.encoder = Encoder(self.config, self.token_embedder)
    self.decoder = Decoder(self.config, self.token_embedder)

  def encode(
    self,
    encoder_input_tokens: InputTokens,
    encoder_segment_ids: InputTokens | None = None,
    enable_dropout: bool = True,
    temperatures: Temperatures | None = None,
  ) -> Float[Array, 'B S D']:
    """Run the encoder.

    Args:
      encoder_input_tokens: 0 is padding.
      encoder_segment_ids: of packed examples, which don't see each other.
      enable_dropout: for training; needs a 'dropout' rng.
      temperatures: instead of the configuration's; may be traced.

    Returns:
      The encoder's output, in the config's dtype.
    """
    tokens = encoder_input_tokens.astype(jnp.int32)
    mask = AttentionMask.from_tokens(
      tokens, tokens, encoder_segment_ids, encoder_segment_ids
    )
    temperatures = (
      self.config.temperatures if temperatures is None else temperatures
    )
    return self.encoder(
      tokens, mask, temperatures.encoder, deterministic=not enable_dropout
    )

  def decode(
    self,
    encoded: Float[Array, 'inputs S D'] | None,
    encoder_input_tokens: StepInputTokens,
    decoder_input_tokens: Tokens,
    decoder_target_tokens: Tokens,
    encoder_segment_ids: StepInputTokens | None = None,
    decoder_segment_ids: Tokens | None = None,
    decoder_positions: Tokens | None = None,
    enable_dropout: bool = True,
    decode: bool = False,
    max_decode_length: int | None = None,
    temperatures: Temperatures | None = None,
    cross_cache: CrossCache = 'first_step',
    return_logits: bool = True,
  ) -> Float[Array, 'B T V'] | Float[Array, 'B T D']:
    """Run the decoder on the encoder's output.

    Args:
      encoded: from `encode`; None at a step with cross_cache='initialize'.
      encoder_input_tokens: only for their padding.
      decoder_input_tokens: targets shifted right; at a step one token, [B, 1].
      decoder_target_tokens: only for their padding, and not when decoding.
      encoder_segment_ids: of packed examples.
      decoder_segment_ids: of packed examples.
      decoder_positions: taken for T5X's sake; T5 has only relative positions,
        and those of a packed example are differences within it.
      enable_dropout: for training.
      decode: use the cache: the first call makes it, as long as its input, and
        each of the others takes one token a sequence.
      max_decode_length: taken for T5X's sake; the cache knows its length.
      temperatures: instead of the configuration's; may be traced.
      cross_cache: when the cross-attention's keys are computed. With
        'initialize' there may be several sequences (beams) an input.
      return_logits: False returns what `logits` reads.

    Returns:
      Logits, float32.
    """
    del decoder_positions, max_decode_length
    if decode and encoder_segment_ids is not None:
      raise ValueError(
        'encoder_segment_ids was given to a decoding step: examples can not'
        ' be packed while decoding.'
      )
    encoder_tokens = encoder_input_tokens.astype(jnp.int32)
    tokens = decoder_input_tokens.astype(jnp.int32)
    targets = decoder_target_tokens.astype(jnp.int32)
    cache: CacheMode = 'off'
    if decode:
      cache = 'step' if self.has_variable('cache', 'decoder') else 'initialize'
      # Nothing is padding, and beams of one input are rows of one query.
      num_inputs = encoder_tokens.shape[0]
      targets = jnp.ones((num_inputs, tokens.size // num_inputs), jnp.int32)
    self_mask = AttentionMask(causal=True)
    if not decode:
      self_mask = AttentionMask.from_tokens(
        targets, targets, decoder_segment_ids, decoder_segment_ids, causal=True
      )
    cross_mask = AttentionMask.from_tokens(
      targets, encoder_tokens, decoder_segment_ids, encoder_segment_ids
    )
    y = self.decoder(
      tokens,
      self_mask,
      self.config.temperatures if temperatures is None else temperatures,
      cross=dict(encoded=encoded, mask=cross_mask, cross_cache=cross_cache),
      deterministic=not enable_dropout,
      cache=cache,
    )
    return self.logits(y) if return_logits else y

  def logits(self, y: Float[Array, 'B T D']) -> Float[Array, 'B T V']:
    """Run the output layer, for any of the positions."""
    return self.decoder.logits(y)

  def __call__(
    self,
    encoder_input_tokens: InputTokens,
    decoder_input_tokens: Tokens,
    decoder_target_tokens: Tokens,
    encoder_segment_ids: InputTokens | None = None,
    decoder_segment_ids: Tokens | None = None,
    encoder_positions: InputTokens | None = None,
    decoder_positions: Tokens | None = None,
    *,
    enable_dropout: bool = True,
    decode: bool = False,
    temperatures: Temperatures | None = None,
    return_logits: bool = True,
  ) -> Float[Array, 'B T V'] | Float[Array, 'B T D']:
    """Encode and decode; arguments as in those two."""
    del encoder_positions
    encoded = self.encode(
      encoder_input_tokens, encoder_segment_ids, enable_dropout, temperatures
    )
    return self.decode(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids=encoder_segment_ids,
      decoder_segment_ids=decoder_segment_ids,
      decoder_positions=decoder_positions,
      enable_dropout=enable_dropout,
      decode=decode,
      temperatures=temperatures,
      return_logits=return_logits,
    )


class DecoderOnlyTransformer(nn.Module):
  """A decoder-only T5: a language model, or a prefix language model."""

  config: T5Config

  def setup(self):
    self.decoder = Decoder(self.config)

  def __call__(
    self,
    decoder_input_tokens: Tokens,
    decoder_target_tokens: Tokens,
    decoder_segment_ids: Tokens | None = None,
    decoder_positions: Tokens | None = None,
    decoder_causal_attention: Tokens | None = None,
    *,
    enable_dropout: bool = True,
    decode: bool = False,
    max_decode_length: int | None = None,
    prefill: bool = False,
    prefill_lengths: Int[Array, 'B'] | None = None,
    temperatures: Temperatures | None = None,
    return_logits: bool = True,
  ) -> Float[Array, 'B T V'] | Float[Array, 'B T D']:
    """Run the model.

    Args:
      decoder_input_tokens: targets shifted right; at a step one token, [B, 1].
      decoder_target_tokens: only for their padding.
      decoder_segment_ids: of packed examples.
      decoder_positions: taken for T5X's sake, as in `Transformer.decode`.
      decoder_causal_attention: 1 at the tokens of a prefix, which see each
        other in both directions.
      enable_dropout: for training.
      decode: use the cache: the first call makes it, the others are steps.
      max_decode_length: taken for T5X's sake.
      prefill: fill the cache with the input in one call.
      prefill_lengths: index from which each sequence goes on.
      temperatures: instead of the configuration's; may be traced.
      return_logits: False returns what `logits` reads.

    Returns:
      Logits, float32.
    """
    del decoder_positions, max_decode_length
    if prefill and decode:
      raise ValueError('prefill fills the cache and decode steps: not at once.')
    targets = decoder_target_tokens.astype(jnp.int32)
    prefix = decoder_causal_attention
    mask = AttentionMask.from_tokens(
      targets,
      targets,
      decoder_segment_ids,
      decoder_segment_ids,
      prefix=None if prefix is None else prefix.astype(bool),
      causal=True,
    )
    cache: CacheMode = 'prefill' if prefill else 'off'
    if decode:
      cache = 'step' if self.has_variable('cache', 'decoder') else 'initialize'
    y = self.decoder(
      decoder_input_tokens.astype(jnp.int32),
      mask,
      self.config.temperatures if temperatures is None else temperatures,
      deterministic=not enable_dropout,
      cache=cache,
      prefill_lengths=prefill_lengths,
    )
    return self.logits(y) if return_logits else y

  def logits(self, y: Float[Array, 'B T D']) -> Float[Array, 'B T V']:
    """Run the output layer, for any of the positions."""
    return self.decoder.logits(y)
