"""What a step's speed is held against, and the clock that times it all.

The ceiling is a large matrix product in the activations' dtype, measured in the
same run, as are one in float32 as JAX multiplies it by default (on a GPU in
TF32) and the bandwidth of a copy. `data` is how fast workers make batches.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from t5_align import batches

_CALLS = 5  # between two readings of the clock
_REPEATS = 5
_MOST_SECONDS = 2.0  # of a variant, after which it is repeated no more


def timed(call, wait, options):
  """Return the seconds of a call: the median of some readings."""
  wait(call())
  count = 2 if options.quick else _CALLS
  readings, total = [], 0.0
  while len(readings) < 2 or (
    len(readings) < _REPEATS and total < _MOST_SECONDS
  ):
    start = time.perf_counter()
    for _ in range(count):
      result = call()  # queued behind the one before, as in a training run
    wait(result)
    readings.append((time.perf_counter() - start) / count)
    total += readings[-1] * count
  return float(np.median(readings))


def measure_device(case, options):
  """Yield the rates of a matrix product in each dtype, and of a copy."""
  del case
  (device, *_) = jax.devices()
  is_cpu = device.platform == 'cpu'
  size = 256 if options.quick else 2048 if is_cpu else 8192
  product = jax.jit(jnp.matmul)
  rates = {}
  for dtype in ('float32',) if is_cpu else ('float32', 'bfloat16'):
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(key, (size, size), dtype) for key in keys)
    call = functools.partial(product, left, right)
    rates[dtype] = 2 * size**3 / timed(call, jax.block_until_ready, options)
  source = jnp.ones((1 << (20 if options.quick else 28),), jnp.float32)
  copy = functools.partial(jax.jit(lambda x: x + 1), source)
  seconds = timed(copy, jax.block_until_ready, options)
  yield {
    'device': device.device_kind,
    'platform': device.platform,
    'dtype': dtype,
    'ceiling_flops': rates[dtype],
    'float32_flops': rates['float32'],
    'copy_bytes_per_second': 2 * source.nbytes / seconds,
    'matrix_size': size,
  }


def shares(row, header):
  """Return what follows from a row and the ceilings."""
  if 'model_flops' not in row or 'ceiling_flops' not in header:
    return {}
  rate = row['model_flops'] / row['seconds']
  found = {
    'tokens_per_second': row['tokens'] / row['seconds'],
    'tflops': rate / 1e12,
    'share': rate / header['ceiling_flops'],
  }
  if row.get('xla_bytes'):
    found['copy_bound_seconds'] = (
      row['xla_bytes'] / header['copy_bytes_per_second']
    )
  return found


def measure_data(case, options):
  """Yield the seconds of a batch with each number of workers."""
  for workers in map(int, options.workers.split(',')):
    how = case.training(data_workers=workers, num_steps=1 << 30)
    made = batches.prefetched_batches(case.draw, how, 0, case.decoder_only)
    next(made)
    # Workers do not all start at once.
    for wanted in (0.2, 0.5) if options.quick else (2.0, 2.0):
      start, count = time.perf_counter(), 0
      while (seconds := time.perf_counter() - start) < wanted:
        next(made)
        count += 1
    made.close()
    yield {
      'variant': f'data, {workers} workers',
      'batch_size': case.batch_size,
      'lengths': case.lengths,
      'tokens': case.tokens,
      'seconds': seconds / count,
    }
