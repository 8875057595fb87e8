"""Configs from shapes, and the advice of the tree check."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import pytest

from t5_align import network, presets
from t5_align.checkpoints import CheckpointError
from t5_align.checkpoints import shapes as shapes_lib


def shapes_of(config, decoder_only=False):
  return shapes_lib.expected_shapes(config, decoder_only=decoder_only)


@pytest.mark.parametrize(
  'name', ['t5-small', 'flan-t5-small', 'byt5-small', 'umt5-small']
)
def test_presets_are_inferred_from_their_shapes(name):
  config = presets.PRESETS[name].config
  assert shapes_lib.infer_config(shapes_of(config), where='') == config


def test_a_fitting_tree_passes(config):
  shapes_lib.check_tree(shapes_of(config), config, where='')


@pytest.mark.parametrize('decoder_only', [False, True])
def test_all_layers_are_alike(config, decoder_only):
  """Only one layer is traced; here the whole network is."""
  tokens = jnp.ones((1, 1), jnp.int32)
  if decoder_only:
    module, inputs = network.DecoderOnlyTransformer(config), [tokens] * 2
  else:
    module, inputs = network.Transformer(config), [tokens] * 3
  tree = jax.eval_shape(
    lambda key: module.init(key, *inputs, enable_dropout=False),
    jax.random.key(0),
  )['params']
  whole = flax.traverse_util.flatten_dict(tree, sep='/')
  assert shapes_of(config, decoder_only) == {
    path: leaf.shape for path, leaf in whole.items()
  }


def test_layout_of_the_table(gated):
  """Shapes as T5X's own network has them (52 arrays, [N, K] bias)."""
  shapes = shapes_of(gated)
  assert len(shapes) == 52
  assert shapes['encoder/relpos_bias/rel_embedding'] == (4, 32)
  assert shapes['encoder/layers_0/attention/query/kernel'] == (8, 12)
  assert shapes['decoder/logits_dense/kernel'] == (8, 40)
  assert len(shapes_of(gated, decoder_only=True)) == 22


def test_scanned_layers_are_named():
  shapes = {'encoder/encoder/attention/query/kernel': (8, 2, 12)}
  with pytest.raises(CheckpointError, match='ckpt: .*scan_layers=True'):
    shapes_lib.infer_config(shapes, where='ckpt')


@pytest.mark.parametrize(
  ('path', 'shape'),
  [
    ('token_embedder/embedding', None),
    ('encoder/relpos_bias/rel_embedding', (0, 32)),
    ('encoder/layers_0/mlp/wo/kernel', (16, 8, 1)),
  ],
)
def test_size_that_no_shape_tells(gated, path, shape):
  shapes = shapes_of(gated)
  shapes.pop(path)
  if shape:
    shapes[path] = shape
  with pytest.raises(CheckpointError, match=f'cannot tell .* {path}'):
    shapes_lib.infer_config(shapes, where='')


def test_absurd_layer_number(gated):
  shapes = shapes_of(gated) | {'decoder/layers_999999999/x': (1,)}
  with pytest.raises(CheckpointError, match='layer numbers reach 999999999'):
    shapes_lib.infer_config(shapes, where='')


def test_advice_names_the_preset(gated):
  shapes = shapes_of(presets.PRESETS['flan-t5-small'].config)
  with pytest.raises(CheckpointError, match="in preset 't5-v1_1-small'"):
    shapes_lib.check_tree(shapes, gated, where='')
  eight_layers = dataclasses.replace(
    gated, num_encoder_layers=8, num_decoder_layers=8
  )
  with pytest.raises(CheckpointError, match="config='t5-v1_1-small' fits"):
    shapes_lib.check_tree(shapes, eight_layers, where='')


def test_advice_names_the_sizes(gated):
  wider = dataclasses.replace(gated, mlp_dim=24)
  with pytest.raises(CheckpointError, match=r'T5Config\(.*mlp_dim=16, mlp_act'):
    shapes_lib.check_tree(shapes_of(gated), wider, where='')


def test_decoder_only_parameters_have_no_hugging_face_name(gated):
  shapes = shapes_of(gated, decoder_only=True)
  del shapes['decoder/decoder_norm/scale']
  with pytest.raises(CheckpointError, match='scale .Hugging Face: has none'):
    shapes_lib.check_tree(shapes, gated, where='')
