"""T5X's checkpoint folders, in both of its layouts.

  checkpoint_1000/checkpoint                  msgpack: the tree; a leaf is an
  checkpoint_1000/target.encoder....kernel/   array or points to such a folder
or, written by Orbax,
  checkpoint_1000/state/                      all arrays in one database

Only `target`, the weights, is read. Each process reads its part of the arrays
in folders and in the database; those in the msgpack file (T5X puts small ones
there) are read whole. Written is the first layout, the weights
and the step alone, which T5X's eval and infer load.

Source: `t5x/checkpoints.py` (version 3).

Synopsis:

    stored = read(find_step(epath.Path('/models/t5_1_1_small')))
    save_t5x('/models/mine', params, step=1000)   # /models/mine/checkpoint_1000
"""

from collections.abc import Mapping
import os
import re
from typing import Any

from etils import epath
import flax.serialization
import flax.traverse_util
import numpy as np

from t5_align.checkpoints import stored as stored_lib
from t5_align.checkpoints import zarr

FORMAT_LEGACY, FORMAT_ORBAX = 't5x', 't5x_orbax'
_INDEX = 'checkpoint'
_VERSION = 3


def is_step(folder: epath.Path) -> bool:
  """Say whether the folder is one step's checkpoint."""
  return (folder / _INDEX).is_file() or (folder / 'state').is_dir()


def find_step(folder: epath.Path) -> epath.Path | None:
  """Return the folder if it is a step's, else its newest complete step."""
  if is_step(folder):
    return folder
  # A folder that is still being written has more behind the number.
  steps = [
    (int(match[1]), child)
    for child in folder.iterdir()
    if (match := re.fullmatch(r'checkpoint_(\d+)', child.name))
    and is_step(child)
  ]
  return max(steps)[1] if steps else None


def read(folder: epath.Path) -> stored_lib.StoredCheckpoint:
  """Read names and shapes of one step; data comes with load().

  Raises:
    CheckpointError: the index is damaged or of an unknown version, or an array
      that it lists is missing.
  """
  if not (folder / _INDEX).is_file():
    arrays = zarr.open_tree(folder / 'state', prefix='target.')
    files = stored_lib.files_below(folder / 'state')
    return stored_lib.StoredCheckpoint(
      FORMAT_ORBAX, folder, arrays, tuple(files)
    )
  arrays, names = {}, {}
  leaves = _read_index(folder / _INDEX)
  for path, leaf in leaves.items():
    if isinstance(leaf, np.ndarray):
      arrays[path] = stored_lib.StoredArray(
        f'{folder / _INDEX}: {path}',
        leaf.shape,
        leaf.dtype.name,
        # The index is read whole: a part of it is no less memory.
        lambda index, leaf=leaf: leaf[index],
      )
    else:
      names[path] = _array_name(folder, path, leaf)
  opened = zarr.open_arrays(zarr.open_store(folder), names)
  for path, array in opened.items():
    listed = tuple(leaves[path].get('metadata', {}).get('shape', array.shape))
    if array.shape != listed:
      raise stored_lib.CheckpointError(
        f'{array.name} has shape {array.shape}, {folder / _INDEX} lists'
        f' {listed}: they are from two checkpoints. Copy them again.'
      )
  files = [folder / _INDEX]
  for name in names.values():
    files.extend((folder / name).iterdir())
  return stored_lib.StoredCheckpoint(
    FORMAT_LEGACY, folder, arrays | opened, tuple(files)
  )


def save_t5x(
  path: str | os.PathLike[str], params: Mapping[str, Any], step: int
) -> None:
  """Write `path`/checkpoint_`step`, which T5X's eval and infer load.

  Args:
    path: the folder that holds the steps; made if need be.
    params: the model's parameters; they keep their dtype.
    step: training step that T5X reports with its results.

  Raises:
    CheckpointError: that step is there already.
  """
  folder = epath.Path(path) / f'checkpoint_{step}'
  if folder.exists():
    raise stored_lib.CheckpointError(
      f'{folder} is there already: choose another step or folder.'
    )
  unfinished = folder.with_name(f'{folder.name}.tmp-{os.getpid()}')
  unfinished.mkdir(parents=True)
  store = zarr.open_store(unfinished)
  target = {}
  for parameter, leaf in flax.traverse_util.flatten_dict(params).items():
    array = np.asarray(leaf)
    name = '.'.join(('target', *parameter))
    metadata = zarr.write_array(store, name, array)
    target[parameter] = {
      'driver': 'zarr',
      'dtype': array.dtype.name,
      'kvstore': {'driver': 'file', 'path': f'{name}/'},
      # T5X takes chunks and compressor out again, and fails without them.
      'metadata': metadata,
    }
  index = {
    'version': _VERSION,
    'optimizer': {
      'target': flax.traverse_util.unflatten_dict(target),
      'state': {'step': np.asarray(step, np.int32)},
    },
  }
  (unfinished / _INDEX).write_bytes(flax.serialization.msgpack_serialize(index))
  unfinished.rename(folder)


def _read_index(file: epath.Path) -> dict[str, Any]:
  """Return T5X path to leaf, of the weights in a msgpack index."""
  try:
    contents: Any = flax.serialization.msgpack_restore(file.read_bytes())
    # Version 0 of the format is the optimizer's state dict itself.
    target = contents.get('optimizer', contents)['target']
    version = contents.get('version', 0)
  except Exception as error:  # msgpack raises a dozen kinds of it
    raise stored_lib.CheckpointError(
      f'{file}: no T5X index ({type(error).__name__}: {error}). Copy it again.'
    ) from error
  if version not in (0, 2, _VERSION):
    raise stored_lib.CheckpointError(
      f'{file}: format version {version}; read are 0, 2 and {_VERSION}.'
    )
  return flax.traverse_util.flatten_dict(
    target,
    sep='/',
    is_leaf=lambda _, leaf: isinstance(leaf, dict) and 'driver' in leaf,
  )


def _array_name(folder: epath.Path, path: str, leaf: Any) -> str:
  """Return the folder that a leaf of the index points to."""
  try:
    name = leaf['kvstore']['path'].rstrip('/')
  except (TypeError, KeyError, AttributeError) as error:
    raise stored_lib.CheckpointError(
      f'{folder / _INDEX}: {path} is neither an array nor a TensorStore'
      f' spec but {type(leaf).__name__}.'
    ) from error
  # Relative to the checkpoint, by T5X; a path that leads out of it is no name.
  if name.startswith('/') or '..' in name.split('/'):
    raise stored_lib.CheckpointError(
      f'{folder / _INDEX}: {path} points to {name!r}, outside the folder.'
    )
  return name
