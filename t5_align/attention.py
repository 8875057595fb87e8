"""Multi-head attention of T5: projections, cache, one call to `attend`.

Three ways to attend: to oneself over a whole sequence, to oneself one token at
a time with a cache of keys and values, and across to the encoder's output.

Synopsis:

    y = SelfAttention(config, name='attention')(
        x, mask, temperature, bias_table=table, bidirectional=True)
    y = CrossAttention(config, name='encoder_decoder_attention')(
        x, encoded, mask, temperature)
"""

from __future__ import annotations

import functools
from typing import Any, Literal

from flax import linen as nn
from flax.linen.spmd import with_logical_constraint
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align import temperature as temperature_lib
from t5_align.config import T5Config
from t5_align.kernels import attend
from t5_align.layers import KERNEL_INIT, DenseGeneral, query_init
from t5_align.mask import AttentionMask, row_positions

# What a call does with the cache of self-attention:
#   off         nothing: the whole sequence at once
#   initialize  makes it, empty, as long as the input
#   prefill     fills it with the whole input, and attends as with 'off'
#   step        adds one token and attends to all tokens so far
CacheMode = Literal['off', 'initialize', 'prefill', 'step']
# When the cross-attention's keys and values are computed: at the first step
# (all that T5X's calls allow), or when the cache is made.
CrossCache = Literal['first_step', 'initialize']


class _Attention(nn.Module):
  """What both kinds share: projections in and out, and the kernel."""

  config: T5Config

  def project(self, x, name):
    """[B, L, D] -> [B, L, N, H]."""
    cfg = self.config
    init = query_init(cfg.head_dim) if name == 'query' else KERNEL_INIT
    x = DenseGeneral(
      (cfg.num_heads, cfg.head_dim),
      ('embed', 'joined_kv'),
      cfg.dtype,
      init,
      name=name,
    )(x)
    return with_logical_constraint(x, ('batch', 'length', 'heads', 'kv'))

  def attend_and_project(
    self, query, key, value, mask, temperature, *, deterministic, **position
  ):
    """[B, T, N, H] -> [B, T, D]."""
    cfg = self.config
    # T5X drops a key for all queries of a row at once, which is the same as
    # dropping its value.
    value = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-1,))(
      value, deterministic=deterministic
    )
    positions = row_positions(position.get('query_offset', 0), query.shape[1])
    measure = self.is_mutable_collection('intermediates')
    attended: Any = attend(
      query,
      key,
      value,
      mask=mask,
      temperature=temperature_lib.resolve(
        temperature, lambda: mask.key_counts(positions, key.shape[1])
      ),
      max_distance=cfg.relative_attention_max_distance,
      implementation=cfg.attention,
      return_statistics=measure,
      **{'bias_table': None, 'bidirectional': False} | position,
    )
    if measure:
      out, statistics = attended
      self.sow('intermediates', 'attention_statistics', statistics)
    else:
      out = attended
    return DenseGeneral(
      (cfg.emb_dim,),
      ('joined_kv', 'embed'),
      cfg.dtype,
      KERNEL_INIT,
      num_input_axes=2,
      name='out',
    )(out)


class SelfAttention(_Attention):
  """Attention of a sequence to itself, with T5's relative position bias."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B T D'],
    mask: AttentionMask,
    temperature: Any,
    *,
    bias_table: Float[Array, 'N K'] | None,
    bidirectional: bool,
    cache: CacheMode = 'off',
    prefill_lengths: Int[Array, 'B'] | None = None,
    deterministic: bool = True,
  ) -> Float[Array, 'B T D']:
    """Attend.

    Args:
      x: normalized activations.
      mask: which keys each row sees; not used by a step, which sees all so far.
      temperature: of this layer, from `temperature.at_layer`.
      bias_table: bias of each head and bucket.
      bidirectional: True in the encoder.
      cache: what to do with the cache.
      prefill_lengths: tokens of each sequence that 'prefill' keeps.
      deterministic: no dropout.

    Returns:
      The projected output.

    Raises:
      ValueError: a step with more than a token a sequence, or with another
        number of sequences than the cache has.
    """
    query = self.project(x, 'query')
    key = self.project(x, 'key')
    value = self.project(x, 'value')
    query_offset = 0
    if cache != 'off':
      index = self.variable('cache', 'cache_index', jnp.zeros, (), jnp.int32)
      keys = self.variable('cache', 'cached_key', jnp.zeros_like, key)
      values = self.variable('cache', 'cached_value', jnp.zeros_like, value)
      if cache == 'prefill':
        keys.value, values.value = key, value
        index.value = jnp.asarray(prefill_lengths, jnp.int32)
      elif cache == 'step':
        _check_step(x, keys.value)
        query_offset = index.value
        key = keys.value = _write(keys.value, key, index.value)
        value = values.value = _write(values.value, value, index.value)
        index.value = index.value + 1
        lengths = jnp.broadcast_to(index.value, (x.shape[0],))
        mask = AttentionMask(key_lengths=lengths)
    return self.attend_and_project(
      query,
      key,
      value,
      mask,
      temperature,
      deterministic=deterministic,
      bias_table=bias_table,
      bidirectional=bidirectional,
      query_offset=query_offset,
    )


class CrossAttention(_Attention):
  """Attention of the decoder to the encoder's output; it has no bias."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B T D'],
    encoded: Float[Array, 'inputs S D'] | None,
    mask: AttentionMask,
    temperature: Any,
    *,
    cache: CacheMode = 'off',
    cross_cache: CrossCache = 'first_step',
    is_first_step: Array | None = None,
    deterministic: bool = True,
  ) -> Float[Array, 'B T D']:
    """Attend.

    Args:
      x: normalized activations of the decoder. In a step with the cache of
        'initialize' there may be several sequences (beams) for each encoded
        one, in order: they share its keys.
      encoded: the encoder's output; None once it is in the cache.
      mask: which of its tokens each row sees.
      temperature: of this layer.
      cache: 'off' computes the keys anew; 'initialize' makes the cache; a
        'step' reads them from it.
      cross_cache: when the cache is filled.
      is_first_step: scalar, for 'first_step'.
      deterministic: no dropout.

    Returns:
      The projected output.
    """
    query = self.project(x, 'query')
    if cache == 'step' and cross_cache == 'initialize':
      key = self.get_variable('cache', 'cached_cross_key')
      value = self.get_variable('cache', 'cached_cross_value')
    elif cache == 'step':
      key, value = self._fill_at_first_step(encoded, is_first_step)
    else:
      key = self.project(encoded, 'key')
      value = self.project(encoded, 'value')
      if cache == 'initialize':
        fill = jnp.asarray if cross_cache == 'initialize' else jnp.zeros_like
        self.variable('cache', 'cached_cross_key', fill, key)
        self.variable('cache', 'cached_cross_value', fill, value)
    num_rows, num_encoded = query.shape[0], key.shape[0]
    if num_rows != num_encoded:
      # Beams of one input are rows of one query: its keys are not copied.
      query = query.reshape(num_encoded, -1, *query.shape[2:])
    y = self.attend_and_project(
      query, key, value, mask, temperature, deterministic=deterministic
    )
    return y.reshape(num_rows, -1, y.shape[-1])

  def _fill_at_first_step(self, encoded, is_first_step):
    """Compute keys and values at the first step; read them at the others."""

    def compute(module):
      return module.project(encoded, 'key'), module.project(encoded, 'value')

    def read(module):
      return keys.value, values.value

    keys = self.variable('cache', 'cached_cross_key', _absent)
    values = self.variable('cache', 'cached_cross_value', _absent)
    key, value = nn.cond(is_first_step, compute, read, self)
    keys.value, values.value = key, value
    return key, value


def _absent():
  raise ValueError('A decoding step needs the cache of an initializing call.')


def _check_step(x, cached):
  wanted = (cached.shape[0], 1)
  if x.shape[:2] != wanted:
    raise ValueError(
      f'A decoding step got tokens of shape {list(x.shape[:2])}, wanted'
      f' {list(wanted)}: one token for each sequence of the cache.'
    )


def _write(cached, new, index):
  """Put one token at `index`, the same for all sequences or one for each."""
  if jnp.ndim(index) == 0:
    return lax.dynamic_update_slice_in_dim(cached, new, index, axis=1)
  write = functools.partial(lax.dynamic_update_slice_in_dim, axis=0)
  return jax.vmap(write)(cached, new, index)
