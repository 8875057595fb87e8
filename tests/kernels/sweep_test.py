"""Statistics at many temperatures against NumPy, and against attend()."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align.kernels import attend, blocks
from t5_align.kernels.sweep import sweep_statistics
from tests.kernels.attend_test import CASES, arguments, arrays, by_numpy

FACTORS = np.array([0.25, 0.7, 1.0, 1.6], np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Several blocks, none of which divides S."""
  monkeypatch.setattr(blocks, 'block_lengths', lambda num_rows: (32, 16))


def sweep(query, key, factors, options):
  return jax.jit(lambda q, k, f: sweep_statistics(q, k, factors=f, **options))(
    query, key, factors
  )


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_each_factor_equals_numpy(case):
  query, key, value, table = arrays()
  options = arguments(case, table)
  swept = sweep(query, key, FACTORS, options)
  for i, factor in enumerate(FACTORS):
    temperature = jnp.asarray(options['temperature']) * factor
    colder = options | {'temperature': temperature}
    _, maximum, entropy, *_ = by_numpy(query, key, value, colder)
    for name, ours, theirs in (
      ('P_max', swept.max_probability[i], maximum),
      ('entropy', swept.entropy_nats[i], entropy),
    ):
      # Float32 rounding of logits of up to 40, which temperatures divide.
      coldest = min(1.0, float(jnp.min(colder['temperature'])))
      np.testing.assert_allclose(
        ours, theirs, atol=1e-5 / coldest, rtol=0, err_msg=name
      )


@pytest.mark.parametrize('target', [(32, 16), (1024, 1024)])
def test_equals_attend_whatever_the_blocks(target, monkeypatch):
  monkeypatch.setattr(blocks, 'block_lengths', lambda num_rows: target)
  query, key, value, table = arrays()
  options = arguments('padded', table)
  swept = sweep(query, key, FACTORS, options)
  for i, factor in enumerate(FACTORS):
    colder = options | {'temperature': float(0.8 * factor)}
    _, statistics = attend(
      query,
      key,
      value,
      implementation='reference',
      return_statistics=True,
      **colder,
    )
    np.testing.assert_allclose(
      swept.entropy_nats[i], statistics.entropy_nats, atol=4e-5
    )
    np.testing.assert_allclose(
      swept.max_probability[i], statistics.max_probability, atol=4e-5
    )


def test_rows_without_keys_give_zeros():
  query, key, _, table = arrays()
  swept = sweep(query, key, FACTORS, arguments('no_key', table))
  assert not np.any(swept.max_probability[:, 0])
  assert not np.any(swept.entropy_nats[:, 0])
  assert np.all(swept.max_probability[:, 1] > 0)


def test_memory_does_not_grow_with_the_factors_times_the_length_squared():
  def temporary_bytes(length, num_factors):
    x = jax.ShapeDtypeStruct((1, length, 8, 64), jnp.float32)
    table = jax.ShapeDtypeStruct((8, 32), jnp.float32)
    factors = jax.ShapeDtypeStruct((num_factors,), jnp.float32)
    run = jax.jit(
      lambda q, k, table, f: sweep_statistics(
        q, k, factors=f, **arguments('plain', table)
      )
    )
    compiled = run.lower(x, x, table, factors).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporary_bytes(8192, 9) <= 2.2 * temporary_bytes(4096, 9)
  one_block = 4 * 8 * 32 * 16
  results = 4 * 8 * 4096 * 9 * 2
  spare = temporary_bytes(4096, 1) + 4 * one_block + 2 * results
  assert temporary_bytes(4096, 9) <= spare
