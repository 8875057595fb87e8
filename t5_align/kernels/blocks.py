"""An attention's logits, a block of queries and of keys at a time.

Queries are mapped over in blocks and keys are scanned over in blocks, so that
what is computed from the logits needs memory linear in length: the caller says
what a row carries from one block of keys to the next. The bias of a block is
cut from the [N, W] band and its mask drawn from structure, inside the scan,
and blocks that a causal mask hides from every row are left out.

Synopsis:

    def see(row, block):                             # row: what `empty` made
      return row + jnp.where(block.visible(), block.logits(), 0).sum(-1)

    sums = scan_blocks(
        query, key, band=band, mask=AttentionMask(), temperature=temperature,
        query_offset=0, empty=lambda shape: jnp.zeros(shape[:-1]), see=see)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import dataclasses
import functools
from typing import Any, NamedTuple

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


# What programs are compiled for; None for the default backend.
_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  'platform', default=None
)


@contextlib.contextmanager
def compile_for(platform: str) -> Iterator[None]:
  """Choose block lengths for 'cpu', 'gpu' or 'tpu', whatever is here."""
  token = _platform.set(platform)
  try:
    yield
  finally:
    _platform.reset(token)


@dataclasses.dataclass(frozen=True)
class Block:
  """Queries by keys; logits and mask are made where they are asked for.

  Attributes:
    query: the block's queries.
    key: its keys.
    per_key: its part of what the caller gave for each key.
    per_block: what the caller made of its keys.
    near: whether it may hold more than one bias, or keys that some rows see
      and some don't; False where all rows see all its keys but padding.
    temperature: τ of the rows.
    band: bias of each offset; None for none.
    mask: which keys each row sees.
    first_row: index of the first query in the query array.
    query_start: its position among the keys, one, or one a sequence.
    key_start: index of the first key.
    num_keys: S; keys from there on only fill up the last block.
  """

  query: Float[Array, 'B N t H']
  key: Float[Array, 'B N s H']
  per_key: Any
  per_block: Any
  near: bool
  temperature: Float[Array, 'b n u 1']
  band: Float[Array, 'N W'] | None
  mask: AttentionMask
  first_row: Int[Array, '']
  query_start: Int[Array, ''] | Int[Array, 'B']
  key_start: Int[Array, '']
  num_keys: int

  def logits(self) -> Float[Array, 'B N t s']:
    """Return (q·k + bias) / τ, also of keys that a row doesn't see."""
    logits = jnp.einsum(
      'BNTH,BNSH->BNTS',
      self.query,
      self.key,
      preferred_element_type=jnp.float32,
    )
    if self.band is not None:
      logits += position_bias.toeplitz_block(
        self.band, self.query_start, self.key_start, *logits.shape[2:]
      )
    return logits / self.temperature

  def visible(self) -> Bool[Array, 'b 1 t s']:
    """Draw which keys each row sees."""
    rows = jnp.arange(self.query.shape[2])
    keys = self.key_start + jnp.arange(self.key.shape[2])
    visible = self.mask.block(
      row_positions(self.query_start, rows.shape[0]),
      keys,
      query_rows=self.first_row + rows,
    )
    return visible & (keys < self.num_keys)[None, None, None]


class Rows(NamedTuple):
  """What is known of a block of queries that has seen all keys.

  Attributes:
    query: the queries.
    temperature: their τ.
    far: which blocks of keys were not near, before the queries and after them.
    per_block: what the caller made of each block of keys, [blocks, …].
  """

  query: Float[Array, 'B N t H']
  temperature: Float[Array, 'b n u 1']
  far: Bool[Array, '2 blocks']
  per_block: Any


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
  finish: Callable[[Any, Rows], Any] = lambda row, rows: row,
  per_block: Callable[[Array, Array], Any] | None = None,
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
    see: from what rows carry and a block, what they carry on.
    finish: from what rows carry in the end, what is returned of them.
    per_block: from a block of keys [B, N, s, H] and which of them are not
      padding [B or 1, s], what `see` and `finish` want to know of it. With it
      the near blocks come first.

  Returns:
    What `finish` returns, its arrays [B, N, t, …] joined to [B, N, T, …].
  """
  T, S = query.shape[1], key.shape[1]
  # Sequences and heads are split over the devices of a mesh.
  mesh = jax.sharding.get_abstract_mesh()
  num_rows = query.shape[0] * query.shape[2]
  target_q, target_k = block_lengths(max(1, num_rows // max(1, mesh.size)))
  num_q, block_q = _blocks(T, target_q)
  num_k, block_k = _blocks(S, target_k)
  # [B, L, N, H] -> [blocks, B, N, block, H]
  query_blocks = _split(query.swapaxes(1, 2), num_q, block_q)
  keys, *per_key_blocks = (
    _split(x.swapaxes(1, 2), num_k, block_k) for x in (key, *per_key)
  )
  if temperature.shape[2] > 1:
    temperatures = _split(temperature, num_q, block_q, fill=1.0)
  else:
    temperatures = jnp.broadcast_to(temperature, (num_q, *temperature.shape))
  num_near, of_blocks = num_k, ()
  if per_block is not None:
    num_near = _near_blocks(block_q, block_k, num_k, band, mask, query_offset)
    positions = jnp.arange(num_k * block_k)
    real = mask.real_keys(positions) & (positions < S)[None]
    # [B, S] -> [blocks, B, s]
    real = real.reshape(-1, num_k, block_k).swapaxes(0, 1)
    of_blocks = lax.map(lambda x: per_block(*x), (keys, real))
  of_keys = (keys, per_key_blocks, of_blocks)

  def see_rows(of_rows):
    i, query_block, temperature = of_rows
    first_row = i * block_q
    query_start = first_row + query_offset
    first_near = 0
    if num_near < num_k:
      reach = _reach(band, mask)
      first_near = jnp.clip(
        (query_start - reach + 1) // block_k, 0, num_k - num_near
      )

    def see_keys(near, row, j):
      of_key, of_value, of_block = jax.tree.map(lambda x: x[j], of_keys)
      block = Block(
        query=query_block,
        key=of_key,
        per_key=of_value,
        per_block=of_block,
        near=near,
        temperature=temperature,
        band=band,
        mask=mask,
        first_row=first_row,
        query_start=query_start,
        key_start=j * block_k,
        num_keys=S,
      )
      # Nearly half of a causal mask's blocks show nothing to any row.
      if mask.causal:
        return lax.cond(
          jnp.any(block.visible()),
          lambda row: see(row, block),
          lambda row: row,
          row,
        )
      return see(row, block)

    def see_all(row, near, indices):
      see_one = jax.checkpoint(functools.partial(see_keys, near))
      return lax.scan(lambda row, j: (see_one(row, j), None), row, indices)[0]

    row = see_all(
      empty(query_block.shape), True, first_near + jnp.arange(num_near)
    )
    others = jnp.arange(num_k - num_near)
    others += jnp.where(others < first_near, 0, num_near)
    if num_near < num_k:
      row = see_all(row, False, others)
    blocks = jnp.arange(num_k)
    far = jnp.stack([blocks < first_near, blocks >= first_near + num_near])
    return finish(row, Rows(query_block, temperature, far, of_blocks))

  of_rows = (jnp.arange(num_q), query_blocks, temperatures)
  seen = lax.map(jax.checkpoint(see_rows), of_rows)
  return jax.tree.map(lambda x: _join(x, T), seen)


def block_lengths(num_rows: int) -> tuple[int, int]:
  """Return how many queries and keys a block should have.

  Chosen by benchmarks/attention.py. On a CPU, of sizes with as much memory,
  256 queries by 512 keys are the fastest whatever the batch. An H200 wants
  larger ones to be busy: 1,024 by 2,048 take 0.57 of the time of 256 by 512 at
  32 heads; at 256 heads and sequences 512 by 1,024 take 0.8 of it.

  Args:
    num_rows: B · N, the sequences and heads of a device that a block is made
      for.
  """
  if (_platform.get() or jax.default_backend()) == 'cpu':
    return 256, 512
  area = _LOGITS_PER_BLOCK // (2 * num_rows)  # of a block half as wide
  queries = 1 << (area.bit_length() - 1) // 2
  queries = min(max(queries, 128), 1024)
  return queries, 2 * queries


def _near_blocks(block_q, block_k, num_k, band, mask, query_offset):
  """How many blocks of keys in a row hold all that is near to some queries."""
  if not mask.rows_alike or jnp.ndim(query_offset) > 0:
    return num_k
  reach = _reach(band, mask)
  window = block_q + 2 * (reach - 1)
  return min(num_k, (window - 2) // block_k + 2) if reach else 0


def _reach(band, mask):
  """Distance from which on all keys are alike to a query."""
  return (band.shape[1] - 1) // 2 if band is not None else int(mask.causal)


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
