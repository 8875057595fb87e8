"""attend(): T5's attention with a temperature, by the best kernel there is.

    softmax((q·k + bias) / τ) v

Synopsis:

    out = attend(query, key, value, bias_table=table, bidirectional=True,
                 max_distance=128, mask=AttentionMask(key_lengths=lengths),
                 temperature=0.8)
    out, statistics = attend(..., implementation='chunked',
                             return_statistics=True)
"""

from __future__ import annotations

import difflib
from typing import Any, Literal, overload

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align.kernels.chunked import attend_chunked
from t5_align.kernels.reference import attend_reference
from t5_align.kernels.statistics import SoftmaxStatistics
from t5_align.mask import AttentionMask

IMPLEMENTATIONS = ('reference', 'chunked', 'pallas_gpu', 'pallas_tpu')
# Where the [B, N, T, S] logits are small enough to be made whole.
_REFERENCE_LOGITS_BYTES = 4 << 20


@overload
def attend(
  *args, return_statistics: Literal[False] = False, **kwargs
) -> Float[Array, 'B T N H']: ...


@overload
def attend(
  *args, return_statistics: Literal[True], **kwargs
) -> tuple[Float[Array, 'B T N H'], SoftmaxStatistics]: ...


def attend(
  query: Float[Array, 'B T N H'],
  key: Float[Array, 'B S N H'],
  value: Float[Array, 'B S N H'],
  *,
  bias_table: Float[Array, 'N K'] | None,
  bidirectional: bool,
  max_distance: int,
  mask: AttentionMask,
  temperature: Float[Array, '...'] | float,
  query_offset: Int[Array, ''] | Int[Array, 'B'] | int = 0,
  implementation: str | None = None,
  return_statistics: bool = False,
):
  """Attend with a relative position bias, a mask and a temperature.

  Args:
    query: one vector a row and head; not scaled by 1/sqrt(H), as in T5.
    key: one vector a key and head.
    value: what is averaged.
    bias_table: T5's bias of each head and bucket, float32; None for none
      (cross-attention).
    bidirectional: whether half of the buckets are for keys after the query.
    max_distance: distance from which on all keys share a bucket.
    mask: which keys each row sees; applied after the temperature.
    temperature: τ, positive: a scalar, [N], [B, N] or [B, N, T] (B may be 1).
    query_offset: position of the first row among the keys (decoding), one, or
      one a sequence, [B].
    implementation: 'reference' (the definition, makes [B, N, T, S]), 'chunked'
      (memory linear in length), 'pallas_gpu', 'pallas_tpu', or None for the
      best that can. A named one never falls back to another.
    return_statistics: also return the statistics of each row's softmax.

  Returns:
    The output in the query's dtype, zeros for a row that sees no key; with
    return_statistics, (output, SoftmaxStatistics).

  Raises:
    ValueError: shapes that don't fit, or an unknown implementation.
    NotImplementedError: the named implementation can't do this; says why.
  """
  _check_shapes(query, key, value, bias_table)
  per_row = per_row_temperature(temperature, query.shape)
  arguments: dict[str, Any] = dict(
    bias_table=bias_table,
    bidirectional=bidirectional,
    max_distance=max_distance,
    mask=mask,
    temperature=per_row,
    query_offset=query_offset,
  )
  if implementation is None:
    implementation = _best(query, key)
  if implementation == 'reference':
    out, statistics = attend_reference(query, key, value, **arguments)
  elif implementation == 'chunked':
    out, statistics = attend_chunked(
      query, key, value, **arguments, with_moments=return_statistics
    )
  elif implementation in IMPLEMENTATIONS:
    raise NotImplementedError(
      f'implementation={implementation!r} is not there yet; use'
      " 'chunked', or None for the best that can."
    )
  else:
    close = difflib.get_close_matches(implementation, IMPLEMENTATIONS, 1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(
      f'Unknown attention implementation {implementation!r}; known:'
      f' {", ".join(IMPLEMENTATIONS)}.{hint}'
    )
  return (out, statistics) if return_statistics else out


def _best(query, key):
  B, T, N, _ = query.shape
  logits_bytes = 4 * B * N * T * key.shape[1]
  small = T == 1 or logits_bytes <= _REFERENCE_LOGITS_BYTES
  return 'reference' if small else 'chunked'


def per_row_temperature(
  temperature: Float[Array, '...'] | float, query_shape: tuple[int, ...]
) -> Float[Array, 'b n t 1']:
  """Bring τ to [B or 1, N or 1, T or 1, 1]; ValueError where it can't be."""
  B, T, N, _ = query_shape
  temperature = jnp.asarray(temperature, jnp.float32)
  shape = temperature.shape
  if shape in ((), (N,)):
    return temperature.reshape(1, -1, 1, 1)
  if shape in ((B, N), (1, N)):
    return temperature[:, :, None, None]
  if len(shape) == 3 and all(x in (1, y) for x, y in zip(shape, (B, N, T))):
    return temperature[..., None]
  raise ValueError(
    f'temperature has shape {list(shape)}; wanted [], [N], [B, N] or'
    f' [B, N, T] with B={B}, N={N}, T={T}.'
  )


def _check_shapes(query, key, value, bias_table):
  B, _, N, H = query.shape
  if key.shape != value.shape or (key.shape[0], *key.shape[2:]) != (B, N, H):
    raise ValueError(
      f'query {list(query.shape)} [B, T, N, H] does not fit key'
      f' {list(key.shape)} and value {list(value.shape)} [B, S, N, H].'
    )
  if bias_table is not None and bias_table.shape[0] != N:
    raise ValueError(
      f'bias_table has {bias_table.shape[0]} heads, query has {N}.'
    )
