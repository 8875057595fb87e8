"""AttentionMask: drawn examples, T5X's rules, and key counts."""

import jax.numpy as jnp
import numpy as np
import pytest

from t5_align.mask import AttentionMask, row_positions


def draw(mask, T=4, S=4, batch=0):
  block = mask.block(jnp.arange(T), jnp.arange(S))
  return [''.join('01'[int(v)] for v in row) for row in block[batch, 0]]


def test_lengths():
  mask = AttentionMask(query_lengths=jnp.array([3]), key_lengths=jnp.array([3]))
  assert draw(mask) == ['1110', '1110', '1110', '0000']


def test_causal():
  assert draw(AttentionMask(causal=True)) == ['1000', '1100', '1110', '1111']


def test_segments_keep_apart_and_zero_is_padding():
  segments = jnp.array([[1, 1, 2, 0]])
  mask = AttentionMask(query_segment_ids=segments, key_segment_ids=segments)
  assert draw(mask) == ['1100', '1100', '0010', '0000']


def test_prefix_sees_itself_in_both_directions():
  prefix = jnp.array([[True, True, False, False]])
  mask = AttentionMask(prefix=prefix, causal=True)
  assert draw(mask) == ['1100', '1100', '1110', '1111']


def test_t5x_example_of_a_packed_prefix_language_model():
  """The matrix in the docstring of T5X's decoder_only make_decoder_mask."""
  targets = jnp.array([[6, 7, 8, 3, 4, 5, 0]])
  segments = jnp.array([[1, 1, 1, 2, 2, 2, 0]])
  prefix = jnp.array([[1, 1, 0, 1, 1, 0, 0]], bool)
  mask = AttentionMask.from_tokens(
    targets, targets, segments, segments, prefix=prefix, causal=True
  )
  assert draw(mask, 7, 7) == [
    '1100000',
    '1100000',
    '1110000',
    '0001100',
    '0001100',
    '0001110',
    '0000000',
  ]


def test_padding_in_the_middle_is_masked():
  tokens = jnp.array([[5, 0, 5, 5]])
  mask = AttentionMask.from_tokens(tokens, tokens)
  assert draw(mask) == ['1011', '0000', '1011', '1011']


def test_rows_at_other_positions_than_their_index():
  mask = AttentionMask(causal=True, query_lengths=jnp.array([2]))
  rows = jnp.arange(3)
  block = mask.block(row_positions(5, 3), jnp.arange(7), query_rows=rows)
  assert block[0, 0].sum(-1).tolist() == [6, 7, 0]


def test_prefix_is_of_positions_not_of_rows():
  """Later rows of a packed prefix are the rows of the whole matrix."""
  prefix = jnp.array([[True, True, False, True, True, False]])
  mask = AttentionMask(prefix=prefix, causal=True)
  whole = draw(mask, 6, 6)
  rows = jnp.arange(3)
  block = mask.block(row_positions(3, 3), jnp.arange(6), query_rows=rows)
  drawn = [''.join('01'[int(v)] for v in row) for row in block[0, 0]]
  assert drawn == whole[3:] == ['111110', '111110', '111111']


def test_each_sequence_at_its_own_position():
  mask = AttentionMask(causal=True)
  positions = row_positions(jnp.array([0, 3]), 1)
  block = mask.block(positions, jnp.arange(5), query_rows=jnp.arange(1))
  assert block[:, 0, 0].sum(-1).tolist() == [1, 4]


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('num_rows', [5, 300])
@pytest.mark.parametrize('kind', ['packed', 'padded', 'lengths', 'none'])
def test_key_counts_are_sums_over_the_mask(kind, causal, num_rows):
  rng = np.random.default_rng(0)
  segments = jnp.asarray(rng.integers(0, 4, (3, num_rows)))
  lengths = dict(
    query_lengths=jnp.array([2, 300, 4]), key_lengths=jnp.array([3, 200, 300])
  )
  mask = {
    'packed': AttentionMask(
      query_segment_ids=segments, key_segment_ids=segments, causal=causal
    ),
    'padded': AttentionMask.from_tokens(segments, segments, causal=causal),
    'lengths': AttentionMask(**lengths, causal=causal),
    'none': AttentionMask(causal=causal),
  }[kind]
  rows, keys = jnp.arange(num_rows), jnp.arange(num_rows)
  for positions in (rows, row_positions(jnp.array([2, 0, 7]), num_rows)):
    whole = mask.block(positions, keys, query_rows=rows)[:, 0].sum(-1)
    counts = mask.key_counts(positions, num_rows)
    np.testing.assert_array_equal(*np.broadcast_arrays(counts, whole))


def test_segments_for_one_side_only():
  with pytest.raises(ValueError, match='queries and keys alike'):
    AttentionMask(key_segment_ids=jnp.ones((1, 3), jnp.int32))


def test_real_keys_are_those_that_are_no_padding():
  tokens = jnp.array([[5, 0, 5, 5], [5, 5, 0, 0]])
  mask = AttentionMask.from_tokens(tokens, tokens, causal=True)
  real = mask.real_keys(jnp.arange(5))
  assert real.tolist() == [[1, 0, 1, 1, 0], [1, 1, 0, 0, 0]]
  lengths = AttentionMask(key_lengths=jnp.array([2]))
  assert lengths.real_keys(jnp.arange(3)).tolist() == [[1, 1, 0]]


def test_rows_are_alike_but_where_packed_or_with_a_prefix():
  tokens = jnp.array([[5, 5, 5, 0]])
  segments = jnp.array([[1, 1, 2, 0]])
  assert AttentionMask(causal=True).rows_alike
  assert AttentionMask.from_tokens(tokens, tokens).rows_alike
  packed = AttentionMask.from_tokens(tokens, tokens, segments, segments)
  assert not packed.rows_alike
  assert not AttentionMask(prefix=tokens > 0, causal=True).rows_alike
