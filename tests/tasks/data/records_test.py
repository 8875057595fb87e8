"""Records: fields and types, JSONL and Parquet alike."""

import json
import types

import pytest

from t5_align.tasks.data import records

ROWS = [
  {'id': 'a', 'n': 1, 'x': 0.5, 'texts': ['ä', 'b'], 'meta': {'k': 'v'}},
  {'id': 'b', 'n': 2, 'x': 2.0, 'texts': [], 'meta': {'k': ''}},
]
FIELDS = {'id': str, 'n': int, 'x': float, 'texts': list[str], 'meta': dict}


def write(path, *rows):
  texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
  path.write_text('\n'.join(texts))
  return str(path)


def write_parquet(path, rows):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  return str(path)


def read(path, fields):
  return list(records.read_records(path, fields))


def test_rows_with_their_places(tmp_path):
  path = write(tmp_path / 'a.jsonl', ROWS[0], '', ROWS[1])
  assert read(path, FIELDS) == [(f'{path}:1', ROWS[0]), (f'{path}:3', ROWS[1])]
  path = write_parquet(tmp_path / 'a.parquet', ROWS)
  assert read(path, FIELDS) == [(f'{path}:1', ROWS[0]), (f'{path}:2', ROWS[1])]


def test_parquet_reads_only_what_is_asked_for(tmp_path):
  path = write_parquet(tmp_path / 'a.parquet', ROWS * 50)
  rows = [row for _, row in records.read_records(path, {'n': int})]
  assert rows == [{'n': 1}, {'n': 2}] * 50


def test_rows_are_read_as_they_are_taken(tmp_path):
  path = write(tmp_path / 'a.jsonl', ROWS[0], 'broken')
  found = records.read_records(path, FIELDS)
  assert next(found).row == ROWS[0]
  with pytest.raises(ValueError, match=r'a\.jsonl:2: not JSON'):
    next(found)


@pytest.mark.parametrize(
  'kind, value',
  [
    (float, 3),
    (bool, True),
    ((str, int), 3),
    ((str, types.NoneType), None),
    (list, [1, 'a']),
    (list[list[str]], [['a'], []]),
    (list[dict], [{}]),
  ],
  ids=str,
)
def test_types_that_fit(tmp_path, kind, value):
  path = write(tmp_path / 'a.jsonl', {'f': value})
  assert read(path, {'f': kind})[0].row == {'f': value}


@pytest.mark.parametrize(
  'kind, value, wanted',
  [
    (str, 3, 'is 3; wanted a string'),
    (int, True, 'is True; wanted a whole number'),
    (int, 1.5, 'is 1.5; wanted a whole number'),
    (float, False, 'is False; wanted a number'),
    (str, None, 'is None; wanted a string'),
    (list[str], ['a', 3], r"is \['a', 3\]; wanted a list, each a string"),
    (list[str], 'a', "is 'a'; wanted a list, each a string"),
    ((str, int), [], r'is \[\]; wanted a string or a whole number'),
    (dict, 'x' * 1000, "is 'x{49}…; wanted an object"),
  ],
  ids=str,
)
def test_types_that_do_not(tmp_path, kind, value, wanted):
  path = write(tmp_path / 'a.jsonl', {'f': value})
  with pytest.raises(ValueError, match=rf"a\.jsonl:1: field 'f' {wanted}"):
    read(path, {'f': kind})


def test_missing_fields(tmp_path):
  path = write(tmp_path / 'a.jsonl', {'anwsers': 1, 'b': 2})
  message = "no field 'answers'; it has 'anwsers', 'b'. Did you mean 'anwsers'"
  with pytest.raises(ValueError, match=message):
    read(path, {'answers': int})
  optional = {'answers': (int, types.NoneType)}
  assert read(path, optional)[0].row == {'anwsers': 1, 'b': 2}
  path = write_parquet(tmp_path / 'a.parquet', ROWS)
  with pytest.raises(ValueError, match=r"a\.parquet:1: no field 'answers'"):
    read(path, {'answers': int})


def test_an_id_is_new_once():
  seen = {}
  records.check_new('a', seen, 'f:1')
  records.check_new('b', seen, 'f:2')
  with pytest.raises(ValueError, match="^f:7: the same id as f:1: 'a'"):
    records.check_new('a', seen, 'f:7')
  records.check_new('x' * 500, seen, 'f:8')
  with pytest.raises(ValueError, match="the same prompt as f:8: 'x{50}…'"):
    records.check_new('x' * 500, seen, 'f:9', 'prompt')
