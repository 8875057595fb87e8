"""Hugging Face folders: round trips, repeated embeddings, faults."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from t5_align.checkpoints import (
  CheckpointError,
  huggingface,
  load_checkpoint,
  save_safetensors,
)

EMBEDDING = 'token_embedder/embedding'


@pytest.fixture
def folder(tmp_path, gated, random_params):
  """A saved T5 1.1."""
  save_safetensors(tmp_path, gated, random_params(gated))
  return tmp_path


def read_tensors(folder):
  return safetensors.numpy.load_file(folder / 'model.safetensors')


def write_tensors(folder, tensors):
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors')


def edit_json(file, **fields):
  contents = json.loads(file.read_text()) | fields
  contents = {key: value for key, value in contents.items() if value != 'DROP'}
  file.write_text(json.dumps(contents))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_round_trip(tmp_path, config, random_params, assert_same, dtype):
  params = random_params(config, dtype)
  save_safetensors(tmp_path / 'a', config, params)
  checkpoint = load_checkpoint(tmp_path / 'a', dtype=dtype)
  assert checkpoint.config == config
  assert checkpoint.format == 'safetensors'
  assert not checkpoint.decoder_only
  assert_same(checkpoint.params, params)

  save_safetensors(tmp_path / 'b', checkpoint.config, checkpoint.params)
  for file in ('model.safetensors', 'config.json'):
    first, second = tmp_path / 'a' / file, tmp_path / 'b' / file
    assert first.read_bytes() == second.read_bytes()


def test_stores_torch_orientation(folder, gated, random_params):
  tensors, params = read_tensors(folder), random_params(gated)
  name = 'encoder.block.1.layer.1.DenseReluDense.wo.weight'
  kernel = params['encoder']['layers_1']['mlp']['wo']['kernel']
  np.testing.assert_array_equal(tensors[name], kernel.T)
  np.testing.assert_array_equal(
    tensors['shared.weight'], params['token_embedder']['embedding']
  )


def test_casts_to_the_requested_dtype(folder, gated, random_params):
  loaded = load_checkpoint(folder, dtype='bfloat16').params
  embedding = random_params(gated)['token_embedder']['embedding']
  np.testing.assert_array_equal(
    loaded['token_embedder']['embedding'], embedding.astype('bfloat16')
  )


def test_shards(tmp_path, monkeypatch, gated, random_params, assert_same):
  params = random_params(gated)
  monkeypatch.setattr(huggingface, '_MAX_SHARD_BYTES', 2000)
  save_safetensors(tmp_path, gated, params)
  shards = sorted(tmp_path.glob('*.safetensors'))
  assert len(shards) > 3
  assert not (tmp_path / 'model.safetensors').exists()
  assert_same(load_checkpoint(tmp_path).params, params)

  # Saved again as one file, no shard of the first time is left.
  monkeypatch.undo()
  save_safetensors(tmp_path, gated, params)
  names = [file.name for file in tmp_path.glob('model*')]
  assert names == ['model.safetensors']
  assert_same(load_checkpoint(tmp_path).params, params)


class TestShardFaults:
  @pytest.fixture
  def sharded(self, tmp_path, monkeypatch, gated, random_params):
    monkeypatch.setattr(huggingface, '_MAX_SHARD_BYTES', 2000)
    save_safetensors(tmp_path, gated, random_params(gated))
    return tmp_path

  def test_missing_shard(self, sharded):
    next(sharded.glob('model-00002*')).unlink()
    with pytest.raises(CheckpointError, match='tensors into model-00002-of'):
      load_checkpoint(sharded)

  def test_shard_without_its_tensor(self, sharded):
    shard = next(sharded.glob('model-00002*'))
    safetensors.numpy.save_file({'x': np.zeros(1, np.float32)}, shard)
    with pytest.raises(CheckpointError, match='not where .*index.json puts'):
      load_checkpoint(sharded)

  def test_index_that_leads_out_of_the_folder(self, sharded):
    file = sharded / 'model.safetensors.index.json'
    edit_json(file, weight_map={'shared.weight': '../other.safetensors'})
    with pytest.raises(CheckpointError, match='no file name'):
      load_checkpoint(sharded)

  @pytest.mark.parametrize(
    'text', ['{"weight_map"', '[]', '{}', '{"weight_map": {"a": [1]}}']
  )
  def test_damaged_index(self, sharded, text):
    (sharded / 'model.safetensors.index.json').write_text(text)
    with pytest.raises(CheckpointError, match=r'index\.json'):
      load_checkpoint(sharded)


class TestRepeatedEmbeddings:
  """Files of older versions hold the embedding up to four times."""

  def test_equal_copies_are_dropped(self, folder, gated, random_params):
    tensors = read_tensors(folder)
    for name in ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'):
      tensors[name] = tensors['shared.weight'].copy()
    write_tensors(folder, tensors)
    embedding = load_checkpoint(folder).params['token_embedder']['embedding']
    np.testing.assert_array_equal(embedding, tensors['shared.weight'])

  def test_a_copy_serves_for_shared(self, folder):
    tensors = read_tensors(folder)
    shared = tensors.pop('shared.weight')
    tensors['encoder.embed_tokens.weight'] = shared
    tensors['decoder.embed_tokens.weight'] = shared.copy()
    write_tensors(folder, tensors)
    embedding = load_checkpoint(folder).params['token_embedder']['embedding']
    np.testing.assert_array_equal(embedding, shared)

  def test_different_copy_is_extra(self, folder):
    tensors = read_tensors(folder)
    tensors['encoder.embed_tokens.weight'] = tensors['shared.weight'] + 1
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError, match=r'extra encoder\.embed_tokens'):
      load_checkpoint(folder)

  def test_equal_output_matrix_is_tied(self, folder):
    tensors = read_tensors(folder)
    tensors['lm_head.weight'] = tensors['shared.weight'].copy()
    write_tensors(folder, tensors)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.config.logits_via_embedding
    assert not checkpoint.config.scales_decoder_outputs
    assert 'logits_dense' not in checkpoint.params['decoder']

  def test_bias_of_cross_attention_is_unused(self, folder):
    tensors = read_tensors(folder)
    name = (
      'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'
    )
    tensors[name] = np.ones((32, 4), np.float32)
    write_tensors(folder, tensors)
    load_checkpoint(folder)


class TestTreeFaults:
  """Names in both schemes, both shapes, and what to do."""

  def test_missing(self, folder):
    tensors = read_tensors(folder)
    del tensors['decoder.block.1.layer.1.EncDecAttention.k.weight']
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError) as error:
      load_checkpoint(folder)
    assert (
      'missing decoder/layers_1/encoder_decoder_attention/key/kernel (Hugging'
      ' Face: decoder.block.1.layer.1.EncDecAttention.k.weight): nothing in the'
      ' file, wanted (8, 12)'
    ) in str(error.value)

  def test_extra(self, folder):
    tensors = read_tensors(folder)
    tensors['lm_head.bias'] = np.zeros(40, np.float32)
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError, match=r'extra lm_head\.bias .*\(40,\)'):
      load_checkpoint(folder)

  def test_misshaped(self, folder):
    tensors = read_tensors(folder)
    name = 'decoder.block.1.layer.2.DenseReluDense.wi_0.weight'
    tensors[name] = np.zeros((17, 8), np.float32)
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError) as error:
      load_checkpoint(folder)
    assert name in str(error.value)
    assert 'wi_0/kernel' in str(error.value)
    assert '(8, 17) in the file, wanted (8, 16)' in str(error.value)

  def test_several_faults_come_in_one_error(self, folder):
    tensors = read_tensors(folder)
    lost = [name for name in tensors if name.endswith('.q.weight')]
    for name in lost:
      del tensors[name]
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError, match='6 of 52.*and 1 more') as error:
      load_checkpoint(folder)
    assert '\n' not in str(error.value)

  def test_file_with_more_layers_than_the_config(self, folder):
    edit_json(folder / 'config.json', num_layers=1)
    with pytest.raises(CheckpointError) as error:
      load_checkpoint(folder)
    message = str(error.value)
    assert 'the file has 2 encoder layers, the config 1' in message
    assert 'encoder/layers_1/attention/key/kernel' in message
    assert 'encoder.block.1.layer.0.SelfAttention.k.weight' in message
    assert 'num_layers in config.json' in message

  def test_file_with_fewer_layers_than_the_config(self, folder):
    edit_json(folder / 'config.json', num_decoder_layers=4000)
    with pytest.raises(CheckpointError, match=r'decoder\.block\.2\.\*'):
      load_checkpoint(folder)

  def test_vocabulary_size(self, folder):
    edit_json(folder / 'config.json', vocab_size=50)
    with pytest.raises(CheckpointError, match='has 40 rows.* vocab_size=40'):
      load_checkpoint(folder)

  def test_name_of_umt5_in_t5(self, tmp_path, gated, random_params):
    umt5 = dataclasses.replace(gated, relative_bias_per_layer=True)
    save_safetensors(tmp_path, umt5, random_params(umt5))
    edit_json(tmp_path / 'config.json', model_type='t5')
    with pytest.raises(CheckpointError, match='layers_1/relpos_bias'):
      load_checkpoint(tmp_path)
    # Without a type the file's own names decide.
    edit_json(tmp_path / 'config.json', model_type='DROP')
    assert load_checkpoint(tmp_path).config == umt5

  def test_nan(self, folder):
    tensors = read_tensors(folder)
    tensors['encoder.block.0.layer.1.DenseReluDense.wo.weight'][2, 3] = np.nan
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError) as error:
      load_checkpoint(folder)
    message = str(error.value)
    assert 'encoder/layers_0/mlp/wo/kernel' in message
    assert 'encoder.block.0.layer.1.DenseReluDense.wo.weight' in message
    assert '1 of 128 values are NaN or infinite in float32' in message
    load_checkpoint(folder, check_finite=False)


def test_no_config(folder):
  (folder / 'config.json').unlink()
  with pytest.raises(CheckpointError, match='no config.json'):
    load_checkpoint(folder)


def test_saving_what_does_not_fit(tmp_path, gated, random_params):
  params = random_params(gated)
  del params['decoder']['decoder_norm']
  with pytest.raises(CheckpointError, match='missing decoder/decoder_norm/sca'):
    save_safetensors(tmp_path / 'new', gated, params)
  assert not (tmp_path / 'new').exists()


def test_decoder_only_has_no_such_form(tmp_path, gated, random_params):
  params = random_params(gated, decoder_only=True)
  with pytest.raises(CheckpointError, match='save_orbax or save_t5x'):
    save_safetensors(tmp_path, gated, params)


def test_unscaled_tied_logits_get_a_matrix_for_version_4(
  tmp_path, gated, random_params
):
  config = dataclasses.replace(gated, logits_via_embedding=True)
  config = dataclasses.replace(config, scale_decoder_outputs=False)
  save_safetensors(tmp_path, config, random_params(config))
  tensors = read_tensors(tmp_path)
  np.testing.assert_array_equal(
    tensors['lm_head.weight'], tensors['shared.weight']
  )
  fields = json.loads((tmp_path / 'config.json').read_text())
  assert not fields['tie_word_embeddings']
