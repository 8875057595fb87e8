"""Inference on lists of tokens: against plain apply, whatever the batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import inference as inference_lib
from t5_align.config import T5Config
from t5_align.inference import (
  Inference,
  Sampling,
  padded_length,
  use_compilation_cache,
)
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.temperature import Law, Temperatures
from tests.random_parameters import random_parameters

CONFIG = T5Config(
  vocab_size=50,
  emb_dim=16,
  num_heads=4,
  num_encoder_layers=2,
  num_decoder_layers=2,
  head_dim=8,
  mlp_dim=32,
  mlp_activations=('gelu', 'linear'),
)
KINDS = (Transformer, DecoderOnlyTransformer)


@functools.cache
def build(kind):
  network = kind(CONFIG)
  params = random_parameters(CONFIG, decoder_only=kind is not Transformer)
  # Larger weights, so that the likeliest token depends on the input.
  return network, jax.tree.map(lambda x: 2.0 * x, params)


def inference(kind, batch_size=4):
  return Inference(*build(kind), batch_size=batch_size)


def prompts(count=6):
  rng = np.random.default_rng(0)
  return [rng.integers(2, 50, 3 + 13 * i).tolist() for i in range(count)]


def plain_logits(kind, prompt, output):
  """Logits of every output token by one unpadded call of the network."""
  network, params = build(kind)
  apply = jax.jit(
    functools.partial(network.apply, {'params': params}, enable_dropout=False)
  )

  def row(x):
    return jnp.asarray([x], jnp.int32)

  if kind is Transformer:
    return apply(row(prompt), row([0, *output[:-1]]), row(output))[0]
  tokens = [*prompt, *output]
  return apply(row([0, *tokens[:-1]]), row(tokens))[0, len(prompt) :]


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_greedy_is_the_argmax_of_the_plain_network(kind):
  inputs = prompts(4)
  generated = inference(kind).generate(inputs, max_new_tokens=10)
  for prompt, output in zip(inputs, generated):
    # EOS is not in the tokens; its logits are those of the row it stood at.
    tokens = [*output.tokens, 1][:10]
    logits = plain_logits(kind, prompt, tokens)
    assert jnp.argmax(logits, -1).tolist() == tokens
    log_probs = jax.nn.log_softmax(logits)
    total = log_probs[jnp.arange(len(tokens)), jnp.asarray(tokens)].sum()
    assert output.log_probability == pytest.approx(float(total), abs=1e-3)
    assert output.finite


@pytest.mark.slow
@pytest.mark.parametrize('logits_bytes', [1, 1 << 20])
@pytest.mark.parametrize('kind', KINDS)
def test_score_is_the_sum_of_the_targets_log_probabilities(
  kind, logits_bytes, monkeypatch
):
  monkeypatch.setattr(inference_lib, '_LOGITS_BYTES', logits_bytes)
  inputs = prompts(3)
  targets = [[7, 1], [9, 8, 7, 6, 1], [30] * 40]
  scored = inference(kind).score(inputs, targets)
  for prompt, target, score in zip(inputs, targets, scored):
    log_probs = jax.nn.log_softmax(plain_logits(kind, prompt, target))
    total = log_probs[jnp.arange(len(target)), jnp.asarray(target)].sum()
    assert score.log_likelihood == pytest.approx(float(total), abs=2e-3)
    assert (score.num_tokens, score.finite) == (len(target), True)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_memory_of_scoring_does_not_grow_by_the_logits(kind, monkeypatch):
  monkeypatch.setattr(inference_lib, '_LOGITS_BYTES', 1 << 20)
  # Logits of all positions would be 128 MiB, 32 times all else.
  config = dataclasses.replace(CONFIG, vocab_size=16384, attention='chunked')
  network = kind(config)
  tokens = jax.ShapeDtypeStruct((1, 2048), jnp.int32)
  init = functools.partial(network.init, enable_dropout=False)
  inputs = [tokens] * (3 if kind is Transformer else 2)
  params = jax.eval_shape(init, jax.random.key(0), *inputs)['params']
  score = functools.partial(inference_lib.score_batch, network)
  compiled = (
    jax.jit(score)
    .lower(params, tokens, tokens, config.temperatures.as_arrays(config))
    .compile()
  )
  assert compiled.memory_analysis().temp_size_in_bytes < 32 << 20


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
  'options',
  [{}, {'num_beams': 3}, {'sampling': Sampling(0.8, top_k=20), 'seed': 5}],
)
def test_results_do_not_depend_on_the_batch(kind, options):
  inputs = prompts(5)
  generate = functools.partial(
    Inference.generate, inputs=inputs, max_new_tokens=8, **options
  )
  one_by_one = generate(inference(kind, batch_size=1))
  together = generate(inference(kind, batch_size=5))
  for alone, batched in zip(one_by_one, together):
    assert alone.tokens == batched.tokens
    assert alone.log_probability == pytest.approx(
      batched.log_probability, abs=1e-3
    )


@pytest.mark.slow
def test_beams_are_at_least_as_likely_as_greedy():
  inputs = prompts(4)
  run = inference(Transformer)
  generate = functools.partial(run.generate, inputs, max_new_tokens=6)
  greedy, beams = generate(), generate(num_beams=8, length_penalty=0.0)
  gains = [b.log_probability - g.log_probability for b, g in zip(beams, greedy)]
  assert min(gains) > -1e-4 and max(gains) > 0.01
  # What it says of its sequence is what scoring says.
  ended = [[*b.tokens, 1][:6] for b in beams]
  for score, beam in zip(run.score(inputs, ended), beams):
    assert score.log_likelihood == pytest.approx(beam.log_probability, abs=1e-3)


def test_a_sweep_over_temperatures_compiles_once():
  run = inference(Transformer)
  inputs = [p for p in prompts(4) if len(p) <= 32]
  outputs = {}
  for temperature in (1.0, 0.9, 0.5, (0.3, 0.9), ((0.2, 0.4, 0.6, 0.8),) * 2):
    outputs[temperature] = run.generate(
      inputs, max_new_tokens=4, temperatures=Temperatures(encoder=temperature)
    )
  assert run.num_compiled == 1
  assert len({str(o) for o in outputs.values()}) == len(outputs)
  assert outputs[1.0] == run.generate(inputs, max_new_tokens=4)
  law = Temperatures(encoder=Law('log_n', (4.0,)))
  run.generate(inputs, max_new_tokens=4, temperatures=law)
  assert run.num_compiled == 2


def test_shapes_are_few():
  lengths = {padded_length(n) for n in range(1, 4097)}
  assert len(lengths) == 1 + 4 * 7
  assert {32, 64, 128, 4096} <= lengths
  assert all(n <= padded_length(n) <= max(32, 1.25 * n) for n in range(1, 4097))


@pytest.mark.slow
def test_encode_and_logits_take_padded_tokens():
  run = inference(Transformer)
  tokens = np.array([[5, 6, 7, 0], [8, 9, 10, 11]])
  assert run.encode(tokens).shape == (2, 4, 16)
  logits = run.logits(tokens, np.array([[3, 4], [3, 4]]))
  np.testing.assert_allclose(
    logits[0], plain_logits(Transformer, [5, 6, 7], [3, 4]), atol=1e-4
  )
  with pytest.raises(ValueError, match='no encoder'):
    inference(DecoderOnlyTransformer).encode(tokens)


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda r: r.generate([[]]), 'Input 0 is empty'),
    (lambda r: r.score([[1]], [[]]), 'Target 0 is empty'),
    (lambda r: r.score([[1]], []), '1 inputs, but 0 targets'),
    (lambda r: r.generate([[1]], max_new_tokens=0), 'max_new_tokens is 0'),
    (lambda r: r.generate([[1]], num_beams=0), 'num_beams is 0'),
    (
      lambda r: r.generate([[1]], num_beams=2, sampling=Sampling(1.0)),
      'does not sample',
    ),
  ],
)
def test_what_can_not_be_run(call, message):
  with pytest.raises(ValueError, match=message):
    call(inference(Transformer))


def test_no_inputs_no_outputs():
  run = inference(Transformer)
  assert run.generate([]) == [] and run.score([], []) == []


def test_a_cache_that_can_not_be_made_is_left_out(tmp_path):
  (tmp_path / 'file').write_text('')
  before = jax.config.values['jax_compilation_cache_dir']
  use_compilation_cache(tmp_path / 'file' / 'cache')
  assert jax.config.values['jax_compilation_cache_dir'] == before
