"""Peak memory of a T5-base-sized encoder on a long input, on CPU.

Each row is a process of its own: its peak resident memory less what it had
after the imports. Ours at every length; beside it Hugging Face's T5 encoder in
PyTorch (eager) at the lengths of `--peer_lengths`, where it is installed.

    python benchmarks/encoder_memory.py \
        --output benchmarks/results/encoder_memory.json
"""

import argparse
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import time


def peak_bytes():
  return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_ours(length):
  import jax
  import jax.numpy as jnp

  from t5_align import Transformer
  from t5_align.presets import get_preset

  before = peak_bytes()
  network = Transformer(get_preset('t5-base').config)
  tokens = jnp.ones((1, length), jnp.int32)

  def init(key):
    short = tokens[:, :8]
    variables = network.init(key, short, enable_dropout=False, method='encode')
    return variables['params']

  params = jax.jit(init)(jax.random.key(0))
  encode = jax.jit(
    lambda params, tokens: network.apply(
      {'params': params}, tokens, enable_dropout=False, method='encode'
    )
  )
  start = time.perf_counter()
  encode(params, tokens).block_until_ready()
  return before, time.perf_counter() - start


def run_peer(length):
  import torch
  import transformers

  before = peak_bytes()
  config = transformers.T5Config(
    d_model=768, d_ff=3072, num_layers=12, num_heads=12, vocab_size=32128
  )
  model = transformers.T5EncoderModel(config).eval()
  start = time.perf_counter()
  with torch.no_grad():
    model(input_ids=torch.ones((1, length), dtype=torch.long))
  return before, time.perf_counter() - start


def row(which, length):
  """Measure in a process of its own."""
  command = [sys.executable, __file__, '--row', which, str(length)]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    last = (done.stderr.strip().splitlines() or [f'exit {done.returncode}'])[-1]
    return {'which': which, 'length': length, 'error': last}
  return json.loads(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--lengths', default='2048,16384')
  parser.add_argument('--peer_lengths', default='2048')
  parser.add_argument('--output')
  parser.add_argument('--row', nargs=2, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.row:
    which, length = options.row[0], int(options.row[1])
    before, seconds = {'t5_align': run_ours, 'hugging_face': run_peer}[which](
      length
    )
    gib = (peak_bytes() - before) / 2**30
    result = {'which': which, 'length': length, 'gib_above_imports': gib}
    print(json.dumps({**result, 'seconds_with_compilation': seconds}))
    return
  work = [('t5_align', int(n)) for n in options.lengths.split(',')]
  work += [('hugging_face', int(n)) for n in options.peer_lengths.split(',')]
  rows = []
  for which, length in work:
    rows.append(row(which, length))
    print(json.dumps(rows[-1]), flush=True)
  versions = {}
  for package in ('jax', 'torch', 'transformers'):
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = None
  header = {'cpu_cores': len(os.sched_getaffinity(0)), 'versions': versions}
  if options.output:
    with open(options.output, 'w') as file:
      json.dump({'header': header, 'rows': rows}, file, indent=1)


if __name__ == '__main__':
  main()
