"""Mean and variance of a row's logits, for less than reading them once more.

Over keys that a row sees with one bias b, the logits z = (q·k + b) / τ have

    mean = (q·k̄ + b) / τ        Σ (z - mean)² = qᵀ K q / τ²

with the keys' mean k̄ and scatter K = Σ (k - k̄)(k - k̄)ᵀ. T5's bias has one
value for all keys far before a query and one for all far after it, so k̄ and K
of each block of keys, once computed, serve all rows that are far from it:
linear time. Only of near blocks are the logits read. All are merged as Chan,
Golub and LeVeque (1979) do, where nothing cancels.

Synopsis:

    row = see_near(row, block)                # block.per_block: key_moments(…)
    count, mean, deviation = add_far(row, rows, far_bias, causal=False)
"""

from __future__ import annotations

from typing import NamedTuple

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from t5_align.kernels.blocks import Block, Rows


class RowMoments(NamedTuple):
  """Of each row's logits: number, mean and Σ (z - mean)²."""

  count: Float[Array, 'B N t']
  mean: Float[Array, 'B N t']
  deviation: Float[Array, 'B N t']


class KeyMoments(NamedTuple):
  """Of a block's keys: number, mean k̄ and scatter K."""

  count: Float[Array, '*blocks b']
  mean: Float[Array, '*blocks B N H']
  scatter: Float[Array, '*blocks B N H H']


def key_moments(
  key: Float[Array, 'B N s H'], real: Bool[Array, 'b s']
) -> KeyMoments:
  """Return the moments of a block's keys, of those that are real."""
  real = real[:, None, :, None]
  count = jnp.sum(real, axis=(1, 2, 3)).astype(jnp.float32)
  key = jnp.where(real, key.astype(jnp.float32), 0.0)
  mean = jnp.sum(key, axis=2) / jnp.maximum(count, 1.0)[:, None, None]
  deviation = jnp.where(real, key - mean[:, :, None], 0.0)
  scatter = _einsum('BNSH,BNSG->BNHG', deviation, deviation)
  return KeyMoments(count, mean, scatter)


def empty_rows(shape: tuple[int, ...]) -> RowMoments:
  """Return the moments of no logits, for queries [B, N, t, H]."""
  zeros = jnp.zeros(shape[:-1], jnp.float32)
  return RowMoments(zeros, zeros, zeros)


def see_near(row: RowMoments, block: Block) -> RowMoments:
  """Merge a block's logits, read one by one."""
  query = block.query.astype(jnp.float32)
  # Near the mean, so that the sum of squares doesn't cancel.
  center = _einsum('BNTH,BNH->BNT', query, block.per_block.mean)
  center = center / block.temperature[..., 0]
  visible = block.visible()
  z = jnp.where(visible, block.logits() - center[..., None], 0.0)
  count = jnp.sum(visible, axis=-1).astype(jnp.float32)
  mean = jnp.sum(z, axis=-1) / jnp.maximum(count, 1.0)
  # As a dot product: XLA is slow at a product that it then sums.
  deviation = _einsum('BNTS,BNTS->BNT', z, z) - count * mean**2
  return _merge(row, count, mean + center, deviation)


def add_far(
  row: RowMoments, rows: Rows, far_bias: Float[Array, '2 N'], causal: bool
) -> RowMoments:
  """Merge the blocks of keys that were not near.

  Args:
    row: after all near blocks.
    rows: the queries, and which blocks are far.
    far_bias: bias of keys far before and far after.
    causal: whether rows see none that are after.
  """
  query = rows.query.astype(jnp.float32)
  tau = rows.temperature[..., 0]
  for side in range(1 if causal else 2):
    far = _sum_blocks(rows.per_block, rows.far[side].astype(jnp.float32))
    mean = _einsum('BNTH,BNH->BNT', query, far.mean)
    mean = (mean + far_bias[side][None, :, None]) / tau
    spread = _einsum('BNTH,BNHG->BNTG', query, far.scatter)
    deviation = _einsum('BNTG,BNTG->BNT', spread, query) / tau**2
    row = _merge(row, far.count[:, None, None], mean, deviation)
  return row


def _sum_blocks(blocks, weights):
  """Moments of the keys of all blocks together whose weight is 1, not 0."""
  counts = blocks.count * weights[:, None]
  count = jnp.sum(counts, axis=0)
  # The blocks of one sequence count alike for all where lengths don't differ.
  shares = counts / jnp.maximum(count, 1.0)[None]
  mean = jnp.sum(shares[..., None, None] * blocks.mean, axis=0)
  step = blocks.mean - mean[None]
  weighted = counts[..., None, None] * step
  scatter = _einsum('jBNHG,j->BNHG', blocks.scatter, weights)
  scatter += _einsum('jBNH,jBNG->BNHG', weighted, step)
  return KeyMoments(count, mean, scatter)


def _merge(row, count, mean, deviation):
  total = row.count + count
  step = mean - row.mean
  share = count / jnp.maximum(total, 1.0)
  return RowMoments(
    total,
    row.mean + step * share,
    row.deviation + deviation + step**2 * row.count * share,
  )


def _einsum(equation, *operands):
  return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)
