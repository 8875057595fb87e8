"""The two files of a calibration, read and refused."""

import json
import math

import numpy as np
import pytest

from t5_align import results
from t5_align.report.calibration_files import read_calibration
from tests.report.made_up_calibration import make_calibration, write


def test_measurements_are_found_by_site_alignment_and_length(tmp_path):
  statistics, _ = make_calibration(tmp_path, lengths=(256, 1024))
  record = read_calibration(tmp_path)
  assert (record.training_length, record.target_length) == (128, 1024)
  assert (record.model, record.aligned) == ('b>', 'entropy')
  for wanted in statistics['measurements']:
    (found,) = record.find('encoder', wanted['alignment'], wanted['length'])
    np.testing.assert_array_equal(found.entropy_nats, wanted['entropy_nats'])
    np.testing.assert_array_equal(
      found.distance_mass, wanted['sample']['distance_mass']
    )


def test_view_has_the_rows_with_the_most_keys(tmp_path):
  make_calibration(tmp_path, sites=('decoder',), key_groups=4)
  record = read_calibration(tmp_path)
  assert record.has_groups('decoder')
  view = record.view('decoder')
  assert view.training.keys == 128
  assert (view.before.keys, view.before.alignment) == (1024, 'none')
  assert (view.after.keys, view.after.alignment) == (1024, 'entropy')


def test_sites_stand_in_order_and_null_is_nan(tmp_path):
  statistics, temperatures = make_calibration(
    tmp_path, sites=('cross', 'encoder', 'decoder'), with_sample=False
  )
  statistics['measurements'][0]['entropy_nats'][0][1] = None
  temperatures['calibration']['solutions'][0] |= {'after': None, 'ci95': None}
  write(tmp_path, statistics, temperatures)
  record = read_calibration(tmp_path)
  assert record.sites == ('encoder', 'decoder', 'cross')
  assert np.isnan(record.view('cross').training.entropy_nats[0, 1])
  assert record.view('encoder').training.distance_mass is None
  assert math.isnan(record.solutions[0].after)


def test_logarithms_are_shown_as_what_they_are_of(tmp_path):
  _, temperatures = make_calibration(
    tmp_path, calibration_fields={'averaging': 'log'}
  )
  wanted = temperatures['calibration']['solutions'][0]
  (solution,) = read_calibration(tmp_path).solutions
  assert solution.before == math.exp(wanted['before'])


def test_heads_know_their_temperature(tmp_path):
  _, temperatures = make_calibration(
    tmp_path, granularity='layer', calibration_fields={'selective': True}
  )
  record = read_calibration(tmp_path)
  found = record.head_solutions('encoder')
  solutions = temperatures['calibration']['solutions']
  for head in temperatures['calibration']['heads']:
    place = head['layer'], head['head']
    if head['kind'] == 'content':
      wanted = solutions[head['layer']]['temperature']
      assert found[place].temperature == wanted
    else:
      assert place not in found


def without(document, *path):
  """Return the document less one field."""
  document = json.loads(json.dumps(document))
  parent = document
  for key in path[:-1]:
    parent = parent[key]
  del parent[path[-1]]
  return document


@pytest.mark.parametrize('name', ['statistics.json', 'temperatures.json'])
def test_a_missing_or_torn_file_is_named(tmp_path, name):
  make_calibration(tmp_path)
  path = tmp_path / name
  text = path.read_text()
  for content in (text[:500], '[]', 'null', '{"a": 1}', '\x00'):
    path.write_text(content)
    with pytest.raises(results.ResultsError, match=f'{name} is not what'):
      read_calibration(tmp_path)
  path.unlink()
  with pytest.raises(results.ResultsError, match=f'has no {name}'):
    read_calibration(tmp_path)


@pytest.mark.parametrize(
  'path',
  [
    ('header', 'checkpoint'),
    ('measurements', 0, 'keys'),
    ('measurements', 0, 'sample'),
    ('rules', 0, 'points'),
  ],
)
def test_a_missing_field_of_the_statistics_is_named(tmp_path, path):
  statistics, temperatures = make_calibration(tmp_path)
  write(tmp_path, without(statistics, *path), temperatures)
  with pytest.raises(results.ResultsError, match=f'no field {path[-1]!r}'):
    read_calibration(tmp_path)


def test_a_temperatures_file_made_by_hand_is_refused(tmp_path):
  statistics, temperatures = make_calibration(tmp_path)
  write(tmp_path, statistics, without(temperatures, 'calibration', 'solutions'))
  with pytest.raises(results.ResultsError, match="no field 'solutions'"):
    read_calibration(tmp_path)


def test_statistics_of_other_heads_are_refused(tmp_path):
  statistics, temperatures = make_calibration(tmp_path)
  statistics['measurements'][0]['entropy_nats'] = [[1.0, 2.0]]
  write(tmp_path, statistics, temperatures)
  with pytest.raises(results.ResultsError, match='layers and heads'):
    read_calibration(tmp_path)


def test_files_of_two_calibrations_are_refused(tmp_path):
  statistics, temperatures = make_calibration(tmp_path)
  temperatures['calibration']['training_length'] = 512
  write(tmp_path, statistics, temperatures)
  with pytest.raises(results.ResultsError, match='encoder at the training'):
    read_calibration(tmp_path)
