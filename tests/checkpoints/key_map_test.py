"""The table of names, in both directions."""

import pytest

from t5_align.checkpoints import key_map, shapes


@pytest.mark.parametrize(
  ('name', 'path', 'transposed'),
  [
    ('shared.weight', 'token_embedder/embedding', False),
    ('lm_head.weight', 'decoder/logits_dense/kernel', True),
    (
      'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
      'encoder/relpos_bias/rel_embedding',
      True,
    ),
    (
      'decoder.block.11.layer.1.EncDecAttention.o.weight',
      'decoder/layers_11/encoder_decoder_attention/out/kernel',
      True,
    ),
    (
      'decoder.block.3.layer.2.DenseReluDense.wi_1.weight',
      'decoder/layers_3/mlp/wi_1/kernel',
      True,
    ),
    (
      'decoder.block.3.layer.1.layer_norm.weight',
      'decoder/layers_3/pre_cross_attention_layer_norm/scale',
      False,
    ),
    ('encoder.final_layer_norm.weight', 'encoder/encoder_norm/scale', False),
  ],
)
def test_known_names(name, path, transposed):
  assert key_map.t5x_path(name) == path
  assert key_map.hugging_face_name(path) == name
  assert key_map.is_transposed(path) == transposed


def test_bias_of_block_0_is_the_stacks_or_the_layers():
  name = 'decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight'
  path = 'decoder/layers_0/relpos_bias/rel_embedding'
  assert key_map.t5x_path(name, relative_bias_per_layer=True) == path
  assert key_map.hugging_face_name(path) == name


def test_every_parameter_of_every_variant_goes_there_and_back(config):
  paths = shapes.expected_shapes(config, decoder_only=False)
  names = {path: key_map.hugging_face_name(path) for path in paths}
  assert len(set(names.values())) == len(paths)
  for path, name in names.items():
    per_layer = config.relative_bias_per_layer
    assert key_map.t5x_path(name, relative_bias_per_layer=per_layer) == path


@pytest.mark.parametrize(
  'name',
  [
    'lm_head.bias',
    'encoder.block.x.layer.0.layer_norm.weight',
    'encoder.block.01.layer.0.layer_norm.weight',
    'encoder.block.0.layer.0.EncDecAttention.q.weight',
    'classifier.dense.weight',
  ],
)
def test_unknown_names_have_no_path(name):
  assert key_map.t5x_path(name) is None


def test_decoder_only_embedding_has_no_hugging_face_form():
  path = 'decoder/token_embedder/embedding'
  assert key_map.hugging_face_name(path) is None
  assert 'has none' in key_map.describe(path)
  assert key_map.is_decoder_only([path])
  assert not key_map.is_decoder_only([path, 'token_embedder/embedding'])
