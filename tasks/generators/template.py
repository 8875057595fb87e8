"""The wording of a prompt, as data: up to three strings with fields in braces.

  needle   the text that holds the answer, `The pass key is {key}.`
  prompt   what surrounds the haystack, `{context} What is the pass key?`
  target   what a model is trained to answer, `{key}`

A user's own wording is a JSON file with those that the task has and, if wanted,
`separator` (between the units of the haystack) and `filler` (a list of
sentences to use in place of the generated ones).

Synopsis:

    template = load('mine.json', placeholders)
    template.needle.format(key='48213')
"""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import hashlib
import json
import os
import string

# Template field -> (the names that it must hold in braces, those that it may).
Placeholders = Mapping[str, tuple[frozenset[str], frozenset[str]]]


@dataclasses.dataclass(frozen=True)
class Template:
  """One wording of one task family."""

  name: str
  """Its name, or the file that it comes from."""
  needle: str = ''
  """The text that holds the answer, or one of the documents of the context."""
  prompt: str = ''
  """What surrounds `{context}`."""
  target: str = ''
  """The answer in full, for training; no digits but the answer's."""
  separator: str = ' '
  """Stands between the units of the haystack."""
  filler: tuple[str, ...] = ()
  """Haystack sentences to draw from; none: generated ones."""

  @property
  def hash(self) -> str:
    """SHA-256 of the wording, whatever its name."""
    wording = {**dataclasses.asdict(self), 'name': None}
    return hashlib.sha256(json.dumps(wording).encode()).hexdigest()


_FIELDS = ('needle', 'prompt', 'target', 'separator', 'filler')


def resolve(
  wanted: Template | str | os.PathLike | None,
  known: Sequence[Template],
  placeholders: Placeholders,
  family: str,
) -> Template:
  """Return the template of a name or JSON file; the first known for None."""
  if wanted is None:
    return known[0]
  if isinstance(wanted, Template):
    _check(wanted, placeholders)
    return wanted
  by_name = {template.name: template for template in known}
  name = os.fspath(wanted)
  if name in by_name:
    return by_name[name]
  if os.path.exists(name):
    return load(name, placeholders)
  raise ValueError(
    f"'{name}' is neither a file nor a template of {family}; it has"
    f' {", ".join(by_name)}.'
  )


def load(path: str | os.PathLike, placeholders: Placeholders) -> Template:
  """Read and check a template from a JSON file.

  Raises:
    ValueError: not JSON (with the line), or a field missing, unknown or wrong.
    OSError: the file cannot be read.
  """
  with open(path, encoding='utf-8-sig') as file:
    try:
      content = json.load(file)
    except json.JSONDecodeError as error:
      raise ValueError(
        f'{path}:{error.lineno}: not JSON: {error.msg}.'
      ) from None
    except UnicodeDecodeError as error:
      raise ValueError(f'{path}: not UTF-8: {error.reason}.') from None
  if not isinstance(content, dict):
    raise ValueError(
      f'{path}: got a {type(content).__name__}; wanted an object with the'
      f' fields {", ".join(placeholders)}.'
    )
  for field in placeholders:
    if field not in content:
      raise ValueError(
        f"{path}: field '{field}' is missing; a template has"
        f' {", ".join(placeholders)}.'
      )
  for field, value in content.items():
    if field == 'name':
      continue
    if field not in _FIELDS:
      close = difflib.get_close_matches(field, _FIELDS, n=1)
      hint = f" Did you mean '{close[0]}'?" if close else ''
      raise ValueError(f"{path}: unknown field '{field}'.{hint}")
    _check_type(path, field, value)
  filler = tuple(content.get('filler', ()))
  fields = {k: v for k, v in content.items() if k not in ('name', 'filler')}
  template = Template(name=str(path), filler=filler, **fields)
  _check(template, placeholders)
  return template


def _check_type(path, field, value):
  """Raise unless a field holds what it should."""
  if field == 'filler':
    good = isinstance(value, list) and all(
      isinstance(sentence, str) and sentence.strip() for sentence in value
    )
    wanted = 'a list of sentences'
  else:
    good, wanted = isinstance(value, str), 'a string'
  if not good:
    raise ValueError(f"{path}: field '{field}' is {value!r}; wanted {wanted}.")


def _check(template: Template, placeholders: Placeholders) -> None:
  """Raise unless every field names what it must, and nothing else."""
  for field, (required, allowed) in placeholders.items():
    text = getattr(template, field)
    try:
      parts = list(string.Formatter().parse(text))
    except ValueError as error:
      raise ValueError(
        f"{template.name}: field '{field}': {error}; write a literal brace"
        ' twice.'
      ) from None
    names = {name for _, name, _, _ in parts if name is not None}
    for name in sorted(required - names):
      raise ValueError(
        f"{template.name}: field '{field}' must contain {{{name}}}; got"
        f' {text!r}.'
      )
    for name in sorted(names - allowed):
      raise ValueError(
        f"{template.name}: field '{field}' has {{{name}}}; it may contain"
        f' {", ".join(f"{{{n}}}" for n in sorted(allowed))}. Write a literal'
        ' brace twice.'
      )
    literal = ''.join(text for text, _, _, _ in parts)
    if field == 'target' and any(c.isdigit() for c in literal):
      raise ValueError(
        f"{template.name}: field 'target' has digits of its own, which the"
        f' metric would take for the answer; got {text!r}.'
      )
