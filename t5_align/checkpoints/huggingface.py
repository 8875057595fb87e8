"""Hugging Face folders: safetensors, single or sharded, with config.json.

Reading renames and transposes by the key map. Writing holds one shard at a time
in memory; config.json comes last, so a folder that has one is complete.

Synopsis:

    stored = read(epath.Path('flan-t5-small'))
    save_safetensors('out', config, params)
    # T5ForConditionalGeneration.from_pretrained('out')
"""

from collections.abc import Collection, Iterator, Mapping
import dataclasses
import json
import os
from typing import Any

from etils import epath
import flax.traverse_util
import numpy as np
import safetensors.numpy

from t5_align import config as config_lib
from t5_align import sharding
from t5_align.checkpoints import huggingface_config, key_map, safetensors_files
from t5_align.checkpoints import shapes as shapes_lib
from t5_align.checkpoints import stored as stored_lib

FORMAT = 'safetensors'
_ROWS = 8192  # of two matrices, compared at a time
_MAX_SHARD_BYTES = 5 * 10**9  # as transformers' save_pretrained up to 4.x


def is_folder(names: Collection[str]) -> bool:
  """Say whether a folder with these files holds Hugging Face weights."""
  return safetensors_files.SINGLE in names or safetensors_files.INDEX in names


def read(folder: epath.Path) -> stored_lib.StoredCheckpoint:
  """Read the config and what the weights declare; data comes with load().

  Raises:
    CheckpointError: config.json or a file of weights is missing or damaged.
  """
  config_file = folder / 'config.json'
  if not config_file.exists():
    raise stored_lib.CheckpointError(
      f'{folder}: safetensors but no config.json. Put the config.json that'
      ' belongs to these weights beside them.'
    )
  fields = safetensors_files.read_json(config_file)
  model_type = huggingface_config.check_model_type(fields)
  tensors, files = safetensors_files.open_folder(folder)
  tensors = _without_copies(tensors)

  second_bias = 'block.1.layer.0.SelfAttention.relative_attention_bias.weight'
  per_layer = model_type == 'umt5' or (
    model_type is None and f'encoder.{second_bias}' in tensors
  )
  arrays = {}
  for name, tensor in tensors.items():
    path = key_map.t5x_path(name, relative_bias_per_layer=per_layer)
    arrays[path or name] = _as_t5x(tensor, path) if path else tensor
  config = huggingface_config.from_json(
    fields,
    untied='lm_head.weight' in tensors,
    relative_bias_per_layer=per_layer,
  )
  return stored_lib.StoredCheckpoint(
    FORMAT, folder, arrays, (*files, config_file), config
  )


def save_safetensors(
  path: str | os.PathLike[str],
  config: config_lib.T5Config,
  params: Mapping[str, Any],
  *,
  training_length: int | None = None,
) -> None:
  """Write a folder that Hugging Face's T5 or umT5 class loads.

  Args:
    path: the folder; made if need be. Weights that it holds are replaced.
    config: the model's config.
    params: the model's parameters; they keep their dtype. Where several
      processes share them all must call; the first one writes.
    training_length: tokens of the longest input in training, if known.

  Raises:
    CheckpointError: the params do not fit the config, or have no such form.
  """
  folder = epath.Path(path)
  flat: dict[str, Any] = flax.traverse_util.flatten_dict(params, sep='/')
  if key_map.is_decoder_only(flat):
    raise stored_lib.CheckpointError(
      'A decoder-only T5 has no Hugging Face form; write it with save_orbax'
      ' or save_t5x.'
    )
  shapes = {path: array.shape for path, array in flat.items()}
  shapes_lib.check_tree(shapes, config, where='params')
  dtype = str(flat['token_embedder/embedding'].dtype)
  fields = huggingface_config.to_json(
    config, dtype=dtype, training_length=training_length
  )

  paths = {key_map.hugging_face_name(path) or path: path for path in flat}
  if config.logits_via_embedding and not fields['tie_word_embeddings']:
    # Unscaled logits: transformers 4 then looks for a matrix of its own.
    paths['lm_head.weight'] = paths['shared.weight']

  if not sharding.is_writer(params):
    for name in sorted(paths):  # in the writer's order: it needs our parts
      sharding.to_host(flat[paths[name]])
    return
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').unlink(missing_ok=True)
  for stale in folder.glob('model*.safetensors*'):
    stale.unlink()
  _write_tensors(folder, paths, flat)
  start = {'decoder_start_token_id': 0, 'eos_token_id': 1, 'pad_token_id': 0}
  _write_json(folder / 'generation_config.json', start)
  _write_json(folder / 'config.json', fields)


def _without_copies(
  tensors: Mapping[str, stored_lib.StoredArray],
) -> dict[str, stored_lib.StoredArray]:
  """Drop what repeats the embedding bit for bit, and what T5 never reads.

  A copy that differs stays: as `lm_head.weight` it is an output matrix of its
  own, under another name it is an extra parameter, which is refused.
  """
  kept = {k: v for k, v in tensors.items() if k not in key_map.UNUSED}
  copies = [name for name in key_map.EMBEDDING_ALIASES if name in kept]
  if 'shared.weight' not in kept and copies:
    # A writer that drops repeated tensors may keep any of their names.
    kept['shared.weight'] = kept.pop(copies.pop(0))
  shared = kept.get('shared.weight')
  for name in (*copies, 'lm_head.weight'):
    if shared and name in kept and _are_equal(shared, kept[name]):
      del kept[name]
  return kept


def _are_equal(a: stored_lib.StoredArray, b: stored_lib.StoredArray) -> bool:
  if (a.shape, a.dtype) != (b.shape, b.dtype):
    return False
  # A block of rows at a time: a vocabulary's matrix is gigabytes.
  columns = [slice(0, size) for size in a.shape[1:]]
  for start in range(0, a.shape[0], _ROWS):
    rows = slice(start, min(start + _ROWS, a.shape[0]))
    if not np.array_equal(a.read((rows, *columns)), b.read((rows, *columns))):
      return False
  return True


def _as_t5x(
  tensor: stored_lib.StoredArray, path: str
) -> stored_lib.StoredArray:
  """Rename a tensor to its T5X path and turn it to T5X's orientation."""
  file = tensor.name.rpartition(': ')[0]
  name = f'{file}: {key_map.describe(path)}'
  if not key_map.is_transposed(path):
    return dataclasses.replace(tensor, name=name)
  return dataclasses.replace(
    tensor,
    name=name,
    shape=tensor.shape[::-1],
    read=lambda index: tensor.read(index[::-1]).T,
  )


def _write_tensors(
  folder: epath.Path, paths: Mapping[str, str], flat: Mapping[str, Any]
) -> None:
  """Write model.safetensors, or shards of it and their index."""
  sizes = {name: flat[path].nbytes for name, path in paths.items()}
  shards = list(_shards(sizes))
  index = {}
  for number, names in enumerate(shards, start=1):
    file = safetensors_files.SINGLE
    if len(shards) > 1:
      file = f'model-{number:05}-of-{len(shards):05}.safetensors'
    tensors = {}
    for name in names:
      array = sharding.to_host(flat[paths[name]])
      transposed = key_map.is_transposed(paths[name])
      tensors[name] = np.ascontiguousarray(array.T if transposed else array)
      index[name] = file
    safetensors.numpy.save_file(
      tensors, os.fspath(folder / file), metadata={'format': 'pt'}
    )
  if len(shards) > 1:
    fields = {
      'metadata': {'total_size': sum(sizes.values())},
      'weight_map': index,
    }
    _write_json(folder / safetensors_files.INDEX, fields)


def _shards(num_bytes: Mapping[str, int]) -> Iterator[list[str]]:
  """Group names so that the arrays of a group stay under the shard limit."""
  names, size = [], 0
  for name in sorted(num_bytes):
    if names and size + num_bytes[name] > _MAX_SHARD_BYTES:
      yield names
      names, size = [], 0
    names.append(name)
    size += num_bytes[name]
  yield names


def _write_json(file: epath.Path, fields: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(fields, indent=2) + '\n')
