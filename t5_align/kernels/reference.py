"""The equation: T5's attention with a temperature, in plain JAX.

    out = softmax((q·k + bias) / τ) v        no 1/sqrt(H); mask applied after τ

This is the definition that every other implementation is compared with. It
makes the [B, N, T, S] array of logits: for short inputs and for tests.
(T5: Raffel et al. 2020, arXiv 1910.10683; τ: Chi et al. 2024, 2311.00684.)

Synopsis:

    out, statistics = attend_reference(
        query, key, value, bias_table=table, bidirectional=True,
        max_distance=128, mask=AttentionMask(), temperature=0.8)
"""

from __future__ import annotations

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align import position_bias
from t5_align.kernels.statistics import SoftmaxStatistics
from t5_align.mask import AttentionMask, row_positions


def attend_reference(
  query: Float[Array, 'B T N H'],
  key: Float[Array, 'B S N H'],
  value: Float[Array, 'B S N H'],
  *,
  bias_table: Float[Array, 'N K'] | None,
  bidirectional: bool,
  max_distance: int,
  mask: AttentionMask,
  temperature: Float[Array, 'b n t 1'],
  query_offset: Int[Array, ''] | Int[Array, 'B'] | int = 0,
) -> tuple[Float[Array, 'B T N H'], SoftmaxStatistics]:
  """Attend; arguments as in `attend`, temperature already [B, N, T, 1]."""
  rows = jnp.arange(query.shape[1])
  query_positions = row_positions(query_offset, query.shape[1])
  key_positions = jnp.arange(key.shape[1])

  logits = jnp.einsum(
    'BTNH,BSNH->BNTS', query, key, preferred_element_type=jnp.float32
  )
  if bias_table is not None:
    band = position_bias.bias_band(
      bias_table, bidirectional=bidirectional, max_distance=max_distance
    )
    logits += position_bias.bias_rows(band, query_positions, key_positions)
  logits = logits / temperature

  visible = mask.block(query_positions, key_positions, query_rows=rows)
  masked = jnp.where(visible, logits, -jnp.inf)
  maximum = lax.stop_gradient(jnp.max(masked, axis=-1, keepdims=True))
  maximum = jnp.where(jnp.isfinite(maximum), maximum, 0.0)  # rows without keys
  weights = jnp.exp(masked - maximum)
  denominator = jnp.sum(weights, axis=-1, keepdims=True)
  weights = weights / jnp.where(denominator == 0, 1.0, denominator)
  out = jnp.einsum(
    'BNTS,BSNH->BTNH',
    weights.astype(value.dtype),
    value,
    preferred_element_type=jnp.float32,
  )

  logits = jnp.where(visible, logits, 0.0)
  count = jnp.maximum(jnp.sum(visible, axis=-1), 1).astype(jnp.float32)
  mean = jnp.sum(logits, axis=-1) / count
  deviation = jnp.where(visible, logits - mean[..., None], 0.0)
  statistics = SoftmaxStatistics(
    maximum=maximum[..., 0],
    denominator=denominator[..., 0],
    expected_logit=jnp.sum(weights * logits, axis=-1),
    logit_mean=mean,
    logit_variance=jnp.sum(deviation**2, axis=-1) / count,
  )
  return out.astype(query.dtype), statistics
