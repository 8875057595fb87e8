"""Published files as records: checked rows, each with the place it stands at.

JSONL (also `.gz` and `.zst`), Parquet, and either as a member of a zip archive
are read in constant memory. A row that isn't as it should be is an error with
file and line, or file and row for Parquet, from 1.

Synopsis:

    seen = {}
    for where, row in read_records('lcc.jsonl', {'answers': list[str]}):
      check_new(row['_id'], seen, where)
"""

from collections.abc import Iterator, Mapping, MutableMapping
import difflib
import json
import math
import types
from typing import Any, NamedTuple, NoReturn

from t5_align.tasks.data import streams

JSONL = ('.jsonl', '.ndjson')
PARQUET = '.parquet'
# Rows that are in memory at a time; of text, one may take megabytes.
_BATCH_ROWS = 16


class Record(NamedTuple):
  """One row of a file."""

  where: str
  """'FILE:LINE', for messages."""
  row: dict[str, Any]
  """Field -> value; fields that were not asked for may be left out."""


def read_records(path: str, fields: Mapping[str, Any]) -> Iterator[Record]:
  """Yield the rows of a file, each with the fields asked for.

  Args:
    path: see `streams` for where it may be.
    fields: name -> type, one of JSON's (`str`, `int`, `float`, `bool`, `list`,
      `dict`), a list of one (`list[str]`), or a tuple of such; a field whose
      types include `NoneType` may also be missing. An int is also a float; a
      bool is no int.

  Raises:
    ValueError: with file and line: not UTF-8, not JSON, NaN or infinity, nested
      too deeply, a field missing or of the wrong type, half of a surrogate
      pair; a line too long, a broken archive, an unknown ending, no rows.
    OSError: the file cannot be read.
  """
  name = streams.unpacked_name(path)
  if name.endswith(PARQUET):
    rows = _read_parquet(path, list(fields))
  elif name.endswith(JSONL):
    rows = _read_jsonl(path)
  else:
    raise ValueError(
      f'{path}: what kind of file is it? Wanted a name that ends in .jsonl,'
      ' .jsonl.gz, .jsonl.zst or .parquet.'
    )
  is_empty = True
  for record in rows:
    _check_fields(record, fields)
    is_empty = False
    yield record
  if is_empty:
    raise ValueError(f'{path}: no rows; wanted one JSON object a line.')


def check_new(
  key: str, seen: MutableMapping[str, str], where: str, what: str = 'id'
) -> None:
  """Raise if a row's key was in another row, else remember it.

  Args:
    key: what no two rows share.
    seen: key -> where, of the rows before.
    where: of this row.
    what: the key's name, for the message.
  """
  if key in seen:
    shown = repr(key if len(key) < 60 else key[:50] + '…')
    raise ValueError(f'{where}: the same {what} as {seen[key]}: {shown}.')
  seen[key] = where


def _read_jsonl(path: str) -> Iterator[Record]:
  """Yield the objects of a file that has one a line."""
  for where, line in streams.read_lines(path):
    try:
      row = _DECODER.decode(line.decode('utf-8-sig'))
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{where}: byte {error.start} of the line is not UTF-8: {error.reason}.'
      ) from None
    except RecursionError:
      raise ValueError(f'{where}: not JSON: nested too deeply.') from None
    except ValueError as error:
      raise ValueError(f'{where}: not JSON: {error}.') from None
    if not isinstance(row, dict):
      raise ValueError(
        f'{where}: got a {type(row).__name__}; wanted an object.'
      )
    yield Record(where, row)


def _refuse(constant: str) -> NoReturn:
  raise ValueError(f'{constant} is no number of JSON')


def _finite(digits: str) -> float:
  """Return a number, unless it is too large for one."""
  number = float(digits)
  if math.isinf(number):
    _refuse(digits)
  return number


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _read_parquet(path: str, fields: list[str]) -> Iterator[Record]:
  """Yield the rows of a Parquet file, a few at a time."""
  import pyarrow
  from pyarrow import parquet

  number = 0
  with streams.open_seekable(path) as stream:
    try:
      file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=2**20)
      columns = [name for name in file.schema_arrow.names if name in fields]
      batches = file.iter_batches(_BATCH_ROWS, columns=columns)
      for batch in batches:
        for row in batch.to_pylist():
          number += 1
          yield Record(f'{path}:{number}', row)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
      raise ValueError(
        f'{path}:{number + 1}: not readable Parquet: {error}'
      ) from None


def _check_fields(record: Record, fields: Mapping[str, Any]) -> None:
  """Raise unless the row has the fields, of their types."""
  where, row = record
  for field, kind in fields.items():
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if field not in row:
      if types.NoneType in kinds:
        continue
      close = difflib.get_close_matches(field, row, n=1)
      hint = f' Did you mean {close[0]!r}?' if close else ''
      has = ', '.join(map(repr, list(row)[:10])) or 'none'
      raise ValueError(f'{where}: no field {field!r}; it has {has}.{hint}')
    value = row[field]
    if not any(_is_a(value, kind) for kind in kinds):
      wanted = ' or '.join(_name(kind) for kind in kinds)
      raise ValueError(
        f'{where}: field {field!r} is {_shown(value)}; wanted {wanted}.'
      )
    _check_text(where, field, value)


def _is_a(value: Any, kind: Any) -> bool:
  """Whether a value is of a type, as `read_records` describes them."""
  if isinstance(kind, types.GenericAlias):
    (inner,) = kind.__args__
    return isinstance(value, list) and all(_is_a(v, inner) for v in value)
  if isinstance(value, bool):
    return kind is bool
  if kind is float:
    return isinstance(value, int | float) and math.isfinite(value)
  return isinstance(value, kind)


_NAMES: dict[Any, str] = {
  str: 'a string',
  int: 'a whole number',
  float: 'a number',
  bool: 'true or false',
  dict: 'an object',
  list: 'a list',
  types.NoneType: 'null',
}


def _name(kind: Any) -> str:
  """Return a type's name, for people."""
  if isinstance(kind, types.GenericAlias):
    return f'a list, each {_name(kind.__args__[0])}'
  return _NAMES.get(kind, str(kind))


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) < 60 else text[:50] + '…'


def _check_text(where: str, field: str, value: Any) -> None:
  """Raise if a string, or one inside, could not be written as UTF-8."""
  unseen = [value]
  while unseen:
    text = unseen.pop()
    if isinstance(text, list):
      unseen += text
    elif isinstance(text, dict):
      unseen += text.values()
    if not isinstance(text, str):
      continue
    if not text.isascii():
      try:
        text.encode()
      except UnicodeEncodeError as error:
        raise ValueError(
          f'{where}: field {field!r} has half of a surrogate pair at character'
          f' {error.start}.'
        ) from None
