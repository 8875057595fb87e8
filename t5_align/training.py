"""Training: loss, optimizers, schedules, checkpoints, exact resume.

The loss of one batch, with logits z, targets y and pad id 0, is a mean over
the target tokens that are not padding,

  loss = sum_{y != 0} (log Z - z_y + c (log Z)^2) / #{y != 0},
  log Z = log sum_v exp(z_v),

where c (`z_loss`, 1e-4) keeps log Z near 0 as T5X does (`t5x/losses.py`).
The learning rate follows T5 (Raffel et al. 2020, section 3.1.2), with a
linear warm-up before the decay by the square root of the step:

  rate(i) = peak * min((i + 1) / w, sqrt(w / (i + 1))),  w = warm-up steps;

`schedule='cosine'` replaces the second factor by half a cosine down to zero
at the last step.

Nothing but `TrainState` is saved: batch i and the dropout of step i depend on
(seed, i) alone, so a run that was stopped continues bit for bit. (On a GPU
that takes XLA_FLAGS=--xla_gpu_deterministic_ops=true.)

Synopsis:

    training = Training(num_steps=1000, optimizer='adamw', learning_rate=2e-3)
    state = fit(Transformer(config), draw, training, 'runs/first')
    # draw(generator) -> (input ids, target ids); runs/first holds
    # checkpoints/, settings.json, log.jsonl. Calling it again continues.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import dataclasses
import functools
import itertools
import multiprocessing
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
from t5_align.loss_log import LossLog, Metrics
from t5_align.nearest import nearest

# One example: input and target token ids, both ending in EOS.
Draw = Callable[[np.random.Generator], tuple[list[int], list[int]]]

# Fields of Training that decide how a run is kept, not what a step computes.
_KEEPING = ('log_every', 'checkpoint_every', 'keep_checkpoints', 'data_workers')
_COUNTS = (
  *('num_steps', 'batch_size', 'target_length', 'warmup_steps'),
  *_KEEPING[:-1],
)


@dataclasses.dataclass(frozen=True)
class Training:
  """How a model is trained.

  Attributes:
    num_steps: optimizer steps in the whole run.
    batch_size: examples in a step.
    input_lengths: encoder lengths in tokens, ascending; a batch is padded to
      the first that holds it, so this is the number of shapes compiled.
    target_length: decoder length in tokens; every target must fit.
    optimizer: 'adafactor' (T5's) or 'adamw'.
    learning_rate: the peak of the schedule, reached after the warm-up.
    schedule: 'rsqrt' (T5's) or 'cosine' (to zero at `num_steps`).
    warmup_steps: steps of linear warm-up, at least 1.
    weight_decay: decoupled weight decay per unit of learning rate.
    max_gradient_norm: gradients are scaled down to this global norm.
    z_loss: the coefficient c of the squared log partition function.
    seed: of the initial parameters, the data and the dropout.
    log_every: steps between two lines of the log.
    checkpoint_every: steps between two checkpoints; the last is always saved.
    keep_checkpoints: how many of the newest checkpoints stay on disk.
    data_workers: processes that make batches ahead of the step; 0 is a thread
      of this one. They change the speed and nothing else.
  """

  num_steps: int = 10_000
  batch_size: int = 128
  input_lengths: tuple[int, ...] = (128,)
  target_length: int = 32
  optimizer: str = 'adafactor'
  learning_rate: float = 1e-2
  schedule: str = 'rsqrt'
  warmup_steps: int = 1000
  weight_decay: float = 0.0
  max_gradient_norm: float = 1.0
  z_loss: float = 1e-4
  seed: int = 0
  log_every: int = 100
  checkpoint_every: int = 1000
  keep_checkpoints: int = 2
  data_workers: int = 0

  def __post_init__(self):
    # gin hands over lists.
    object.__setattr__(self, 'input_lengths', tuple(self.input_lengths))
    _check_choice('optimizer', self.optimizer, ('adafactor', 'adamw'))
    _check_choice('schedule', self.schedule, ('rsqrt', 'cosine'))
    for field in _COUNTS:
      if getattr(self, field) < 1:
        raise ValueError(
          f'{field} is {getattr(self, field)}, wanted at least 1.'
        )
    if self.checkpoint_every % self.log_every:
      raise ValueError(
        f'checkpoint_every is {self.checkpoint_every}, wanted a multiple of '
        f'log_every ({self.log_every}): no loss is saved unchecked.'
      )
    ascending = sorted(set(self.input_lengths))
    if not ascending or list(self.input_lengths) != ascending:
      raise ValueError(
        f'input_lengths is {self.input_lengths}, wanted ascending lengths.'
      )


class Batch(NamedTuple):
  """Examples padded with 0 to the static shapes of a step."""

  inputs: Int[np.ndarray, 'B S']
  targets: Int[np.ndarray, 'B T']


class TrainState(NamedTuple):
  """All that a run has learned: what a checkpoint holds."""

  step: Int[Array, '']
  params: optax.Params
  optimizer_state: optax.OptState


def learning_rate(training: Training) -> optax.Schedule:
  """Return the schedule as a function of the step, counted from 0."""
  peak, warmup = training.learning_rate, training.warmup_steps

  def rsqrt(step):
    done = jnp.asarray(step, jnp.float32) + 1.0
    return peak * jnp.minimum(done / warmup, jnp.sqrt(warmup / done))

  def cosine(step):
    done = jnp.asarray(step, jnp.float32) + 1.0
    rest = max(training.num_steps - warmup, 1)
    progress = jnp.clip((done - warmup) / rest, 0.0, 1.0)
    decay = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return peak * jnp.minimum(done / warmup, decay)

  return rsqrt if training.schedule == 'rsqrt' else cosine


def make_optimizer(training: Training) -> optax.GradientTransformation:
  """Return the gradient transformation that `training` names."""
  schedule = learning_rate(training)
  if training.optimizer == 'adafactor':
    # Raffel et al. 2020: factored second moments, no momentum, steps scaled
    # by the parameter's own RMS.
    optimizer = optax.adafactor(
      schedule, weight_decay_rate=training.weight_decay or None
    )
  else:
    optimizer = optax.adamw(
      schedule, b2=0.98, weight_decay=training.weight_decay
    )
  return optax.chain(
    optax.clip_by_global_norm(training.max_gradient_norm), optimizer
  )


def shift_right(targets: Int[Array, 'B T']) -> Int[Array, 'B T']:
  """Return the decoder's input: start token 0, then all targets but one."""
  return jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))


def cross_entropy(
  logits: Float[Array, 'B T V'], targets: Int[Array, 'B T'], z_loss: float
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Return the loss per target token and the share of faultless sequences.

  Args:
    logits: [B, T, V], any float type; the loss is computed in float32.
    targets: [B, T]; positions with pad id 0 count for nothing.
    z_loss: coefficient of the squared log partition function.
  """
  logits = logits.astype(jnp.float32)
  log_z = jax.nn.logsumexp(logits, axis=-1)  # [B, T]
  target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)
  losses = log_z - target_logits[..., 0] + z_loss * jnp.square(log_z)
  weights = (targets != 0).astype(jnp.float32)
  loss = jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1.0)
  right = (jnp.argmax(logits, axis=-1) == targets) | (targets == 0)
  return loss, jnp.mean(jnp.all(right, axis=-1).astype(jnp.float32))


def initial_state(network: nn.Module, training: Training) -> TrainState:
  """Return the state before the first step; a function of the seed alone."""
  tokens = jnp.ones((1, training.input_lengths[0]), jnp.int32)
  targets = jnp.ones((1, training.target_length), jnp.int32)
  init = jax.jit(functools.partial(network.init, enable_dropout=False))
  key = jax.random.key(training.seed)
  params = init(key, tokens, targets, targets)['params']
  with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes.
    optimizer_state = make_optimizer(training).init(params)
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer_state)


def make_step(
  network: nn.Module, training: Training
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Return the jitted training step; it consumes the state it is given."""
  optimizer = make_optimizer(training)

  def loss_function(params, batch, key):
    logits = network.apply(
      {'params': params},
      batch.inputs,
      shift_right(batch.targets),
      batch.targets,
      enable_dropout=True,
      rngs={'dropout': key},
    )
    return cross_entropy(jnp.asarray(logits), batch.targets, training.z_loss)

  def step(state, batch):
    key = jax.random.fold_in(jax.random.key(training.seed), state.step)
    gradient = jax.value_and_grad(loss_function, has_aux=True)
    (loss, accuracy), gradients = gradient(state.params, batch, key)
    with jax.numpy_dtype_promotion('standard'):
      updates, optimizer_state = optimizer.update(
        gradients, state.optimizer_state, state.params
      )
      params = optax.apply_updates(state.params, updates)
      norm = optax.tree.norm(gradients)
    state = TrainState(state.step + 1, params, optimizer_state)
    return state, Metrics(loss, accuracy, norm)

  return jax.jit(step, donate_argnums=0)


def make_batch(draw: Draw, training: Training, step: int) -> Batch:
  """Return the batch of one step: a pure function of (seed, step).

  Raises:
    ValueError: an example is longer than the longest shape.
  """
  generator = np.random.default_rng([training.seed, step])
  examples = [draw(generator) for _ in range(training.batch_size)]
  inputs, targets = zip(*examples, strict=True)
  length = _fitting(inputs, training.input_lengths, f'step {step}: an input')
  target_lengths = (training.target_length,)
  target_length = _fitting(targets, target_lengths, f'step {step}: a target')
  return Batch(_pad(inputs, length), _pad(targets, target_length))


def prefetched_batches(
  draw: Draw, training: Training, first_step: int
) -> Iterator[Batch]:
  """Yield the batches of `first_step` onwards, made ahead of their use.

  With `training.data_workers` above 0 `draw` is pickled.
  """
  workers = training.data_workers
  if workers:
    # Not forked: JAX has threads, which a fork would cut off mid-work.
    context = multiprocessing.get_context('spawn')
    pool = futures.ProcessPoolExecutor(workers, mp_context=context)
  else:
    pool = futures.ThreadPoolExecutor(1)
  steps = iter(range(first_step, training.num_steps))
  ahead = collections.deque()
  with pool:
    try:
      for step in itertools.islice(steps, 4 * max(workers, 1)):
        ahead.append(pool.submit(make_batch, draw, training, step))
      while ahead:
        yield ahead.popleft().result()
        for step in itertools.islice(steps, 1):
          ahead.append(pool.submit(make_batch, draw, training, step))
    finally:
      pool.shutdown(cancel_futures=True)


def fit(
  network: nn.Module,
  draw: Draw,
  training: Training,
  directory: str | pathlib.Path,
  *,
  recipe: Mapping[str, Any] | None = None,
  report: Callable[[dict], None] | None = None,
) -> TrainState:
  """Train, or continue the run that `directory` holds, to the last step.

  Args:
    network: an encoder-decoder `Transformer`.
    draw: makes one example from a random generator; must have no other state.
    training: the run's configuration. A run may be continued with a larger
      `num_steps`, unless the schedule ends there, and kept in another way;
      anything else that changes makes it another run.
    directory: gets `checkpoints/` (Orbax, written atomically), `log.jsonl` and
      `settings.json`, which a continued run is compared with.
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
  settings = {'training': _deciding(training), **(recipe or {})}
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
      directory / 'log.jsonl', learning_rate(training), first, report
    )
    run_step = make_step(network, training)
    batches = prefetched_batches(draw, training, first)
    for done, batch in enumerate(batches, start=first + 1):
      state, metrics = run_step(state, batch)
      last = done == training.num_steps
      log.add(metrics)
      if last or done % training.log_every == 0:
        log.write()
      if last or done % training.checkpoint_every == 0:
        manager.save(done, args=ocp.args.StandardSave(state))
  return state


def _deciding(training: Training) -> dict[str, Any]:
  """Return the fields that decide every step of a run."""
  fields = dataclasses.asdict(training)
  if training.schedule == 'rsqrt':
    del fields['num_steps']  # a cosine reaches zero there
  return {k: v for k, v in fields.items() if k not in _KEEPING}


def _fitting(
  rows: Sequence[list[int]], lengths: tuple[int, ...], what: str
) -> int:
  """Return the first length that holds every row; raise if none does."""
  longest = max(len(row) for row in rows)
  for length in lengths:
    if length >= longest:
      return length
  raise ValueError(
    f'{what} has {longest} tokens, the longest shape {lengths[-1]}; draw '
    'shorter ones or raise input_lengths or target_length.'
  )


def _pad(rows: Sequence[list[int]], length: int) -> Int[np.ndarray, 'B S']:
  """Return the rows as one array, filled up with pad id 0."""
  padded = np.zeros((len(rows), length), np.int32)
  for i, row in enumerate(rows):
    padded[i, : len(row)] = row
  return padded


def _check_choice(field: str, got: str, choices: tuple[str, ...]) -> None:
  """Raise ValueError, naming the nearest choice."""
  if got not in choices:
    raise ValueError(f'Unknown {field} {got!r}; {nearest(got, choices)}')
