"""The bucket rule against known values and peers; blocks against the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import position_bias
from t5_align.mask import row_positions

OFFSETS = np.arange(-40_000, 40_001)


def test_buckets_of_the_paper():
  """32 buckets, maximum 128: exact to 7 (15), then logarithmic."""
  encoder = position_bias.relative_position_bucket(
    np.array([0, -1, -7, -8, -16, -127, -128, -9999, 1, 7, 8, 128, 9999]),
    bidirectional=True,
  )
  assert encoder.tolist() == [0, 1, 7, 8, 10, 15, 15, 15, 17, 23, 24, 31, 31]
  decoder = position_bias.relative_position_bucket(
    np.array([0, 3, -1, -15, -16, -128, -9999]), bidirectional=False
  )
  assert decoder.tolist() == [0, 0, 1, 15, 16, 31, 31]


@pytest.mark.parametrize('bidirectional', [True, False])
def test_buckets_equal_hugging_face(bidirectional):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  modeling = pytest.importorskip(
    'transformers.models.t5.modeling_t5', reason='transformers not installed'
  )
  theirs = modeling.T5Attention._relative_position_bucket(
    torch.from_numpy(OFFSETS), bidirectional=bidirectional
  )
  ours = position_bias.relative_position_bucket(
    OFFSETS, bidirectional=bidirectional
  )
  np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize('num_buckets, max_distance', [(32, 128), (16, 40)])
def test_band_holds_every_offset(num_buckets, max_distance):
  table = jax.random.normal(jax.random.key(0), (2, num_buckets))
  band = position_bias.bias_band(
    table, bidirectional=True, max_distance=max_distance
  )
  buckets = position_bias.relative_position_bucket(
    OFFSETS,
    bidirectional=True,
    num_buckets=num_buckets,
    max_distance=max_distance,
  )
  rows = position_bias.bias_rows(band, jnp.array([0]), jnp.asarray(OFFSETS))
  np.testing.assert_array_equal(rows[0, :, 0], table[:, buckets])


@pytest.mark.parametrize(
  'query_start, key_start, t, s',
  [
    (0, 0, 5, 5),
    (7, 0, 3, 200),
    (0, 150, 130, 1),
    (500, 40, 64, 333),
    ([0, 170], 20, 3, 40),
  ],
)
def test_blocks_are_cut_from_the_matrix(query_start, key_start, t, s):
  band = jax.random.normal(jax.random.key(1), (3, 257))
  block = jax.jit(position_bias.toeplitz_block, static_argnums=(3, 4))(
    band, jnp.asarray(query_start), key_start, t, s
  )
  rows = position_bias.bias_rows(
    band, row_positions(jnp.asarray(query_start), t), key_start + jnp.arange(s)
  )
  np.testing.assert_array_equal(block, rows)


def test_every_decoding_step_has_its_row_of_the_matrix():
  table = jax.random.normal(jax.random.key(2), (2, 32))
  band = position_bias.bias_band(table, bidirectional=False, max_distance=128)
  positions = jnp.arange(300)
  matrix = position_bias.bias_rows(band, positions, positions)
  for step in range(300):
    row = position_bias.bias_rows(band, jnp.array([step]), positions)
    np.testing.assert_array_equal(row[0, :, 0], matrix[0, :, step])


def test_distance_smaller_than_the_exact_buckets():
  with pytest.raises(ValueError, match='max_distance is 8.*first 8'):
    position_bias.relative_position_bucket(
      0, bidirectional=True, num_buckets=32, max_distance=8
    )
