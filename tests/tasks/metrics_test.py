"""Scores as the benchmarks' own code gives them, and what their repairs change.

The lists `PASSKEY` to `WORDS` are what the published code was seen to return.
"""

import statistics

import pytest

from t5_align.tasks import metrics

# landmark-attention, llama/run_test.py, all for 12345.
PASSKEY = [
  (' 12345.', 1),
  (' 12345, or 999', 1),
  (' 012345', 1),
  ('1 2345', 0),
  (' 12,345', 0),
  ('is unknown', 0),
]


@pytest.mark.parametrize(
  ('prediction', 'score'),
  [
    *PASSKEY,
    ('', 0),
    ('999 or 12345', 0),
    ('١٢٣٤٥', 1),
    ('²', 0),
    ('9' * 5000, 0),
    ('0' * 5000 + '12345', 1),
  ],
)
def test_passkey_takes_the_first_number(prediction, score):
  assert metrics.passkey_match(prediction, '12345') == score


@pytest.mark.parametrize(
  ('prediction', 'score'),
  [
    *((p, s) for p, s in PASSKEY if ',345' not in p),
    (' 12,345', 1),
    ('12,3456', 0),
    ('1,12,345', 0),
    ('12,345,678', 0),
    ('', 0),
    ('9,999' * 5000, 0),
  ],
)
def test_a_repaired_passkey_may_have_a_comma(prediction, score):
  assert metrics.passkey_match_repaired(prediction, '12345') == score


# LongChat, longeval/utils.py, all for 2416.
LINE_RETRIEVAL = [
  ('The <REGISTER_CONTENT> in line torpid-kid is <2416>.', 1),
  ('<2416> is in line torpid-kid (line 7)', 0),
  ('2,416', 0),
  ('line 12 is 2416', 1),
  ('02416', 1),
  ('I do not know', 0),
]


@pytest.mark.parametrize(
  ('prediction', 'score'),
  [*LINE_RETRIEVAL, ('', 0), ('2416' + '0' * 5000, 0), ('2416, or 2417', 0)],
)
def test_line_retrieval_takes_the_last_number(prediction, score):
  assert metrics.line_retrieval_match(prediction, '2416') == score


@pytest.mark.parametrize(
  ('prediction', 'score'),
  [
    *(
      (p, s) for p, s in LINE_RETRIEVAL if '(line 7)' not in p and p != '2,416'
    ),
    ('<2416> is in line torpid-kid (line 7)', 1),
    ('2,416', 1),
    ('2,416 is in Lines 7', 1),
    ('2416 is in line 1,007', 1),
    ('line 2416', 1),
    ('pipeline 7', 0),
    ('2416 and 7', 0),
    ('', 0),
    ('9' * 5000, 0),
  ],
)
def test_a_repaired_line_number_is_not_the_value(prediction, score):
  assert metrics.line_retrieval_match_repaired(prediction, '2416') == score


@pytest.mark.parametrize(
  ('prediction', 'score'),
  [
    ('We first discussed The Benefits of tea.', 1),
    # Published: the judge of LongEval sees "'Su" of this.
    ("['Sure, the benefits of tea']", 1),
    ('the benefits of coffee', 0),
    ('the benefits of', 0),
    ('', 0),
  ],
)
def test_topics_are_found_in_any_case(prediction, score):
  topic = 'the benefits of tea'
  assert metrics.topic_retrieval_match(prediction, topic) == score


VALUE = '6a5f0b0e-9c7c-4b3f-8f7e-0d3a1c2b4e5f'


# lost-in-the-middle, scripts/evaluate_kv_responses.py.
@pytest.mark.parametrize(
  ('prediction', 'score'),
  [
    (VALUE, 1),
    (f'"{VALUE.upper()}"', 1),
    (VALUE[:-1], 0),
    (f'x\n{VALUE}', 1),
    ('', 0),
  ],
)
def test_values_are_found_in_any_line_and_case(prediction, score):
  assert metrics.value_match(prediction, VALUE) == score


# lost-in-the-middle, src/lost_in_the_middle/metrics.py. Its pipeline, which
# cuts at a line break first, is tested beside the task.
SUBSPAN = [
  ('It was Wilhelm Conrad Röntgen, in 1901.', ['Wilhelm Conrad Röntgen'], 1),
  ('Wilhelm Conrad Rontgen', ['Wilhelm Conrad Röntgen'], 0),
  ('the U.S.A.', ['USA'], 1),
  ('14', ['4'], 1),
  ('anything', ['the'], 1),
]


@pytest.mark.parametrize(
  ('prediction', 'answers', 'score'),
  [
    *SUBSPAN,
    ('', ['x'], 0),
    ('x', [], 0),
    ('', ['...'], 1),
    ('An  Apple\ta day', 'apple day', 1),
    ('in Rome', ['Paris', 'Rome'], 1),
    ('1901–1905', ['1901'], 1),
  ],
)
def test_subspans_are_compared_as_published(prediction, answers, score):
  assert metrics.best_subspan_em(prediction, answers) == score


@pytest.mark.parametrize(
  ('prediction', 'answers', 'score'),
  [
    *(row for row in SUBSPAN if row[0] not in ('14', 'anything')),
    ('14', ['4'], 0),
    ('4', ['4'], 1),
    ('anything', ['the'], 0),
    ('It is The.', ['the'], 1),
    ('', ['...'], 0),
    ('', ['x'], 0),
    ('May 18,2018', ['May 18, 2018'], 1),
    ('rock-and-roll', 'rock and roll', 1),
    ('1901–1905', ['1901'], 1),
    ('snake_case', ['snake'], 1),
    ('Ro\u0308ntgen', ['Röntgen'], 1),
    ('in Rome', ['Paris', 'Rome'], 1),
    ('x', [], 0),
  ],
)
def test_repaired_subspans_are_whole_words(prediction, answers, score):
  assert metrics.best_subspan_em_repaired(prediction, answers) == score


LINE = '        return self.x'

# LongBench, metrics.py, `code_sim_score`, all for LINE.
CODE = [
  (LINE, 1.0),
  (f'\n{LINE}\n def f', 1.0),
  (f'# comment\n{LINE}', 1.0),
  ('return self.x', 0.76),
  ('return self.y  # c', 0.0),
  ('```python\nreturn self.x', 0.76),
  (f'   \n{LINE}', 0.25),
  ('', 0.0),
]


@pytest.mark.parametrize(
  ('prediction', 'score'),
  [
    *CODE,
    ('return self.y', 0.71),
    ('// a\n/* b */', 0.14),
    ('#' * 5000, 0.0),
  ],
)
def test_code_similarity_is_as_published(prediction, score):
  assert metrics.code_similarity(prediction, LINE) == score


def test_code_similarity_of_longbench_is_the_mean_of_samples():
  # LongBench, eval.py: scorer('lcc', …).
  scores = [metrics.code_similarity(p, LINE) for p in (LINE, 'return self.x')]
  assert round(100 * statistics.mean(scores), 2) == 88.0


@pytest.mark.parametrize(
  ('prediction', 'line', 'score'),
  [
    # Of what T5's vocabulary makes of the right line: without and with ` ⁇ `.
    (
      'if (a  b)  return x; ',
      '        if (a < b) { return x; }',
      0.79,
    ),
    (
      'if (a ⁇ b) ⁇ return x; ⁇',
      '        if (a < b) { return x; }',
      0.75,
    ),
    (
      'for (int i = 0; i  n; i++) ',
      'for (int i = 0; i < n; i++) {',
      0.96,
    ),
  ],
)
def test_a_vocabulary_without_braces_has_a_ceiling(prediction, line, score):
  assert metrics.code_similarity(prediction, line) == score


@pytest.mark.parametrize(
  ('prediction', 'line', 'score'),
  [
    *((prediction, LINE, 1.0) for prediction, _ in CODE if LINE in prediction),
    ('return self.x', LINE, 1.0),
    ('```python\nreturn self.x', LINE, 1.0),
    ('\r\nreturn self.x\r\n', LINE, 1.0),
    ('', LINE, 0.0),
    ('# a', LINE, 0.0),
    ('half = n // 2', '  half = n // 2', 1.0),
    ("color = '#fff'", "color = '#fff'", 1.0),
    ('# see below', '  # see below', 1.0),
    ('return self.y', LINE, 12 / 13),
    ('', '', 1.0),
  ],
)
def test_repaired_code_similarity_reads_code(prediction, line, score):
  repaired = metrics.code_similarity_repaired(prediction, line)
  assert repaired == pytest.approx(score)


# RepoBench's own scores, of single lines.
def test_words_and_edits_are_compared_as_repobench_does():
  exact = [
    metrics.code_exact_match('a  = 1', 'a = 1'),
    metrics.code_exact_match('b', 'c'),
  ]
  assert statistics.mean(exact) == 0.5
  similar = [
    100 * metrics.edit_similarity('a = 1', 'a = 1'),
    100 * metrics.edit_similarity('return x', 'return y'),
  ]
  assert similar == [100, 88]
  assert statistics.mean(similar) == 94.0


@pytest.mark.parametrize(
  ('prediction', 'score'),
  [
    (f'# comment\n{LINE}\n  b', 1),
    ('return self.x', 1),
    ('return self .x', 0),
    ('', 0),
  ],
)
def test_exact_match_of_code_is_that_of_its_first_line(prediction, score):
  assert metrics.code_exact_match(prediction, LINE) == score


def test_exact_match_ignores_white_space_around():
  assert metrics.exact_match(' a b\n', 'a b') == 1
  assert metrics.exact_match('a  b', 'a b') == 0
  assert metrics.exact_match('', '') == 1


# lm_eval/api/task.py, `count_words`.
WORDS = [('a b', 2), ('a  b\n\tc', 3), (' a b ', 4), ('', 1)]


@pytest.mark.parametrize(('text', 'count'), WORDS)
def test_words_are_counted_as_lm_eval_does(text, count):
  assert metrics.count_words(text) == count


@pytest.mark.parametrize('prediction', ['', '\0', '\n' * 99, '٣' * 9, '́', '⁇'])
def test_no_prediction_is_too_strange_for_a_metric(prediction):
  numbers = ('passkey', 'line_retrieval')
  names = {name for name in vars(metrics) if name.endswith('_repaired')}
  names |= {name.removesuffix('_repaired') for name in names}
  names |= {'topic_retrieval_match', 'value_match', 'exact_match'}
  assert len(names) > 10
  for name in names:
    reference = '7' if name.startswith(numbers) else '{'
    assert 0 <= getattr(metrics, name)(prediction, reference) <= 1
