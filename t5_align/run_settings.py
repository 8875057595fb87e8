"""What decides every step of a training run, kept beside its checkpoints.

A run that is continued with other settings would be neither of two runs, and
nothing would show it: so settings are compared, and what differs is named.

Synopsis:

    folder = pathlib.Path('runs/first')
    write(folder, {'training': {'seed': 0}})      # folder/settings.json
    check(folder, {'training': {'seed': 1}})      # ValueError
"""

from collections.abc import Mapping
import json
import os
from typing import Any

from etils import epath
import flax.traverse_util

_FILE = 'settings.json'


def write(
  directory: str | os.PathLike[str], settings: Mapping[str, Any]
) -> None:
  """Write the settings of a new run: names to values that JSON holds."""
  text = json.dumps(settings, indent=2)
  (epath.Path(directory) / _FILE).write_text(text + '\n')


def check(
  directory: str | os.PathLike[str], settings: Mapping[str, Any]
) -> None:
  """Raise ValueError unless the directory's run has these settings."""
  earlier = _flatten((epath.Path(directory) / _FILE).read_text())
  wanted = _flatten(json.dumps(settings))
  for name in sorted({*earlier, *wanted}):
    before, now = earlier.get(name), wanted.get(name)
    if before != now:
      raise ValueError(
        f'{directory} holds a run with {name}={before!r}, now {now!r}; set it'
        ' back or choose another directory.'
      )


def _flatten(text: str) -> dict[str, Any]:
  """Return dotted names and values, as a file gives them back."""
  return flax.traverse_util.flatten_dict(json.loads(text), sep='.')
