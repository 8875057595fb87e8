"""Time and memory of attention with T5's bias: ours beside peers', in one run.

Rows: `chunked` and `reference` of `attend`; `t5x_einsum`, the einsum, softmax
and whole [N, L, L] bias that T5X computes, written with jax.nn; PyTorch's eager
attention with a whole bias, as in Hugging Face's T5, where PyTorch is there.
Self-attention, bidirectional, 32 buckets. Median of interleaved repeats, after
a warm-up; temporary memory is the compiler's plan, not a reading. A length at
which a row would take more memory than `--max_gib` is compiled, not run.

    python benchmarks/attention.py \
        --output benchmarks/results/attention_cpu.json
    python benchmarks/attention.py --heads 32 --dtype bfloat16 \
        --lengths 2048,8192,16384 --max_gib 60 \
        --output benchmarks/results/attention_h200.json
"""

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from t5_align.kernels import attend
from t5_align.mask import AttentionMask
from t5_align.position_bias import relative_position_bucket


def ours(implementation):
  def run(query, key, value, table):
    return attend(
      query,
      key,
      value,
      bias_table=table,
      bidirectional=True,
      max_distance=128,
      mask=AttentionMask(),
      temperature=0.8,
      implementation=implementation,
    )

  return run


def t5x_einsum(query, key, value, table):
  """Attention as T5X's layers compute it, in the dtype of the inputs."""
  length = query.shape[1]
  offsets = np.arange(length)[None] - np.arange(length)[:, None]
  buckets = relative_position_bucket(offsets, bidirectional=True)
  bias = table.astype(query.dtype)[:, buckets]
  logits = jnp.einsum('bqhd,bkhd->bhqk', query, key) + bias[None]
  weights = jax.nn.softmax(logits).astype(query.dtype)
  return jnp.einsum('bhqk,bkhd->bqhd', weights, value)


def torch_eager(query, key, value, table):
  """Return a thunk that runs the same in PyTorch on the CPU, or None."""
  try:
    import torch
  except ImportError:
    return None
  dtype = getattr(torch, query.dtype.name)

  def as_torch(x):
    return torch.tensor(jax.device_get(x.astype(jnp.float32)))

  q, k, v = (as_torch(x).to(dtype).transpose(1, 2) for x in (query, key, value))
  length = query.shape[1]
  offsets = torch.arange(length)[None] - torch.arange(length)[:, None]
  buckets = relative_position_bucket(offsets.numpy(), bidirectional=True)
  table = as_torch(table).to(dtype)

  def run():
    with torch.no_grad():
      bias = table[:, torch.from_numpy(buckets).long()][None]
      weights = torch.softmax(q @ k.transpose(2, 3) + bias, -1)
      return weights @ v

  return run


def inputs(length, heads, head_dim, dtype):
  keys = jax.random.split(jax.random.key(0), 4)
  shape = (1, length, heads, head_dim)
  arrays = [jax.random.normal(key, shape, dtype) for key in keys[:3]]
  return (*arrays, jax.random.normal(keys[3], (heads, 32)))


def measure(length, arguments, options):
  """Return {row: {temporary_mib, median_ms, ratio to the reference}}."""
  rows, runs = {}, {}
  functions = {
    'chunked': ours('chunked'),
    'reference': ours('reference'),
    't5x_einsum': t5x_einsum,
  }
  for name, function in functions.items():
    compiled = jax.jit(function).lower(*arguments).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    rows[name] = {'temporary_mib': temporary / 2**20}
    if temporary <= options.max_gib * 2**30:
      runs[name] = functools.partial(
        lambda c: jax.block_until_ready(c(*arguments)), compiled
      )
  if jax.default_backend() == 'cpu' and 'reference' in runs:
    if run := torch_eager(*arguments):
      runs['torch_eager'], rows['torch_eager'] = run, {}
  times = {name: [] for name in runs}
  for repeat in range(options.repeats + 1):
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      if repeat:
        times[name].append(time.perf_counter() - start)
  for name, seconds in times.items():
    rows[name]['median_ms'] = 1e3 * statistics.median(seconds)
    rows[name]['fastest_ms'] = 1e3 * min(seconds)
    if 'reference' in times:
      rows[name]['times_the_reference'] = statistics.median(
        a / b for a, b in zip(seconds, times['reference'])
      )
  return {'length': length, 'rows': rows}


def header(options):
  packages = ('jax', 'jaxlib', 'torch')
  versions = {}
  for package in packages:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = None
  return {
    'device': f'{jax.devices()[0].device_kind} x {jax.device_count()}',
    'cpu_cores': len(os.sched_getaffinity(0)),
    'python': platform.python_version(),
    'versions': versions,
    'options': {k: v for k, v in vars(options).items() if k != 'output'},
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--lengths', default='2048,16384')
  parser.add_argument('--heads', type=int, default=8)
  parser.add_argument('--head_dim', type=int, default=64)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--repeats', type=int, default=9)
  parser.add_argument('--max_gib', type=float, default=2.0)
  parser.add_argument('--output', required=True)
  options = parser.parse_args()
  results = {'header': header(options), 'lengths': []}
  for length in map(int, options.lengths.split(',')):
    arguments = inputs(
      length, options.heads, options.head_dim, jnp.dtype(options.dtype)
    )
    results['lengths'].append(measure(length, arguments, options))
    print(json.dumps(results['lengths'][-1]), flush=True)
  with open(options.output, 'w') as file:
    json.dump(results, file, indent=1)


if __name__ == '__main__':
  main()
