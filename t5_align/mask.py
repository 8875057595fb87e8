"""Which keys each query sees, as structure instead of a [T, S] array.

A mask is lengths, segment ids, a causal flag and an optional prefix; only
small blocks of it are ever drawn. With T = S = 4, lengths of 3:

    lengths    causal     segments 1 1 2 0    causal, prefix 1 1 0 0
    1 1 1 0    1 0 0 0    1 1 0 0             1 1 0 0
    1 1 1 0    1 1 0 0    1 1 0 0             1 1 0 0
    1 1 1 0    1 1 1 0    0 0 1 0             1 1 1 0
    0 0 0 0    1 1 1 1    0 0 0 0             1 1 1 1

Synopsis:

    mask = AttentionMask.from_tokens(tokens, tokens)          # 0 is padding
    mask.block(jnp.arange(4), jnp.arange(4))                  # [B, 1, 4, 4]
    mask.key_counts(query_positions, num_keys)                # [B, T]
"""

from __future__ import annotations

import dataclasses

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

_ROWS_PER_BLOCK = 128  # of the mask, drawn at a time to count keys


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionMask:
  """Which keys each query sees.

  A key is visible where every constraint that is given allows it.

  Attributes:
    query_lengths: rows at or beyond this position see nothing, [B].
    key_lengths: keys at or beyond this position are padding, [B].
    query_segment_ids: segment of each query, [B, T]. A query sees the keys of
      its own segment; segment 0 is padding, which sees and is seen by nothing.
    key_segment_ids: segment of each key, [B, S]; given with query_segment_ids.
    prefix: keys and queries of a prefix, [B, S], that see each other in both
      directions although the mask is causal (a prefix language model).
    causal: a query sees only keys at its own position and before.
    packed: whether there may be more segments than one and padding.
  """

  query_lengths: Int[Array, 'B'] | None = None
  key_lengths: Int[Array, 'B'] | None = None
  query_segment_ids: Int[Array, 'B T'] | None = None
  key_segment_ids: Int[Array, 'B S'] | None = None
  prefix: Bool[Array, 'B S'] | None = None
  causal: bool = dataclasses.field(default=False, metadata={'static': True})
  packed: bool = dataclasses.field(default=True, metadata={'static': True})

  @classmethod
  def from_tokens(
    cls,
    query_tokens: Int[Array, 'B T'],
    key_tokens: Int[Array, 'B S'],
    query_segment_ids: Int[Array, 'B T'] | None = None,
    key_segment_ids: Int[Array, 'B S'] | None = None,
    *,
    prefix: Bool[Array, 'B S'] | None = None,
    causal: bool = False,
  ) -> AttentionMask:
    """Build T5X's mask: token 0 is padding, and segments keep apart."""
    return cls(
      query_segment_ids=_segments(query_tokens, query_segment_ids),
      key_segment_ids=_segments(key_tokens, key_segment_ids),
      prefix=prefix,
      causal=causal,
      packed=query_segment_ids is not None or key_segment_ids is not None,
    )

  def __post_init__(self):
    if (self.query_segment_ids is None) != (self.key_segment_ids is None):
      raise ValueError(
        'A mask needs segment ids for queries and keys alike, or for neither.'
      )

  def block(
    self,
    query_positions: Int[Array, 't'] | Int[Array, 'B t'],
    key_positions: Int[Array, 's'],
    query_rows: Int[Array, 't'] | None = None,
  ) -> Bool[Array, 'b 1 t s']:
    """Draw the mask of some rows and some keys.

    Args:
      query_positions: positions of the rows among the keys, for the causal
        order; [t], or [B, t] where sequences of a batch are at other positions.
      key_positions: positions of the keys. Positions past the last key show
        as masked where segment ids or lengths say so.
      query_rows: index of each row in the query array, where that isn't its
        position; `query_positions` by default.

    Returns:
      True where the query sees the key, [B or 1, 1, t, s].
    """
    if query_positions.ndim == 1:
      query_positions = query_positions[None]
    rows = query_positions if query_rows is None else query_rows[None]
    visible = jnp.ones((1, rows.shape[1], key_positions.shape[0]), bool)
    if self.causal:
      visible = key_positions[None, None, :] <= query_positions[:, :, None]
      if self.prefix is not None:
        both = (
          _take(self.prefix, query_positions)[:, :, None]
          & (_take(self.prefix, key_positions[None])[:, None, :])
        )
        visible = visible | both
    if self.query_lengths is not None:
      seen = rows < self.query_lengths[:, None]
      visible = visible & seen[:, :, None]
    if self.key_lengths is not None:
      seen = key_positions[None] < self.key_lengths[:, None]
      visible = visible & seen[:, None, :]
    if self.query_segment_ids is not None and self.key_segment_ids is not None:
      query = _take(self.query_segment_ids, rows)[:, :, None]
      key = _take(self.key_segment_ids, key_positions[None])[:, None, :]
      visible = visible & (query == key) & (key != 0)
    return visible[:, None]

  @property
  def rows_alike(self) -> bool:
    """Whether all rows see the same keys, but for padding and causal order."""
    one_segment = self.query_segment_ids is None or not self.packed
    return one_segment and self.prefix is None

  def real_keys(self, key_positions: Int[Array, 's']) -> Bool[Array, 'b s']:
    """Tell which keys are not padding, [B or 1, s]."""
    real = jnp.ones((1, key_positions.shape[0]), bool)
    if self.key_lengths is not None:
      real = real & (key_positions[None] < self.key_lengths[:, None])
    if self.key_segment_ids is not None:
      real = real & (_take(self.key_segment_ids, key_positions[None]) != 0)
    return real

  def key_counts(
    self,
    query_positions: Int[Array, 'T'] | Int[Array, 'B T'],
    num_keys: int,
  ) -> Int[Array, 'b T']:
    """Count the keys that each row sees, with memory linear in length.

    Args:
      query_positions: positions of the rows among the keys.
      num_keys: S.

    Returns:
      Number of visible keys of each row, [B or 1, T].
    """
    if self.rows_alike:
      return self._linear_key_counts(query_positions, num_keys)
    keys = jnp.arange(num_keys)
    num_rows = query_positions.shape[-1]

    def count(rows):
      positions = jnp.take(query_positions, rows, axis=-1, mode='clip')
      visible = self.block(positions, keys, query_rows=rows)
      return jnp.sum(visible[:, 0], axis=-1, dtype=jnp.int32)

    if num_rows <= _ROWS_PER_BLOCK:
      return count(jnp.arange(num_rows))
    num_blocks = -(-num_rows // _ROWS_PER_BLOCK)
    rows = jnp.arange(num_blocks * _ROWS_PER_BLOCK)
    counts = lax.map(count, rows.reshape(num_blocks, _ROWS_PER_BLOCK))
    # [blocks, B, rows] -> [B, T]
    counts = jnp.moveaxis(counts, 0, 1).reshape(counts.shape[1], -1)
    return counts[:, :num_rows]

  def _linear_key_counts(self, query_positions, num_keys):
    """key_counts where rows differ but by padding and causal order."""
    if query_positions.ndim == 1:
      query_positions = query_positions[None]
    real = self.real_keys(jnp.arange(num_keys))
    # How many real keys are before each position, [b, S + 1].
    before = jnp.pad(
      jnp.cumsum(real, axis=1, dtype=jnp.int32), ((0, 0), (1, 0))
    )
    end = query_positions + 1 if self.causal else num_keys
    end = jnp.clip(jnp.broadcast_to(end, query_positions.shape), 0, num_keys)
    counts = _take(before, end)
    rows = jnp.arange(query_positions.shape[1])
    if self.query_lengths is not None:
      counts = jnp.where(rows[None] < self.query_lengths[:, None], counts, 0)
    if self.query_segment_ids is not None:
      sees = _take(self.query_segment_ids, rows[None]) != 0
      counts = jnp.where(sees, counts, 0)
    return counts


def row_positions(
  offset: Int[Array, ''] | Int[Array, 'B'] | int, num_rows: int
) -> Int[Array, 'T'] | Int[Array, 'B T']:
  """Return offset, offset + 1, …: one row of them, or one a sequence."""
  return jnp.add.outer(jnp.asarray(offset, jnp.int32), jnp.arange(num_rows))


def _segments(tokens, segment_ids):
  if segment_ids is None:
    segment_ids = jnp.ones_like(tokens)
  return jnp.where(tokens > 0, segment_ids, 0)


def _take(values, positions):
  """Read [B, L] values at [1 or B, n] positions; 0 past the end."""
  if positions.shape[0] == 1:
    return jnp.take(values, positions[0], axis=1, mode='fill', fill_value=0)
  return jnp.take_along_axis(
    values, positions, axis=1, mode='fill', fill_value=0
  )
