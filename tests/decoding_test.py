"""Decoding over a toy step whose probabilities are a known table."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import decoding
from t5_align.decoding import EOS_ID, Sampling, beam_search, sample

V, L = 5, 4


def markov(seed, sharpness=2.0):
  """Logits of the next token given the last, [V, V]."""
  return sharpness * np.random.default_rng(seed).normal(size=(V, V))


def step_over(tables):
  """A step for one row a table; its cache is the table, to be reordered."""

  def step(cache, tokens):
    rows = jnp.arange(tokens.shape[0])
    return cache['table'][rows, tokens], cache

  return step, {'table': jnp.asarray(np.stack(tables), jnp.float32)}


def log_softmax(x):
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def every_sequence(table):
  """All outputs that end, with their log probabilities."""
  log_probs = log_softmax(table)
  for length in range(1, L + 1):
    body = [t for t in range(V) if t != EOS_ID]
    for tokens in itertools.product(body, repeat=length - 1):
      ends = range(V) if length == L else [EOS_ID]
      for last in ends:
        sequence = (*tokens, last)
        path = zip((0, *sequence), sequence)
        yield sequence, sum(log_probs[a, b] for a, b in path)


def draw(step, cache, batch, sampling, seed=0):
  keys = jax.random.split(jax.random.key(seed), batch)
  return sample(
    step,
    cache,
    jnp.zeros(batch, jnp.int32),
    max_new_tokens=L,
    sampling=sampling,
    keys=keys,
  )


def test_greedy_takes_the_likeliest_and_stops_at_eos():
  table = np.zeros((V, V))
  table[0, 3] = table[3, 2] = table[2, EOS_ID] = 5.0
  other = np.zeros((V, V))
  other[:, 4] = 1.0
  step, cache = step_over([table, other])
  decoded = draw(step, cache, 2, Sampling())
  assert decoded.tokens.tolist() == [[3, 2, EOS_ID, 0], [4, 4, 4, 4]]
  expected = [
    sum(log_softmax(table)[a, b] for a, b in [(0, 3), (3, 2), (2, EOS_ID)]),
    4 * log_softmax(other)[0, 4],
  ]
  np.testing.assert_allclose(decoded.log_probability, expected, rtol=1e-5)
  assert decoded.finite.tolist() == [True, True]


@pytest.mark.parametrize('length_penalty', [0.0, 1.0, 2.0])
def test_wide_beams_find_the_best_of_all_sequences(length_penalty):
  """With as many beams as prefixes the search is exhaustive."""
  tables = [markov(seed) for seed in range(4)]
  k = V ** (L - 1)
  step, cache = step_over(np.repeat(tables, k, axis=0))
  decoded = beam_search(
    step,
    cache,
    jnp.zeros(len(tables), jnp.int32),
    max_new_tokens=L,
    num_beams=k,
    length_penalty=length_penalty,
  )
  for i, table in enumerate(tables):
    best, log_probability = max(
      every_sequence(table), key=lambda x: x[1] / len(x[0]) ** length_penalty
    )
    padded = [*best, *[0] * (L - len(best))]
    assert decoded.tokens[i].tolist() == padded
    assert decoded.log_probability[i] == pytest.approx(log_probability, 1e-5)


def test_top_k_and_top_p_draw_only_among_the_likeliest():
  table = np.log(np.array([[0.02, 0.08, 0.5, 0.3, 0.1]] * V))
  step, cache = step_over([table] * 400)

  def drawn(**kw):
    return draw(step, cache, 400, Sampling(1.0, **kw)).tokens[:, 0]

  assert set(drawn(top_k=2).tolist()) == {2, 3}
  # 0.5 is not yet 0.7 of the mass, 0.5 + 0.3 is.
  assert set(drawn(top_p=0.7).tolist()) == {2, 3}
  counts = np.bincount(np.asarray(drawn()), minlength=V) / 400
  # Four standard deviations of a frequency at 400 draws.
  np.testing.assert_allclose(counts, np.exp(table[0]), atol=4 * 0.5 / 20)


def test_sequences_do_not_depend_on_their_neighbours():
  tables = [markov(seed, 0.3) for seed in range(3)]
  step, cache = step_over(tables)
  together = draw(step, cache, 3, Sampling(1.0), seed=7).tokens
  keys = jax.random.split(jax.random.key(7), 3)
  for i in range(3):
    step, cache = step_over([tables[i]])
    alone = sample(
      step,
      cache,
      jnp.zeros(1, jnp.int32),
      max_new_tokens=L,
      sampling=Sampling(1.0),
      keys=keys[i : i + 1],
    )
    assert alone.tokens[0].tolist() == together[i].tolist()


@pytest.mark.parametrize('num_beams', [1, 2])
def test_logits_that_are_no_numbers_are_told(num_beams):
  good, bad = markov(0), markov(1)
  bad[:, 3] = np.nan
  tables = np.repeat([good, bad], num_beams, axis=0)
  step, cache = step_over(tables)
  if num_beams == 1:
    decoded = draw(step, cache, 2, Sampling())
  else:
    decoded = beam_search(
      step,
      cache,
      jnp.zeros(2, jnp.int32),
      max_new_tokens=L,
      num_beams=num_beams,
    )
  assert decoded.finite.tolist() == [True, False]


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'temperature': -1.0}, 'temperature is -1'),
    ({'temperature': float('nan')}, 'temperature is nan'),
    ({'top_k': -1}, 'top_k is -1'),
    ({'top_p': 0.0}, 'top_p is 0'),
  ],
)
def test_samplings_that_are_none(fields, message):
  with pytest.raises(ValueError, match=message):
    decoding.Sampling(**fields)
