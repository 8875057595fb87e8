"""Speed of the training step as a share of the device's matrix rate, and why.

The ceiling is a large matrix product in the activations' dtype, measured in the
same run, as is the bandwidth of a copy. Each variant of a step is timed alike,
and their differences tell what bounds it:

  step                 `make_step`: forward, backward, optimizer
  forward, gradient    without what follows
  reference attention  attend()'s 'reference' in place of 'chunked'
  no attention         each query gets itself and the mean key and value
  small vocabulary     next to no logits and loss

`peer` is transformers' T5 in PyTorch: bfloat16 autocast, clipping, fused AdamW,
the same arrays without segment ids. `data` is how fast workers make batches.

Counted are the products that a step must do, 2 FLOPs a multiplication, thrice
the forward pass's: 6 times the matrix parameters times the tokens that meet
them (cross-attention's key and value meet the encoder's), 6 D V times the
targets for logits, and 12 T S N H of each attention and row, causal or not.
Embeddings are looked up and count nothing; nor does what is computed again.
XLA's own count of the compiled program is beside it; it may take a loop's body
once. Its bytes over the copy's bandwidth are a rough bound: what stays in a
cache counts each time it is read.

Each job is a process, so that frameworks never share the memory. What doesn't
begin within `--seconds` is left out and says so; `--cases` measures it alone.

    python benchmarks/training.py --output benchmarks/results/training_h200.json
    python benchmarks/training.py --table \
        --output benchmarks/results/training_h200.json    # Markdown of it
    python benchmarks/training.py --quick --output /tmp/training.json  # a CPU
"""

import argparse
from concurrent import futures
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from t5_align import attention, batches, training
from t5_align.losses import batch_loss
from t5_align.network import DecoderOnlyTransformer, T5Config, Transformer
from t5_align.presets import get_preset
from t5_align.tasks.pretraining import (
  LanguageModel,
  PrefixLM,
  SpanCorruption,
)
from t5_align.tasks.pretraining.mixture import Example

# Items of one process each, kind:case; dearest last.
JOBS = (
  'device: step:encoder-decoder step:decoder-only step:t5-v1_1-small',
  'peer:t5-v1_1-small peer:t5-v1_1-base peer:t5-v1_1-large',
  'data:t5-v1_1-small data:decoder-only',
  'step:t5-v1_1-base',
  'step:t5-v1_1-large',
)
ENVIRONMENT = {
  'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
  'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.92',
}
_CALLS = 5  # between two readings of the clock
_REPEATS = 5
_MOST_SECONDS = 2.0  # of a variant, after which it is repeated no more
_SENTINELS = 100
_SMALL_VOCABULARY = 128


class Variant(NamedTuple):
  """A program that is timed."""

  what: str = 'step'
  config: dict[str, Any] = {}
  attention: bool = True


VARIANTS = {
  'step': Variant(),
  'forward': Variant('forward'),
  'gradient': Variant('gradient'),
  'chunked attention': Variant(config={'attention': 'chunked'}),
  'reference attention': Variant(config={'attention': 'reference'}),
  'no attention': Variant(attention=False),
  'small vocabulary': Variant(config={'vocab_size': _SMALL_VOCABULARY}),
}
# What takes too long to compile in all variants gets the first ones.
_MOST = tuple(name for name in VARIANTS if name != 'chunked attention')


@dataclasses.dataclass(frozen=True)
class Case:
  """A model and what it is trained on; its `draw` makes random examples."""

  config: T5Config
  objective: Any
  batch_size: int
  variants: tuple[str, ...] = tuple(VARIANTS)
  decoder_only: bool = False
  pack: bool = False

  @property
  def lengths(self):
    """Tokens of a row's inputs and targets."""
    inputs, targets = self.objective.longest
    inputs = 0 if self.decoder_only else inputs + 1
    return inputs, targets + self.objective.ends

  @property
  def tokens(self):
    return self.batch_size * sum(self.lengths)

  def training(self, **fields):
    inputs, targets = self.lengths
    return training.Training(
      batch_size=self.batch_size,
      input_lengths=(max(inputs, 1),),
      target_length=targets,
      pack=self.pack,
      **fields,
    )

  def draw(self, rng):
    last = self.config.vocab_size - 1
    ids = random_ids(last - _SENTINELS)
    window = self.objective.window_tokens
    start = rng.integers(len(ids) - window)
    inputs, targets = self.objective(
      ids[start : start + window], rng, range(last, last - _SENTINELS, -1)
    )
    if not self.decoder_only:
      inputs = np.append(inputs, 1)
    return Example(
      inputs, np.append(targets, 1) if self.objective.ends else targets
    )

  def batch(self):
    return batches.make_batch(self.draw, self.training(), self.decoder_only, 0)


@functools.cache
def random_ids(end):
  return np.random.default_rng(0).integers(2, end, 1 << 20, np.int32)


def preset(name, batch_size, variants):
  return Case(
    get_preset(name).config,
    SpanCorruption(512),
    batch_size,
    variants,
    pack=True,
  )


def tied(**sizes):
  return T5Config(vocab_size=6144, logits_via_embedding=True, **sizes)


CASES = {
  'encoder-decoder': Case(
    tied(
      emb_dim=192,
      num_heads=4,
      head_dim=48,
      num_encoder_layers=3,
      num_decoder_layers=2,
      mlp_dim=768,
    ),
    PrefixLM(255, 255, 128),
    128,
  ),
  'decoder-only': Case(
    tied(
      emb_dim=256, num_heads=4, head_dim=64, num_decoder_layers=6, mlp_dim=1024
    ),
    LanguageModel(256),
    256,
    decoder_only=True,
  ),
  't5-v1_1-small': preset('t5-v1_1-small', 128, _MOST),
  't5-v1_1-base': preset('t5-v1_1-base', 128, _MOST[:3]),
  't5-v1_1-large': preset('t5-v1_1-large', 64, _MOST[:1]),
}


def quick(case):
  """Return a case of the same kind for a smoke test."""
  config = dataclasses.replace(
    case.config,
    vocab_size=256,
    emb_dim=32,
    num_heads=2,
    head_dim=8,
    mlp_dim=64,
    num_encoder_layers=1,
    num_decoder_layers=1,
  )
  objectives = {
    'span_corruption': SpanCorruption(32),
    'prefix_lm': PrefixLM(15, 15, 8),
    'language_model': LanguageModel(16),
  }
  objective = objectives[case.objective.name]
  variants = case.variants[:1] if case.pack else case.variants
  return dataclasses.replace(
    case,
    config=config,
    objective=objective,
    batch_size=4,
    variants=variants,
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add('--cases', default=','.join(CASES))
  add('--seconds', type=float, default=190, help='of the whole run')
  add('--workers', default='0,8', help='that make batches')
  add('--quick', action='store_true', help='tiny shapes')
  add('--output', required=True)
  add('--table', action='store_true', help='show --output')
  add('--job', help='used by this script itself')
  add('--platform', default='', help='used by this script itself')
  options = parser.parse_args()
  if options.table:
    print(markdown(json.loads(pathlib.Path(options.output).read_text())))
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
        document['rows'].append(row | shares(row, header))
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
  )
  clock = threading.Timer(left, child.kill)
  clock.start()
  done = 0
  for line in child.stdout:
    if line.startswith('{"done'):
      done += 1
    elif line.startswith('{"'):
      yield json.loads(line)
  status = child.wait()
  reason = f'its process ended with {status}'
  if not clock.is_alive():
    reason = 'cut off: --seconds are over'
  clock.cancel()
  yield from (failure(item, reason) for item in items[done:])


def failure(item, reason):
  kind, _, name = item.partition(':')
  return {'case': name, 'variant': kind, 'error': reason}


def work(options):
  """Print the rows of some items as lines of JSON."""
  kinds = {
    'device': measure_device,
    'step': measure_steps,
    'peer': measure_peer,
    'data': measure_data,
  }
  for item in options.job.split():
    kind, _, name = item.partition(':')
    case = CASES.get(name)
    if case and options.quick:
      case = quick(case)
    try:
      for row in kinds[kind](case, options):
        print(json.dumps({'case': name} | row), flush=True)
    except Exception as error:  # the others go on
      print(json.dumps(failure(item, describe(error))), flush=True)
    print(json.dumps({'done': item}), flush=True)


def describe(error):
  return f'{type(error).__name__}: {error}'[:300]


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


# What the device can do.


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


# What a step must compute.


def forward_flops(case, config, attention=True):
  """Count as the module's docstring says."""
  S, T = case.lengths
  D, F, joined = config.emb_dim, config.mlp_dim, config.num_heads
  joined *= config.head_dim
  mlp = (len(config.mlp_activations) + 1) * D * F
  decoder = config.num_decoder_layers
  encoder = 0 if case.decoder_only else config.num_encoder_layers
  met = encoder * (4 * D * joined + mlp) * S  # parameters times tokens
  met += decoder * (4 * D * joined + mlp) * T + D * config.vocab_size * T
  pairs = encoder * S * S + decoder * T * T
  if encoder:
    met += decoder * 2 * D * joined * (S + T)
    pairs += decoder * T * S
  return case.batch_size * (2 * met + 4 * pairs * joined * attention)


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


# Our step.


def measure_steps(case, options):
  """Yield a row of each variant; all are compiled first, at once."""
  is_cpu = jax.devices()[0].platform == 'cpu'
  dtype = 'float32' if is_cpu else 'bfloat16'
  lowered, pending, start = {}, {}, time.perf_counter()
  for name in case.variants:
    try:
      lowered[name] = lower(case, VARIANTS[name], dtype)
    except Exception as error:
      yield {'variant': name, 'error': describe(error)}
  with futures.ThreadPoolExecutor(max(1, len(lowered))) as pool:
    for name, (program, _) in lowered.items():
      pending[name] = pool.submit(program.compile)
  compiling = time.perf_counter() - start
  for name, future in pending.items():
    try:
      row = time_variant(
        case, VARIANTS[name], future.result(), lowered[name][1], options
      )
      yield {'variant': name, 'all_compiled_in_seconds': compiling} | row
    except Exception as error:
      yield {'variant': name, 'error': describe(error)}


def changed(case, variant):
  return dataclasses.replace(case.config, **variant.config)


def lower(case, variant, dtype):
  """Return a variant's program, and the shapes of the state that it takes."""
  config = dataclasses.replace(changed(case, variant), dtype=dtype)
  kind = DecoderOnlyTransformer if case.decoder_only else Transformer
  network, how = kind(config), case.training()

  def loss(params, batch):
    logits = training.batch_logits(
      network,
      params,
      batch,
      enable_dropout=True,
      rngs={'dropout': jax.random.key(0)},
    )
    return batch_loss(logits, batch, how.z_loss)

  gradient = jax.grad(loss, has_aux=True)
  programs = {
    'step': training.make_step(network, how),
    'forward': jax.jit(lambda state, batch: loss(state.params, batch)),
    'gradient': jax.jit(lambda state, batch: gradient(state.params, batch)),
  }
  state = state_shapes(case, dataclasses.replace(config, attention=None))
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), case.batch()
  )
  attend = attention.attend if variant.attention else mean_attend
  with mock.patch('t5_align.attention.attend', attend):
    return programs[variant.what].lower(state, batch), state


@functools.cache
def state_shapes(case, config):
  kind = DecoderOnlyTransformer if case.decoder_only else Transformer
  return jax.eval_shape(
    lambda: training.initial_state(kind(config), case.training())
  )


def mean_attend(query, key, value, **_):
  """Attend to nothing, at the cost of reading it; projections keep theirs."""
  return query + jnp.mean(key + value, axis=1, keepdims=True)


def time_variant(case, variant, program, shapes, options):
  """Return what is measured of a compiled variant."""
  state = made_state(shapes)
  batch = within(case.batch(), changed(case, variant).vocab_size)

  def call():
    nonlocal state
    result = program(state, batch)
    if variant.what == 'step':
      state, result = result
    return result

  seconds = timed(call, jax.block_until_ready, options)
  flops = forward_flops(case, changed(case, variant), variant.attention)
  cost = program.cost_analysis() or {}
  metrics = jax.tree.leaves(call())
  memory = program.memory_analysis()
  return {
    'batch_size': case.batch_size,
    'lengths': case.lengths,
    'tokens': case.tokens,
    'seconds': seconds,
    'model_flops': flops * (1 if variant.what == 'forward' else 3),
    'xla_flops': cost.get('flops'),
    'xla_bytes': cost.get('bytes accessed'),
    'temporary_bytes': memory and memory.temp_size_in_bytes,
    'finite': all(bool(jnp.isfinite(x).all()) for x in metrics),
  }


def made_state(shapes):
  """Return an initial state: random weights of T5's sizes, all else zeros.

  It compiles nothing, as `initial_state` would.
  """
  noise = np.random.default_rng(0).standard_normal(1 << 20, np.float32)

  def weight(shape):
    if len(shape) == 1:
      return jnp.ones(shape)
    return jnp.asarray(np.resize(shape[0] ** -0.5 * noise, shape))

  params = jax.tree.map(lambda x: weight(x.shape), shapes.params)
  zeros = jax.tree.map(
    lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)),
    shapes._replace(params=()),
  )
  return zeros._replace(params=params)


def within(batch, vocab_size):
  """Return a batch whose tokens are below a size; padding stays."""
  return {
    name: np.where(x > 0, 1 + x % (vocab_size - 1), 0).astype(x.dtype)
    if name.endswith('_tokens')
    else x
    for name, x in batch.items()
  }


# A peer's step.


def measure_peer(case, options):
  """Yield the row of transformers' T5, at the batch size or half of it."""
  missing = [
    name
    for name in ('torch', 'transformers')
    if importlib.util.find_spec(name) is None
  ]
  if missing:
    yield {'variant': 'peer', 'skipped': f'no {" and no ".join(missing)}'}
    return
  import torch

  device = 'cpu' if options.platform == 'cpu' else 'cuda'
  if device == 'cuda' and not torch.cuda.is_available():
    yield {'variant': 'peer', 'skipped': 'this PyTorch has no CUDA'}
    return
  while True:
    try:
      yield {'variant': 'peer'} | time_peer(case, device, options)
      return
    except torch.cuda.OutOfMemoryError:
      if case.batch_size < 2:
        raise
    case = dataclasses.replace(case, batch_size=case.batch_size // 2)
    torch.cuda.empty_cache()


def time_peer(case, device, options):
  import torch
  import transformers

  torch.manual_seed(0)
  model = peer_model(case.config).to(device).train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
  batch = {
    name: torch.as_tensor(x, dtype=torch.long, device=device)
    for name, x in case.batch().items()
    if name.endswith('_tokens')
  }

  def call():
    with torch.autocast(device, torch.bfloat16):
      loss = model(
        input_ids=batch['encoder_input_tokens'],
        decoder_input_ids=batch['decoder_input_tokens'],
        labels=batch['decoder_target_tokens'],
        use_cache=False,
      ).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss

  seconds = timed(call, lambda loss: loss.item(), options)
  peak = torch.cuda.max_memory_allocated() if device == 'cuda' else None
  return {
    'batch_size': case.batch_size,
    'lengths': case.lengths,
    'tokens': case.tokens,
    'seconds': seconds,
    'model_flops': 3 * forward_flops(case, case.config),
    'temporary_bytes': peak,
    'what': f'transformers {transformers.__version__}, fused AdamW, attention '
    f'{model.config._attn_implementation}',
  }


def peer_model(config):
  import transformers

  gated = len(config.mlp_activations) > 1
  return transformers.T5ForConditionalGeneration(
    transformers.T5Config(
      vocab_size=config.vocab_size,
      d_model=config.emb_dim,
      d_kv=config.head_dim,
      d_ff=config.mlp_dim,
      num_layers=config.num_encoder_layers,
      num_decoder_layers=config.num_decoder_layers,
      num_heads=config.num_heads,
      dropout_rate=config.dropout_rate,
      feed_forward_proj='gated-gelu' if gated else 'relu',
      tie_word_embeddings=config.logits_via_embedding,
      decoder_start_token_id=0,
    )
  )


# What feeds the step.


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


# Tables.


def markdown(document):
  """Return the tables of a results file."""
  header = document['header']
  lines = [
    f'{header["device"]}: {header["ceiling_flops"] / 1e12:,.1f} TFLOP/s in'
    f' {header["dtype"]}, {header["float32_flops"] / 1e12:,.1f} in float32;'
    f' a copy {header["copy_bytes_per_second"] / 1e9:,.0f} GB/s.',
    '',
    '| model | | batch | ms | tokens/s | TFLOP/s | share | XLA/model FLOPs'
    ' | bytes bound, ms | temporary GiB |',
    '|---' * 10 + '|',
  ]
  for row in document['rows']:
    cells = [row['case'], row['variant']]
    if 'seconds' in row:
      cells += [_number(row, 'batch_size', '{:,}')]
      cells += [f'{1e3 * row["seconds"]:,.2f}']
      rate = row['tokens'] / row['seconds']
      cells += [f'{rate:,.0f}', _number(row, 'tflops', '{:,.1f}')]
      cells += [_number(row, 'share', '{:.1%}')]
      model_flops = row.get('model_flops') or 1.0
      cells += [_number(row, 'xla_flops', '{:.2f}', 1 / model_flops)]
      cells += [_number(row, 'copy_bound_seconds', '{:,.2f}', 1e3)]
      cells += [_number(row, 'temporary_bytes', '{:.1f}', 2**-30)]
    else:
      cells += [row.get('error') or row['skipped'], *[''] * 7]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join([*lines, '', *parts(document)])


def _number(row, name, form, scale=1):
  return form.format(scale * row[name]) if row.get(name) else ''


def parts(document):
  """Yield a table of what takes which share of each step."""
  seconds = {}
  for row in document['rows']:
    if 'seconds' in row:
      of = seconds.setdefault(row['case'], {})
      of[row['variant']] = row['seconds'] / row['tokens']
  yield (
    '| model | forward | backward | optimizer | of these, attention | of'
    ' these, logits and loss | reference attention | peer |'
  )
  yield '|---' * 8 + '|'
  differences = (
    ('forward', None),
    ('gradient', 'forward'),
    ('step', 'gradient'),
    ('step', 'no attention'),
    ('step', 'small vocabulary'),
    ('reference attention', None),
    ('peer', None),
  )
  for case, of in seconds.items():
    if 'step' not in of:
      continue
    cells = [case]
    for whole, less in differences:
      share = ''
      if whole in of and (less is None or less in of):
        share = f'{(of[whole] - of.get(less, 0.0)) / of["step"]:.0%}'
      cells.append(share)
    yield '| ' + ' | '.join(cells) + ' |'


if __name__ == '__main__':
  main()
