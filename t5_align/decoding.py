"""Choose output tokens: greedy, sampling and beam search over a cached step.

All are plain functions of `step(cache, tokens) -> (logits, cache)`, run in one
compiled loop that ends when every sequence has. Beam search follows Hugging
Face's default (`early_stopping=False`), whose outputs it reproduces: of the 2k
best continuations those that end are kept with their score divided by
length^length_penalty, and the best k others go on.

Synopsis:

    decoded = sample(step, cache, first_tokens, max_new_tokens=64,
                     sampling=Sampling(), keys=keys)
    decoded = beam_search(step, cache, first_tokens, max_new_tokens=64,
                          num_beams=4, length_penalty=1.0)
    decoded.tokens                                     # [B, max_new_tokens]
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

EOS_ID = 1
# Less likely than any sequence, and finite, so that differences of it are too.
_NEVER = -1e9

Cache = Any
Step = Callable[[Cache, Array], tuple[Array, Cache]]


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How to draw a token from its distribution.

  Attributes:
    temperature: divides the output logits (not attention's); 0 is greedy.
    top_k: draw among the k likeliest tokens; 0 is all.
    top_p: draw among the likeliest tokens that hold this much probability.
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if not 0 <= self.temperature < float('inf'):
      raise ValueError(
        f'Sampling temperature is {self.temperature}, wanted 0 or more.'
      )
    if self.top_k < 0:
      raise ValueError(f'top_k is {self.top_k}, wanted 0 (off) or more.')
    if not 0 < self.top_p <= 1:
      raise ValueError(f'top_p is {self.top_p}, wanted above 0, at most 1.')


class Decoded(NamedTuple):
  """What decoding gives.

  Attributes:
    tokens: generated tokens; after EOS, padding 0.
    log_probability: of the tokens up to and with EOS, natural log.
    finite: whether all logits on the way were numbers.
  """

  tokens: Int[Array, 'B L']
  log_probability: Float[Array, 'B']
  finite: Bool[Array, 'B']


def sample(
  step: Step,
  cache: Cache,
  first_tokens: Int[Array, 'B'],
  *,
  max_new_tokens: int,
  sampling: Sampling,
  keys: Array,
) -> Decoded:
  """Draw one token after the other, or take the likeliest.

  Args:
    step: logits [B, V] of the next token and the new cache.
    cache: at the position of the first tokens.
    first_tokens: what the first step reads.
    max_new_tokens: length of the result.
    sampling: how to draw.
    keys: a random key a sequence, so that no sequence depends on another.

  Returns:
    One sequence each.
  """
  B = first_tokens.shape[0]

  class State(NamedTuple):
    position: Array
    cache: Cache
    last: Array
    tokens: Array
    log_probability: Array
    finite: Array
    done: Array

  def go_on(state):
    return (state.position < max_new_tokens) & ~jnp.all(state.done)

  def advance(state):
    logits, cache = step(state.cache, state.last)
    log_probs = jax.nn.log_softmax(logits)
    tokens = _draw(logits, sampling, keys, state.position)
    gain = jnp.take_along_axis(log_probs, tokens[:, None], axis=1)[:, 0]
    finite = state.finite & (state.done | jnp.all(jnp.isfinite(logits), -1))
    tokens = jnp.where(state.done, 0, tokens)
    return State(
      position=state.position + 1,
      cache=cache,
      last=tokens,
      tokens=state.tokens.at[:, state.position].set(tokens),
      log_probability=state.log_probability + jnp.where(state.done, 0.0, gain),
      finite=finite,
      done=state.done | (tokens == EOS_ID),
    )

  state = lax.while_loop(
    go_on,
    advance,
    State(
      position=jnp.int32(0),
      cache=cache,
      last=first_tokens,
      tokens=jnp.zeros((B, max_new_tokens), jnp.int32),
      log_probability=jnp.zeros(B, jnp.float32),
      finite=jnp.ones(B, bool),
      done=jnp.zeros(B, bool),
    ),
  )
  return Decoded(state.tokens, state.log_probability, state.finite)


def _draw(logits, sampling, keys, position):
  if sampling.temperature == 0:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  logits = logits / sampling.temperature
  if sampling.top_k:
    k = min(sampling.top_k, logits.shape[-1])
    logits = _keep_at_least(logits, lax.top_k(logits, k)[0][:, -1:])
  if sampling.top_p < 1:
    ordered = -jnp.sort(-logits, axis=-1)
    mass = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)
    # The token that crosses the mass is still in.
    last = jnp.sum(mass < sampling.top_p, axis=-1, keepdims=True)
    last = jnp.minimum(last, logits.shape[-1] - 1)
    logits = _keep_at_least(logits, jnp.take_along_axis(ordered, last, axis=1))
  keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, position)
  return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _keep_at_least(logits, threshold):
  return jnp.where(logits < threshold, -jnp.inf, logits)


class _Beams(NamedTuple):
  """Beam search's state: k sequences that go on, k that ended; best first."""

  position: Array
  cache: Cache
  running: Array  # [B, k, L]
  running_score: Array  # [B, k], sums of log probabilities
  ended: Array  # [B, k, L]
  ended_score: Array  # [B, k], divided by length^length_penalty
  ended_log_probability: Array  # [B, k]
  has_ended: Array  # [B, k], whether the slot holds a sequence
  improvable: Array  # [B], whether a running one may still beat the ended
  finite: Array  # [B]


def beam_search(
  step: Step,
  cache: Cache,
  first_tokens: Int[Array, 'B'],
  *,
  max_new_tokens: int,
  num_beams: int,
  length_penalty: float = 1.0,
) -> Decoded:
  """Search for the likeliest sequence among `num_beams` at a time.

  Args:
    step: logits [B · k, V] of the next token; beams of an input are neighbours.
    cache: for B · k sequences. Its leaves of that many rows are reordered with
      the beams; others are shared.
    first_tokens: what the first step reads.
    max_new_tokens: a sequence that long ends there.
    num_beams: k.
    length_penalty: an ended sequence's score is its log probability divided by
      its number of tokens to this power: above 0 favours longer ones.

  Returns:
    The best sequence of each input.
  """
  B, k = first_tokens.shape[0], num_beams
  not_ended = jnp.full((B, k), _NEVER, jnp.float32)
  state = _Beams(
    position=jnp.int32(0),
    cache=cache,
    running=jnp.zeros((B, k, max_new_tokens), jnp.int32),
    # All beams start equal: only the first counts.
    running_score=not_ended.at[:, 0].set(0.0),
    ended=jnp.zeros((B, k, max_new_tokens), jnp.int32),
    ended_score=not_ended,
    ended_log_probability=not_ended,
    has_ended=jnp.zeros((B, k), bool),
    improvable=jnp.ones(B, bool),
    finite=jnp.ones(B, bool),
  )

  def go_on(state):
    return (state.position < max_new_tokens) & jnp.any(state.improvable)

  def advance(state):
    last = state.running[:, :, jnp.maximum(state.position - 1, 0)]
    last = jnp.where(state.position == 0, first_tokens[:, None], last)
    logits, cache = step(state.cache, last.reshape(B * k))
    finite = jnp.all(jnp.isfinite(logits).reshape(B, -1), axis=1)
    state = state._replace(
      cache=cache, finite=state.finite & (finite | ~state.improvable)
    )
    return _next_beams(state, logits, length_penalty)

  state = lax.while_loop(go_on, advance, state)
  return Decoded(
    state.ended[:, 0], state.ended_log_probability[:, 0], state.finite
  )


def _next_beams(state, logits, length_penalty):
  """Extend the running beams by a token, and file away those that end."""
  B, k, L = state.running.shape
  V = logits.shape[-1]
  log_probs = jax.nn.log_softmax(logits).reshape(B, k, V)
  scores = (state.running_score[..., None] + log_probs).reshape(B, k * V)
  score, choice = lax.top_k(scores, 2 * k)  # [B, 2k]
  beam, token = choice // V, (choice % V).astype(jnp.int32)
  tokens = _gather(state.running, beam).at[:, :, state.position].set(token)
  length = state.position + 1
  ends = (token == EOS_ID) | (length == L)

  # Only the k best of the candidates may end now: the rest are spares.
  files = ends & (jnp.arange(2 * k)[None] < k) & state.improvable[:, None]
  scale = length.astype(jnp.float32) ** length_penalty
  candidates = (
    (state.ended, tokens),
    (state.ended_log_probability, score),
    (state.has_ended, files),
  )
  ended_score = jnp.concatenate(
    [state.ended_score, jnp.where(files, score / scale, _NEVER)], axis=1
  )
  ended_score, order = lax.top_k(ended_score, k)
  ended, ended_log_probability, has_ended = (
    _gather(jnp.concatenate(pair, axis=1), order) for pair in candidates
  )

  running_score, order = lax.top_k(score + jnp.where(ends, _NEVER, 0.0), k)
  worst = jnp.where(has_ended, jnp.min(ended_score, axis=1)[:, None], _NEVER)
  hope = running_score[:, :1] / scale
  return _Beams(
    position=length,
    cache=_reorder(state.cache, _gather(beam, order)),
    running=_gather(tokens, order),
    running_score=running_score,
    ended=ended,
    ended_score=ended_score,
    ended_log_probability=ended_log_probability,
    has_ended=has_ended,
    improvable=state.improvable & jnp.any(hope > worst, axis=1),
    finite=state.finite,
  )


def _gather(x, index):
  """Pick [B, j] of the second axis of [B, k, …]."""
  index = index.reshape(*index.shape, *(1,) * (x.ndim - 2))
  return jnp.take_along_axis(x, index, axis=1)


def _reorder(cache, beam):
  """Let each beam go on with the cache of the beam it came from."""
  B, k = beam.shape
  rows = (jnp.arange(B)[:, None] * k + beam).reshape(-1)

  def pick(x):
    return x[rows] if x.ndim > 0 and x.shape[0] == B * k else x

  return jax.tree.map(pick, cache)
