"""load_checkpoint: any format in, a checked config and parameter tree out.

  a hub id                              downloaded first: safetensors only
  config.json + *.safetensors           Hugging Face
  checkpoint_N, or the folder above it  T5X, either layout; the newest step
  config.json + params/                 our own, by Orbax

What the file declares is compared with the network before data is read, then
the arrays are read, checked for NaN and cast one at a time, each straight to
the devices that hold it.

Synopsis:

    checkpoint = load_checkpoint('google/flan-t5-small')
    checkpoint = load_checkpoint('/t5x/checkpoint_1000', config='t5-v1_1-small')
    model = network.Transformer(checkpoint.config)
    model.apply({'params': checkpoint.params}, …)
"""

import dataclasses
import functools
import os
from typing import Any

from etils import epath
import flax.traverse_util

from t5_align import config as config_lib
from t5_align import presets, sharding
from t5_align.checkpoints import fingerprint as fingerprint_lib
from t5_align.checkpoints import hub, huggingface, key_map, orbax, t5x
from t5_align.checkpoints import shapes as shapes_lib
from t5_align.checkpoints import stored as stored_lib

CheckpointError = stored_lib.CheckpointError

_DTYPES = ('float32', 'bfloat16', 'float16')
_ACCEPTED = (
  'a Hugging Face folder (config.json and *.safetensors), a T5X folder'
  ' (checkpoint_N with `checkpoint` or `state/`, or the folder above it), or'
  ' one of save_orbax (config.json and params/)'
)
_PICKLES = ('.bin', '.pt', '.pth', '.ckpt', '.pkl', '.pickle')
_CONVERT = (
  'python -c "from transformers import AutoModelForSeq2SeqLM as M;'
  " M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\""
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint in memory.

  Attributes:
    config: sizes and choices of the model.
    params: T5X's tree, what `{'params': ...}` of the network takes.
    format: 'safetensors', 't5x', 't5x_orbax' or 'orbax'.
    content_hash: sha256 of the files that were read, hexadecimal.
    path: the folder that was read: a step's, a snapshot's.
    decoder_only: whether it is a DecoderOnlyTransformer's.
  """

  config: config_lib.T5Config
  params: dict[str, Any]
  format: str
  content_hash: str
  path: epath.Path
  decoder_only: bool

  @functools.cached_property
  def fingerprint(self) -> str:
    """Which weights these are, whatever format they are stored in."""
    return fingerprint_lib.fingerprint(self.params)


def load_checkpoint(
  path_or_hub_id: str | os.PathLike[str],
  *,
  revision: str | None = None,
  config: config_lib.T5Config | str | None = None,
  dtype: str = 'float32',
  check_finite: bool = True,
  layout: sharding.Layout | None = None,
) -> Checkpoint:
  """Load a checkpoint of any format.

  Args:
    path_or_hub_id: a folder, or a Hugging Face id.
    revision: branch, tag or commit of a hub id.
    config: a T5Config or a preset's name, in place of what the folder says. T5X
      folders say nothing: without it the sizes come from the shapes, and the
      rest is T5's.
    dtype: dtype of the parameters in memory.
    check_finite: whether NaN and infinity are refused.
    layout: devices that the parameters are spread over; None for the default
      device. A process reads only what its own devices hold.

  Raises:
    CheckpointError: nothing there, not readable, or not fitting the config.
    ValueError: there is no such preset, or the parameters don't divide over
      the devices.
  """
  if dtype not in _DTYPES:
    raise CheckpointError(
      f'dtype is {dtype!r}; parameters are kept in {", ".join(_DTYPES)}.'
    )
  folder = hub.find_folder(path_or_hub_id, revision)
  is_download = folder != epath.Path(path_or_hub_id)
  stored = _read(folder, os.fspath(path_or_hub_id) if is_download else None)
  shapes = {path: array.shape for path, array in stored.arrays.items()}
  where = f'{stored.path}'
  if isinstance(config, str):
    config = presets.get_preset(config).config
  config = config or stored.config
  config = config or shapes_lib.infer_config(shapes, where=where)
  shapes_lib.check_tree(shapes, config, where=where)
  decoder_only = key_map.is_decoder_only(shapes)
  shardings = {}
  if layout is not None and not layout.is_default:
    shardings = sharding.parameter_shardings(
      layout.mesh, config, decoder_only=decoder_only
    )
  flat = {
    path: array.load(dtype, check_finite, shardings.get(path))
    for path, array in stored.arrays.items()
  }
  checkpoint = Checkpoint(
    config=config,
    params=flax.traverse_util.unflatten_dict(flat, sep='/'),
    format=stored.format,
    content_hash=stored_lib.hash_files(stored.path, stored.files),
    path=stored.path,
    decoder_only=decoder_only,
  )
  if layout is not None and layout.num_processes > 1:
    # Needs the parts of all processes, which are all here now.
    _ = checkpoint.fingerprint
  return checkpoint


def _read(
  folder: epath.Path, hub_id: str | None
) -> stored_lib.StoredCheckpoint:
  """Detect the format and read what the folder declares."""
  if not folder.is_dir():
    _refuse_pickles(folder.parent, [folder.name])
    raise CheckpointError(
      f'{folder} is a file; give the folder that holds it. Read are:'
      f' {_ACCEPTED}.'
    )
  names = sorted(child.name for child in folder.iterdir())
  if huggingface.is_folder(names):
    return huggingface.read(folder)
  if orbax.is_orbax(folder):
    return orbax.read(folder)
  if step := t5x.find_step(folder):
    return t5x.read(step)
  _refuse_pickles(folder, names)
  if hub_id:
    raise CheckpointError(
      f'{hub_id}: the hub has no safetensors for this revision, and pickles are'
      ' not downloaded. If you trust its pickle, convert it once:'
      f' {_CONVERT.format(folder=hub_id)}'
    )
  seen = ', '.join(names[:8]) + ', ...' * (len(names) > 8)
  raise CheckpointError(
    f'{folder}: no weights here. Seen: {seen or "an empty folder"}. Read are:'
    f' {_ACCEPTED}. To download a model: hf download google/flan-t5-small'
    ' --local-dir FOLDER'
  )


def _refuse_pickles(folder: epath.Path, names: list[str]) -> None:
  pickles = [name for name in names if name.endswith(_PICKLES)]
  if pickles:
    raise CheckpointError(
      f'{folder}: {pickles[0]} is a pickle, which can run any code when it is'
      ' opened, and is never opened here. If you trust it, convert it once:'
      f' {_CONVERT.format(folder=folder)}'
    )
