"""Training: steps, checkpoints, exact resume.

`batches` makes what a step is called with, `losses` says what is minimized,
`optimizers` how; here they become a run. Parameters, gradients and the loss are
float32; activations have the network's dtype.

Nothing but `TrainState` is saved: batch i and the dropout of step i depend on
(seed, i) alone, so a run that was stopped continues bit for bit. (On a GPU
that takes XLA_FLAGS=--xla_gpu_deterministic_ops=true.)

Synopsis:

    training = Training(num_steps=1000, optimizer='adamw', learning_rate=2e-3)
    state = fit(Transformer(config), draw, training, 'runs/first')
    # draw(generator) -> Example(inputs, targets); runs/first holds
    # checkpoints/, settings.json, log.jsonl. Calling it again continues.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np
import optax
import orbax.checkpoint as ocp

from t5_align import run_settings
from t5_align.batches import Batch, prefetched_batches
from t5_align.loss_log import LossLog, Metrics
from t5_align.losses import batch_loss
from t5_align.network import DecoderOnlyTransformer
from t5_align.optimizers import learning_rate, make_optimizer
from t5_align.tasks.pretraining.mixture import Draw
from t5_align.training_options import Training as Training


class TrainState(NamedTuple):
  """All that a run has learned: what a checkpoint holds."""

  step: Int[Array, '']
  params: optax.Params
  optimizer_state: optax.OptState


def is_decoder_only(network: nn.Module) -> bool:
  """Whether a network is called without an encoder's input."""
  return isinstance(network, DecoderOnlyTransformer)


def initial_state(network: nn.Module, training: Training) -> TrainState:
  """Return the state before the first step; a function of the seed alone."""
  inputs = jnp.ones((1, training.input_lengths[0]), jnp.int32)
  targets = jnp.ones((1, training.target_length), jnp.int32)
  init = jax.jit(functools.partial(network.init, enable_dropout=False))
  first = () if is_decoder_only(network) else (inputs,)
  key = jax.random.key(training.seed)
  params = init(key, *first, targets, targets)['params']
  with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes.
    optimizer_state = make_optimizer(training).init(params)
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer_state)


def batch_logits(
  network: nn.Module, params: Any, batch: Mapping[str, Any], **options: Any
) -> Float[Array, 'B T V']:
  """Call a network with a batch, whose names say what the network takes."""
  batch = {name: jnp.asarray(array) for name, array in batch.items()}
  names = ('encoder_input_tokens', 'decoder_input_tokens')
  tokens = [batch[name] for name in names if name in batch]
  places = {
    name: value
    for name, value in batch.items()
    if name.endswith(('_segment_ids', '_positions'))
  }
  logits = network.apply(
    {'params': params},
    *tokens,
    batch['decoder_target_tokens'],
    **places,
    **options,
  )
  return jnp.asarray(logits)


def make_step(
  network: nn.Module, training: Training, num_tasks: int = 1
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Return the jitted training step; it consumes the state it is given."""
  optimizer = make_optimizer(training)

  def loss_function(params, batch, key):
    rngs = {'dropout': key}
    logits = batch_logits(
      network, params, batch, enable_dropout=True, rngs=rngs
    )
    return batch_loss(logits, batch, training.z_loss, num_tasks)

  def step(state, batch):
    key = jax.random.fold_in(jax.random.key(training.seed), state.step)
    gradient = jax.grad(loss_function, has_aux=True)
    gradients, metrics = gradient(state.params, batch, key)
    with jax.numpy_dtype_promotion('standard'):
      updates, optimizer_state = optimizer.update(
        gradients, state.optimizer_state, state.params
      )
      params = optax.apply_updates(state.params, updates)
      norm = optax.tree.norm(gradients)
    state = TrainState(state.step + 1, params, optimizer_state)
    return state, metrics._replace(gradient_norm=norm)

  return jax.jit(step, donate_argnums=0)


def count_tokens(batch: Batch) -> int:
  """Return the tokens of a batch that are not padding."""
  names = ('encoder_input_tokens', 'decoder_target_tokens')
  return int(
    sum(np.count_nonzero(batch[name]) for name in names if name in batch)
  )


def fit(
  network: nn.Module,
  draw: Draw,
  training: Training,
  directory: str | pathlib.Path,
  *,
  tasks: Sequence[str] = ('all',),
  recipe: Mapping[str, Any] | None = None,
  report: Callable[[dict], None] | None = None,
) -> TrainState:
  """Train, or continue the run that `directory` holds, to the last step.

  Args:
    network: a `Transformer` or a `DecoderOnlyTransformer`.
    draw: makes one example from a random generator; must have no other state.
    training: the run's configuration. A run may be continued with a larger
      `num_steps`, unless the schedule ends there, and kept in another way;
      anything else that changes makes it another run.
    directory: gets `checkpoints/` (Orbax, written atomically), `log.jsonl` and
      `settings.json`, which a continued run is compared with.
    tasks: names for the log, of the tasks that examples are of.
    recipe: what else makes it this run, such as the network's sizes; names to
      values that JSON holds.
    report: called with every line of the log.

  Returns:
    The state after `training.num_steps` steps.

  Raises:
    ValueError: the directory holds another run; names what differs.
    FloatingPointError: a loss is NaN or infinite; names the step.
  """
  directory = pathlib.Path(directory).absolute()
  directory.mkdir(parents=True, exist_ok=True)
  options = ocp.CheckpointManagerOptions(
    max_to_keep=training.keep_checkpoints, enable_async_checkpointing=False
  )
  settings = {'training': training.deciding(), **(recipe or {})}
  with ocp.CheckpointManager(
    directory / 'checkpoints', options=options
  ) as manager:
    newest = manager.latest_step()
    if newest is None:
      run_settings.write(directory, settings)
    else:
      run_settings.check(directory, settings)
      if newest > training.num_steps:
        raise ValueError(
          f'{directory} has done {newest} steps already; wanted num_steps of'
          f' at least that, got {training.num_steps}.'
        )
    state = initial_state(network, training)
    if newest is not None:
      abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
      state = manager.restore(newest, args=ocp.args.StandardRestore(abstract))
    first = int(state.step)
    log = LossLog(
      directory / 'log.jsonl', learning_rate(training), first, report, tasks
    )
    run_step = make_step(network, training, len(tasks))
    batches = prefetched_batches(
      draw, training, first, is_decoder_only(network)
    )
    for done, batch in enumerate(batches, start=first + 1):
      state, metrics = run_step(state, batch)
      last = done == training.num_steps
      log.add(metrics, count_tokens(batch))
      if last or done % training.log_every == 0:
        log.write()
      if last or done % training.checkpoint_every == 0:
        manager.save(done, args=ocp.args.StandardSave(state))
  return state
