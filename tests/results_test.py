"""Rows, intervals and files of results."""

import json
import math
import types

import numpy as np
import pytest

from t5_align import results

TASK = types.SimpleNamespace(
  name='passkey_64',
  size=64,
  unit='tokens',
  metric='passkey_match',
  higher_is_better=True,
)


def samples(scores, **fields):
  return [
    {
      'id': str(i),
      'score': score,
      'finite': True,
      'prompt_tokens': 60 + i,
      'truncated_tokens': 0,
    }
    | fields
    for i, score in enumerate(scores)
  ]


def test_row_of_a_binary_metric():
  row = results.make_row(TASK, 'none', samples([1.0, 1.0, 0.0, 1.0]))
  assert row['value'] == 0.75
  assert row['length'] == 61.5
  assert row['n'] == 4 and row['n_failed'] == 0 and row['n_truncated'] == 0
  assert row['stderr'] == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
  # Wilson's limits from their definition, z = 1.959964.
  z2 = 1.959963984540054**2
  centre = (0.75 + z2 / 8) / (1 + z2 / 4)
  half = math.sqrt(z2 * (0.75 * 0.25 / 4 + z2 / 64)) / (1 + z2 / 4)
  assert row['ci95'] == pytest.approx([centre - half, centre + half])
  assert row['ci_method'] == 'wilson'
  assert row['difference'] is None


def test_row_counts_failed_and_truncated():
  rows = samples([0.0], finite=False, truncated_tokens=5) + samples([1.0])
  row = results.make_row(TASK, 'none', rows)
  assert (row['n'], row['n_failed'], row['n_truncated']) == (2, 1, 1)
  assert row['value'] == 0.5


def test_a_single_sample_has_no_spread():
  row = results.make_row(TASK, 'none', samples([0.5]))
  assert row['stderr'] is None and row['ci95'] is None


def test_other_scores_are_bootstrapped_and_repeatable():
  scores = np.linspace(0.1, 0.9, 40)
  interval, method = results.mean_interval(scores)
  assert method == 'bootstrap'
  # The normal approximation, which 40 even values satisfy within 2%.
  half = 1.96 * scores.std() / math.sqrt(40)
  np.testing.assert_allclose(interval, [0.5 - half, 0.5 + half], atol=0.02)
  assert results.mean_interval(scores) == (interval, method)


def table(both, only_first, only_second, neither):
  first = [1.0] * (both + only_first) + [0.0] * (only_second + neither)
  second = (
    [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * neither
  )
  return np.array(first), np.array(second)


@pytest.mark.parametrize(
  'counts, wanted',
  [
    # Newcombe 1998, table III, method 10.
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    # Airway reactivity data of Fagerland, Lydersen and Laake 2014.
    ((1, 1, 7, 12), (-0.507, -0.026)),
  ],
)
def test_newcombe_published_values(counts, wanted):
  interval, method = results.difference_interval(*table(*counts))
  assert method == 'newcombe_paired'
  np.testing.assert_allclose(interval, wanted, atol=6e-4)


def test_newcombe_covers_the_truth():
  """About 95% of intervals hold the difference, also near 0 and 1."""
  generator = np.random.default_rng(1)
  for probabilities in ([0.5, 0.3, 0.1, 0.1], [0.05, 0.25, 0.0, 0.7]):
    truth = probabilities[1] - probabilities[2]
    counts = generator.multinomial(30, probabilities, size=400)
    intervals = [results.difference_interval(*table(*c))[0] for c in counts]
    inside = [low <= truth <= high for low, high in intervals]
    assert np.mean(inside) > 0.92


def test_equal_scores_differ_by_nothing_but_not_surely():
  scores = np.ones(20)
  low, high = results.difference_interval(scores, scores)[0]
  assert low < 0 < high and low == -high


def test_difference_is_paired_by_id():
  first, second = samples([1.0, 0.0, 1.0]), samples([0.0, 0.0, 1.0])
  shuffled = [second[2], second[0], second[1]]
  stranger = samples([1.0])[0] | {'id': 'other'}
  row = results.make_row(TASK, 'temperature=0.8', first, [stranger, *shuffled])
  assert row['difference']['to'] == 'none'
  assert row['difference']['value'] == pytest.approx(1 / 3)
  assert row['difference']['n'] == 3
  swapped = results.make_row(
    TASK, 'temperature=0.8', samples([0.2, 0.9]), samples([0.1, 0.7])
  )
  assert swapped['difference']['ci_method'] == 'paired_bootstrap'
  assert swapped['difference']['ci95'] == pytest.approx([0.1, 0.2])


def test_json_is_strict():
  text = results.to_json(
    {'a': float('nan'), 'b': [np.float32('inf'), (np.int64(3), True)]}
  )
  assert json.loads(text) == {'a': None, 'b': [None, [3, True]]}


def test_results_round_trip_and_leave_no_other_file(tmp_path):
  results.write_results(tmp_path, {'seed': 0}, [{'value': float('nan')}])
  assert results.read_results(tmp_path) == ({'seed': 0}, [{'value': None}])
  assert [path.name for path in tmp_path.iterdir()] == ['results.json']


def test_a_failed_write_keeps_the_old_file(tmp_path):
  results.write_results(tmp_path, {'seed': 0}, [])
  with pytest.raises(TypeError):
    results.write_results(tmp_path, {'seed': object()}, [])
  assert results.read_results(tmp_path) == ({'seed': 0}, [])


@pytest.mark.parametrize('text', ['', '[]', '{"header": {}}', 'nonsense'])
def test_unreadable_results_are_an_error(tmp_path, text):
  (tmp_path / 'results.json').write_text(text)
  with pytest.raises(results.ResultsError, match='results.json does not hold'):
    results.read_results(tmp_path)
  with pytest.raises(results.ResultsError, match='has no results.json'):
    results.read_results(tmp_path / 'elsewhere')


def test_torn_last_line_is_dropped_and_others_are_errors(tmp_path):
  path = tmp_path / 'samples.jsonl'
  line = '{"id": "a", "score": 1.0, "finite": true}\n'
  path.write_text(line + '{"id": "b", "sco')
  assert [sample['id'] for sample in results.read_samples(path)] == ['a']
  path.write_text(line + '{"id": "b"}\n')
  with pytest.raises(results.ResultsError, match=r'samples.jsonl:2 is not'):
    results.read_samples(path)


@pytest.mark.parametrize(
  'alignment', ['../../evil', '/etc/passwd', 'a b\n', '..', 'naïve/x\0']
)
def test_sample_files_stay_inside(tmp_path, alignment):
  path = results.samples_path(tmp_path, '../passkey', alignment)
  assert path.resolve().parent == (tmp_path / 'samples').resolve()
