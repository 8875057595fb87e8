"""The checkpoints that a run of T5X would load, before it loads them.

T5X finds out that a folder is not there once data and model are built, and
Orbax makes the folder; a network with fewer layers than its checkpoint is
evaluated as if it were whole.

Synopsis:

    for folder in checkpoint_folders('/models/checkpoint_1000', 'specific'):
      check_shapes(folder, model.module)
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import re
from typing import Any

from etils import epath

from t5_align import config as config_lib
from t5_align import network
from t5_align.checkpoints import key_map, shapes, t5x
from t5_align.nearest import nearest


def checkpoint_folders(
  path: str | Sequence[str], mode: str
) -> list[epath.Path]:
  """Return the T5X checkpoints that a run would load; make no folder.

  Args:
    path: of a RestoreCheckpointConfig, one or several.
    mode: 'specific': each is a step's folder. 'latest' and 'all': it is the
      folder above.

  Returns:
    Folders of steps that can be read. A TensorFlow checkpoint has none.

  Raises:
    ValueError: nothing there, or not what the mode wants.
  """
  paths = [path] if isinstance(path, str) else path
  folders = []
  for text in paths:
    folder = epath.Path(text)
    if epath.Path(f'{text}.index').exists():
      continue
    if not folder.exists():
      raise ValueError(f'No checkpoint at {text}: {_what_is_there(folder)}')
    if folder.is_dir() and (mode == 'specific') == t5x.is_step(folder):
      if mode == 'specific':
        folders.append(folder)
        continue
      steps = _steps(folder)
      if steps:
        folders.extend(steps if mode == 'all' else steps[-1:])
        continue
    raise ValueError(f'{text} {_wrong_kind(folder, mode)}')
  return folders


def _steps(folder: epath.Path) -> list[epath.Path]:
  """Return the complete steps of a folder, oldest first."""
  found = [
    (int(match[1]), child)
    for child in folder.iterdir()
    if (match := re.fullmatch(r'checkpoint_(\d+)', child.name))
    and t5x.is_step(child)
  ]
  return [child for _, child in sorted(found)]


def _what_is_there(folder: epath.Path) -> str:
  """Say which folder above is there, and what in it may be meant."""
  missing = folder
  while not missing.parent.exists() and missing.parent != missing:
    missing = missing.parent
  names = sorted(child.name for child in missing.parent.iterdir())
  return (
    f'{missing.parent} has no {missing.name!r}'
    + (f'; {nearest(missing.name, names[:20])}' if names else '.')
    + ' Set CHECKPOINT_PATH (to train, INITIAL_CHECKPOINT_PATH).'
  )


def _wrong_kind(folder: epath.Path, mode: str) -> str:
  """Say what a folder is that is not what the mode wants."""
  setting = 'utils.RestoreCheckpointConfig.mode'
  if folder.is_dir():
    if t5x.is_step(folder):
      return f"is one step, {setting} is {mode!r}; set it to 'specific'."
    if steps := [step.name for step in _steps(folder)]:
      return (
        f'is no step but holds {", ".join(steps)}: name one, or set'
        f" {setting} to 'latest' or 'all'."
      )
    if (folder / 'config.json').exists():
      return (
        'is no T5X checkpoint. Write one: python -c "from t5_align import'
        f" checkpoints as c; c.save_t5x('FOLDER',"
        f" c.load_checkpoint('{folder}').params, step=0)\""
      )
  return 'has no T5X checkpoint: wanted checkpoint_N, or the folder above it.'


def check_shapes(folder: epath.Path, module: Any) -> None:
  """Compare a checkpoint's shapes with the network's; read no weights.

  Raises:
    ValueError: more or fewer layers, or other shapes, and what would fit.
  """
  if not isinstance(getattr(module, 'config', None), config_lib.T5Config):
    return
  stored = {path: a.shape for path, a in t5x.read(folder).arrays.items()}
  kinds = ('an encoder-decoder', 'a decoder-only model')
  decoder_only = isinstance(module, network.DecoderOnlyTransformer)
  if key_map.is_decoder_only(stored) != decoder_only:
    raise ValueError(
      f'{folder} is {kinds[not decoder_only]}, MODEL is {kinds[decoder_only]}:'
      ' take the gin file of the other kind.'
    )
  shapes.check_tree(stored, module.config, where=os.fspath(folder))
