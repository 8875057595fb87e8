"""What every command that reads a model does first.

Synopsis:

    model = open_model('google/flan-t5-base', revision='main', ...)
    as_list('a, b')                                         # ['a', 'b']
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t5_align import calibration_text, command, inference, presets
from t5_align import model as model_lib


def open_model(path: str, **options: Any) -> model_lib.Model:
  """Load a model with its tokenizer; compiled programs are kept on disk.

  Args:
    path: a folder, a hub id or 'bundled'.
    **options: those of `load_model`.

  Raises:
    UnreadableError: what is wrong with its files, or that it has no tokenizer.
    ValueError: an unknown preset, or a training length that none can have.
  """
  if isinstance(options.get('config'), str):
    presets.get_preset(options['config'])  # an unknown name is bad usage
  length = options.get('training_length')
  if length is not None and length < 2:
    raise ValueError(f'training_length is {length}; wanted 2 tokens or more.')
  inference.use_compilation_cache()
  try:
    model = model_lib.load_model(path, **options)
  except (ValueError, OSError) as error:
    raise command.UnreadableError(str(error)) from error
  if model.vocabulary is None:
    raise command.UnreadableError(
      f'{path} has no tokenizer: name the folder of its spiece.model or'
      ' tokenizer.json by --vocabulary, or put one there.'
    )
  return model


def open_text(
  model: model_lib.Model, data: Any, split: str, seed: int
) -> calibration_text.CalibrationText:
  """Open the text that attention is measured on.

  Args:
    model: its reader.
    data: files, folders or patterns; None for generated prompts.
    split: of generated prompts.
    seed: of generated prompts.

  Raises:
    UnreadableError: what is wrong with the files.
  """
  paths = None if data is None else as_list(data)
  if model.vocabulary is None:
    raise ValueError(f'{model.checkpoint.path} has no tokenizer.')
  try:
    return calibration_text.text_for(
      model.vocabulary, model.checkpoint.decoder_only, paths, split, seed
    )
  except (ValueError, OSError) as error:
    if paths is None:
      raise
    raise command.UnreadableError(str(error)) from error


def as_list(value: Any) -> list[Any]:
  """Return a value, a text with commas, or a sequence of such, as a list."""
  if isinstance(value, str):
    return [part.strip() for part in value.split(',') if part.strip()]
  if isinstance(value, Sequence):
    return [part for item in value for part in as_list(item)]
  return [value]
