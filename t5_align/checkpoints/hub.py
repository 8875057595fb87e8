"""From what a user names to a folder: a path, or a Hugging Face hub id.

Only safetensors, JSON and tokenizer files are fetched: no pickle is downloaded,
let alone opened. `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` act as everywhere.

Synopsis:

    find_folder('/models/flan-t5-xl')
    find_folder('google/flan-t5-xl', revision='refs/pr/23')
"""

from collections.abc import Sequence
import os
import re

from etils import epath
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from t5_align.checkpoints import stored as stored_lib

TOKENIZER_FILES = ('*.model', 'tokenizer*')
_WANTED = ('*.safetensors', '*.json', 'README.md', *TOKENIZER_FILES)
# A name or organization/name, as the hub allows them.
_HUB_ID = re.compile(r'[\w-][\w.-]*(/[\w-][\w.-]*)?')


def find_folder(
  name: str | os.PathLike[str],
  revision: str | None = None,
  wanted: Sequence[str] = _WANTED,
) -> epath.Path:
  """Return the folder at `name`, downloading a hub id if there is none.

  Args:
    name: a path or a hub id.
    revision: of a hub id.
    wanted: patterns of the files to download.

  Raises:
    CheckpointError: neither a folder nor a repository that can be had.
  """
  path = epath.Path(name)
  if path.exists():
    return path
  name = os.fspath(name)
  if not _HUB_ID.fullmatch(name):
    raise stored_lib.CheckpointError(
      f'{name}: no such folder. Wanted: a checkpoint folder or a Hugging Face'
      ' id such as google/flan-t5-small.'
    )
  try:
    folder = huggingface_hub.snapshot_download(
      name,
      revision=revision,
      allow_patterns=list(wanted),
      ignore_patterns=['*/*'],
    )
  except (OSError, ValueError, hub_errors.RevisionResolutionError) as error:
    raise stored_lib.CheckpointError(
      f'{name}: no such folder here, and the hub cannot give'
      f' {name!r}, revision {revision or "main"}: {_reason(error)}. Cache:'
      f' {constants.HF_HUB_CACHE}.'
    ) from error
  return epath.Path(folder)


def _reason(error: Exception) -> str:
  if constants.HF_HUB_OFFLINE:
    return 'offline mode (HF_HUB_OFFLINE) and the cache does not hold it'
  if isinstance(error, hub_errors.RepositoryNotFoundError):
    return 'there is no such repository, or HF_TOKEN may not read it'
  if isinstance(error, hub_errors.RevisionNotFoundError):
    return 'there is no such revision'
  first_line = str(error).strip().partition('\n')[0].rstrip('.')
  return f'{type(error).__name__}: {first_line}'
