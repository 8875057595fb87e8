"""Calibrate an encoder of a public model's shape: time, passes, memory.

Random parameters, with query kernels scaled so that logits have about the
spread of trained ones, and random tokens: what is shown is that a model of this
size calibrates at this length on this device, and how long it takes. Compiling
is included and also told apart: the same calibration is run twice.

    python benchmarks/calibrate_shape.py --model t5-v1_1-xl --length 16384 \
        --output benchmarks/results/calibrate_xl_h200.json
"""

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import time
import types

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from t5_align import presets
from t5_align.alignment.calibrate import calibrate
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.network import Transformer


class RandomTokens:
  """Uniform token ids: text of no language."""

  source, hash = 'uniform token ids', ''

  def __init__(self, vocab_size):
    self._vocab_size = vocab_size

  def draw(self, length, count, *, within=None):
    del within
    rng = np.random.default_rng(length)
    inputs = rng.integers(2, self._vocab_size, (count, length)).tolist()
    return types.SimpleNamespace(inputs=inputs, targets=[()] * count)


def random_encoder(config, scale):
  """Parameters of an encoder with logits `scale` times as wide as T5 starts."""
  network = Transformer(config)
  tokens = jnp.ones((1, 8), jnp.int32)
  shapes = jax.eval_shape(
    lambda key: network.init(
      key, tokens, method='encode', enable_dropout=False
    )['params'],
    jax.random.key(0),
  )
  flat = flax.traverse_util.flatten_dict(shapes)
  params = {}
  for i, (path, leaf) in enumerate(flat.items()):
    deviation = leaf.shape[0] ** -0.5 if path[-1] == 'kernel' else 1.0
    if path[-2] == 'query':
      deviation *= scale * config.head_dim**-0.5
    if path[-1] == 'scale':
      params[path] = jnp.ones(leaf.shape, leaf.dtype)
    else:
      key = jax.random.key(i)
      params[path] = deviation * jax.random.normal(key, leaf.shape, leaf.dtype)
  return network, flax.traverse_util.unflatten_dict(params)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='t5-v1_1-xl')
  parser.add_argument('--dtype', default='bfloat16')
  parser.add_argument('--length', type=int, default=16_384)
  parser.add_argument('--sequences', type=int, default=2)
  parser.add_argument('--granularities', default='model,head')
  parser.add_argument('--scale', type=float, default=1.5)
  parser.add_argument('--output', required=True)
  options = parser.parse_args()
  preset = presets.get_preset(options.model)
  config = dataclasses.replace(
    preset.config, dtype=options.dtype, dropout_rate=0.0
  )
  network, params = random_encoder(config, options.scale)
  rows = []
  for granularity in options.granularities.split(','):
    for run in ('with compiling', 'compiled'):
      start = time.perf_counter()
      calibration = calibrate(
        network,
        params,
        RandomTokens(config.vocab_size),
        preset.training_length,
        [options.length],
        CalibrationOptions(
          granularity=granularity, num_sequences=options.sequences
        ),
      )
      solutions = calibration.solutions[options.length]
      close = [abs(s.after / s.unknown.target - 1) for s in solutions]
      spread = calibration.training.encoder.mean('logit_std')
      rows.append(
        {
          'granularity': granularity,
          'run': run,
          'seconds': time.perf_counter() - start,
          'passes': calibration.num_passes,
          'temperatures': summary([s.temperature for s in solutions]),
          'statuses': sorted({s.status for s in solutions}),
          'largest_relative_error': max(close),
          'mean_logit_std': float(spread.mean()),
        }
      )
      print(rows[-1], flush=True)
      write(options, preset, params, rows)


def summary(values):
  return {
    'number': len(values),
    'lowest': min(values),
    'median': float(np.median(values)),
    'highest': max(values),
  }


def write(options, preset, params, rows):
  memory = jax.devices()[0].memory_stats() or {}
  document = {
    'header': {
      'device': f'{jax.devices()[0].device_kind} x {jax.device_count()}',
      'jax': importlib.metadata.version('jax'),
      'options': vars(options) | {'output': None},
      'training_length': preset.training_length,
      'peak_gib': memory.get('peak_bytes_in_use', 0) / 2**30 or None,
      'parameters_gib': sum(x.nbytes for x in jax.tree.leaves(params)) / 2**30,
    },
    'rows': rows,
  }
  pathlib.Path(options.output).write_text(json.dumps(document, indent=1) + '\n')


if __name__ == '__main__':
  main()
