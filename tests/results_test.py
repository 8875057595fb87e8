"""Rows, intervals and files of results."""

import json
import math
import types

import numpy as np
import pytest

from t5_align import results
from t5_align.tasks.measures import MEASURES

TASK = types.SimpleNamespace(
  name='passkey_64',
  family='passkey',
  numbers={'tokens': 64},
  size=64,
  unit='tokens',
  measures=(MEASURES['passkey_match'],),
)
TEXT_TASK = types.SimpleNamespace(
  name='perplexity_files_64',
  family='perplexity_files',
  numbers={'tokens': 64},
  size=64,
  unit='tokens',
  measures=tuple(
    MEASURES[name] for name in ('perplexity', 'bits_per_byte', 'unknown_share')
  ),
)


def samples(scores, **fields):
  return [
    {
      'id': str(i),
      'score': score,
      'quantities': {'passkey_match': score},
      'cluster': None,
      'finite': True,
      'prompt_tokens': 60 + i,
      'truncated_tokens': 0,
      'lost_characters': '',
    }
    | fields
    for i, score in enumerate(scores)
  ]


def test_row_of_a_binary_metric():
  row = results.make_row(TASK, 'none', samples([1.0, 1.0, 0.0, 1.0]))
  assert row['value'] == 0.75
  assert row['length'] == 61.5
  assert (row['family'], row['numbers']) == ('passkey', {'tokens': 64})
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


def texts(nats, cluster=None):
  return [
    {
      'id': str(i),
      'score': None,
      'quantities': {
        'nats': value,
        'bits': value and value / math.log(2),
        'tokens': 10 * (i + 1),
        'bytes': 40 * (i + 1),
        'unknown_tokens': 1,
      },
      'cluster': cluster and cluster[i],
      'finite': value is not None,
      'prompt_tokens': 64,
      'truncated_tokens': 0,
      'lost_characters': '{' if i else '',
    }
    for i, value in enumerate(nats)
  ]


def test_row_of_a_text():
  none = texts([20.0, 60.0, 90.0])
  row = results.make_row(TEXT_TASK, 'entropy', texts([10.0, 30.0, 60.0]), none)
  assert row['value'] == pytest.approx(math.exp(100 / 60))
  assert row['higher_is_better'] is False and row['n_lossy'] == 2
  wanted = math.exp(100 / 60) - math.exp(170 / 60)
  assert row['difference']['value'] == pytest.approx(wanted)
  assert row['ci95'] is None  # three texts do not tell it
  bits, unknown = row['other_measures']
  assert bits['metric'] == 'bits_per_byte'
  assert bits['value'] == pytest.approx(100 / math.log(2) / 240)
  assert bits['difference']['value'] == pytest.approx(-70 / math.log(2) / 240)
  assert unknown['value'] == pytest.approx(3 / 60)
  clustered = results.make_row(TEXT_TASK, 'none', texts([1.0, 2.0, 3.0], 'aab'))
  assert clustered['ci_method'] == 'clustered_bootstrap'


def test_row_of_texts_enough_for_an_interval():
  none = texts([20.0, 41.0, 60.0, 79.0, 100.0, 121.0])
  nats = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
  row = results.make_row(TEXT_TASK, 'entropy', texts(nats), none)
  assert row['difference']['ci95'][1] < 0 < row['ci95'][0]


def test_a_text_that_failed_leaves_no_likelihood():
  row = results.make_row(
    TEXT_TASK, 'none', texts([20.0, None]), texts([1.0, 2.0])
  )
  assert row['value'] is None and row['ci95'] is None and row['n_failed'] == 1
  assert row['difference']['value'] is None


def test_difference_is_paired_by_id():
  first, second = samples([1.0, 0.0, 1.0]), samples([0.0, 0.0, 1.0])
  shuffled = [second[2], second[0], second[1]]
  stranger = samples([1.0])[0] | {'id': 'other'}
  row = results.make_row(TASK, 'temperature=0.8', first, [stranger, *shuffled])
  assert row['difference']['to'] == 'none'
  assert row['difference']['value'] == pytest.approx(1 / 3)
  assert row['difference']['n'] == 3
  swapped = results.make_row(
    TASK,
    'temperature=0.8',
    samples([0.2, 0.9, 0.4, 0.4, 0.4, 0.4]),
    samples([0.1, 0.7, 0.3, 0.3, 0.3, 0.3]),
  )
  assert swapped['difference']['ci_method'] == 'paired_bootstrap'
  low, high = swapped['difference']['ci95']
  assert 0.1 <= low + 1e-9 < high <= 0.2


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
  line = '{"id": "a", "quantities": {}, "finite": true}\n'
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
