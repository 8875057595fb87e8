"""What a misspelt name was meant to be.

Synopsis:

    if name not in PRESETS:
      raise ValueError(f'Unknown model {name!r}; {nearest(name, PRESETS)}')
"""

from collections.abc import Iterable
import difflib


def nearest(name: object, known: Iterable[str]) -> str:
  """Return the end of a sentence: the known name that is meant, or them all."""
  known = list(known)
  close = difflib.get_close_matches(str(name), known, 1)
  if close:
    return f'did you mean {close[0]!r}?'
  return f'known: {", ".join(known)}.'
