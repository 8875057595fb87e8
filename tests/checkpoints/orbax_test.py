"""Our own folders: everything of the config comes back."""

import dataclasses
import json

import pytest

from t5_align.checkpoints import CheckpointError, load_checkpoint, save_orbax
from t5_align.temperature import Law, Temperatures


@pytest.fixture
def folder(tmp_path, gated, random_params):
  save_orbax(tmp_path / 'a', gated, random_params(gated))
  return tmp_path / 'a'


@pytest.mark.parametrize('decoder_only', [False, True])
def test_round_trip(tmp_path, config, random_params, assert_same, decoder_only):
  config = dataclasses.replace(
    config,
    dtype='bfloat16',
    relative_attention_max_distance=64,
    attention='chunked',
    temperatures=Temperatures(
      encoder=((0.5,) * 4,) * config.num_encoder_layers,
      cross=Law('log_n', (512,)),
    ),
  )
  params = random_params(config, 'bfloat16', decoder_only)
  save_orbax(tmp_path / 'a', config, params)
  checkpoint = load_checkpoint(tmp_path / 'a', dtype='bfloat16')
  assert checkpoint.format == 'orbax'
  assert checkpoint.config == config
  assert checkpoint.decoder_only == decoder_only
  assert_same(checkpoint.params, params)


def test_activations_without_a_hugging_face_form(
  tmp_path, gated, random_params
):
  config = dataclasses.replace(gated, mlp_activations=('silu', 'linear'))
  save_orbax(tmp_path / 'a', config, random_params(config))
  assert load_checkpoint(tmp_path / 'a').config == config


def test_existing_parameters_are_kept(folder, gated, random_params):
  with pytest.raises(CheckpointError, match='params is there already'):
    save_orbax(folder, gated, random_params(gated))


def test_interrupted_before_the_config(folder):
  (folder / 'config.json').unlink()
  with pytest.raises(CheckpointError, match='not written to the end'):
    load_checkpoint(folder)


@pytest.mark.parametrize(
  ('edit', 'message'),
  [
    ({'version': 2}, 'version 2, wanted 1'),
    ({'config': {'emb_dims': 8}}, "no field 'emb_dims' .did you mean emb_dim"),
    ({'config': {'temperatures': {'encoder': 0}}}, 'temperature 0'),
    ({'config': {'num_heads': 0, 'temperatures': {}}}, 'num_heads is 0'),
    ({'config': []}, 'config'),
  ],
)
def test_damaged_config(folder, edit, message):
  file = folder / 'config.json'
  contents = json.loads(file.read_text())
  if isinstance(edit.get('config'), dict):
    edit = {'config': contents['config'] | edit['config']}
  file.write_text(json.dumps(contents | edit))
  with pytest.raises(CheckpointError, match=message):
    load_checkpoint(folder)


def test_damaged_database(folder):
  manifest = folder / 'params' / 'manifest.ocdbt'
  manifest.write_bytes(manifest.read_bytes()[:20])
  with pytest.raises(CheckpointError, match='DATA_LOSS'):
    load_checkpoint(folder)
