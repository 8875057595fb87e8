"""Zarr arrays, in a folder each or all in one OCDBT database, by TensorStore.

A chunk that is not there is an error. TensorStore would otherwise give zeros,
and with them a T5 that runs and is wrong.

Synopsis:

    store = open_store(folder)              # OCDBT if the folder is one
    open_arrays(store, {'decoder/decoder_norm/scale': 'target.decoder...'})
    open_tree(folder, prefix='target.')     # all of them
    write_array(store, 'target.token_embedder.embedding', array)
"""

from collections.abc import Mapping
import os
from typing import Any

from etils import epath
import numpy as np
import tensorstore as ts

from t5_align.checkpoints import key_map
from t5_align.checkpoints import stored as stored_lib

_CHUNK_BYTES = 2**26  # T5X's own: 64 MiB


def open_store(folder: epath.Path) -> ts.KvStore:
  """Open the key-value store of a folder, local or gs://."""
  path = os.fspath(folder)
  base: Any = f'{path}/'
  if '://' not in path:
    base = {'driver': 'file', 'path': f'{os.path.abspath(path)}/'}
  if (folder / 'manifest.ocdbt').exists():
    base = {'driver': 'ocdbt', 'base': base}
  try:
    return ts.KvStore.open(base).result()
  except ValueError as error:
    raise _damaged(f'{folder}', error) from error


def open_tree(
  folder: epath.Path, prefix: str
) -> dict[str, stored_lib.StoredArray]:
  """Open all arrays of a folder whose names begin with `prefix`.

  Their paths are the rest of their names, with '/' for '.'.
  """
  store = open_store(folder)
  try:
    keys = [key.decode() for key in store.list().result()]
  except ValueError as error:
    raise _damaged(f'{folder}', error) from error
  names = [
    key.removesuffix('/.zarray')
    for key in keys
    if key.startswith(prefix) and key.endswith('/.zarray')
  ]
  paths = [name.removeprefix(prefix).replace('.', '/') for name in names]
  return open_arrays(store, dict(zip(paths, names)))


def open_arrays(
  store: ts.KvStore, arrays: Mapping[str, str]
) -> dict[str, stored_lib.StoredArray]:
  """Open arrays, given as T5X path to name in the store; read no data.

  Raises:
    CheckpointError: an array is not there, or its metadata is damaged.
  """
  opened = {
    path: ts.open(
      {
        'driver': 'zarr',
        'kvstore': (store / f'{name}/').spec().to_json(),
        'fill_missing_data_reads': False,
      }
    )
    for path, name in arrays.items()
  }
  decoder_only = key_map.is_decoder_only(arrays)
  return {
    path: _stored_array(
      f'{store.url}{arrays[path]}:'
      f' {key_map.describe(path, decoder_only=decoder_only)}',
      future,
    )
    for path, future in opened.items()
  }


def write_array(
  store: ts.KvStore, name: str, array: np.ndarray
) -> dict[str, Any]:
  """Write one array in chunks of up to 64 MiB; return its metadata.

  Compression is left out: trained weights are noise, gzip saves some 7% of them
  and takes most of the time.
  """
  rows = max(1, _CHUNK_BYTES // array[:1].nbytes)
  chunks = [min(rows, array.shape[0]), *array.shape[1:]]
  metadata = {
    'chunks': chunks,
    'compressor': None,
    'shape': list(array.shape),
  }
  target = ts.open(
    {
      'driver': 'zarr',
      'kvstore': (store / f'{name}/').spec().to_json(),
      'metadata': metadata,
    },
    create=True,
    dtype=ts.dtype(array.dtype),
  ).result()
  target.write(array).result()
  return metadata


def _stored_array(name: str, future: Any) -> stored_lib.StoredArray:
  try:
    array = future.result()
  except ValueError as error:
    raise _damaged(name, error) from error

  def read(index: stored_lib.Index) -> np.ndarray:
    try:
      return (array[index] if index else array).read().result()
    except ValueError as error:
      raise _damaged(name, error) from error

  return stored_lib.StoredArray(
    name, tuple(array.shape), array.dtype.name, read
  )


def _damaged(name: str, error: Exception) -> stored_lib.CheckpointError:
  # What follows the bracket is TensorStore's whole spec.
  reason = str(error).partition(' [')[0]
  return stored_lib.CheckpointError(
    f'{name}: {reason}. Nothing is filled in: copy the checkpoint again.'
  )
