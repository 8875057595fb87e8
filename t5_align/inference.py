"""Compiled encode, score and generate on lists of token ids of any length.

Examples are sorted by length and padded to few lengths and one batch size, so
few programs are compiled whatever comes; padding never changes a result beyond
rounding. Temperatures are an argument of the compiled programs: a sweep over
them compiles once. Parameters that are spread over a mesh of devices are used
where they are: batches are split over its data axis.

Synopsis:

    inference = Inference(network, params, batch_size=8)
    inference.generate([[13959, 1566, 1]], max_new_tokens=10)
    inference.score(inputs, targets, temperatures=Temperatures(encoder=0.8))
    inference.num_compiled
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from t5_align import decoding, sharding
from t5_align.decoding import Sampling as Sampling
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.temperature import Temperatures

_SHORTEST = 32  # tokens that the shortest padded length has
_LOGITS_BYTES = 128 << 20  # of logits that scoring makes at a time


class Generated(NamedTuple):
  """One generated sequence.

  Attributes:
    tokens: up to EOS, which is left out.
    log_probability: of the tokens and EOS, natural log.
    finite: whether all logits on the way were numbers.
  """

  tokens: list[int]
  log_probability: float
  finite: bool


class Scored(NamedTuple):
  """Log-likelihood of one target.

  Attributes:
    log_likelihood: sum over the target's tokens, natural log.
    num_tokens: of the target.
    finite: whether all its logits were numbers.
  """

  log_likelihood: float
  num_tokens: int
  finite: bool


def padded_length(length: int) -> int:
  """Round up to one of few lengths: 32, 40, 48, 56, 64, 80, 96, 112, 128 …

  At most a quarter of a padded input is padding, for four lengths an octave.
  """
  if length <= _SHORTEST:
    return _SHORTEST
  step = (1 << (length - 1).bit_length()) // 8
  return -(-length // step) * step


def use_compilation_cache(folder: str | os.PathLike | None = None) -> None:
  """Keep compiled programs on disk, so that a second run starts at once.

  Args:
    folder: where; by default JAX_COMPILATION_CACHE_DIR, else
      ~/.cache/t5_align/compiled. Where that can't be made, nothing is kept.
  """
  if folder is None:
    if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
      return
    cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    folder = pathlib.Path(cache) / 't5_align' / 'compiled'
  try:
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


class Inference:
  """Runs one network with one set of parameters.

  Attributes:
    network: a Transformer or DecoderOnlyTransformer.
    params: its parameters.
    batch_size: examples in a compiled batch: what was asked for, rounded up to
      a multiple of the mesh's data axis.
    mesh: of the devices that the parameters are spread over; None for one.
  """

  def __init__(
    self,
    network: Transformer | DecoderOnlyTransformer,
    params: Any,
    *,
    batch_size: int = 8,
  ):
    if batch_size < 1:
      raise ValueError(f'batch_size is {batch_size}, wanted at least 1.')
    self.network = network
    self.params = params
    self.mesh = sharding.mesh_of(params)
    self.batch_size = sharding.round_up(batch_size, self.mesh)
    self._programs: set[Any] = set()
    # Every process of the mesh gets whole results.
    whole = None if self.mesh is None else sharding.replicated(self.mesh)
    jit = functools.partial(jax.jit, out_shardings=whole)
    self._encode = jit(functools.partial(_encode, network))
    self._logits = jit(functools.partial(_logits, network))
    self._score = jit(functools.partial(score_batch, network))
    self._generate = jit(
      functools.partial(generate_batch, network),
      static_argnames=(
        'max_new_tokens',
        'num_beams',
        'length_penalty',
        'sampling',
      ),
    )

  @property
  def num_compiled(self) -> int:
    """Number of programs compiled so far."""
    return len(self._programs)

  def encode(
    self,
    encoder_tokens: Int[Array, 'B S'] | np.ndarray,
    temperatures: Temperatures | None = None,
  ) -> Float[Array, 'B S D']:
    """Return the encoder's output for padded tokens."""
    if isinstance(self.network, DecoderOnlyTransformer):
      raise ValueError('A decoder-only model has no encoder: use logits().')
    encoder_tokens = jnp.asarray(encoder_tokens)
    encoded = self._run(
      self._encode, (self._fill(encoder_tokens),), self._traced(temperatures)
    )
    return encoded[: encoder_tokens.shape[0]]

  def logits(
    self,
    encoder_tokens: Int[Array, 'B S'] | np.ndarray | None,
    decoder_tokens: Int[Array, 'B T'] | np.ndarray,
    temperatures: Temperatures | None = None,
  ) -> Float[Array, 'B T V']:
    """Return logits of each decoder token, given those before it.

    Args:
      encoder_tokens: padded with 0; None for a decoder-only model.
      decoder_tokens: the targets, not shifted; row t of the result predicts
        token t. Rows of padding mean nothing.
      temperatures: instead of the model's own.
    """
    decoder_tokens = jnp.asarray(decoder_tokens)
    if encoder_tokens is not None:
      encoder_tokens = self._fill(jnp.asarray(encoder_tokens))
    logits = self._run(
      self._logits,
      (encoder_tokens, self._fill(decoder_tokens)),
      self._traced(temperatures),
    )
    return logits[: decoder_tokens.shape[0]]

  def score(
    self,
    inputs: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    temperatures: Temperatures | None = None,
  ) -> list[Scored]:
    """Return the log-likelihood of each target given its input.

    Args:
      inputs: token ids, with EOS for an encoder-decoder model.
      targets: token ids to score, with EOS if that counts.
      temperatures: instead of the model's own.
    """
    if len(inputs) != len(targets):
      raise ValueError(f'{len(inputs)} inputs, but {len(targets)} targets.')
    for i, target in enumerate(targets):
      if not target:
        raise ValueError(f'Target {i} is empty: there is nothing to score.')
    temperatures = self._traced(temperatures)
    results: list[Scored | None] = [None] * len(inputs)
    for rows in self._batches(
      [len(i) + len(t) for i, t in zip(inputs, targets)]
    ):
      values = self._run(
        self._score,
        (
          self._pad([inputs[i] for i in rows]),
          self._pad([targets[i] for i in rows]),
        ),
        temperatures,
      )
      log_likelihood, finite = jax.device_get(values)
      for row, i in enumerate(rows):
        results[i] = Scored(
          float(log_likelihood[row]), len(targets[i]), bool(finite[row])
        )
    return results  # type: ignore[return-value]  # each row was in a batch

  def generate(
    self,
    inputs: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 64,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    sampling: Sampling | None = None,
    seed: int = 0,
    temperatures: Temperatures | None = None,
  ) -> list[Generated]:
    """Generate one output for each input.

    Args:
      inputs: token ids, with EOS for an encoder-decoder model.
      max_new_tokens: at most this many, EOS included.
      num_beams: 1 takes the likeliest token each time, or samples.
      length_penalty: of beam search.
      sampling: how to draw tokens; None is greedy.
      seed: of sampling. Example i has the same draws in any batch.
      temperatures: of attention, instead of the model's own.
    """
    if max_new_tokens < 1:
      raise ValueError(
        f'max_new_tokens is {max_new_tokens}, wanted at least 1.'
      )
    if num_beams < 1:
      raise ValueError(f'num_beams is {num_beams}, wanted at least 1.')
    if num_beams > 1 and sampling is not None:
      raise ValueError('Beam search does not sample: drop one of the two.')
    for i, tokens in enumerate(inputs):
      if not tokens:
        raise ValueError(f'Input {i} is empty: there is nothing to read.')
    temperatures = self._traced(temperatures)
    key = sharding.replicate(
      self.mesh, jax.random.key_data(jax.random.key(seed))
    )
    results: list[Generated | None] = [None] * len(inputs)
    for rows in self._batches([len(i) for i in inputs]):
      padded_rows = rows + [rows[0]] * (self.batch_size - len(rows))
      decoded = jax.device_get(
        self._run(
          self._generate,
          (self._pad([inputs[i] for i in rows]), np.asarray(padded_rows)),
          temperatures,
          key,
          max_new_tokens=max_new_tokens,
          num_beams=num_beams,
          length_penalty=float(length_penalty),
          sampling=sampling or Sampling(),
        )
      )
      for row, i in enumerate(rows):
        results[i] = Generated(
          _until_eos(decoded.tokens[row]),
          float(decoded.log_probability[row]),
          bool(decoded.finite[row]),
        )
    return results  # type: ignore[return-value]  # each row was in a batch

  def _run(self, function, batch, *others, **options):
    """Call a compiled function, and count what it had to be compiled for."""
    arguments = (*sharding.split_batch(self.mesh, batch), *others)
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple(jnp.shape(leaf) for leaf in leaves)
    self._programs.add((function, structure, shapes, *options.items()))
    with sharding.use_mesh(self.mesh):
      return function(self.params, *arguments, **options)

  def _traced(self, temperatures):
    config = self.network.config
    if temperatures is None:
      temperatures = config.temperatures
    return sharding.replicate(self.mesh, temperatures.as_arrays(config))

  def _fill(self, tokens):
    """Repeat the first row until the batch divides over the data axis."""
    B = tokens.shape[0]
    rows = np.arange(sharding.round_up(B, self.mesh))
    return tokens if B == len(rows) else tokens[np.where(rows < B, rows, 0)]

  def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group examples of like length, the longest (and slowest) first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), self.batch_size):
      yield order[start : start + self.batch_size]

  def _pad(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """[batch_size, padded length]; missing examples repeat the first."""
    length = padded_length(max(len(row) for row in rows))
    padded = np.zeros((self.batch_size, length), np.int32)
    for i in range(self.batch_size):
      row = rows[i] if i < len(rows) else rows[0]
      padded[i, : len(row)] = row
    return padded


def _encode(network, params, encoder_tokens, temperatures):
  return network.apply(
    {'params': params},
    encoder_tokens,
    enable_dropout=False,
    temperatures=temperatures,
    method='encode',
  )


def _logits(
  network, params, encoder_tokens, decoder_tokens, temperatures, **options
) -> Any:
  shifted = jnp.pad(decoder_tokens[:, :-1], ((0, 0), (1, 0)))
  tokens = (shifted, decoder_tokens)
  if isinstance(network, Transformer):
    tokens = (encoder_tokens, *tokens)
  return network.apply(
    {'params': params},
    *tokens,
    enable_dropout=False,
    temperatures=temperatures,
    **options,
  )


def score_batch(network, params, inputs, targets, temperatures):
  """Log-likelihood of each target, [B], and whether it is a number."""
  run = functools.partial(
    _logits, network, params, temperatures=temperatures, return_logits=False
  )
  if isinstance(network, Transformer):
    outputs = run(inputs, targets)
  else:
    tokens, positions = _join(inputs, targets)
    outputs = jnp.take_along_axis(
      run(None, tokens), positions[..., None], axis=1
    )

  def log_likelihood(position):
    output, target = position
    logits: Any = network.apply(
      {'params': params}, output[:, None], method='logits'
    )
    chosen = jnp.take_along_axis(logits[:, 0], target[:, None], axis=1)[:, 0]
    return chosen - jax.nn.logsumexp(logits[:, 0], axis=-1)

  # All logits of a long target at once would be gigabytes. [B, T, …] -> [T, B]
  log_likelihoods = jax.lax.map(
    log_likelihood,
    (outputs.swapaxes(0, 1), targets.T),
    batch_size=positions_at_once(targets.shape[0], network.config.vocab_size),
  )
  total = jnp.sum(jnp.where(targets.T > 0, log_likelihoods, 0.0), axis=0)
  return total, jnp.isfinite(total)


def positions_at_once(batch_size: int, vocab_size: int) -> int:
  """Return how many targets' positions scoring makes logits of at a time."""
  return max(1, _LOGITS_BYTES // (4 * batch_size * vocab_size))


def _join(inputs, targets):
  """Put each target right behind its input: [B, S + T] and its positions."""
  B, S = inputs.shape
  lengths = jnp.sum(inputs > 0, axis=1)
  joined = jnp.pad(inputs, ((0, 0), (0, targets.shape[1])))
  at = lengths[:, None] + jnp.arange(targets.shape[1])[None]
  return joined.at[jnp.arange(B)[:, None], at].set(targets), at


def generate_batch(
  network,
  params,
  inputs,
  numbers,
  temperatures,
  key,
  *,
  max_new_tokens,
  num_beams,
  length_penalty,
  sampling,
):
  """Decode each of `inputs`, whose draws depend on `key` and its number."""
  start = _start_encoder_decoder
  if isinstance(network, DecoderOnlyTransformer):
    start = _start_decoder_only
  step, cache, first_tokens = start(
    network, params, inputs, temperatures, max_new_tokens, num_beams
  )
  if num_beams == 1:
    key = jax.random.wrap_key_data(key)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)
    return decoding.sample(
      step,
      cache,
      first_tokens,
      max_new_tokens=max_new_tokens,
      sampling=sampling,
      keys=keys,
    )
  return decoding.beam_search(
    step,
    cache,
    first_tokens,
    max_new_tokens=max_new_tokens,
    num_beams=num_beams,
    length_penalty=length_penalty,
  )


def _start_encoder_decoder(
  network, params, inputs, temperatures, max_new_tokens, num_beams
):
  """Encode, and make the cache with the cross-attention's keys in it."""
  num_rows = inputs.shape[0] * num_beams
  options = dict(
    enable_dropout=False,
    decode=True,
    temperatures=temperatures,
    cross_cache='initialize',
    mutable=['cache'],
    method='decode',
  )
  encoded = _encode(network, params, inputs, temperatures)
  outputs = jnp.ones((num_rows, max_new_tokens), jnp.int32)
  _, variables = network.apply(
    {'params': params}, encoded, inputs, outputs, outputs, **options
  )

  def step(cache, tokens):
    tokens = tokens[:, None]
    logits, variables = network.apply(
      {'params': params, 'cache': cache},
      None,
      inputs,
      tokens,
      tokens,
      **options,
    )
    return logits[:, 0], variables['cache']

  return step, variables['cache'], jnp.zeros(inputs.shape[0], jnp.int32)


def _start_decoder_only(
  network, params, inputs, temperatures, max_new_tokens, num_beams
):
  """Fill the cache with the prompts; each goes on from its last token."""
  options = dict(
    enable_dropout=False, temperatures=temperatures, mutable=['cache']
  )
  inputs = jnp.repeat(inputs, num_beams, axis=0)
  lengths = jnp.sum(inputs > 0, axis=1)
  # Input tokens are shifted by the start token 0, so the last one of a prompt
  # stands at its length: it is the first that a step reads.
  tokens = jnp.pad(inputs, ((0, 0), (1, max_new_tokens)))
  is_prompt = jnp.arange(tokens.shape[1])[None] <= lengths[:, None]
  _, variables = network.apply(
    {'params': params}, tokens, tokens, decode=True, **options
  )
  _, variables = network.apply(
    {'params': params, 'cache': variables['cache']},
    tokens,
    is_prompt.astype(jnp.int32),
    prefill=True,
    prefill_lengths=lengths,
    **options,
  )

  def step(cache, tokens):
    logits, variables = network.apply(
      {'params': params, 'cache': cache},
      tokens[:, None],
      tokens[:, None],
      decode=True,
      **options,
    )
    return logits[:, 0], variables['cache']

  last = jnp.take_along_axis(tokens, lengths[:, None], axis=1)[:, 0]
  return step, variables['cache'], last[::num_beams]


def _until_eos(tokens: np.ndarray) -> list[int]:
  ends = np.flatnonzero(tokens == decoding.EOS_ID)
  return tokens[: ends[0] if ends.size else len(tokens)].tolist()
