"""The tensors of a folder's safetensors files: one file, or shards and index.

Files are mapped into memory; a tensor, or a slice of it, is copied when it is
read. The library
checks that a header is sane and covers the file; what it refuses is reported
here by declared against actual size.

Synopsis:

    tensors, files = open_folder(epath.Path('flan-t5-xl'))
    tensors['shared.weight'].shape, tensors['shared.weight'].read(())
"""

import functools
import json
import os
import struct
from typing import Any

from etils import epath
import numpy as np
import safetensors

from t5_align.checkpoints import stored as stored_lib

CheckpointError = stored_lib.CheckpointError

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
_DTYPES = {
  'F64': 'float64',
  'F32': 'float32',
  'F16': 'float16',
  'BF16': 'bfloat16',
}


def open_folder(
  folder: epath.Path,
) -> tuple[dict[str, stored_lib.StoredArray], list[epath.Path]]:
  """Return the tensors under the files' own names, and the files.

  Raises:
    CheckpointError: a file or tensor is missing, damaged or not of floats.
  """
  if (folder / SINGLE).exists():
    return _open_file(folder / SINGLE), [folder / SINGLE]
  index_file = folder / INDEX
  index = read_json(index_file).get('weight_map')
  if not isinstance(index, dict) or not index:
    raise CheckpointError(f'{index_file}: weight_map is missing.')
  tensors, files = {}, []
  for shard in sorted(set(map(str, index.values()))):
    # A name with a folder in it could lead out of this one.
    if epath.Path(shard).name != shard:
      raise CheckpointError(f'{index_file}: {shard!r} is no file name.')
    if not (folder / shard).exists():
      count = sum(shard == value for value in index.values())
      raise CheckpointError(
        f'{folder}: {INDEX} puts {count} tensors into {shard}, and that file'
        ' is not there. Download it again.'
      )
    tensors |= _open_file(folder / shard)
    files.append(folder / shard)
  if lost := sorted(index.keys() - tensors.keys()):
    raise CheckpointError(
      f'{folder}: {len(lost)} tensors are not where {INDEX} puts them; the'
      f' first is {lost[0]} in {index[lost[0]]}. Download both again.'
    )
  return tensors, [index_file, *files]


def read_json(file: epath.Path) -> dict[str, Any]:
  """Read a JSON object from a file."""
  try:
    fields = json.loads(file.read_text())
  except ValueError as error:
    raise CheckpointError(f'{file}: not JSON: {error}.') from error
  if not isinstance(fields, dict):
    raise CheckpointError(f'{file}: a JSON object is wanted.')
  return fields


def _open_file(file: epath.Path) -> dict[str, stored_lib.StoredArray]:
  try:
    handle = safetensors.safe_open(os.fspath(file), 'numpy')
  except safetensors.SafetensorError as error:
    raise CheckpointError(
      f'{file}: {_size_report(file)} ({error}). Download it again.'
    ) from error
  tensors = {}
  for name in handle.keys():
    view = handle.get_slice(name)
    tensors[name] = stored_lib.StoredArray(
      name=f'{file}: {name}',
      shape=tuple(view.get_shape()),
      dtype=_DTYPES.get(dtype := str(view.get_dtype()), dtype),
      read=functools.partial(_read, handle, name),
    )
  return tensors


def _read(handle: Any, name: str, index: stored_lib.Index) -> np.ndarray:
  return handle.get_slice(name)[index] if index else handle.get_tensor(name)


def _size_report(file: epath.Path) -> str:
  """Compare what a damaged file declares with what it holds."""
  actual = file.stat().length
  with file.open('rb') as stream:
    prefix = stream.read(8)
    if len(prefix) < 8:
      return f'{actual} bytes are no safetensors file'
    (header_bytes,) = struct.unpack('<Q', prefix)
    if header_bytes > actual - 8:
      return (
        f'declares a header of {header_bytes:,} bytes, the file has'
        f' {actual:,} bytes'
      )
    try:
      header = json.loads(stream.read(header_bytes))
      ends = [
        fields['data_offsets'][1]
        for name, fields in header.items()
        if name != '__metadata__'
      ]
      declared = 8 + header_bytes + max(ends, default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
      return f'the header is damaged; the file has {actual:,} bytes'
  if declared == actual:
    return f'the header contradicts itself; the file has {actual:,} bytes'
  return f'declares {declared:,} bytes, the file has {actual:,} bytes'
