"""Whole rows of attention, for a few rows: what running sums can't tell.

R rows of each sequence are drawn, spread evenly over those that it has, and
their logits over all keys computed as in `reference`. From them: skewness and
excess kurtosis of the logits, attention by distance, and how much of it the
position bias alone, b = softmax(bias / τ), would have given,

    overlap = Σ_s min(p_s, b_s)                        0 to 1
    content = Σ_s p_s ln(p_s / b_s)                    nats that content adds

Memory is R · S a head: linear in length.

Synopsis:

    sample = sample_rows(query, key, num_rows=16, bias_table=table, ...)
    sample['bias_overlap']                                       # [B, N]
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from t5_align import position_bias
from t5_align.mask import AttentionMask

# A weight below this is taken for it, so that its logarithm is finite.
_SMALLEST = np.finfo(np.float32).tiny


def distance_edges(num_buckets: int) -> tuple[int, ...]:
  """Return 0, 1, 2, 4, 8, …: lower edges of the buckets of |key - query|."""
  return tuple(2**i // 2 for i in range(num_buckets))


def sample_rows(
  query: Float[Array, 'B T N H'],
  key: Float[Array, 'B S N H'],
  num_valid_rows: Int[Array, 'B'],
  *,
  num_rows: int,
  bias_table: Float[Array, 'N K'] | None,
  bidirectional: bool,
  max_distance: int,
  mask: AttentionMask,
  temperature: Float[Array, '#B #N #T 1'],
) -> dict[str, Any]:
  """Measure some rows of attention.

  Args:
    query: as in `attend`.
    key: as in `attend`.
    num_valid_rows: rows of each sequence that are no padding; the first ones.
    num_rows: R, how many to draw of each sequence.
    bias_table: as in `attend`; None for cross-attention.
    bidirectional: as in `attend`.
    max_distance: as in `attend`.
    mask: as in `attend`.
    temperature: τ of each row.

  Returns:
    max_probability and entropy_nats [B, N, R]; means over the rows of
    logit_skewness, logit_excess_kurtosis, bias_overlap and content_nats [B, N],
    and of distance_mass [B, N, D]; the last three are None without a bias.
  """
  S = key.shape[1]
  middle = (jnp.arange(num_rows, dtype=jnp.float32) + 0.5) / num_rows
  rows = (middle[None] * num_valid_rows[:, None].astype(jnp.float32)).astype(
    jnp.int32
  )
  chosen = jnp.take_along_axis(query, rows[..., None, None], axis=1)
  logits = jnp.einsum(
    'BRNH,BSNH->BNRS', chosen, key, preferred_element_type=jnp.float32
  )
  temperature = _of_rows(temperature, rows)
  visible = mask.block(rows, jnp.arange(S))
  bias = None
  if bias_table is not None:
    band = position_bias.bias_band(
      bias_table, bidirectional=bidirectional, max_distance=max_distance
    )
    bias = position_bias.bias_rows(band, rows, jnp.arange(S))
    logits = logits + bias
  logits = logits / temperature
  probabilities = _softmax(logits, visible)
  skewness, kurtosis = _moments(logits, visible)
  result: dict[str, Any] = {
    'max_probability': jnp.max(probabilities, axis=-1),
    'entropy_nats': -jnp.sum(
      jax.scipy.special.xlogy(probabilities, probabilities), axis=-1
    ),
    'logit_skewness': jnp.mean(skewness, axis=-1),
    'logit_excess_kurtosis': jnp.mean(kurtosis, axis=-1),
    'bias_overlap': None,
    'content_nats': None,
    'distance_mass': None,
  }
  if bias is not None:
    by_position = _softmax(bias / temperature, visible)
    overlap = jnp.sum(jnp.minimum(probabilities, by_position), axis=-1)
    content = jnp.sum(
      jax.scipy.special.xlogy(probabilities, probabilities)
      - jax.scipy.special.xlogy(
        probabilities, jnp.maximum(by_position, _SMALLEST)
      ),
      axis=-1,
    )
    result['bias_overlap'] = jnp.mean(overlap, axis=-1)
    result['content_nats'] = jnp.mean(content, axis=-1)
    result['distance_mass'] = _by_distance(probabilities, rows)
  return result


def _of_rows(temperature, rows):
  """[B or 1, N or 1, T or 1, 1] -> the same with R rows, or one."""
  if temperature.shape[2] == 1:
    return temperature
  rows = jnp.broadcast_to(
    rows[:, None, :, None],
    (rows.shape[0], temperature.shape[1], rows.shape[1], 1),
  )
  temperature = jnp.broadcast_to(
    temperature, (rows.shape[0], *temperature.shape[1:])
  )
  return jnp.take_along_axis(temperature, rows, axis=2)


def _softmax(logits, visible):
  """Softmax over the visible keys; zeros for a row without any."""
  masked = jnp.where(visible, logits, -jnp.inf)
  maximum = jnp.max(masked, axis=-1, keepdims=True)
  weights = jnp.exp(masked - jnp.where(jnp.isfinite(maximum), maximum, 0.0))
  total = jnp.sum(weights, axis=-1, keepdims=True)
  return weights / jnp.where(total == 0, 1.0, total)


def _moments(logits, visible):
  """Skewness and excess kurtosis over the visible keys, [B, N, R]."""
  count = jnp.maximum(jnp.sum(visible, axis=-1), 1).astype(jnp.float32)

  def mean(values):
    return jnp.sum(jnp.where(visible, values, 0.0), axis=-1) / count

  centred = logits - mean(logits)[..., None]
  variance = mean(centred**2)
  safe = jnp.where(variance == 0, 1.0, variance)
  skewness = mean(centred**3) / safe**1.5
  kurtosis = jnp.where(variance == 0, 0.0, mean(centred**4) / safe**2 - 3.0)
  return skewness, kurtosis


def _by_distance(probabilities, rows):
  """Attention by bucket of |key - query|, mean over the rows, [B, N, D]."""
  S = probabilities.shape[-1]
  edges = np.asarray(distance_edges((S - 1).bit_length() + 1))
  distance = jnp.abs(jnp.arange(S)[None, None] - rows[..., None])
  bucket = jnp.searchsorted(jnp.asarray(edges), distance, side='right') - 1
  inside = jax.nn.one_hot(bucket, len(edges))
  mass = jnp.einsum('BNRS,BRSD->BND', probabilities, inside)
  return mass / rows.shape[1]
