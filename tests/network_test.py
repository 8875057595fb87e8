"""The network: T5X's tree, every size, temperatures, and decoding by steps."""

import dataclasses
import functools
import json
import math
import pathlib

from flax.linen import partitioning
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align.config import T5Config
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.parameters import list_parameters
from t5_align.presets import PRESETS, get_preset
from t5_align.temperature import Law, Temperatures
from tests.random_parameters import random_parameters

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'parameters.json'

SMALL = T5Config(
  vocab_size=64,
  emb_dim=16,
  num_heads=4,
  num_encoder_layers=2,
  num_decoder_layers=2,
  head_dim=6,
  mlp_dim=32,
)
GATED = dataclasses.replace(SMALL, mlp_activations=('gelu', 'linear'))
VARIANTS = {
  't5': dataclasses.replace(SMALL, logits_via_embedding=True),
  't5_1_1': GATED,
  'umt5': dataclasses.replace(GATED, relative_bias_per_layer=True),
  'decoder_only': GATED,
}


def build(config, decoder_only=False):
  tokens = jnp.ones((1, 4), jnp.int32)
  if decoder_only:
    network = DecoderOnlyTransformer(config)
    inputs = (tokens, tokens)
  else:
    network = Transformer(config)
    inputs = (tokens, tokens, tokens)
  init = functools.partial(network.init, enable_dropout=False)
  return network, init, inputs


@functools.cache
def initialized(name):
  decoder_only = name == 'decoder_only'
  network, *_ = build(VARIANTS[name], decoder_only)
  params = random_parameters(VARIANTS[name], decoder_only=decoder_only)
  # Biases and embeddings that matter, so that a mistake in them shows.
  return network, jax.tree.map(lambda x: x * 1.5, params)


def random_tokens(seed, shape, lengths=None):
  tokens = np.random.default_rng(seed).integers(2, 64, shape)
  if lengths is not None:
    tokens[np.arange(shape[1])[None] >= np.asarray(lengths)[:, None]] = 0
  return jnp.asarray(tokens, jnp.int32)


def parameter_tree(name):
  _, init, inputs = build(VARIANTS[name], name == 'decoder_only')
  variables = jax.eval_shape(init, jax.random.key(0), *inputs)
  params = flax.traverse_util.flatten_dict(variables['params'], sep='/')
  axes = partitioning.get_axis_names(variables['params_axes'])
  axes = flax.traverse_util.flatten_dict(axes, sep='/')
  return {
    path: [x.dtype.name, list(x.shape), list(axes[path])]
    for path, x in sorted(params.items())
  }


@pytest.mark.parametrize('name', VARIANTS)
def test_parameter_tree_is_golden(name):
  """Names, shapes and logical axes are what checkpoints rely on."""
  golden = json.loads(GOLDEN.read_text())
  tree = parameter_tree(name)
  assert tree == golden[name], f'now: {json.dumps({name: tree}, indent=1)}'


# Numbers of parameters that the models' papers and cards state, in millions.
PARAMETERS = {
  't5-small': 60,
  't5-11b': 11_300,
  'flan-t5-small': 77,
  'flan-t5-xl': 2_850,
  'flan-t5-xxl': 11_140,
  'byt5-small': 300,
  'byt5-xxl': 12_900,
  'umt5-small': 306,
}


@pytest.mark.slow  # together
@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_has_its_size(name):
  """By its layers; shapes_test has whole networks."""
  listed = list_parameters(get_preset(name).config, decoder_only=False)
  stacks = {path.partition('/')[0] for path in listed}
  assert stacks == {'token_embedder', 'encoder', 'decoder'}
  millions = sum(math.prod(x.shape) for x in listed.values()) / 1e6
  if name in PARAMETERS:
    assert millions == pytest.approx(PARAMETERS[name], rel=0.01)


def test_unknown_preset_names_the_nearest():
  with pytest.raises(ValueError, match="did you mean 'flan-t5-xxl'"):
    get_preset('flan-t5-xxxl')


TEMPERATURES = {
  'model': Temperatures(encoder=0.7, decoder=0.9, cross=1.2),
  'layer': Temperatures(encoder=(0.5, 0.8), cross=(1.1, 0.6)),
  'head': Temperatures(
    encoder=((0.5, 0.6, 0.7, 0.8), (1.0, 0.9, 0.8, 1.3)), decoder=0.8
  ),
  'law': Temperatures(encoder=Law('log_n', (8.0,)), cross=0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize('attention', ['reference', 'chunked'])
@pytest.mark.parametrize('granularity', TEMPERATURES)
def test_configured_and_traced_temperatures_agree(granularity, attention):
  network, params = initialized('t5_1_1')
  temperatures = TEMPERATURES[granularity]
  inputs = random_tokens(0, (2, 40), [40, 23])
  targets = random_tokens(1, (2, 9))

  def logits(config, **options):
    network = Transformer(dataclasses.replace(config, attention=attention))
    return jax.jit(
      lambda **options: network.apply(
        {'params': params},
        inputs,
        targets,
        targets,
        enable_dropout=False,
        **options,
      )
    )(**options)

  configured = logits(
    dataclasses.replace(network.config, temperatures=temperatures)
  )
  traced = logits(
    network.config, temperatures=temperatures.as_arrays(network.config)
  )
  largest = float(jnp.abs(configured).max())
  np.testing.assert_allclose(configured, traced, atol=1e-6 * largest, rtol=0)
  without = logits(network.config)
  assert float(jnp.abs(configured - without).max()) > 1e-3 * largest


def test_temperature_one_is_bit_identical_to_none():
  network, params = initialized('t5_1_1')
  inputs, targets = random_tokens(0, (2, 40)), random_tokens(1, (2, 9))

  @jax.jit
  def logits(temperatures):
    return network.apply(
      {'params': params},
      inputs,
      targets,
      targets,
      enable_dropout=False,
      temperatures=temperatures,
    )

  ones = Temperatures().as_arrays(network.config)
  assert jnp.array_equal(logits(None), logits(ones))


@pytest.mark.slow
def test_bfloat16_computes_in_it_and_gives_float32_logits():
  network, params = initialized('t5')
  low = Transformer(dataclasses.replace(network.config, dtype='bfloat16'))
  inputs, targets = random_tokens(0, (2, 40)), random_tokens(1, (2, 9))

  def both(network):
    options = dict(enable_dropout=False)
    variables = {'params': params}
    encoded = network.apply(variables, inputs, method='encode', **options)
    return encoded, network.apply(
      variables, inputs, targets, targets, **options
    )

  encoded, logits = jax.jit(lambda: both(low))()
  assert (encoded.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
  _, exact = jax.jit(lambda: both(network))()
  # Two layers of products rounded to 8 bits.
  assert float(jnp.linalg.norm(logits - exact) / jnp.linalg.norm(exact)) < 0.05


@pytest.mark.slow
def test_padding_and_batch_do_not_change_a_result():
  network, params = initialized('umt5')
  inputs = random_tokens(0, (3, 40), [40, 11, 25])
  targets = random_tokens(1, (3, 9), [9, 4, 7])

  @jax.jit
  def logits(inputs, targets):
    return network.apply(
      {'params': params}, inputs, targets, targets, enable_dropout=False
    )

  together = logits(inputs, targets)
  for i, (s, t) in enumerate([(40, 9), (11, 4), (25, 7)]):
    alone = logits(inputs[i : i + 1, :s], targets[i : i + 1, :t])
    # Float32 rounding in another order.
    largest = float(jnp.abs(together[i, :t]).max())
    np.testing.assert_allclose(together[i, :t], alone[0], atol=2e-5 * largest)


@pytest.mark.slow
def test_packed_examples_do_not_see_each_other():
  network, params = initialized('t5')
  a, b = random_tokens(0, (1, 12)), random_tokens(1, (1, 20))
  x, y = random_tokens(2, (1, 5)), random_tokens(3, (1, 7))
  apply = jax.jit(
    functools.partial(network.apply, {'params': params}, enable_dropout=False)
  )
  packed = apply(
    jnp.concatenate([a, b], 1),
    jnp.concatenate([x, y], 1),
    jnp.concatenate([x, y], 1),
    encoder_segment_ids=jnp.repeat(jnp.array([[1, 2]]), np.array([12, 20]), 1),
    decoder_segment_ids=jnp.repeat(jnp.array([[1, 2]]), np.array([5, 7]), 1),
  )
  largest = float(jnp.abs(packed).max())
  np.testing.assert_allclose(packed[:, :5], apply(a, x, x), atol=2e-5 * largest)
  np.testing.assert_allclose(packed[:, 5:], apply(b, y, y), atol=2e-5 * largest)


@pytest.mark.slow
@pytest.mark.parametrize('cross_cache', ['first_step', 'initialize'])
@pytest.mark.parametrize('name', ['t5_1_1', 'umt5'])
def test_decoding_by_steps_equals_the_whole_sequence(name, cross_cache):
  network, params = initialized(name)
  inputs = random_tokens(0, (2, 40), [40, 23])
  tokens = random_tokens(1, (2, 150))
  temperatures = Temperatures(0.8, Law('log_n', (16.0,)), 0.7)
  apply = jax.jit(
    functools.partial(
      network.apply, enable_dropout=False, temperatures=temperatures
    ),
    static_argnames=('method', 'decode', 'cross_cache', 'mutable'),
  )
  decode = functools.partial(apply, method='decode')
  encoded = apply({'params': params}, inputs, method='encode')
  whole = decode({'params': params}, encoded, inputs, tokens, tokens)
  largest = float(jnp.abs(whole).max())
  options = dict(decode=True, cross_cache=cross_cache, mutable='cache')
  # T5X makes the cache from ones; ours makes it from what it will read.
  first = jnp.zeros_like(encoded) if cross_cache == 'first_step' else encoded
  _, variables = decode(
    {'params': params}, first, inputs, tokens, tokens, **options
  )
  later = encoded if cross_cache == 'first_step' else None
  for t in range(tokens.shape[1]):
    token = tokens[:, t : t + 1]
    logits, variables = decode(
      {'params': params, **variables}, later, inputs, token, token, **options
    )
    # Float32 rounding in another order, made larger by the sharp softmax.
    np.testing.assert_allclose(logits[:, 0], whole[:, t], atol=3e-5 * largest)


def test_prefill_and_steps_equal_the_whole_sequence():
  network, params = initialized('decoder_only')
  tokens = random_tokens(0, (2, 30))
  lengths = jnp.array([17, 4])
  apply = jax.jit(
    functools.partial(network.apply, enable_dropout=False),
    static_argnames=('decode', 'prefill', 'mutable'),
  )
  ones = jnp.ones_like(tokens)
  whole = apply({'params': params}, tokens, ones)
  options = dict(mutable='cache')
  _, variables = apply({'params': params}, ones, ones, decode=True, **options)
  is_prompt = (jnp.arange(30)[None] <= lengths[:, None]).astype(jnp.int32)
  _, variables = apply(
    {'params': params, **variables},
    tokens,
    is_prompt,
    prefill=True,
    prefill_lengths=lengths,
    **options,
  )
  for step in range(10):
    at = (lengths + step)[:, None]
    token = jnp.take_along_axis(tokens, at, axis=1)
    logits, variables = apply(
      {'params': params, **variables}, token, token, decode=True, **options
    )
    expected = jnp.take_along_axis(whole, at[..., None], axis=1)
    largest = float(jnp.abs(expected).max())
    np.testing.assert_allclose(logits, expected, atol=3e-5 * largest)


@pytest.mark.parametrize('shape', [(2, 2), (1, 1)])
def test_step_of_another_shape_than_the_cache(shape):
  network, params = initialized('decoder_only')
  tokens = random_tokens(0, (2, 8))
  apply = functools.partial(
    network.apply, enable_dropout=False, decode=True, mutable='cache'
  )
  _, variables = apply({'params': params}, tokens, tokens)
  token = tokens[: shape[0], : shape[1]]
  with pytest.raises(ValueError, match=r'wanted \[2, 1\]: one token'):
    apply({'params': params, **variables}, token, token)


@pytest.mark.slow
def test_dropout_needs_a_key_and_changes_the_result():
  network, params = initialized('t5')
  inputs, targets = random_tokens(0, (2, 12)), random_tokens(1, (2, 5))
  apply = jax.jit(
    functools.partial(network.apply, {'params': params}),
    static_argnames='enable_dropout',
  )
  apply = functools.partial(apply, inputs, targets, targets)
  still = apply(enable_dropout=False)
  a, b, again = (
    apply(enable_dropout=True, rngs={'dropout': jax.random.key(seed)})
    for seed in (0, 1, 0)
  )
  assert jnp.array_equal(a, again)
  assert not jnp.allclose(a, b) and not jnp.allclose(a, still)


def test_statistics_are_sown_where_asked_for():
  network, params = initialized('t5')
  inputs, targets = random_tokens(0, (2, 12)), random_tokens(1, (2, 5))
  apply = jax.jit(
    functools.partial(network.apply, {'params': params}, enable_dropout=False),
    static_argnames='mutable',
  )
  apply = functools.partial(apply, inputs, targets, targets)
  logits, variables = apply(mutable='intermediates')
  np.testing.assert_allclose(logits, apply(), atol=1e-5)
  sown = variables['intermediates']['encoder']['layers_1']['attention']
  (statistics,) = sown['attention_statistics']
  assert statistics.max_probability.shape == (2, 4, 12)


def test_token_outside_the_vocabulary_is_noticed():
  network, params = initialized('t5')
  tokens = jnp.full((1, 4), 64)
  logits = network.apply(
    {'params': params}, tokens, tokens, tokens, enable_dropout=False
  )
  assert not bool(jnp.isfinite(logits).any())


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'dtype': 'float16'}, 'overflow'),
    ({'float32_attention_logits': False}, 'always in float32'),
    ({'num_heads': 0}, 'num_heads is 0'),
    ({'mlp_activations': ('gelo',)}, "'gelo', which is no function"),
    ({'temperatures': Temperatures(encoder=(1, 1, 1))}, '3 layers'),
  ],
)
def test_configurations_that_are_none(fields, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SMALL, **fields)
