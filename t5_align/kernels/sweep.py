"""Statistics of the softmax at many temperatures, from one pass over logits.

The logits z of a layer don't depend on its own temperature, so candidates for
it need but one computation of them: with factors f and the largest logit m,

    d_f = Σ exp((z - m) / f)   P_max = 1 / d_f   H = ln d_f + Σ p·(m - z) / f

and since max(z / f) = max(z) / f, one running maximum serves all.

Synopsis:

    sweep = sweep_statistics(
        query, key, bias_table=table, bidirectional=True, max_distance=128,
        mask=AttentionMask(), temperature=1.0, factors=jnp.array([0.5, 0.8]))
    sweep.max_probability, sweep.entropy_nats                  # [M, B, N, T]
"""

from __future__ import annotations

from typing import NamedTuple

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align import position_bias
from t5_align.kernels.attend import per_row_temperature
from t5_align.kernels.blocks import MASKED, scan_blocks
from t5_align.mask import AttentionMask


class Sweep(NamedTuple):
  """Statistics of each row at each factor, float32; 0 for rows without keys.

  Attributes:
    max_probability: largest attention probability.
    entropy_nats: entropy of the probabilities.
  """

  max_probability: Float[Array, 'M B N T']
  entropy_nats: Float[Array, 'M B N T']


class _Row(NamedTuple):
  """What a row carries from one block of keys to the next."""

  maximum: Array  # [B, N, t], of z whatever the factor
  denominator: Array  # Σ exp((z - maximum) / f), [B, N, t, M]
  weighted_logit: Array  # Σ exp((z - maximum) / f) z, [B, N, t, M]


def sweep_statistics(
  query: Float[Array, 'B T N H'],
  key: Float[Array, 'B S N H'],
  *,
  bias_table: Float[Array, 'N K'] | None,
  bidirectional: bool,
  max_distance: int,
  mask: AttentionMask,
  temperature: Float[Array, '...'] | float,
  factors: Float[Array, 'M'],
  query_offset: Int[Array, ''] | Int[Array, 'B'] | int = 0,
) -> Sweep:
  """Measure softmax(z / (τ f)) for each factor f; memory linear in length.

  Args:
    query: as in `attend`, and so are the others that are not named here.
    key: one vector a key and head.
    bias_table: T5's bias of each head and bucket.
    bidirectional: whether half of the buckets are for keys after the query.
    max_distance: distance from which on all keys share a bucket.
    mask: which keys each row sees.
    temperature: τ, which the factors multiply.
    factors: f, positive; may be traced.
    query_offset: position of the first row among the keys.

  Returns:
    Statistics of each factor, head and row.
  """
  factors = jnp.asarray(factors, jnp.float32)
  last_axis = factors[None, None, None]
  band = None
  if bias_table is not None:
    band = position_bias.bias_band(
      bias_table, bidirectional=bidirectional, max_distance=max_distance
    )

  def empty(shape):
    zeros = jnp.zeros((*shape[:-1], factors.shape[0]), jnp.float32)
    return _Row(jnp.full(shape[:-1], MASKED, jnp.float32), zeros, zeros)

  def see(row, block):
    masked = jnp.where(block.visible(), block.logits(), MASKED)
    maximum = jnp.maximum(row.maximum, jnp.max(masked, axis=-1))
    # A row that has seen no key yet has nothing to rescale.
    shift = jnp.where(maximum > MASKED, maximum, 0.0)

    def at(factor):
      weights = jnp.exp((masked - shift[..., None]) / factor)
      # As a dot product: XLA is slow at a product that it then sums.
      weighted_logit = jnp.einsum('BNTS,BNTS->BNT', weights, masked)
      return jnp.sum(weights, axis=-1), weighted_logit

    # One factor after another, so that the block is all the memory.
    added = lax.map(at, factors)
    denominator, weighted_logit = (jnp.moveaxis(x, 0, -1) for x in added)
    rescale = jnp.exp((row.maximum - shift)[..., None] / last_axis)
    return _Row(
      maximum,
      row.denominator * rescale + denominator,
      row.weighted_logit * rescale + weighted_logit,
    )

  def finish(row, rows):
    del rows
    safe = jnp.where(row.denominator > 0, row.denominator, 1.0)
    below = row.maximum[..., None] - row.weighted_logit / safe
    return Sweep(
      jnp.where(row.denominator > 0, 1 / safe, 0.0),
      jnp.where(row.denominator > 0, jnp.log(safe) + below / last_axis, 0.0),
    )

  sweep = scan_blocks(
    query,
    key,
    band=band,
    mask=mask,
    temperature=per_row_temperature(temperature, query.shape),
    query_offset=query_offset,
    empty=empty,
    see=see,
    finish=finish,
  )
  # [B, N, T, M] -> [M, B, N, T]
  return Sweep(*(jnp.moveaxis(x, -1, 0) for x in sweep))
