"""Mean and variance of a row's logits, for less than reading them once more.

Over keys that a row sees with one bias b, the logits z = (q·k + b) / τ have

    mean = (q·k̄ + b) / τ        Σ (z - mean)² = qᵀ K q / τ²

with the keys' mean k̄ and scatter K = Σ (k - k̄)(k - k̄)ᵀ. T5's bias has one
value for all keys far before a query and one for all far after it, so rows
gather k̄ and K of the blocks on either side: linear time. Only blocks near the
diagonal or at an edge of the mask have their logits read. All are merged as
Chan, Golub and LeVeque (1979) do, which cancels nothing.

Synopsis:

    moments = empty_moments(query_block.shape)
    moments = see_block(moments, block)       # block.per_block: key_moments(…)
    count, mean, deviation = row_moments(moments, query_block, temperature, b)
"""

from __future__ import annotations

from typing import NamedTuple

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t5_align.kernels.blocks import Block


class RowMoments(NamedTuple):
  """Of each row's logits: number, mean and Σ (z - mean)²."""

  count: Float[Array, 'B N t']
  mean: Float[Array, 'B N t']
  deviation: Float[Array, 'B N t']


class KeyMoments(NamedTuple):
  """Of the keys far before and far after a block of queries: [2, …]."""

  count: Float[Array, '2 B']
  mean: Float[Array, '2 B N H']
  scatter: Float[Array, '2 B N H H']


class Moments(NamedTuple):
  """What a block of queries carries from one block of keys to the next."""

  near: RowMoments
  far: KeyMoments


def key_moments(
  key: Float[Array, 'B N s H'],
) -> tuple[Float[Array, 'B N H'], Float[Array, 'B N H H']]:
  """Return mean and scatter of a block of keys."""
  key = key.astype(jnp.float32)
  mean = jnp.mean(key, axis=2)
  deviation = key - mean[:, :, None]
  return mean, _einsum('BNSH,BNSG->BNHG', deviation, deviation)


def empty_moments(shape: tuple[int, ...]) -> Moments:
  """Return the moments of no keys, for a block of queries [B, N, t, H]."""
  B, N, _, H = shape
  zeros = jnp.zeros(shape[:-1], jnp.float32)
  far = KeyMoments(
    jnp.zeros((2, B)), jnp.zeros((2, B, N, H)), jnp.zeros((2, B, N, H, H))
  )
  return Moments(RowMoments(zeros, zeros, zeros), far)


def see_block(moments: Moments, block: Block) -> Moments:
  """Take one block of keys into the moments."""
  near, far = moments
  every, none = block.extent()
  sides = every[None] & block.far_sides()
  num_keys = jnp.where(sides, float(block.scores.shape[3]), 0.0)
  near = lax.cond(
    jnp.all(jnp.any(sides, axis=0) | none),
    lambda: near,
    lambda: _merge_rows(near, _read_logits(block, ~jnp.any(sides, axis=0))),
  )
  return Moments(near, _merge_keys(far, num_keys, *block.per_block))


def row_moments(
  moments: Moments,
  query: Float[Array, 'B N t H'],
  temperature: Float[Array, 'b n u 1'],
  far_bias: Float[Array, '2 N'],
) -> RowMoments:
  """Return the moments of each row's logits over all that it has seen.

  Args:
    moments: after the last block of keys.
    query: the rows' queries.
    temperature: τ of the rows.
    far_bias: bias of keys far before and far after.
  """
  near, far = moments
  query = query.astype(jnp.float32)
  tau = temperature[..., 0]
  for side in range(2):
    count, mean, scatter = (x[side] for x in far)
    center = _einsum('BNTH,BNH->BNT', query, mean)
    center += far_bias[side][None, :, None]
    spread = _einsum('BNTH,BNHG->BNTG', query, scatter)
    deviation = _einsum('BNTG,BNTG->BNT', spread, query)
    near = _merge_rows(
      near,
      RowMoments(
        jnp.broadcast_to(count[:, None, None], center.shape),
        center / tau,
        deviation / tau**2,
      ),
    )
  return near


def _read_logits(block, wanted):
  """Moments of a block's logits, in the sequences where they are wanted."""
  query = block.query.astype(jnp.float32)
  key_mean, _ = block.per_block
  # Near the mean, so that the sum of squares doesn't cancel.
  center = _einsum('BNTH,BNH->BNT', query, key_mean) / block.temperature[..., 0]
  visible = block.visible() & wanted[:, None, None, None]
  z = jnp.where(visible, block.logits() - center[..., None], 0.0)
  count = jnp.sum(visible, axis=-1).astype(jnp.float32)
  count = jnp.broadcast_to(count, center.shape)
  mean = jnp.sum(z, axis=-1) / jnp.maximum(count, 1.0)
  deviation = _einsum('BNTS,BNTS->BNT', z, z) - count * mean**2
  return RowMoments(count, mean + center, deviation)


def _merge_rows(a, b):
  count = a.count + b.count
  step = b.mean - a.mean
  share = b.count / jnp.maximum(count, 1.0)
  return RowMoments(
    count,
    a.mean + step * share,
    a.deviation + b.deviation + step**2 * a.count * share,
  )


def _merge_keys(far, num_keys, mean, scatter):
  """Merge a block's keys, num_keys of them on each side: all or none."""
  count = far.count + num_keys
  share = num_keys / jnp.maximum(count, 1.0)
  step = mean[None] - far.mean
  outer = step[..., :, None] * step[..., None, :]
  weight = (far.count * share)[..., None, None, None]
  seen = (num_keys > 0)[..., None, None, None]
  return KeyMoments(
    count,
    far.mean + step * share[..., None, None],
    far.scatter + jnp.where(seen, scatter[None] + outer * weight, 0.0),
  )


def _einsum(equation, *operands):
  return jnp.einsum(equation, *operands, precision=lax.Precision.HIGHEST)
