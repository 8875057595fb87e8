"""Speed of the training step as a share of the device's matrix rate, and why.

Beside this command, its jobs and its results file:

  training_cases.py     models and data, variants of a step, products in it
  training_ceilings.py  what the device and data workers can do; the clock
  training_steps.py     our step and its variants
  training_peer.py      transformers' T5 in PyTorch
  training_table.py     Markdown

Each job is a process, so that frameworks never share the memory. What doesn't
begin within `--seconds` is left out and says so; `--cases` measures it alone.

    python benchmarks/training.py --output benchmarks/results/training_h200.json
    python benchmarks/training.py --table \
        --output benchmarks/results/training_h200.json    # Markdown of it
    python benchmarks/training.py --quick --output /tmp/training.json  # a CPU
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time

import training_cases
import training_ceilings
import training_peer
import training_steps
import training_table

# Items of one process each, kind:case; dearest last.
JOBS = (
  'device: step:bundled step:bundled_lm step:t5-v1_1-small',
  'peer:bundled peer:t5-v1_1-small peer:t5-v1_1-base peer:t5-v1_1-large',
  'data:t5-v1_1-small data:bundled_lm',
  'step:t5-v1_1-base',
  'step:t5-v1_1-large',
)
ENVIRONMENT = {
  'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
  'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.92',
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add('--cases', default=','.join(training_cases.CASES))
  add('--seconds', type=float, default=190, help='of the whole run')
  add('--workers', default='0,8', help='that make batches')
  add('--quick', action='store_true', help='tiny shapes')
  add('--output', required=True)
  add('--table', action='store_true', help='show --output')
  add('--job', help=argparse.SUPPRESS)  # of this script's own processes
  add('--platform', default='', help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.table:
    document = json.loads(pathlib.Path(options.output).read_text())
    print(training_table.markdown(document))
  elif options.job:
    work(options)
  else:
    measure_all(options)


def measure_all(options):
  """Run the jobs; write the results after each row."""
  start = time.perf_counter()
  if options.quick:  # it is the compiler that takes long
    ENVIRONMENT['JAX_DISABLE_MOST_OPTIMIZATIONS'] = 'true'
  shown = ('cases', 'seconds', 'workers', 'quick')
  document = {
    'header': {
      'cpu_cores': len(os.sched_getaffinity(0)),
      'python': platform.python_version(),
      'versions': versions(),
      'options': {name: getattr(options, name) for name in shown},
    },
    'rows': [],
  }
  header = document['header']
  for job in JOBS:
    items = [
      item
      for item in job.split()
      if item == 'device:' or item.partition(':')[2] in options.cases.split(',')
    ]
    left = options.seconds - (time.perf_counter() - start)
    for row in rows_apart(items, left, header.get('platform', '')):
      print(json.dumps(row), flush=True)
      if 'ceiling_flops' in row:
        header |= row
      else:
        document['rows'].append(row | training_ceilings.shares(row, header))
      header['seconds'] = time.perf_counter() - start
      text = json.dumps(document, indent=1) + '\n'
      pathlib.Path(options.output).write_text(text)


def versions():
  found = {}
  for package in ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'transformers'):
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      found[package] = None
  return found


def rows_apart(items, left, platform_name):
  """Yield the rows of a process of its own, and one of each item it lost."""
  if not items:
    return
  if left <= 0:
    yield from (failure(item, 'left out: --seconds are over') for item in items)
    return
  child = subprocess.Popen(
    [sys.executable, *sys.argv, '--job', ' '.join(items)]
    + ['--platform', platform_name],
    env=ENVIRONMENT | os.environ,
    stdout=subprocess.PIPE,
    text=True,
    process_group=0,
  )
  # Data workers have its stdout, too: it ends when all of them have ended.
  clock = threading.Timer(left, os.killpg, (child.pid, signal.SIGKILL))
  clock.start()
  done = 0
  try:
    for line in child.stdout:
      if line.startswith('{"done'):
        done += 1
      elif line.startswith('{"'):
        yield json.loads(line)
    reason = f'its process ended with {child.wait()}'
    if not clock.is_alive():
      reason = 'cut off: --seconds are over'
  finally:
    clock.cancel()
    if child.poll() is None:  # interrupted, which its group is not told
      os.killpg(child.pid, signal.SIGKILL)
  yield from (failure(item, reason) for item in items[done:])


def failure(item, reason):
  kind, _, name = item.partition(':')
  return {'case': name, 'variant': kind, 'error': reason}


def work(options):
  """Print the rows of some items as lines of JSON."""
  kinds = {
    'device': training_ceilings.measure_device,
    'step': training_steps.measure_steps,
    'peer': training_peer.measure_peer,
    'data': training_ceilings.measure_data,
  }
  for item in options.job.split():
    kind, _, name = item.partition(':')
    case = training_cases.CASES.get(name)
    if case and options.quick:
      case = training_cases.quick(case)
    try:
      for row in kinds[kind](case, options):
        print(json.dumps({'case': name} | row), flush=True)
    except Exception as error:  # the others go on
      reason = training_steps.describe(error)
      print(json.dumps(failure(item, reason)), flush=True)
    print(json.dumps({'done': item}), flush=True)


if __name__ == '__main__':
  main()
