"""An attention's logits, a block of queries and of keys at a time.

Queries are mapped over in blocks and keys are scanned over in blocks, so that
what is computed from the logits needs memory linear in length: the caller
says what a row carries from one block of keys to the next. The bias of a block
is cut from the [N, W] band and its mask drawn from structure, inside the scan,
and blocks that a causal mask hides from every row are left out.

Synopsis:

    def see(row, block):                             # row: what `empty` made
      return row + jnp.where(block.visible(), block.logits(), 0).sum(-1)

    sums = scan_blocks(
        query, key, band=band, mask=AttentionMask(), temperature=temperature,
        query_offset=0, empty=lambda shape: jnp.zeros(shape[:-1]), see=see,
        finish=lambda row, query, temperature: row)               # [B, N, T]
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t5_align import position_bias
from t5_align.mask import AttentionMask, row_positions

# A masked logit: finite, so that its weight of 0 times it is 0.
MASKED = -1e30
# Logits that a block has for all sequences and heads together, on accelerators:
# 512 MiB of them.
_LOGITS_PER_BLOCK = 1 << 27


@dataclasses.dataclass(frozen=True)
class Block:
  """Queries by keys; logits and mask are computed where they are asked for.

  Attributes:
    query: the block's queries.
    scores: q·k.
    temperature: τ of the rows.
    per_key: this block's part of what the caller gave for each key.
    per_block: this block's part of what the caller gave for each block of keys.
    band: bias of each offset; None for none.
    mask: which keys each row sees.
    first_row: index of the first query in the query array.
    query_start: its position among the keys, one, or one a sequence.
    key_start: index of the first key.
    num_keys: S; keys from there on only fill up the last block.
  """

  query: Float[Array, 'B N t H']
  scores: Float[Array, 'B N t s']
  temperature: Float[Array, 'b n u 1']
  per_key: Any
  per_block: Any
  band: Float[Array, 'N W'] | None
  mask: AttentionMask
  first_row: Int[Array, '']
  query_start: Int[Array, ''] | Int[Array, 'B']
  key_start: Int[Array, '']
  num_keys: int

  def logits(self) -> Float[Array, 'B N t s']:
    """Return (q·k + bias) / τ, also of keys that a row doesn't see."""
    logits = self.scores
    if self.band is not None:
      logits += position_bias.toeplitz_block(
        self.band,
        self.query_start,
        self.key_start,
        *logits.shape[2:],
      )
    return logits / self.temperature

  def visible(self) -> Bool[Array, 'b 1 t s']:
    """Draw which keys each row sees."""
    keys = self.key_start + jnp.arange(self.scores.shape[3])
    visible = self.mask.block(*self._indices())
    return visible & (keys < self.num_keys)[None, None, None]

  def extent(self) -> tuple[Bool[Array, 'b'], Bool[Array, 'b']]:
    """Whether rows see all of the keys, or none; as `AttentionMask.extent`."""
    every, none = self.mask.extent(*self._indices())
    end = self.key_start + self.scores.shape[3]
    return every & (end <= self.num_keys), none

  def far_sides(self) -> Bool[Array, '2 b']:
    """Tell whether all keys are far before, or far after, all queries."""
    if self.band is None:
      return jnp.array([[True], [False]])
    return position_bias.far_sides(
      self.band, self.query_start, self.key_start, *self.scores.shape[2:]
    )

  def _indices(self):
    return _indices(
      self.query_start, self.key_start, self.first_row, *self.scores.shape[2:]
    )


def scan_blocks(
  query: Float[Array, 'B T N H'],
  key: Float[Array, 'B S N H'],
  *per_key: Float[Array, 'B S N H'],
  band: Float[Array, 'N W'] | None,
  mask: AttentionMask,
  temperature: Float[Array, 'b n t 1'],
  query_offset: Int[Array, ''] | Int[Array, 'B'] | int,
  empty: Callable[[tuple[int, ...]], Any],
  see: Callable[[Any, Block], Any],
  finish: Callable[[Any, Array, Array], Any],
  per_block: Callable[[Float[Array, 'B N s H']], Any] = lambda key: (),
) -> Any:
  """Let each row see the keys, a block at a time.

  Args:
    query: as in `attend`, and so are the others that are not named here.
    key: one vector a key and head.
    *per_key: more arrays of the keys, such as their values.
    band: bias of each offset, from `bias_band`; None for none.
    mask: which keys each row sees.
    temperature: τ, already [B, N, T, 1].
    query_offset: position of the first row among the keys.
    empty: from the shape [B, N, t, H] of a block of queries, what they carry
      before they have seen a key.
    see: from what rows carry and a block of keys, what they carry on.
    finish: from what rows carry in the end, and their queries and τ, what is
      returned of them.
    per_block: from a block of keys, what `see` wants to know of it and what
      doesn't depend on the queries.

  Returns:
    What `finish` returns, its arrays [B, N, t, …] joined to [B, N, T, …].
  """
  T, S = query.shape[1], key.shape[1]
  target_q, target_k = block_lengths(query.shape[0] * query.shape[2])
  num_q, block_q = _blocks(T, target_q)
  num_k, block_k = _blocks(S, target_k)
  # [B, L, N, H] -> [blocks, B, N, block, H]
  query_blocks = _split(query.swapaxes(1, 2), num_q, block_q)
  keys, *per_key_blocks = (
    _split(x.swapaxes(1, 2), num_k, block_k) for x in (key, *per_key)
  )
  of_keys = (jnp.arange(num_k), keys, per_key_blocks, lax.map(per_block, keys))
  if temperature.shape[2] > 1:
    temperatures = _split(temperature, num_q, block_q, fill=1.0)
  else:
    temperatures = jnp.broadcast_to(temperature, (num_q, *temperature.shape))

  def see_rows(of_rows):
    i, query_block, temperature = of_rows

    @jax.checkpoint
    def see_keys(row, of_keys):
      j, key_block, per_key, per_block = of_keys
      first_row, key_start = i * block_q, j * block_k
      query_start = first_row + query_offset

      def see_block(row):
        scores = jnp.einsum(
          'BNTH,BNSH->BNTS',
          query_block,
          key_block,
          preferred_element_type=jnp.float32,
        )
        block = Block(
          query=query_block,
          scores=scores,
          temperature=temperature,
          per_key=per_key,
          per_block=per_block,
          band=band,
          mask=mask,
          first_row=first_row,
          query_start=query_start,
          key_start=key_start,
          num_keys=S,
        )
        return see(row, block)

      # Nearly half of a causal mask's blocks show nothing to any row.
      if mask.causal:
        _, none = mask.extent(
          *_indices(query_start, key_start, first_row, block_q, block_k)
        )
        return lax.cond(jnp.all(none), lambda row: row, see_block, row)
      return see_block(row)

    row, _ = lax.scan(
      lambda row, x: (see_keys(row, x), None), empty(query_block.shape), of_keys
    )
    return finish(row, query_block, temperature)

  seen = lax.map(
    jax.checkpoint(see_rows), (jnp.arange(num_q), query_blocks, temperatures)
  )
  return jax.tree.map(lambda x: _join(x, T), seen)


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


def _indices(query_start, key_start, first_row, block_q, block_k):
  """Positions of queries and keys, and rows, as AttentionMask wants them."""
  return (
    row_positions(query_start, block_q),
    key_start + jnp.arange(block_k),
    first_row + jnp.arange(block_q),
  )


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
