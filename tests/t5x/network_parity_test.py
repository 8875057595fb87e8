"""The same weights through T5X's own networks and models.

T5X's classes compute in their own numpy context: they mix dtypes and ranks,
which the strict settings of these tests forbid. README.md beside this file
says how to make T5X importable.
"""

import contextlib

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align.network import DecoderOnlyTransformer, T5Config, Transformer
from t5_align.position_bias import relative_position_bucket

_REASON = 'T5X is not importable; tests/t5x/README.md says how to make it so.'
t5x_models = pytest.importorskip('t5x.models', reason=_REASON)
t5x_decoding = pytest.importorskip('t5x.decoding', reason=_REASON)
t5x_layers = pytest.importorskip('t5x.examples.t5.layers', reason=_REASON)
t5x_network = pytest.importorskip('t5x.examples.t5.network', reason=_REASON)
t5x_lm = pytest.importorskip(
  't5x.examples.decoder_only.network', reason=_REASON
)
seqio = pytest.importorskip('seqio', reason=_REASON)

VOCAB_SIZE = 24
SIZES = dict(
  vocab_size=VOCAB_SIZE,
  dtype='float32',
  emb_dim=32,
  num_heads=4,
  head_dim=6,
  mlp_dim=48,
  dropout_rate=0.1,
)
VARIANTS = {
  't5_1_0': dict(mlp_activations=('relu',), logits_via_embedding=True),
  't5_1_1': dict(
    mlp_activations=('gelu', 'linear'), logits_via_embedding=False
  ),
}
# Both sum in float32, in another order. The bound is the design's, on the
# largest logit; gradients add up some hundred positions more.
LOGITS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


@contextlib.contextmanager
def t5x_context():
  """NumPy's promotion rules, as T5X expects them."""
  with (
    jax.numpy_dtype_promotion('standard'),
    jax.numpy_rank_promotion('allow'),
  ):
    yield


@pytest.fixture(scope='module', params=VARIANTS)
def encoder_decoder(request):
  """(our network, T5X's network, parameters) of one variant."""
  fields = dict(SIZES, **VARIANTS[request.param])
  layers = dict(num_encoder_layers=2, num_decoder_layers=2)
  ours = Transformer(T5Config(**fields, **layers))
  theirs = t5x_network.Transformer(
    t5x_network.T5Config(**dict(fields, dtype=jnp.float32), **layers)
  )
  return ours, theirs, random_parameters(theirs, *[np.ones((1, 4))] * 3)


@pytest.fixture(scope='module', params=VARIANTS)
def decoder_only(request):
  """(our network, T5X's network, parameters) of one variant."""
  fields = dict(SIZES, **VARIANTS[request.param])
  ours = DecoderOnlyTransformer(T5Config(**fields, num_decoder_layers=3))
  theirs = t5x_lm.DecoderWrapper(
    t5x_lm.TransformerConfig(**dict(fields, dtype=jnp.float32), num_layers=3)
  )
  return ours, theirs, random_parameters(theirs, *[np.ones((1, 4))] * 2)


def random_parameters(network, *tokens):
  """T5X's initial parameters, shaken so that no scale is one.

  What the blocks write is tripled, or a tied network would only repeat its
  input token.
  """
  with t5x_context():
    params = initial_variables(network, *tokens)['params']
  generator = np.random.default_rng(0)
  return unflatten_dict(
    {
      path: jnp.asarray(
        leaf
        * (3 if path[-2] in ('out', 'wo') else 1)
        * generator.normal(1, 0.2, leaf.shape).astype(np.float32)
        + generator.normal(0, 0.05, leaf.shape).astype(np.float32)
      )
      for path, leaf in flatten_dict(params).items()
    }
  )


def initial_variables(network, *tokens):
  # T5X gives float32 ones for the tokens when it makes a train state.
  tokens = [jnp.asarray(t, jnp.float32) for t in tokens]
  initialize = jax.jit(network.init, static_argnames='enable_dropout')
  return initialize(jax.random.key(0), *tokens, enable_dropout=False)


def padded_tokens(generator, lengths, width, *, eos=True):
  """Random tokens [B, width] of the given lengths, ended by EOS, then 0."""
  tokens = generator.integers(3, VOCAB_SIZE, (len(lengths), width))
  positions = np.arange(width)[None]
  lengths = np.asarray(lengths)[:, None]
  if eos:
    tokens = np.where(positions == lengths - 1, 1, tokens)
  return np.where(positions < lengths, tokens, 0).astype(np.int32)


def segments(ends, width):
  """Segment ids [B, width] and positions; row b's segments end at ends[b]."""
  ids = np.zeros((len(ends), width), np.int32)
  positions = np.zeros_like(ids)
  for row, row_ends in enumerate(ends):
    start = 0
    for segment, end in enumerate(row_ends, 1):
      ids[row, start:end] = segment
      positions[row, start:end] = np.arange(end - start)
      start = end
  return ids, positions


def shift_right(targets, segment_ids=None):
  """Decoder inputs: targets one later, 0 at the start of every segment."""
  shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  if segment_ids is not None:
    first = np.diff(segment_ids, axis=1, prepend=-1) != 0
    shifted = np.where(first, 0, shifted)
  return shifted.astype(np.int32)


def padded_batch():
  """Inputs and targets of more than 300 tokens, and shorter rows."""
  generator = np.random.default_rng(1)
  targets = padded_tokens(generator, [304, 17, 1], 304)
  return dict(
    encoder_input_tokens=padded_tokens(generator, [330, 150, 3], 330),
    decoder_input_tokens=shift_right(targets),
    decoder_target_tokens=targets,
  )


def packed_batch():
  """Several examples a row, kept apart by segment ids."""
  generator = np.random.default_rng(2)
  encoder_ids, encoder_positions = segments([[200, 310], [5, 9, 320]], 330)
  decoder_ids, decoder_positions = segments([[150, 304], [100, 103, 260]], 304)
  targets = padded_tokens(generator, [304, 260], 304, eos=False)
  return dict(
    encoder_input_tokens=padded_tokens(generator, [310, 320], 330, eos=False),
    decoder_input_tokens=shift_right(targets, decoder_ids),
    decoder_target_tokens=targets,
    encoder_segment_ids=encoder_ids,
    decoder_segment_ids=decoder_ids,
    encoder_positions=encoder_positions,
    decoder_positions=decoder_positions,
  )


def language_model_batch(kind):
  """A batch for the decoder alone: 'padded', 'packed' or with a 'prefix'."""
  batch = packed_batch() if kind == 'packed' else padded_batch()
  batch = {k: v for k, v in batch.items() if k.startswith('decoder')}
  if kind == 'prefix':
    width = batch['decoder_target_tokens'].shape[1]
    lengths = np.array([[200], [5], [1]])
    batch['decoder_causal_attention'] = (
      np.arange(width)[None] < lengths
    ).astype(np.int32)
  return batch


def loss_of(params, network, batch):
  """Cross-entropy over the real targets, and the logits."""
  batch = as_arrays(batch)
  logits = network.apply({'params': params}, **batch, enable_dropout=False)
  targets = batch['decoder_target_tokens']
  picked = jnp.take_along_axis(
    jax.nn.log_softmax(logits), targets[..., None], axis=-1
  )[..., 0]
  return -jnp.sum(jnp.where(targets > 0, picked, 0.0)), logits


def logits_and_gradient(network, params, batch):
  """One compilation of both: (logits [B, T, V], gradient of the loss)."""

  @jax.jit
  def compute(params):
    (_, logits), gradient = jax.value_and_grad(loss_of, has_aux=True)(
      params, network, batch
    )
    return logits, gradient

  logits, gradient = compute(params)
  return np.asarray(logits), gradient


def assert_same_logits_and_gradients(ours, theirs, params, batch):
  with t5x_context():
    expected, expected_gradient = logits_and_gradient(theirs, params, batch)
  actual, gradient = logits_and_gradient(ours, params, batch)

  # T5X lets padding rows see anything, by the order of its mask biases.
  real = batch['decoder_target_tokens'] > 0
  gap = np.abs(actual - expected)[real].max() / np.abs(expected[real]).max()
  assert gap <= LOGITS_TOLERANCE
  expected_gradient = flatten_dict(expected_gradient, sep='/')
  for name, value in flatten_dict(gradient, sep='/').items():
    largest = np.abs(expected_gradient[name]).max()
    assert largest > 0, name
    np.testing.assert_allclose(
      value,
      expected_gradient[name],
      rtol=0,
      atol=GRADIENT_TOLERANCE * largest,
      err_msg=name,
    )


def tree_of(network, *tokens):
  """Name -> (shape, dtype, logical axes) of every parameter."""
  variables = initial_variables(network, *tokens)
  axes = flatten_dict(variables['params_axes'], sep='/')
  return {
    name: (leaf.shape, leaf.dtype, tuple(axes[f'{name}_axes'].names))
    for name, leaf in flatten_dict(variables['params'], sep='/').items()
  }


@pytest.mark.parametrize('bidirectional', [True, False])
def test_bucket_of_every_offset(bidirectional):
  offsets = np.arange(-40_000, 40_001)
  with t5x_context():
    expected = t5x_layers.RelativePositionBiases._relative_position_bucket(
      offsets, bidirectional=bidirectional, num_buckets=32, max_distance=128
    )
  actual = relative_position_bucket(offsets, bidirectional=bidirectional)
  np.testing.assert_array_equal(actual, expected)


class TestEncoderDecoder:
  def test_parameter_tree(self, encoder_decoder):
    ours, theirs, _ = encoder_decoder
    tokens = [np.ones((1, 4))] * 3
    with t5x_context():
      expected = tree_of(theirs, *tokens)
    assert tree_of(ours, *tokens) == expected

  @pytest.mark.parametrize('batch', [padded_batch, packed_batch])
  def test_logits_and_gradients(self, encoder_decoder, batch):
    assert_same_logits_and_gradients(*encoder_decoder, batch())

  @pytest.mark.parametrize('num_decodes', [1, 4])
  @pytest.mark.parametrize('decode_fn', ['beam_search', 'temperature_sample'])
  def test_predict_batch(self, encoder_decoder, decode_fn, num_decodes):
    *networks, params = encoder_decoder
    generator = np.random.default_rng(3)
    batch = dict(
      encoder_input_tokens=padded_tokens(generator, [40, 11, 2], 40),
      decoder_input_tokens=np.zeros((3, 20), np.int32),
    )
    greedy = decode_fn == 'temperature_sample'
    decoder_params = {'temperature': 0.0} if greedy else {'alpha': 0.6}
    ours, theirs = (
      predictions(
        encoder_decoder_model(network, decode_fn),
        params,
        batch,
        num_decodes,
        decoder_params,
      )
      for network in networks
    )
    assert_same_predictions(ours, theirs)

  def test_predict_batch_continues_a_prompt(self, encoder_decoder):
    *networks, params = encoder_decoder
    generator = np.random.default_rng(4)
    prompt = padded_tokens(generator, [6, 3, 1], 20, eos=False)
    batch = dict(
      encoder_input_tokens=padded_tokens(generator, [40, 11, 2], 40),
      decoder_input_tokens=shift_right(prompt),
    )
    ours, theirs = (
      predictions(
        encoder_decoder_model(network, 'temperature_sample'),
        params,
        batch,
        1,
        {'temperature': 0.0},
        prompt_with_targets=True,
      )
      for network in networks
    )
    assert_same_predictions(ours, theirs)

  def test_score_batch(self, encoder_decoder):
    *networks, params = encoder_decoder
    batch = as_arrays(padded_batch())
    batch['decoder_loss_weights'] = jnp.asarray(
      batch['decoder_target_tokens'] > 0, jnp.float32
    )
    with t5x_context():
      ours, theirs = (
        jax.jit(encoder_decoder_model(network, 'beam_search').score_batch)(
          params, batch
        )
        for network in networks
      )
    np.testing.assert_allclose(ours, theirs, rtol=LOGITS_TOLERANCE)


class TestDecoderOnly:
  def test_parameter_tree(self, decoder_only):
    ours, theirs, _ = decoder_only
    tokens = [np.ones((1, 4))] * 2
    with t5x_context():
      expected = tree_of(theirs, *tokens)
    assert tree_of(ours, *tokens) == expected

  @pytest.mark.parametrize('kind', ['padded', 'packed', 'prefix'])
  def test_logits_and_gradients(self, decoder_only, kind):
    assert_same_logits_and_gradients(*decoder_only, language_model_batch(kind))

  @pytest.mark.parametrize('num_decodes', [1, 3])
  @pytest.mark.parametrize('bidirectional', [False, True])
  def test_predict_batch(self, decoder_only, bidirectional, num_decodes):
    *networks, params = decoder_only
    generator = np.random.default_rng(5)
    lengths = np.array([20, 7, 2])
    inputs = padded_tokens(generator, lengths, 40)
    batch = dict(
      decoder_input_tokens=shift_right(inputs),
      decoder_target_tokens=inputs,
      # One more than the inputs: the position that predicts the first target.
      decoder_causal_attention=np.asarray(
        np.arange(40)[None] <= lengths[:, None], np.int32
      ),
    )
    ours, theirs = (
      predictions(
        decoder_only_model(network, bidirectional),
        params,
        batch,
        num_decodes,
        {'temperature': 0.0},
      )
      for network in networks
    )
    assert_same_predictions(ours, theirs)

  @pytest.mark.parametrize('kind', ['padded', 'prefix'])
  def test_score_batch(self, decoder_only, kind):
    *networks, params = decoder_only
    batch = as_arrays(language_model_batch(kind))
    batch['decoder_loss_weights'] = jnp.asarray(
      batch['decoder_target_tokens'] > 0, jnp.float32
    )
    with t5x_context():
      ours, theirs = (
        jax.jit(decoder_only_model(network, kind == 'prefix').score_batch)(
          params, batch
        )
        for network in networks
      )
    np.testing.assert_allclose(ours, theirs, rtol=LOGITS_TOLERANCE)


def as_arrays(batch):
  return {k: jnp.asarray(v) for k, v in batch.items()}


def encoder_decoder_model(network, decode_fn):
  vocabulary = seqio.PassThroughVocabulary(VOCAB_SIZE, eos_id=1)
  return t5x_models.EncoderDecoderModel(
    module=network,
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=None,
    decode_fn=getattr(t5x_decoding, decode_fn),
  )


def decoder_only_model(network, bidirectional):
  return t5x_models.DecoderOnlyModel(
    module=network,
    vocabulary=seqio.PassThroughVocabulary(VOCAB_SIZE, eos_id=1),
    optimizer_def=None,
    decode_fn=t5x_decoding.temperature_sample,
    inputs_bidirectional_attention=bidirectional,
  )


def predictions(model, params, batch, num_decodes, decoder_params, **arguments):
  """Every decode [B, num_decodes, T] and its score, from T5X's own search."""

  @jax.jit
  def predict(params):
    return model.predict_batch_with_aux(
      params,
      as_arrays(batch),
      decoder_params=dict(decoder_params),
      num_decodes=num_decodes,
      return_all_decodes=True,
      **arguments,
    )

  with t5x_context():
    decodes, aux = predict(params)
  return np.asarray(decodes), np.asarray(aux['scores'])


def assert_same_predictions(ours, theirs):
  np.testing.assert_array_equal(ours[0], theirs[0])
  np.testing.assert_allclose(ours[1], theirs[1], rtol=LOGITS_TOLERANCE)
  assert len(np.unique(ours[0])) > 2, 'degenerate decodes would show nothing'
