"""T5X's folders: both layouts, round trips, and what is refused."""

import os

from etils import epath
import flax.serialization
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from t5_align.checkpoints import (
  CheckpointError,
  load_checkpoint,
  save_t5x,
  t5x,
  zarr,
)

WO = 'target.decoder.layers_1.mlp.wo.kernel'


@pytest.fixture
def folder(tmp_path, gated, random_params):
  """A saved T5 1.1, at step 7."""
  save_t5x(tmp_path, random_params(gated), 7)
  return tmp_path / 'checkpoint_7'


def edit_index(folder, edit):
  """Rewrites the msgpack index by `edit(contents)`."""
  file = folder / 'checkpoint'
  contents = flax.serialization.msgpack_restore(file.read_bytes())
  edit(contents)
  file.write_bytes(flax.serialization.msgpack_serialize(contents))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_round_trip(tmp_path, config, random_params, assert_same, dtype):
  params = random_params(config, dtype)
  save_t5x(tmp_path, params, 123)
  assert os.listdir(tmp_path) == ['checkpoint_123']
  # Scaling is no shape, so nothing in the folder tells of it.
  given = config if config.scale_decoder_outputs is not None else None
  checkpoint = load_checkpoint(tmp_path, config=given, dtype=dtype)
  assert checkpoint.config == config
  assert checkpoint.format == 't5x'
  assert checkpoint.path == epath.Path(tmp_path / 'checkpoint_123')
  assert_same(checkpoint.params, params)


def test_decoder_only(tmp_path, gated, random_params, assert_same):
  params = random_params(gated, decoder_only=True)
  save_t5x(tmp_path, params, 1)
  checkpoint = load_checkpoint(tmp_path)
  assert checkpoint.decoder_only
  assert checkpoint.config.num_decoder_layers == 2
  assert_same(checkpoint.params, params)


def test_large_arrays_are_chunked(tmp_path, monkeypatch):
  monkeypatch.setattr(zarr, '_CHUNK_BYTES', 100)
  array = np.arange(60, dtype=np.float32).reshape(10, 6)
  store = zarr.open_store(epath.Path(tmp_path))
  zarr.write_array(store, 'a', array)
  assert {'0.0', '1.0', '2.0'} < set(os.listdir(tmp_path / 'a'))
  stored = zarr.open_tree(epath.Path(tmp_path), prefix='')['a']
  np.testing.assert_array_equal(stored.read(()), array)


def test_orbax_layout(tmp_path, gated, random_params, assert_same):
  """`state` as T5X's trainer writes it, the optimizer's arrays beside."""
  params = random_params(gated)
  state = {
    'target': params,
    'state': {'step': np.int32(4), 'param_states': {'m': jnp.ones(3)}},
  }
  ocp.PyTreeCheckpointer().save(tmp_path / 'checkpoint_4' / 'state', state)
  checkpoint = load_checkpoint(tmp_path)
  assert checkpoint.format == 't5x_orbax'
  assert checkpoint.config == gated
  assert_same(checkpoint.params, params)

  data = tmp_path / 'checkpoint_4' / 'state' / 'ocdbt.process_0' / 'd'
  for file in data.iterdir():
    file.unlink()
  with pytest.raises(CheckpointError, match='Nothing is filled in'):
    load_checkpoint(tmp_path)


def test_arrays_inside_the_index(tmp_path, gated, random_params, assert_same):
  params = random_params(gated, 'bfloat16')
  contents = {'version': 3, 'optimizer': {'target': params, 'state': {}}}
  folder = tmp_path / 'checkpoint_5'
  folder.mkdir()
  (folder / 'checkpoint').write_bytes(
    flax.serialization.msgpack_serialize(contents)
  )
  checkpoint = load_checkpoint(folder, dtype='bfloat16')
  assert_same(checkpoint.params, params)


def test_newest_complete_step(tmp_path, gated, random_params):
  params = random_params(gated)
  for step in (9, 10):
    save_t5x(tmp_path, params, step)
  (tmp_path / 'checkpoint_11').mkdir()  # empty
  os.rename(tmp_path / 'checkpoint_9', tmp_path / 'checkpoint_12.tmp-9')
  assert load_checkpoint(tmp_path).path.name == 'checkpoint_10'


def test_config_by_preset_name(folder):
  with pytest.raises(CheckpointError, match='has 2 encoder layers.* config 8'):
    load_checkpoint(folder, config='t5-v1_1-small')
  with pytest.raises(ValueError, match='did you mean .*t5-v1_1-small'):
    load_checkpoint(folder, config='t5-v1_1-smal')


def test_existing_step_is_kept(folder, gated, random_params):
  with pytest.raises(CheckpointError, match='checkpoint_7 is there already'):
    save_t5x(folder.parent, random_params(gated), 7)


def test_missing_chunk(folder):
  (folder / WO / '0.0').unlink()
  with pytest.raises(CheckpointError) as error:
    load_checkpoint(folder)
  message = str(error.value)
  assert 'chunk {0, 0}' in message
  assert 'decoder/layers_1/mlp/wo/kernel' in message
  assert 'decoder.block.1.layer.2.DenseReluDense.wo.weight' in message
  assert '\n' not in message


def test_truncated_chunk(folder):
  chunk = folder / WO / '0.0'
  chunk.write_bytes(chunk.read_bytes()[:-4])
  with pytest.raises(CheckpointError, match='decoder/layers_1/mlp/wo/kernel'):
    load_checkpoint(folder)


def test_missing_array(folder):
  for file in (folder / WO).iterdir():
    file.unlink()
  with pytest.raises(CheckpointError, match='layers_1/mlp/wo.*does not exist'):
    load_checkpoint(folder)


def test_array_of_another_checkpoint(folder):
  def edit(contents):
    target = contents['optimizer']['target']
    target['decoder']['decoder_norm']['scale']['metadata']['shape'] = [9]

  edit_index(folder, edit)
  with pytest.raises(CheckpointError, match=r'shape \(8,\).* lists \(9,\)'):
    load_checkpoint(folder)


def test_huge_declared_array_is_refused_unread(folder):
  (folder / WO / '.zarray').unlink()
  store = zarr.open_store(epath.Path(folder))
  ts.open(
    {'driver': 'zarr', 'kvstore': (store / f'{WO}/').spec().to_json()},
    create=True,
    dtype=ts.float32,
    shape=[2**21, 2**21],
  ).result()
  with pytest.raises(CheckpointError, match='17,592,186,044,416 bytes; the'):
    load_checkpoint(folder)


def test_uint16_is_no_bfloat16(folder):
  (folder / WO / '.zarray').unlink()
  store = zarr.open_store(epath.Path(folder))
  zarr.write_array(store, WO, np.zeros((16, 8), np.uint16))
  with pytest.raises(CheckpointError, match='stored as uint16'):
    load_checkpoint(folder)


@pytest.mark.parametrize('keep', [0, 10, -20])
def test_truncated_index(folder, keep):
  file = folder / 'checkpoint'
  file.write_bytes(file.read_bytes()[:keep])
  with pytest.raises(CheckpointError, match=r'checkpoint: no T5X index'):
    load_checkpoint(folder)


def test_unknown_version(folder):
  edit_index(folder, lambda contents: contents.update(version=1))
  with pytest.raises(CheckpointError, match='format version 1; read are'):
    load_checkpoint(folder)


@pytest.mark.parametrize('path', ['../other/', '/etc/', 'a/../../b'])
def test_path_that_leads_out_of_the_folder(folder, path):
  def edit(contents):
    target = contents['optimizer']['target']
    target['decoder']['decoder_norm']['scale']['kvstore']['path'] = path

  edit_index(folder, edit)
  with pytest.raises(CheckpointError, match='outside the folder'):
    load_checkpoint(folder)


def test_leaf_that_is_no_array(folder):
  def edit(contents):
    contents['optimizer']['target']['decoder']['decoder_norm']['scale'] = 'one'

  edit_index(folder, edit)
  with pytest.raises(CheckpointError, match='decoder_norm/scale is neither'):
    load_checkpoint(folder)


def test_step_folders(tmp_path):
  assert t5x.find_step(epath.Path(tmp_path)) is None
