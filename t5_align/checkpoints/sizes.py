"""The config of a model without its weights, for plans.

Read are a preset's name, config.json (alone is enough), and of T5X folders the
shapes that the index declares. No weights are read, and of a hub id nothing
but config.json is downloaded.

Synopsis:

    sizes = read_sizes('flan-t5-xxl')
    sizes.config, sizes.decoder_only
"""

from __future__ import annotations

import os
from typing import NamedTuple

from etils import epath

from t5_align import presets
from t5_align.bundled import find_bundled
from t5_align.checkpoints import (
  hub,
  huggingface,
  huggingface_config,
  key_map,
  orbax,
  safetensors_files,
  t5x,
)
from t5_align.checkpoints import shapes as shapes_lib
from t5_align.checkpoints import stored as stored_lib
from t5_align.config import T5Config


class Sizes(NamedTuple):
  """What decides the shapes of a model.

  Attributes:
    config: its sizes.
    decoder_only: whether it is a DecoderOnlyTransformer's.
  """

  config: T5Config
  decoder_only: bool


def read_sizes(
  name: str | os.PathLike[str], revision: str | None = None
) -> Sizes:
  """Return the sizes of a preset, a folder or a model on the hub.

  Args:
    name: of a preset or a bundled model, a path or a hub id. A folder needs no
      weights.
    revision: of a hub id.

  Raises:
    CheckpointError: nothing here says the sizes.
  """
  if name in presets.PRESETS:
    return Sizes(presets.PRESETS[os.fspath(name)].config, False)
  name = find_bundled(name)
  folder = hub.find_folder(name, revision, ('config.json',))
  if orbax.is_orbax(folder) or (
    not (folder / 'config.json').exists() and t5x.find_step(folder)
  ):
    return _declared(folder)
  file = folder / 'config.json'
  if not file.exists():
    raise stored_lib.CheckpointError(
      f'{folder}: neither config.json nor a T5X checkpoint. Name a preset'
      f' ({", ".join(list(presets.PRESETS)[:3])}, ...) or such a folder.'
    )
  fields = safetensors_files.read_json(file)
  model_type = huggingface_config.check_model_type(fields)
  names = [child.name for child in folder.iterdir()]
  untied = not fields.get('tie_word_embeddings', True)
  if huggingface.is_folder(names):
    untied = 'lm_head.weight' in safetensors_files.open_folder(folder)[0]
  config = huggingface_config.from_json(
    fields, untied=untied, relative_bias_per_layer=model_type == 'umt5'
  )
  return Sizes(config, False)


def _declared(folder: epath.Path) -> Sizes:
  """Read what a folder of arrays declares."""
  if orbax.is_orbax(folder):
    stored = orbax.read(folder)
  else:
    stored = t5x.read(t5x.find_step(folder) or folder)
  shapes = {path: array.shape for path, array in stored.arrays.items()}
  config = stored.config or shapes_lib.infer_config(shapes, where=str(folder))
  return Sizes(config, key_map.is_decoder_only(shapes))
