"""T5's relative position bias, without ever making a [T, S] array.

The bias of a query at position t and a key at position s is
`table[n, bucket(s - t)]`: K buckets a head, exact for near offsets,
logarithmic up to `max_distance`, and one for all that is further (Raffel et
al. 2020, arXiv 1910.10683, section 2.1). It depends on s - t alone and is
constant beyond ±max_distance, so `band` (one value an offset in between) holds
all of it, and a block of any size is cut from the band.

Synopsis:

    band = bias_band(table, bidirectional=True, max_distance=128)  # [N, W]
    block = toeplitz_block(band, query_start, key_start, t, s)  # [B, N, t, s]
    rows = bias_rows(band, query_positions, key_positions)     # [B, N, T, S]
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np


def relative_position_bucket(
  relative_position: np.ndarray | int,
  *,
  bidirectional: bool,
  num_buckets: int = 32,
  max_distance: int = 128,
) -> np.ndarray:
  """Return the bucket of each offset (key position - query position).

  Args:
    relative_position: offsets, integers of any shape.
    bidirectional: half of the buckets are for keys after the query (encoder);
      otherwise those all fall into bucket 0 (decoder).
    num_buckets: K.
    max_distance: offsets at least this far share the last bucket.

  Returns:
    Buckets, int32, of the same shape.
  """
  buckets = _bucket_by_distance(
    num_buckets // 2 if bidirectional else num_buckets, max_distance
  )
  offset = np.asarray(relative_position, np.int64)
  if not bidirectional:
    return buckets[np.clip(-offset, 0, max_distance)]
  after = np.where(offset > 0, num_buckets // 2, 0)
  return (after + buckets[np.minimum(np.abs(offset), max_distance)]).astype(
    np.int32
  )


@functools.cache
def _bucket_by_distance(num_buckets: int, max_distance: int) -> np.ndarray:
  """Buckets of the distances 0 … max_distance, [max_distance + 1]."""
  max_exact = num_buckets // 2
  if max_distance <= max_exact:
    raise ValueError(
      f'relative_attention_max_distance is {max_distance}, but the first'
      f' {max_exact} distances have a bucket each: it must be larger.'
    )
  buckets = np.arange(max_distance + 1, dtype=np.int32)
  # In float32 with this epsilon, as every T5 since Mesh TensorFlow has it.
  far = np.maximum(buckets, max_exact).astype(np.float32)
  ratio = np.log(far / max_exact + np.finfo(np.float32).eps)
  ratio = ratio / math.log(max_distance / max_exact)
  logarithmic = max_exact + (ratio * (num_buckets - max_exact)).astype(np.int32)
  return np.where(
    buckets < max_exact, buckets, np.minimum(logarithmic, num_buckets - 1)
  ).astype(np.int32)


def bias_band(
  bias_table: Float[Array, 'N K'],
  *,
  bidirectional: bool,
  max_distance: int,
) -> Float[Array, 'N W']:
  """Spread the table over the offsets -max_distance … max_distance.

  Args:
    bias_table: one value for each head and bucket.
    bidirectional: as in `relative_position_bucket`.
    max_distance: half the band's width.

  Returns:
    Bias of each offset, W = 2 · max_distance + 1. Offsets outside have the
    value of the nearest end.
  """
  buckets = relative_position_bucket(
    np.arange(-max_distance, max_distance + 1),
    bidirectional=bidirectional,
    num_buckets=bias_table.shape[1],
    max_distance=max_distance,
  )
  return jnp.take(bias_table, buckets, axis=1)


def bias_rows(
  band: Float[Array, 'N W'],
  query_positions: Int[Array, 'T'] | Int[Array, 'B T'],
  key_positions: Int[Array, 'S'],
) -> Float[Array, 'b N T S']:
  """Look up the bias of every pair: for few rows, and as the definition.

  Args:
    band: from `bias_band`.
    query_positions: [T], or [B, T] where sequences are at other positions.
    key_positions: positions of the keys.

  Returns:
    Bias, [B or 1, N, T, S].
  """
  if query_positions.ndim == 1:
    query_positions = query_positions[None]
  offset = key_positions[None, None, :] - query_positions[:, :, None]
  # [N, B, T, S] -> [B, N, T, S]
  return jnp.moveaxis(jnp.take(band, _index(band, offset), axis=1), 0, 1)


def toeplitz_block(
  band: Float[Array, 'N W'],
  query_start: Int[Array, ''] | Int[Array, 'B'] | int,
  key_start: Int[Array, ''] | int,
  num_queries: int,
  num_keys: int,
) -> Float[Array, 'b N t s']:
  """Cut the block of bias of consecutive queries and consecutive keys.

  All of a block is in its num_queries + num_keys - 1 diagonals: only those are
  looked up. Reading their values with a row stride one short of the period
  shifts each row by one, so the rest is a copy, and its gradient a sum. The
  period is a power of two because XLA fuses the copy into what reads it, as an
  index modulo the period: any other would cost a division an element.

  Args:
    band: from `bias_band`.
    query_start: position of the first query, one, or one a sequence; may be
      traced.
    key_start: position of the first key; may be traced.
    num_queries: t.
    num_keys: s.

  Returns:
    Bias of the block, [B or 1, N, t, s].
  """
  period = 1 << (num_queries + num_keys - 1).bit_length()
  first = key_start - jnp.atleast_1d(query_start) - (num_queries - 1)
  offset = jnp.add.outer(first, jnp.arange(period))
  # [N, B, period] -> [B, N, period] -> [B, N, t · period]
  diagonals = jnp.moveaxis(jnp.take(band, _index(band, offset), axis=1), 0, 1)
  shape = diagonals.shape[:2]
  repeated = jnp.broadcast_to(
    diagonals[:, :, None], (*shape, num_queries, period)
  ).reshape(*shape, num_queries * period)
  start = num_queries - 1
  rows = repeated[..., start : start + num_queries * (period - 1)]
  return rows.reshape(*shape, num_queries, period - 1)[..., :num_keys]


def _index(band, offset):
  max_distance = (band.shape[1] - 1) // 2
  return jnp.clip(offset, -max_distance, max_distance) + max_distance
