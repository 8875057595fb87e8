"""What is compared with what, and how numbers are written."""

import pytest

from t5_align.report import rows as rows_lib
from tests.report.made_up_results import (
  CODE,
  DOCUMENTS,
  PASSKEYS,
  TEXTS,
  make_results,
  make_task,
)


def test_groups_are_tasks_of_one_name_but_for_numbers(tmp_path):
  lines = [
    make_task('line_retrieval', {'lines': 200}, 'line_retrieval_match'),
    make_task('line_retrieval', {'tokens': 512}, 'line_retrieval_match'),
  ]
  lines[1].name = 'line_retrieval_tokens_512'
  _, rows = make_results(tmp_path, [*PASSKEYS, *lines, *DOCUMENTS, *CODE])
  found = rows_lib.groups(rows)
  assert [(group.name, group.fields, len(group.rows)) for group in found] == [
    ('passkey', ('tokens',), 6),
    ('line_retrieval', ('lines',), 2),
    ('line_retrieval_tokens', ('tokens',), 2),
    ('multi_doc_qa', ('documents', 'gold'), 10),
    ('lcc', (), 2),
  ]


def settings_of(tmp_path, tasks):
  _, rows = make_results(tmp_path, tasks, ('none',))
  (group,) = rows_lib.groups(rows)
  return [
    (one.name, one.along, [row['task'][-2:] for row in one.rows])
    for one in rows_lib.settings(group)
  ]


def test_places_are_compared_at_one_size(tmp_path):
  assert settings_of(tmp_path, DOCUMENTS) == [
    ('multi_doc_qa, 10 documents', 'gold', ['_0', '_9']),
    ('multi_doc_qa, 20 documents', 'gold', ['_0', '_9', '19']),
  ]


def test_sizes_are_compared_where_each_has_one_place(tmp_path):
  assert settings_of(tmp_path, [DOCUMENTS[0], DOCUMENTS[2]]) == [
    ('multi_doc_qa, gold 0', 'documents', ['_0', '_0'])
  ]
  assert settings_of(tmp_path, CODE) == [('lcc', None, ['cc'])]


@pytest.mark.parametrize(
  'value, higher_is_better, interval, text',
  [
    (0.754, True, (0.6, 0.85), '0.75 [0.60, 0.85]'),
    (1.2341, False, (1.2, 1.3), '1.234 [1.200, 1.300]'),
    (123.44, False, (110.0, 131.26), '123.4 [110.0, 131.3]'),
    (1532.4, False, (1490.0, None), '1,532 [1,490, -]'),
    (15324.4, False, (14900.0, 16000.0), '15.3k [14.9k, 16.0k]'),
    (537333.0, False, (494962.0, 760442.0), '537k [495k, 760k]'),
    (6.9e27, False, (1e27, 1e28), '6.9e+27 [1.0e+27, 1.0e+28]'),
    (0.75, True, None, '0.75'),
    (None, False, None, '-'),
  ],
)
def test_digits_suit_the_value(value, higher_is_better, interval, text):
  measure = {'value': value, 'higher_is_better': higher_is_better}
  assert rows_lib.with_interval(measure | {'ci95': interval}) == text


@pytest.mark.parametrize(
  'interval, of_rate, of_perplexity',
  [
    ((0.1, 0.3), 'better', 'worse'),
    ((-0.3, -0.1), 'worse', 'better'),
    ((-0.1, 0.3), '', ''),
    ((0.0, 0.0), '', ''),
    ((0.1, None), '', ''),
    (None, '', ''),
  ],
)
def test_verdict_needs_an_interval_without_zero(
  interval, of_rate, of_perplexity
):
  difference = {'value': 0.2, 'ci95': interval}
  for higher, wanted in ((True, of_rate), (False, of_perplexity)):
    row = {'higher_is_better': higher, 'difference': difference}
    assert rows_lib.verdict(row) == wanted
  assert rows_lib.verdict({'difference': None}) == ''


def test_difference_has_the_digits_of_the_value(tmp_path):
  _, rows = make_results(tmp_path, TEXTS)
  text = rows_lib.difference(rows[3])
  assert text.startswith('-') and len(text.split()[0].split('.')[1]) == 1
