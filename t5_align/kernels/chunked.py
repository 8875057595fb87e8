"""Attention over blocks with an online softmax: memory linear in length.

The same equation as `reference`. Each row carries its running maximum,
denominator and output from one block of keys to the next, rescaled when the
maximum grows (Milakov and Gimelshein 2018, arXiv 1805.02867; Rabe and Staats
2021, 2112.05682), so no [T, S] array exists, and the gradient recomputes the
blocks instead of keeping them. Plain XLA: runs everywhere.

Synopsis:

    out, statistics = attend_chunked(
        query, key, value, bias_table=table, bidirectional=True,
        max_distance=128, mask=AttentionMask(), temperature=temperature,
        with_moments=False)
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align import position_bias
from t5_align.kernels import moments
from t5_align.kernels.blocks import MASKED, scan_blocks
from t5_align.kernels.statistics import SoftmaxStatistics
from t5_align.mask import AttentionMask


class _Row(NamedTuple):
  """What a row carries from one block of keys to the next; [B, N, t, …]."""

  maximum: Array
  denominator: Array
  weighted_value: Array  # Σ exp(z - maximum) v
  weighted_logit: Array  # Σ exp(z - maximum) z
  moments: moments.RowMoments


def attend_chunked(
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
  with_moments: bool = True,
) -> tuple[Float[Array, 'B T N H'], SoftmaxStatistics]:
  """Attend; arguments as in `attend`, temperature already [B, N, T, 1]."""
  band, far_bias = None, jnp.zeros((2, query.shape[2]))
  if bias_table is not None:
    band = position_bias.bias_band(
      bias_table, bidirectional=bidirectional, max_distance=max_distance
    )
    far_bias = band[:, jnp.array([0, -1])].T
  out, statistics = scan_blocks(
    query,
    key,
    value,
    band=band,
    mask=mask,
    temperature=temperature,
    query_offset=query_offset,
    empty=_empty_row,
    see=functools.partial(_see, with_moments=with_moments),
    finish=functools.partial(
      _finish,
      far_bias=far_bias if with_moments else None,
      causal=mask.causal,
    ),
    per_block=moments.key_moments if with_moments else None,
  )
  return out.swapaxes(1, 2), statistics


def _see(row, block, with_moments):
  """Take one block of keys into the rows' softmax."""
  (value,) = block.per_key
  masked = jnp.where(block.visible(), block.logits(), MASKED)
  maximum = jnp.maximum(row.maximum, lax.stop_gradient(masked.max(axis=-1)))
  # A row that has seen no key yet has nothing to rescale.
  shift = jnp.where(maximum > MASKED, maximum, 0.0)
  rescale = jnp.exp(row.maximum - shift)
  weights = jnp.exp(masked - shift[..., None])
  weighted_value = jnp.einsum(
    'BNTS,BNSH->BNTH',
    weights.astype(value.dtype),
    value,
    preferred_element_type=jnp.float32,
  )
  row = row._replace(
    maximum=maximum,
    denominator=row.denominator * rescale + jnp.sum(weights, axis=-1),
    weighted_value=row.weighted_value * rescale[..., None] + weighted_value,
  )
  if not with_moments:
    return row
  # As a dot product: XLA is slow at a product that it then sums.
  weighted_logit = jnp.einsum('BNTS,BNTS->BNT', weights, masked)
  row = row._replace(
    weighted_logit=row.weighted_logit * rescale + weighted_logit
  )
  if block.near:
    row = row._replace(moments=moments.see_near(row.moments, block))
  return row


def _empty_row(shape):
  zeros = jnp.zeros(shape[:-1], jnp.float32)
  return _Row(
    maximum=jnp.full(shape[:-1], MASKED, jnp.float32),
    denominator=zeros,
    weighted_value=jnp.zeros(shape, jnp.float32),
    weighted_logit=zeros,
    moments=moments.empty_rows(shape),
  )


def _finish(row, rows, far_bias, causal):
  """Divide by the denominator; a row that saw no key gives zeros."""
  seen = row.denominator > 0
  denominator = jnp.where(seen, row.denominator, 1.0)
  out = row.weighted_value / denominator[..., None]
  logits = row.moments
  if far_bias is not None:
    logits = moments.add_far(row.moments, rows, far_bias, causal)
  # Rounding may leave a little less than no variance.
  variance = jnp.maximum(logits.deviation, 0.0) / jnp.maximum(logits.count, 1.0)
  statistics = SoftmaxStatistics(
    maximum=jnp.where(seen, row.maximum, 0.0),
    denominator=row.denominator,
    expected_logit=row.weighted_logit / denominator,
    logit_mean=jnp.where(seen, logits.mean, 0.0),
    logit_variance=jnp.where(seen, variance, 0.0),
  )
  return out.astype(rows.query.dtype), statistics
