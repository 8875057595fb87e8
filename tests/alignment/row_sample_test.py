"""Whole rows of attention against NumPy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from t5_align import position_bias
from t5_align.alignment.row_sample import distance_edges, sample_rows
from t5_align.mask import AttentionMask
from tests.alignment.full_attention import softmax

B, T, N, H, R = 2, 50, 3, 8, 6
LENGTHS = np.array([50, 33])
# Of each row, head and sequence, and one number.
TEMPERATURES = {
  'number': np.full((1, 1, 1, 1), 0.7),
  'head': np.linspace(0.5, 1.5, N).reshape(1, N, 1, 1),
  'row': np.linspace(0.4, 1.6, B * T).reshape(B, 1, T, 1),
}


def sample(causal=False, temperature='number', bias=True, shift=0.0):
  """Return what is measured, and logits and bias of the rows in float64."""
  keys = jax.random.split(jax.random.key(0), 3)
  query = jax.random.normal(keys[0], (B, T, N, H)) / 2
  key = jax.random.normal(keys[1], (B, T, N, H))
  table = jax.random.normal(keys[2], (N, 32)) + shift
  tau = TEMPERATURES[temperature]
  position = dict(bidirectional=not causal, max_distance=24)
  measured = jax.jit(
    lambda query, key, table: sample_rows(
      query,
      key,
      jnp.asarray(LENGTHS),
      num_rows=R,
      bias_table=table if bias else None,
      mask=AttentionMask(key_lengths=jnp.asarray(LENGTHS), causal=causal),
      temperature=jnp.asarray(tau, jnp.float32),
      **position,
    )
  )(query, key, table)
  # The middle of each of R equal parts of the rows.
  rows = ((np.arange(R) + 0.5) / R * LENGTHS[:, None]).astype(int)
  content = np.einsum('BTNH,BSNH->BNTS', *map(np.float64, (query, key)))
  offsets = np.arange(T)[None] - np.arange(T)[:, None]
  buckets = position_bias.relative_position_bucket(offsets, **position)
  by_position = np.float64(table)[:, buckets][None] if bias else 0.0
  tau = np.broadcast_to(tau, (B, N, T, 1))
  logits = (content + by_position) / tau
  by_position = np.broadcast_to(by_position / tau, logits.shape)

  def at_rows(values):
    return np.take_along_axis(values, rows[:, None, :, None], axis=2)

  seen = np.arange(T) < LENGTHS[:, None, None]
  seen = seen & (offsets <= 0 if causal else True)
  visible = at_rows(np.broadcast_to(seen[:, None], logits.shape))
  distance = at_rows(np.broadcast_to(abs(offsets), logits.shape))
  return measured, at_rows(logits), at_rows(by_position), visible, distance


def assert_close(ours, theirs, atol=1e-5):
  np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('temperature', TEMPERATURES)
def test_equals_numpy(causal, temperature):
  measured, logits, by_position, visible, distance = sample(causal, temperature)
  p, b = softmax(logits, visible), softmax(by_position, visible)
  log_p, log_b = (np.log(np.where(visible, x, 1)) for x in (p, b))
  assert_close(measured['max_probability'], p.max(-1))
  assert_close(measured['entropy_nats'], -(p * log_p).sum(-1))
  overlap = np.minimum(p, b).sum(-1).mean(-1)
  assert_close(measured['bias_overlap'], overlap)
  content = (p * (log_p - log_b)).sum(-1).mean(-1)
  assert_close(measured['content_nats'], content)
  assert content.min() > 0.1 and overlap.max() < 0.9
  edges = [*distance_edges(measured['distance_mass'].shape[-1]), 10**9]
  mass = np.stack(
    [
      (p * ((low <= distance) & (distance < high))).sum(-1).mean(-1)
      for low, high in zip(edges, edges[1:])
    ],
    axis=-1,
  )
  assert_close(measured['distance_mass'], mass)
  assert_close(measured['distance_mass'].sum(-1), 1)


def test_moments_equal_scipy():
  measured, logits, _, visible, _ = sample()
  rows = np.where(visible, logits, np.nan)
  for ours, moment in (
    (measured['logit_skewness'], stats.skew),
    (measured['logit_excess_kurtosis'], stats.kurtosis),
  ):
    theirs = np.asarray(moment(rows, axis=-1, nan_policy='omit'))
    assert np.abs(theirs).max() > 0.3
    assert_close(ours, theirs.mean(-1), 1e-4)


def test_moments_of_a_constant_are_zero():
  """The first row of a decoder sees one key."""
  measured = sample_rows(
    jnp.zeros((1, 4, 1, 2)),
    jnp.ones((1, 4, 1, 2)),
    jnp.array([4]),
    num_rows=4,
    bias_table=None,
    bidirectional=False,
    max_distance=24,
    mask=AttentionMask(causal=True),
    temperature=jnp.ones((1, 1, 1, 1)),
  )
  assert measured['logit_skewness'].item() == 0
  assert measured['logit_excess_kurtosis'].item() == 0
  assert_close(measured['entropy_nats'][0, 0], np.log([1, 2, 3, 4]))


def test_a_constant_bias_adds_nothing_to_position():
  first, moved = (sample(shift=shift)[0] for shift in (0.0, 3.0))
  for name in ('bias_overlap', 'content_nats', 'distance_mass'):
    assert_close(first[name], moved[name])


def test_cross_attention_has_no_position():
  measured = sample(bias=False)[0]
  for name in ('bias_overlap', 'content_nats', 'distance_mass'):
    assert measured[name] is None
  assert measured['entropy_nats'].shape == (B, N, R)


def test_distance_edges():
  assert distance_edges(6) == (0, 1, 2, 4, 8, 16)
