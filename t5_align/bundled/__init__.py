"""The models that ship inside the package, by the names that they load by.

Each has a MODEL_CARD.md beside it: `bundled` is an encoder-decoder, in this
folder, `bundled_lm` has a decoder alone.
"""

import os

from etils import epath

BUNDLED_MODELS = {
  'bundled': epath.resource_path('t5_align.bundled'),
  'bundled_lm': epath.resource_path('t5_align.bundled_lm'),
}
BUNDLED_MODEL = BUNDLED_MODELS['bundled']


def find_bundled(
  name: str | os.PathLike[str],
) -> str | os.PathLike[str]:
  """Return the folder of a bundled model; of any other name, the name."""
  return BUNDLED_MODELS.get(os.fspath(name), name)


def name_of(path: str | os.PathLike[str]) -> str:
  """Return a bundled model's name, wherever it is installed, else the path."""
  names = {os.fspath(path): name for name, path in BUNDLED_MODELS.items()}
  return names.get(os.fspath(path), os.fspath(path))
