"""Times the variants of our own training step.

XLA's own count of the compiled program is beside ours; it may take a loop's
body once and, on a GPU, leave out the products that cuBLAS does. Its bytes over
the copy's bandwidth are a rough bound: what stays in a cache counts each time
it is read.
"""

from concurrent import futures
import dataclasses
import functools
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import training_cases
import training_ceilings

from t5_align import attention, training
from t5_align.losses import batch_loss
from t5_align.network import DecoderOnlyTransformer, Transformer


def measure_steps(case, options):
  """Yield a row of each variant; all are compiled first, at once."""
  is_cpu = jax.devices()[0].platform == 'cpu'
  dtype = 'float32' if is_cpu else 'bfloat16'
  asked = {}
  for name in case.variants:
    variant = training_cases.VARIANTS[name]
    size = int(case.batch_size * variant.batch_share)
    asked[name] = dataclasses.replace(case, batch_size=size), variant
  lowered, pending, start = {}, {}, time.perf_counter()
  for name, (resized, variant) in asked.items():
    try:
      lowered[name] = lower(resized, variant, dtype)
    except Exception as error:
      yield {'variant': name, 'error': describe(error)}
  with futures.ThreadPoolExecutor(max(1, len(lowered))) as pool:
    for name, (program, _) in lowered.items():
      pending[name] = pool.submit(program.compile)
  compiling = time.perf_counter() - start
  for name, future in pending.items():
    try:
      row = time_variant(
        *asked[name], future.result(), lowered[name][1], options
      )
      yield {'variant': name, 'all_compiled_in_seconds': compiling} | row
    except Exception as error:
      yield {'variant': name, 'error': describe(error)}


def describe(error):
  return f'{type(error).__name__}: {error}'[:300]


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

  seconds = training_ceilings.timed(call, jax.block_until_ready, options)
  flops = training_cases.forward_flops(
    case, changed(case, variant), variant.attention
  )
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
