"""One model over several devices: tokens a second, and memory against the plan.

Generation from random prompts by a model of a public shape with random weights,
on one device, and on all of them with each size of the model axis: 1 is data
parallel, as many as there are devices is model parallel. Each row is a process
of its own, which sees no other devices, so that its peak of memory is its own.
The batch grows with the data axis: a device always has as many prompts.

    python benchmarks/devices.py --model t5-v1_1-xl --length 4096 --devices 2 \
        --output benchmarks/results/devices_h200.json
    python benchmarks/devices.py --table benchmarks/results/devices_h200.json
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

_TIMED = 3  # runs, after the one that compiles
_NOISE = 1 << 20  # numbers that all weights repeat


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add('--model', default='t5-v1_1-xl', help='a preset, for its shape')
  add('--dtype', default='bfloat16')
  add('--length', type=int, default=4096)
  add('--batch_size', type=int, default=8, help='prompts of a device')
  add('--max_new_tokens', type=int, default=16)
  add('--devices', type=int, default=2)
  add('--output', help='results file')
  add('--table', metavar='FILE', help='print the table of a results file')
  add('--row', help='devices,num_partitions: used by this script itself')
  options = parser.parse_args()
  if options.table:
    print(markdown(json.loads(pathlib.Path(options.table).read_text())))
    return
  if options.row:
    print(json.dumps(measure(options)))
    return
  sizes = [n for n in range(1, options.devices + 1) if options.devices % n == 0]
  rows = []
  for devices, partitions in [(1, 1), *((options.devices, n) for n in sizes)]:
    row = measure_apart(options, devices, partitions)
    row['speed-up'] = (
      row['tokens_per_second'] / (rows or [row])[0]['tokens_per_second']
    )
    rows.append(row)
    print(row, flush=True)
    document = {
      'header': {
        'jax': importlib.metadata.version('jax'),
        'options': vars(options) | {'output': None, 'row': None},
      },
      'rows': rows,
    }
    text = json.dumps(document, indent=1) + '\n'
    pathlib.Path(options.output).write_text(text)


def markdown(document):
  """Return the table of a results file."""
  lines = [
    '| devices | mesh | prompts | prompt tokens/s | against one |'
    ' GiB planned | GiB at the peak | planned / peak |',
    '|---' * 8 + '|',
  ]
  for row in document['rows']:
    planned, peak = (row[f'{x}_bytes'] / 2**30 for x in ('planned', 'peak'))
    cells = (
      *(row['device'], ' x '.join(map(str, row['mesh']))),
      *(f'{row["batch_size"]}', f'{row["tokens_per_second"]:,.0f}'),
      *(f'{row["speed-up"]:.2f}', f'{planned:.2f}', f'{peak:.2f}'),
      f'{row["planned_over_peak"]:.3f}',
    )
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def measure_apart(options, devices, partitions):
  """Measure in a process that has so many devices."""
  count = f'--xla_force_host_platform_device_count={devices}'
  environment = os.environ | {
    'CUDA_VISIBLE_DEVICES': ','.join(map(str, range(devices))),
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {count}',
  }
  done = subprocess.run(
    [sys.executable, *sys.argv, '--row', f'{devices},{partitions}'],
    env=environment,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def measure(options):
  """Return one row."""
  import jax

  from t5_align import inference, plan, presets, sharding
  from t5_align.network import Transformer

  devices, partitions = map(int, options.row.split(','))
  config = dataclasses.replace(
    presets.get_preset(options.model).config,
    dtype=options.dtype,
    dropout_rate=0.0,
  )
  layout = sharding.make_layout(partitions)
  assert layout.mesh.size == devices, layout
  batch_size = options.batch_size * layout.data_size
  planned = plan.plan(
    options.model,
    options.length,
    num_partitions=partitions,
    batch_size=batch_size,
    max_new_tokens=options.max_new_tokens,
    dtype=options.dtype,
    device_memory=1 << 40,
  )
  model = inference.Inference(
    Transformer(config),
    random_parameters(config, layout.mesh),
    batch_size=batch_size,
  )
  rng = np.random.default_rng(0)
  shape = (batch_size, options.length)
  prompts = rng.integers(2, config.vocab_size, shape).tolist()
  seconds = []
  for _ in range(1 + _TIMED):
    start = time.perf_counter()
    model.generate(prompts, max_new_tokens=options.max_new_tokens)
    seconds.append(time.perf_counter() - start)
  median = float(np.median(seconds[1:]))
  statistics = [d.memory_stats() or {} for d in jax.local_devices()]
  peak = max(s.get('peak_bytes_in_use', 0) for s in statistics)
  return {
    'device': f'{jax.devices()[0].device_kind} x {devices}',
    'mesh': [layout.data_size, partitions],
    'batch_size': batch_size,
    'tokens_per_second': batch_size * options.length / median,
    'seconds': seconds,
    'peak_bytes': peak or None,
    'planned_bytes': planned.total_bytes,
    'planned_for': planned.how,
    'planned_over_peak': planned.total_bytes / peak if peak else None,
  }


def random_parameters(config, mesh):
  """Return weights of about the size that T5 starts with, on their shards."""
  import flax.traverse_util
  import jax

  from t5_align import parameters, sharding

  noise = np.random.default_rng(0).standard_normal(_NOISE).astype(np.float32)
  shardings = sharding.parameter_shardings(mesh, config, decoder_only=False)
  made = {}
  for path, parameter in parameters.list_parameters(
    config, decoder_only=False
  ).items():
    deviation = 1.0 if len(parameter.shape) == 1 else parameter.shape[0] ** -0.5

    def shard(index, shape=parameter.shape, deviation=deviation):
      sizes = [len(range(*s.indices(n))) for s, n in zip(index, shape)]
      return deviation * np.resize(noise, sizes)

    made[path] = jax.make_array_from_callback(
      parameter.shape, shardings[path], shard
    )
  return flax.traverse_util.unflatten_dict(made, sep='/')


if __name__ == '__main__':
  main()
