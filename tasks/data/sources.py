"""Where the data of a task is, and how to get it.

What a user names is a file or a folder, of this machine, of a bucket
(`gs://…`), or of the Hugging Face hub:

    hf://datasets/OWNER/NAME[@REVISION][/PATH]

Only such a path downloads anything, into the hub's own cache, and data only:
no code of a repository is run. `HF_HUB_OFFLINE=1` keeps to what is there.

Synopsis:

    find(LINES, {'lines': 200}, 'LongChat/longeval/evaluation')
    find(LINES, {'lines': 200}, None)        # looks in $T5_ALIGN_DATA
    fetch('hf://datasets/zai-org/LongBench@main/data.zip')   # its local path
"""

from collections.abc import Mapping
import dataclasses
import os
import posixpath

from t5_align.tasks.data import streams

HUB = 'hf://datasets/'


class DataMissingError(FileNotFoundError):
  """Data that isn't there; says where it was looked for and how to get it."""


@dataclasses.dataclass(frozen=True)
class DataSource:
  """What is published of a task."""

  name: str
  """As its authors call it."""
  licence: str
  """Of the data."""
  files: tuple[str, ...]
  """Names of files, with fields for the numbers of a task, the first wins."""
  get: str
  """The commands that get it, one a line; FOLDER is where to."""
  folders: tuple[str, ...] = ('',)
  """Where in a published folder the files may lie; 'data.zip/data' is one."""
  tfds: str | None = None
  """'NAME/VERSION' in TFDS, whose folder is looked in where none is named."""


def default_folder() -> str:
  """Return where data is looked for: `T5_ALIGN_DATA`, else the cache's."""
  folder = os.environ.get('T5_ALIGN_DATA') or '~/.cache/t5_align/data'
  return os.path.expanduser(folder)


def find(
  source: DataSource, numbers: Mapping[str, int | str], data: str | None
) -> str:
  """Return the path of a task's file, to be read by `streams` or `records`.

  A file is also found with `.gz` or `.zst` added to its name.

  Args:
    source: what is published.
    numbers: the fields of its file names.
    data: the file itself, a folder or zip archive that holds it, or either on
      the hub; None: `default_folder()`.

  Raises:
    DataMissingError: it isn't there.
    ValueError: a path of the hub that is none.
  """
  root = default_folder() if data is None else os.path.expanduser(data)
  if root.startswith(HUB):
    if _names_file(root):
      return fetch(root)
  elif not root.lower().endswith('.zip') and streams.is_file(root):
    return root
  elif data is not None and not _exists(root):
    raise DataMissingError(
      f'{data}: no such file or folder. Get {source.name}:'
      f' {source.get.replace("FOLDER", data)}'
    )
  names = [file.format(**numbers) for file in source.files]
  how = f'Get it: {source.get.replace("FOLDER", root)}'
  for name in names:
    for folder in source.folders:
      for packed in ('', *streams.PACKED):
        place = _inner(folder, name + packed)
        try:
          path = fetch(f'{root.rstrip("/")}/{place}')
        except _FileMissingError as error:
          how = str(error)
          continue
        if streams.is_file(path):
          return path
  folders = ', '.join(repr(folder) for folder in source.folders if folder)
  raise DataMissingError(
    f'No {" or ".join(names)} of {source.name} in {root}'
    + (f' (nor in {folders} there)' if folders else '')
    + f'. {how}'
  )


class _FileMissingError(DataMissingError):
  """The repository may well be there, and has no such file, or not here."""


def fetch(path: str) -> str:
  """Return the local path of a file of the hub, after downloading it if needed.

  Any other path is returned as it is. Of `…/data.zip/MEMBER` the archive is
  downloaded.

  Raises:
    DataMissingError: no such repository, revision or file, or none of it here
      and no network; says which, and the command that gets it.
    ValueError: not a path of a file.
  """
  if not path.startswith(HUB):
    return path
  repository, revision, file = _split_hub(path)
  if not file:
    raise ValueError(f'{path}: a whole repository; wanted one of its files.')
  archive, member = streams.split_archive(file) or (file, '')
  # Takes half a second, and most data is local.
  import huggingface_hub
  from huggingface_hub import errors

  try:
    local = huggingface_hub.hf_hub_download(
      repository, archive, repo_type='dataset', revision=revision
    )
  except (OSError, ValueError) as error:
    at = f' --revision {revision}' if revision else ''
    is_entry = isinstance(error, errors.EntryNotFoundError)
    kind = _FileMissingError if is_entry else DataMissingError
    why = str(error).strip().splitlines()[:1] or [type(error).__name__]
    raise kind(
      f'{archive} of {repository} at revision {revision or "main"} is not here'
      f' and cannot be downloaded: {why[0]} Get it: hf download {repository}'
      f' {archive} --repo-type dataset{at}'
    ) from None
  return f'{local}/{member}' if member else local


def _split_hub(path: str) -> tuple[str, str | None, str]:
  """Return (OWNER/NAME, revision, file) of a path of the hub."""
  owner, _, rest = path.removeprefix(HUB).partition('/')
  name, _, file = rest.partition('/')
  name, at, revision = name.partition('@')
  if not owner or not name or (at and not revision):
    raise ValueError(
      f'{path}: wanted {HUB}OWNER/NAME[@REVISION]/PATH, such as'
      f' {HUB}zai-org/LongBench@main/data.zip.'
    )
  return f'{owner}/{name}', revision or None, _inner(file) if file else ''


def _inner(*names: str) -> str:
  """Join names of a folder's inside; none may lead out of it."""
  path = posixpath.join(*names)
  if '\0' in path or path.startswith('/') or '..' in path.split('/'):
    raise ValueError(f'{path!r} is no name of a file inside a folder.')
  return path


def _names_file(path: str) -> bool:
  """Whether a path of the hub is one of a file, by its ending."""
  _, _, file = _split_hub(path)
  ending = os.path.splitext(file)[1].lower()
  return bool(ending) and ending != '.zip'


def _exists(path: str) -> bool:
  return streams.is_file(path) or streams.is_folder(path)
