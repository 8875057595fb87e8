"""Every kernel against NumPy in float64, and against the reference."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from t5_align import position_bias
from t5_align.kernels import attend, blocks
from t5_align.mask import AttentionMask

B, T, S, N, H = 2, 150, 170, 3, 8
SEGMENTS = np.repeat([[1, 1, 2, 2, 0], [1, 2, 2, 3, 3]], 34, axis=1)
# Padding at the end, in the middle, and whole blocks of it.
TOKENS = np.arange(S)[None] < np.array([[90], [160]])
TOKENS = (TOKENS & (np.arange(S) // 20 != 3)).astype(np.int32)
# Rows see the same keys as any token of the first T of S.
CASES = {
  'plain': dict(),
  'padded': dict(mask=AttentionMask(key_lengths=jnp.array([100, 170]))),
  'no_key': dict(mask=AttentionMask(key_lengths=jnp.array([0, 7]))),
  'one_segment': dict(
    mask=AttentionMask.from_tokens(
      jnp.asarray(TOKENS[:, :T]), jnp.asarray(TOKENS)
    )
  ),
  'one_segment_causal': dict(
    mask=AttentionMask.from_tokens(
      jnp.asarray(TOKENS[:, :T]), jnp.asarray(TOKENS), causal=True
    ),
    bidirectional=False,
  ),
  'causal': dict(mask=AttentionMask(causal=True), bidirectional=False),
  'packed': dict(
    mask=AttentionMask(
      query_segment_ids=jnp.asarray(SEGMENTS[:, :T]),
      key_segment_ids=jnp.asarray(SEGMENTS),
      causal=True,
    )
  ),
  'prefix': dict(
    mask=AttentionMask(
      prefix=jnp.asarray(np.arange(S)[None] < [[20], [90]]), causal=True
    ),
    bidirectional=False,
  ),
  'cross': dict(bias_table=None),
  'cross_padded': dict(
    bias_table=None, mask=AttentionMask(key_lengths=jnp.array([100, 170]))
  ),
  'head_temperature': dict(temperature=jnp.array([0.3, 1.0, 2.0])),
  'row_temperature': dict(
    temperature=jnp.linspace(0.4, 1.5, B * N * T).reshape(B, N, T)
  ),
  'offset': dict(query_offset=20, mask=AttentionMask(causal=True)),
  'offsets': dict(
    query_offset=jnp.array([20, 3]), mask=AttentionMask(causal=True)
  ),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Several blocks, none of which divides S, and some far from others."""
  monkeypatch.setattr(blocks, 'block_lengths', lambda num_rows: (32, 16))


def arrays(dtype='float32'):
  keys = jax.random.split(jax.random.key(0), 4)
  query = jax.random.normal(keys[0], (B, T, N, H), dtype)
  key = jax.random.normal(keys[1], (B, S, N, H), dtype)
  value = jax.random.normal(keys[2], (B, S, N, H), dtype)
  return query, key, value, jax.random.normal(keys[3], (N, 32))


def arguments(case, table):
  defaults = dict(
    bias_table=table,
    bidirectional=True,
    max_distance=24,
    mask=AttentionMask(),
    temperature=0.8,
  )
  return defaults | CASES[case]


def run(query, key, value, implementation, **options):
  """attend in one program: its operations one by one take long to compile."""
  return jax.jit(
    lambda *x: attend(*x, implementation=implementation, **options)
  )(query, key, value)


def by_numpy(query, key, value, options):
  """The equation in float64, with every array whole."""
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  positions = np.add.outer(options.get('query_offset', 0), np.arange(T))
  logits = np.einsum('BTNH,BSNH->BNTS', query, key)
  if options['bias_table'] is not None:
    offsets = np.arange(S) - np.atleast_2d(positions)[..., None]
    buckets = position_bias.relative_position_bucket(
      offsets,
      bidirectional=options['bidirectional'],
      max_distance=options['max_distance'],
    )
    bias = np.asarray(options['bias_table'], np.float64)[:, buckets]
    logits = logits + bias.swapaxes(0, 1)
  temperature = np.asarray(options['temperature'], np.float64)
  if temperature.ndim == 1:
    temperature = temperature[:, None]
  logits = logits / (
    temperature[..., None] if temperature.ndim else temperature
  )
  visible = options['mask'].block(
    jnp.asarray(positions), jnp.arange(S), query_rows=jnp.arange(T)
  )
  visible = np.broadcast_to(visible, logits.shape)
  masked = np.where(visible, logits, -np.inf)
  maximum = masked.max(-1, keepdims=True)
  maximum = np.where(np.isfinite(maximum), maximum, 0)
  weights = np.exp(masked - maximum)
  weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
  out = np.einsum('BNTS,BSNH->BTNH', weights, value)
  with np.errstate(divide='ignore', invalid='ignore'):
    entropy = -np.sum(np.where(weights > 0, weights * np.log(weights), 0), -1)
  count = np.maximum(visible.sum(-1), 1)
  mean = np.where(visible, logits, 0).sum(-1) / count
  variance = np.where(visible, (logits - mean[..., None]) ** 2, 0).sum(-1)
  return out, weights.max(-1), entropy, mean, variance / count


@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
@pytest.mark.parametrize('case', CASES)
def test_output_and_statistics_equal_numpy(case, implementation):
  query, key, value, table = arrays()
  options = arguments(case, table)
  out, statistics = run(
    query, key, value, implementation, return_statistics=True, **options
  )
  expected = by_numpy(query, key, value, options)
  got = (
    out,
    statistics.max_probability,
    statistics.entropy_nats,
    statistics.logit_mean,
    statistics.logit_variance,
  )
  for name, ours, theirs in zip(
    ('out', 'P_max', 'entropy', 'mean', 'variance'), got, expected
  ):
    # Float32 rounding of logits of up to 40, which variances square.
    scale = max(1.0, np.abs(theirs).max())
    np.testing.assert_allclose(
      ours, theirs, atol=1e-5 * scale, rtol=0, err_msg=name
    )


@pytest.mark.slow
@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('case', ['padded', 'one_segment_causal', 'cross'])
def test_moments_of_keys_with_much_in_common(case, dtype, implementation):
  """Logits around 30 whose spread is that of the rest of the keys."""
  query, key, value, table = arrays(dtype)
  common = jax.random.normal(jax.random.key(5), (1, 1, N, H), dtype)
  key = key + 4 * common
  query = (0.5 * query + common).astype(dtype)
  options = arguments(case, table)
  _, statistics = run(
    query, key, value, implementation, return_statistics=True, **options
  )
  _, _, _, mean, variance = by_numpy(query, key, value, options)
  assert np.abs(mean).max() > 30
  np.testing.assert_allclose(
    statistics.logit_mean, mean, atol=1e-5 * np.abs(mean).max(), rtol=0
  )
  np.testing.assert_allclose(
    statistics.logit_variance, variance, atol=1e-5 * variance.max(), rtol=0
  )


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_gradients_of_chunked_equal_the_reference(case):
  query, key, value, table = arrays()
  options = arguments(case, table)
  has_table = options.pop('bias_table') is not None
  weights = jax.random.normal(jax.random.key(9), query.shape)

  def loss(implementation, query, key, value, table):
    out = attend(
      query,
      key,
      value,
      bias_table=table if has_table else None,
      **options,
      implementation=implementation,
    )
    return jnp.sum(out * weights)

  grad = jax.jit(jax.grad(loss, argnums=(1, 2, 3, 4)), static_argnums=0)
  expected = grad('reference', query, key, value, table)
  got = grad('chunked', query, key, value, table)
  for ours, theirs in zip(got, expected):
    scale = max(1.0, float(jnp.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale, rtol=0)


def test_chunked_skips_blocks_beyond_the_causal_diagonal():
  query, key, value, table = arrays()
  # Where no row is to see it, a NaN shows only if its block is computed.
  value = value.at[:, T:].set(jnp.nan)
  out = run(query, key, value, 'chunked', **arguments('causal', table))
  first_row_of_last_block = T - T // 5
  assert bool(jnp.isfinite(out[:, :first_row_of_last_block]).all())


def test_chunked_is_deterministic():
  query, key, value, table = arrays()
  compiled = jax.jit(
    lambda *x: attend(
      *x, implementation='chunked', **arguments('padded', table)
    )
  )
  first, again = (compiled(query, key, value) for _ in range(2))
  assert jnp.array_equal(first, again)


@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
def test_temperature_one_is_bit_identical_to_none(implementation):
  """Dividing by 1 is exact, whatever shape the 1 has."""
  query, key, value, table = arrays()
  options = arguments('plain', table)
  outs = [
    run(query, key, value, implementation, **options | {'temperature': one})
    for one in (1.0, jnp.ones(N), jnp.ones((B, N)), jnp.ones((B, N, T)))
  ]
  logits = jnp.einsum('BTNH,BSNH->BNTS', query, key)
  assert jnp.array_equal(logits / 1.0, logits)
  for out in outs[1:]:
    assert jnp.array_equal(out, outs[0])


@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
def test_bfloat16_keeps_its_dtype_and_float32_softmax(implementation):
  query, key, value, table = arrays('bfloat16')
  options = arguments('padded', table)
  out = run(query, key, value, implementation, **options)
  assert out.dtype == jnp.bfloat16
  expected, *_ = by_numpy(query, key, value, options)
  # Weights and outputs are rounded to 8 bits.
  error = np.linalg.norm(np.asarray(out, np.float64) - expected)
  assert error / np.linalg.norm(expected) < 1e-2


def test_memory_of_chunked_is_a_tenth_of_the_reference():
  def temporary_bytes(implementation, length):
    shape = jax.ShapeDtypeStruct((1, length, 8, 64), jnp.float32)
    table = jax.ShapeDtypeStruct((8, 32), jnp.float32)

    def run(query, key, value, table):
      return attend(
        query,
        key,
        value,
        **arguments('plain', table),
        implementation=implementation,
      )

    compiled = jax.jit(run).lower(shape, shape, shape, table).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  chunked_bytes = temporary_bytes('chunked', 4096)
  assert chunked_bytes * 10 <= temporary_bytes('reference', 4096)
  # Linear: twice the length is at most about twice the memory.
  assert temporary_bytes('chunked', 8192) <= 2.2 * chunked_bytes


@pytest.mark.parametrize(
  'num_rows, queries',
  [(1, 1024), (64, 1024), (128, 512), (512, 256), (9999, 128)],
)
def test_blocks_of_an_accelerator_hold_as_many_logits(
  num_rows, queries, monkeypatch
):
  monkeypatch.undo()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert blocks.block_lengths(num_rows) == (queries, 2 * queries)


def test_unknown_and_missing_implementations():
  query, key, value, table = arrays()
  options = arguments('plain', table)
  with pytest.raises(ValueError, match="Did you mean 'chunked'"):
    attend(query, key, value, **options, implementation='chunk')
  with pytest.raises(NotImplementedError, match='not there yet'):
    attend(query, key, value, **options, implementation='pallas_gpu')


@pytest.fixture
def unchecked_types():
  jaxtyping.config.update('jaxtyping_disable', True)
  yield
  jaxtyping.config.update('jaxtyping_disable', False)


@pytest.mark.usefixtures('unchecked_types')
def test_shapes_that_do_not_fit():
  query, key, value, table = arrays()
  options = arguments('plain', table)
  with pytest.raises(ValueError, match=r'temperature has shape \[5\]'):
    attend(query, key, value, **options | {'temperature': jnp.ones(5)})
  with pytest.raises(ValueError, match='bias_table has 2 heads, query has 3'):
    attend(query, key, value, **options | {'bias_table': table[:2]})
