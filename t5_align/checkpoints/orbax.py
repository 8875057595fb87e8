"""Our own folders: the whole config as JSON, the parameters by Orbax.

  config.json     every field of T5Config, with its temperatures
  params/         the tree, a zarr database

It keeps what Hugging Face has no form for: a decoder-only T5, other
activations, temperatures.

Synopsis:

    save_orbax('out', config, params)
    stored = read(epath.Path('out'))
"""

from collections.abc import Mapping
import dataclasses
import difflib
import json
import os
from typing import Any

from etils import epath
import orbax.checkpoint as ocp

from t5_align import config as config_lib
from t5_align import temperature
from t5_align.checkpoints import safetensors_files, zarr
from t5_align.checkpoints import stored as stored_lib

FORMAT = 'orbax'
_VERSION = 1


def is_orbax(folder: epath.Path) -> bool:
  """Say whether save_orbax wrote the folder."""
  return (folder / 'params' / 'manifest.ocdbt').exists()


def read(folder: epath.Path) -> stored_lib.StoredCheckpoint:
  """Read config, names and shapes; data comes with load().

  Raises:
    CheckpointError: config.json or the database is missing or damaged.
  """
  file = folder / 'config.json'
  if not file.exists():
    raise stored_lib.CheckpointError(
      f'{folder}: params/ but no config.json: it was not written to the end.'
    )
  fields = safetensors_files.read_json(file)
  config = fields.get('config')
  if fields.get('version') != _VERSION or not isinstance(config, dict):
    raise stored_lib.CheckpointError(
      f'{file}: version {fields.get("version")!r}, wanted {_VERSION} and an'
      ' object "config".'
    )
  arrays = zarr.open_tree(folder / 'params', prefix='')
  files = stored_lib.files_below(folder / 'params')
  return stored_lib.StoredCheckpoint(
    FORMAT,
    folder,
    arrays,
    (file, *files),
    _config_from_json(config, file),
  )


def save_orbax(
  path: str | os.PathLike[str],
  config: config_lib.T5Config,
  params: Mapping[str, Any],
  *,
  training_length: int | None = None,
) -> None:
  """Write config and parameters; the config last, so it marks the end.

  Args:
    path: the folder; made if need be.
    config: the model's config.
    params: the model's parameters; they keep their dtype.
    training_length: tokens of the longest input in training, if known.

  Raises:
    CheckpointError: the folder has parameters already.
  """
  folder = epath.Path(path)
  if (folder / 'params').exists():
    raise stored_lib.CheckpointError(
      f'{folder / "params"} is there already: choose another folder.'
    )
  ocp.PyTreeCheckpointer().save(folder.absolute() / 'params', dict(params))
  fields = dataclasses.asdict(config)
  fields['temperatures'] = config.temperatures.to_json()
  contents = {'version': _VERSION, 'config': fields}
  if training_length is not None:
    contents['n_positions'] = training_length  # as in Hugging Face's
  (folder / 'config.json').write_text(json.dumps(contents, indent=2) + '\n')


def _config_from_json(
  fields: dict[str, Any], file: epath.Path
) -> config_lib.T5Config:
  known = [field.name for field in dataclasses.fields(config_lib.T5Config)]
  for name in fields:
    if name not in known:
      near = difflib.get_close_matches(name, known, n=1)
      raise stored_lib.CheckpointError(
        f'{file}: T5Config has no field {name!r}'
        + (f' (did you mean {near[0]}?).' if near else '.')
      )
  try:
    # JSON has lists for tuples.
    activations = tuple(fields['mlp_activations'])
    temperatures = temperature.Temperatures.from_json(fields['temperatures'])
    fields = fields | {
      'mlp_activations': activations,
      'temperatures': temperatures,
    }
    return config_lib.T5Config(**fields)
  except (TypeError, KeyError, ValueError) as error:
    raise stored_lib.CheckpointError(f'{file}: {error}') from error
