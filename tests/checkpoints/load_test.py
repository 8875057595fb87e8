"""Detection of formats, and what is told of a folder that is none."""

import os
import shutil

from huggingface_hub import constants
import pytest

from t5_align.checkpoints import (
  CheckpointError,
  load_checkpoint,
  save_orbax,
  save_safetensors,
  save_t5x,
)

COMMIT = '0123456789abcdef0123456789abcdef01234567'


@pytest.fixture
def folder(tmp_path, gated, random_params):
  """A Hugging Face folder."""
  save_safetensors(tmp_path / 'hf', gated, random_params(gated))
  return tmp_path / 'hf'


@pytest.fixture
def hub_cache(tmp_path, monkeypatch, folder):
  """An offline hub cache that holds org/tiny on main."""
  cache = tmp_path / 'cache'
  repository = cache / 'models--org--tiny'
  shutil.copytree(folder, repository / 'snapshots' / COMMIT)
  (repository / 'refs').mkdir()
  (repository / 'refs' / 'main').write_text(COMMIT)
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  monkeypatch.chdir(tmp_path)
  return cache


def test_every_format_gives_the_same(
  tmp_path, folder, gated, random_params, assert_same
):
  params = random_params(gated)
  save_orbax(tmp_path / 'orbax', gated, params)
  save_t5x(tmp_path / 't5x', params, 1)
  formats = set()
  for name in ('hf', 'orbax', 't5x', 't5x/checkpoint_1'):
    checkpoint = load_checkpoint(tmp_path / name)
    assert checkpoint.config == gated
    assert_same(checkpoint.params, params)
    formats.add(checkpoint.format)
  assert formats == {'safetensors', 'orbax', 't5x'}


def test_hash_is_of_the_contents(tmp_path, folder, gated, random_params):
  first = load_checkpoint(folder).content_hash
  shutil.copytree(folder, tmp_path / 'copy')
  (tmp_path / 'copy' / 'notes.txt').write_text('not part of the model')
  assert load_checkpoint(tmp_path / 'copy').content_hash == first
  file = tmp_path / 'copy' / 'model.safetensors'
  contents = bytearray(file.read_bytes())
  contents[-1] ^= 1
  file.write_bytes(contents)
  assert load_checkpoint(tmp_path / 'copy').content_hash != first
  assert len(first) == 64


def test_hub_id_from_the_cache(hub_cache, gated):
  checkpoint = load_checkpoint('org/tiny')
  assert checkpoint.config == gated
  assert checkpoint.path.name == COMMIT
  assert load_checkpoint('org/tiny', revision=COMMIT).config == gated


def test_hub_repository_without_safetensors(hub_cache):
  snapshot = hub_cache / 'models--org--tiny' / 'snapshots' / COMMIT
  (snapshot / 'model.safetensors').unlink()
  with pytest.raises(CheckpointError, match="org/tiny.*_pretrained.'org/tiny'"):
    load_checkpoint('org/tiny')


def test_hub_id_that_the_cache_lacks(hub_cache):
  with pytest.raises(CheckpointError) as error:
    load_checkpoint('org/other', revision='v2')
  message = str(error.value)
  for part in (
    "'org/other'",
    'v2',
    'offline',
    str(hub_cache),
    'no such folder',
  ):
    assert part in message
  assert '\n' not in message


@pytest.mark.parametrize('path', ['/no/such/folder', './no', '../a/b', 'a/b/c'])
def test_missing_folder(path):
  with pytest.raises(CheckpointError, match='no such folder. Wanted'):
    load_checkpoint(path)


@pytest.mark.parametrize(
  'name', ['pytorch_model.bin', 'model.pt', 'epoch=1.ckpt', 'a.pth']
)
def test_pickle_is_refused_unopened(tmp_path, name):
  (tmp_path / 'config.json').write_text('{}')
  # Opening it would remove the folder.
  bomb = b"cshutil\nrmtree\n(S'" + os.fsencode(tmp_path) + b"'\ntR."
  (tmp_path / name).write_bytes(bomb)
  for path in (tmp_path, tmp_path / name):
    with pytest.raises(CheckpointError, match=f'{name} is a pickle') as error:
      load_checkpoint(path)
    assert f"M.from_pretrained('{tmp_path}').save_pretrained(" in str(
      error.value
    )
    assert '\n' not in str(error.value)
  assert (tmp_path / name).exists()


def test_pickle_beside_safetensors_does_not_matter(folder):
  (folder / 'pytorch_model.bin').write_bytes(b'never opened')
  assert load_checkpoint(folder).format == 'safetensors'


def test_folder_without_weights(tmp_path):
  for i in range(10):
    (tmp_path / f'file_{i}.txt').touch()
  with pytest.raises(CheckpointError) as error:
    load_checkpoint(tmp_path)
  message = str(error.value)
  for part in (
    str(tmp_path),
    'file_0.txt',
    '...',
    'safetensors',
    'hf download',
  ):
    assert part in message


def test_empty_folder(tmp_path):
  with pytest.raises(CheckpointError, match='an empty folder'):
    load_checkpoint(tmp_path)


def test_file_in_place_of_a_folder(folder):
  with pytest.raises(CheckpointError, match='is a file; give the folder'):
    load_checkpoint(folder / 'model.safetensors')


def test_unknown_dtype(folder):
  with pytest.raises(CheckpointError, match="dtype is 'int8'"):
    load_checkpoint(folder, dtype='int8')
