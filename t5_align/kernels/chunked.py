"""Attention over blocks with an online softmax: memory linear in length.

The same equation as `reference`. Queries are mapped over in blocks, keys are
scanned over in blocks, and each row carries its running maximum, denominator
and output, rescaled when the maximum grows (Milakov and Gimelshein 2018, arXiv
1805.02867; Rabe and Staats 2021, 2112.05682). The bias of a block is cut from
the [N, W] band inside the scan, so no [T, S] array exists, and the gradient
recomputes the blocks instead of keeping them. Blocks beyond a causal mask's
diagonal are left out. Plain XLA: runs everywhere.

Synopsis:

    out, statistics = attend_chunked(
        query, key, value, bias_table=table, bidirectional=True,
        max_distance=128, mask=AttentionMask(), temperature=temperature,
        with_moments=False)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align import position_bias
from t5_align.kernels.statistics import SoftmaxStatistics
from t5_align.mask import AttentionMask, row_positions

# Logits that a block has for all sequences and heads together, on accelerators:
# 512 MiB of them.
_LOGITS_PER_BLOCK = 1 << 27


class _Row(NamedTuple):
  """What a row carries from one block of keys to the next; [B, N, t, …]."""

  maximum: Array
  denominator: Array
  weighted_value: Array  # Σ exp(z - maximum) v
  weighted_logit: Array  # Σ exp(z - maximum) z
  count: Array
  logit_mean: Array
  logit_deviation: Array  # Σ (z - mean)²


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
  T, S = query.shape[1], key.shape[1]
  target_q, target_k = block_lengths(query.shape[0] * query.shape[2])
  num_q, block_q = _blocks(T, target_q)
  num_k, block_k = _blocks(S, target_k)
  band = None
  if bias_table is not None:
    band = position_bias.bias_band(
      bias_table, bidirectional=bidirectional, max_distance=max_distance
    )
  # [B, L, N, H] -> [blocks, B, N, block, H]
  query_blocks = _split(query.swapaxes(1, 2), num_q, block_q)
  key_blocks = _split(key.swapaxes(1, 2), num_k, block_k)
  value_blocks = _split(value.swapaxes(1, 2), num_k, block_k)
  if temperature.shape[2] > 1:
    temperatures = _split(temperature, num_q, block_q, fill=1.0)
  else:
    temperatures = jnp.broadcast_to(temperature, (num_q, *temperature.shape))

  def logits_of(query_block, key_block, temperature, i, j):
    logits = jnp.einsum(
      'BNTH,BNSH->BNTS',
      query_block,
      key_block,
      preferred_element_type=jnp.float32,
    )
    if band is not None:
      logits += position_bias.toeplitz_block(
        band, i * block_q + query_offset, j * block_k, block_q, block_k
      )
    return logits / temperature

  def visible_in(i, j):
    rows = i * block_q + jnp.arange(block_q)
    keys = j * block_k + jnp.arange(block_k)
    positions = row_positions(i * block_q + query_offset, block_q)
    visible = mask.block(positions, keys, query_rows=rows)
    return visible & (keys < S)[None, None, None]

  def attend_rows(block):
    i, query_block, temperature = block

    @jax.checkpoint
    def attend_keys(row, block):
      j, key_block, value_block = block
      visible = visible_in(i, j)

      def see(row):
        logits = logits_of(query_block, key_block, temperature, i, j)
        return _update(row, logits, visible, value_block, with_moments)

      # Nearly half of a causal mask's blocks show nothing to any row.
      if mask.causal:
        return lax.cond(jnp.any(visible), see, lambda row: row, row)
      return see(row)

    row = _empty_row(query_block.shape)
    blocks = (jnp.arange(num_k), key_blocks, value_blocks)
    row, _ = lax.scan(lambda r, b: (attend_keys(r, b), None), row, blocks)
    return _finish(row, query.dtype)

  blocks = (jnp.arange(num_q), query_blocks, temperatures)
  out, statistics = lax.map(jax.checkpoint(attend_rows), blocks)
  # [blocks, B, N, block, …] -> [B, T, N, H] and [B, N, T]
  out = _join(out, T).swapaxes(1, 2)
  return out, jax.tree.map(lambda x: _join(x, T), statistics)


def block_lengths(num_rows: int) -> tuple[int, int]:
  """Return how many queries and keys a block should have.

  Chosen by benchmarks/attention.py. On a CPU, of sizes with as much memory,
  256 queries by 512 keys are the fastest whatever the batch. An H200 wants
  larger ones to be busy: 1,024 by 2,048 take 0.57 of the time of 256 by 512 at
  32 heads; at 256 heads and sequences 512 by 1,024 take 0.8 of it.

  Args:
    num_rows: B · N, the sequences and heads that a block is made for.
  """
  if jax.default_backend() == 'cpu':
    return 256, 512
  area = _LOGITS_PER_BLOCK // (2 * num_rows)  # of a block half as wide
  queries = 1 << (area.bit_length() - 1) // 2
  queries = min(max(queries, 128), 1024)
  return queries, 2 * queries


def _update(row, logits, visible, value_block, with_moments):
  """Take one block of keys into the rows' softmax."""
  masked = jnp.where(visible, logits, -jnp.inf)
  maximum = jnp.maximum(row.maximum, lax.stop_gradient(masked.max(axis=-1)))
  # A row that has seen no key yet has a maximum of -inf: nothing to rescale.
  shift = jnp.where(jnp.isfinite(maximum), maximum, 0.0)
  rescale = jnp.exp(row.maximum - shift)
  weights = jnp.exp(masked - shift[..., None])
  weighted_value = jnp.einsum(
    'BNTS,BNSH->BNTH',
    weights.astype(value_block.dtype),
    value_block,
    preferred_element_type=jnp.float32,
  )
  row = row._replace(
    maximum=maximum,
    denominator=row.denominator * rescale + jnp.sum(weights, axis=-1),
    weighted_value=row.weighted_value * rescale[..., None] + weighted_value,
  )
  if not with_moments:
    return row
  logits = jnp.where(visible, logits, 0.0)
  weighted_logit = jnp.einsum('BNTS,BNTS->BNT', weights, logits)
  return _merge_moments(row, logits, visible)._replace(
    weighted_logit=row.weighted_logit * rescale + weighted_logit
  )


def _merge_moments(row, logits, visible):
  """Merge mean and squared deviation (Chan, Golub and LeVeque 1979)."""
  num_keys = jnp.sum(visible, axis=-1).astype(jnp.float32)
  count = row.count + num_keys
  mean = jnp.sum(logits, axis=-1) / jnp.maximum(num_keys, 1.0)
  deviation = jnp.where(visible, logits - mean[..., None], 0.0)
  step = mean - row.logit_mean
  share = num_keys / jnp.maximum(count, 1.0)
  return row._replace(
    count=count,
    logit_mean=row.logit_mean + step * share,
    logit_deviation=row.logit_deviation
    + jnp.sum(deviation**2, axis=-1)
    + step**2 * row.count * share,
  )


def _empty_row(shape):
  zeros = jnp.zeros(shape[:-1], jnp.float32)
  return _Row(
    maximum=jnp.full(shape[:-1], -jnp.inf, jnp.float32),
    denominator=zeros,
    weighted_value=jnp.zeros(shape, jnp.float32),
    weighted_logit=zeros,
    count=zeros,
    logit_mean=zeros,
    logit_deviation=zeros,
  )


def _finish(row, dtype):
  """Divide by the denominator; a row that saw no key gives zeros."""
  denominator = jnp.where(row.denominator == 0, 1.0, row.denominator)
  out = row.weighted_value / denominator[..., None]
  statistics = SoftmaxStatistics(
    maximum=jnp.where(jnp.isfinite(row.maximum), row.maximum, 0.0),
    denominator=row.denominator,
    expected_logit=row.weighted_logit / denominator,
    logit_mean=row.logit_mean,
    logit_variance=row.logit_deviation / jnp.maximum(row.count, 1.0),
  )
  return out.astype(dtype), statistics


def _blocks(length, target):
  """Split a length evenly: (number of blocks, length of each)."""
  num_blocks = max(1, -(-length // target))
  return num_blocks, -(-length // num_blocks)


def _split(x, num_blocks, block, fill=0.0):
  """[B, N, L, …] -> [blocks, B, N, block, …], the last one padded."""
  padding = num_blocks * block - x.shape[2]
  widths = [(0, 0), (0, 0), (0, padding), (0, 0)]
  x = jnp.pad(x, widths, constant_values=fill)
  x = x.reshape(*x.shape[:2], num_blocks, block, *x.shape[3:])
  return jnp.moveaxis(x, 2, 0)


def _join(x, length):
  """[blocks, B, N, block, …] -> [B, N, L, …]."""
  x = jnp.moveaxis(x, 0, 2)
  return x.reshape(*x.shape[:2], -1, *x.shape[4:])[:, :, :length]
