"""What it costs to measure a T5 encoder's attention: time and memory, one run.

On random parameters at a public model's sizes. `forward` is the plain encoder;
`statistics` the same with the largest probability, the entropy and the logits'
mean and variance of every row, averaged inside the program; `calibration_step`
what a calibration does with a sequence, transfers included, `calibration_sweep`
with `--factors` temperatures from the one pass. (A calibration needs no encoded
output: its last layer stops at the attention.) Interleaved repeats after a
warm-up: medians, and the median of each repeat's ratio to `forward`. Temporary
memory is the compiler's plan for two layers; more of them need no more.

    python benchmarks/calibration.py --layers 2 --repeats 5 \
        --output benchmarks/results/calibration_cpu.json
    python benchmarks/calibration.py --model t5-v1_1-xl --layers 24 \
        --dtype bfloat16 --lengths 16384 --rows forward,statistics \
        --repeats 5 --memory_lengths '' \
        --output benchmarks/results/calibration_h200.json
    python benchmarks/calibration.py --model t5-v1_1-xl --layers 4 \
        --dtype bfloat16 --lengths 16384 --repeats 5 \
        --output benchmarks/results/calibration_h200_4_layers.json
"""

import argparse
import dataclasses
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

from t5_align import Transformer
from t5_align.alignment.measure import AttentionMeter
from t5_align.kernels.sweep import sweep_statistics
from t5_align.mask import AttentionMask
from t5_align.presets import get_preset


def make_network(options, layers):
  config = dataclasses.replace(
    get_preset(options.model).config,
    num_encoder_layers=layers,
    dtype=options.dtype,
    attention='chunked',
  )
  return Transformer(config)


def make_params(network):
  def init(key):
    tokens = jnp.ones((1, 8), jnp.int32)
    variables = network.init(key, tokens, enable_dropout=False, method='encode')
    return variables['params']

  return jax.jit(init)(jax.random.key(0))


def forward(network):
  def run(params, tokens):
    return network.apply(
      {'params': params}, tokens, enable_dropout=False, method='encode'
    )

  return run


def forward_with_statistics(network):
  def run(params, tokens):
    encoded, variables = network.apply(
      {'params': params},
      tokens,
      enable_dropout=False,
      method='encode',
      mutable=['intermediates'],
    )
    rows = variables['intermediates']['encoder']
    measured = []
    for i in range(len(rows)):
      (sown,) = rows[f'layers_{i}']['attention']['attention_statistics']
      values = (
        sown.max_probability,
        sown.entropy_nats,
        sown.logit_mean,
        sown.logit_variance,
      )
      measured.append([jnp.mean(x, axis=(0, 2)) for x in values])
    return encoded, measured

  return run


def interleave(runs, repeats):
  """Return {row: {median_ms, fastest_ms, times_forward}}."""
  times = {name: [] for name in runs}
  for repeat in range(repeats + 1):
    for name, run in runs.items():
      start = time.perf_counter()
      jax.block_until_ready(run())
      if repeat:
        times[name].append(time.perf_counter() - start)
  return {
    name: {
      'median_ms': 1e3 * statistics.median(seconds),
      'fastest_ms': 1e3 * min(seconds),
      'times_forward': statistics.median(
        a / b for a, b in zip(seconds, times['forward'])
      ),
    }
    for name, seconds in times.items()
  }


def measure(network, params, length, options):
  tokens = np.random.default_rng(0).integers(2, 100, (1, length))
  tokens = jnp.asarray(tokens, jnp.int32)
  sequence = np.asarray(tokens[0]).tolist()
  plain = jax.jit(forward(network))
  measured = jax.jit(forward_with_statistics(network))
  meter = AttentionMeter(network, params, ('encoder',), tokens_per_batch=length)
  factors = np.geomspace(0.5, 2.0, options.factors)
  runs = {
    'forward': lambda: plain(params, tokens),
    'statistics': lambda: measured(params, tokens),
    'calibration_step': lambda: meter.measure([sequence], [], length).sites,
    'calibration_sweep': lambda: (
      meter.measure([sequence], [], length, factors=factors).sites
    ),
  }
  runs = {name: runs[name] for name in options.rows.split(',')}
  return {'length': length, 'rows': interleave(runs, options.repeats)}


def temporary_mib(network, length, options):
  """Return the memory of the programs at a length, without running them."""
  config = network.config
  params = jax.eval_shape(functools.partial(make_params, network))
  shape = (1, length, config.num_heads, config.head_dim)
  heads = jax.ShapeDtypeStruct(shape, jnp.dtype(config.dtype))
  table = jax.ShapeDtypeStruct((config.num_heads, 32), jnp.float32)
  factors = jax.ShapeDtypeStruct((options.factors,), jnp.float32)
  tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)

  def sweep(query, key, table, factors):
    return sweep_statistics(
      query,
      key,
      bias_table=table,
      bidirectional=True,
      max_distance=128,
      mask=AttentionMask(),
      temperature=1.0,
      factors=factors,
    )

  programs = {
    'forward': (forward(network), (params, tokens)),
    'statistics': (forward_with_statistics(network), (params, tokens)),
    'sweep_of_one_layer': (sweep, (heads, heads, table, factors)),
  }
  rows = {'length': length}
  for name, (function, arguments) in programs.items():
    compiled = jax.jit(function).lower(*arguments).compile()
    rows[name] = compiled.memory_analysis().temp_size_in_bytes / 2**20
  return rows


def header(options):
  packages = ('jax', 'jaxlib', 'flax')
  return {
    'device': f'{jax.devices()[0].device_kind} x {jax.device_count()}',
    'cpu_cores': len(os.sched_getaffinity(0)),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in packages},
    'options': {k: v for k, v in vars(options).items() if k != 'output'},
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='t5-small')
  parser.add_argument('--layers', type=int, default=6)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--lengths', default='2048,8192')
  parser.add_argument('--memory_lengths', default='4096,8192,16384')
  parser.add_argument('--factors', type=int, default=9)
  parser.add_argument(
    '--rows', default='forward,statistics,calibration_step,calibration_sweep'
  )
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--output', required=True)
  options = parser.parse_args()
  results = {'header': header(options), 'lengths': [], 'temporary_mib': []}
  for length in map(int, options.lengths.split(',')):
    network = make_network(options, options.layers)
    params = make_params(network)
    keep(results, 'lengths', measure(network, params, length, options), options)
  for length in map(int, filter(None, options.memory_lengths.split(','))):
    row = temporary_mib(make_network(options, 2), length, options)
    keep(results, 'temporary_mib', row, options)


def keep(results, name, row, options):
  print(json.dumps(row), flush=True)
  results[name].append(row)
  with open(options.output, 'w') as file:
    json.dump(results, file, indent=1)


if __name__ == '__main__':
  main()
