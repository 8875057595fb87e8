"""The page of a calibration, its words, and the command's output."""

import numpy as np
import pytest

from t5_align import report, results
from t5_align.report import calibration_words as words
from t5_align.report.calibration_files import read_calibration
from t5_align.report.calibration_table import number
from tests.report.made_up_calibration import make_calibration, write
from tests.report.page_parser import Page

SITES = ('encoder', 'decoder', 'cross')


def show(output_dir):
  report.show_calibration(output_dir)
  return Page((output_dir / 'calibration.html').read_text())


def test_show_prints_tables_and_writes_pictures_and_page(tmp_path, capsys):
  make_calibration(tmp_path)
  page = show(tmp_path)
  out = capsys.readouterr().out
  assert 'Kept: entropy (nats)' in out and '! The text gives 2 of' in out
  for name in (
    'temperatures.json',
    'statistics.json',
    'heads.png',
    'lengths.png',
    'temperatures.png',
    'distances.png',
    'calibration.html',
  ):
    assert (tmp_path / name).exists()
    assert f'{tmp_path / name}' in out.replace('\n', '')
  assert len(page.sources) == 4
  assert all(s.startswith('data:image/png;base64,') for s in page.sources)


def test_show_refuses_other_folders(tmp_path):
  with pytest.raises(results.ResultsError, match='has no statistics.json'):
    report.show_calibration(tmp_path)


def test_page_escapes_and_says_how_it_was_made(tmp_path):
  evil = '<script>alert(1)</script>'
  statistics, temperatures = make_calibration(
    tmp_path, calibration_fields={'warnings': [evil]}
  )
  statistics['measurements'][-1]['alignment'] = evil
  statistics['rules'][0]['rule'] = evil
  for measurement in statistics['measurements']:
    measurement['site'] = evil
  temperatures['calibration']['heads'][0]['kind'] = evil
  temperatures['calibration']['solutions'][0] |= {'site': evil, 'status': evil}
  write(tmp_path, statistics, temperatures)
  page = show(tmp_path)
  assert 'script' not in page.tags and 'b' not in page.tags
  assert page.text.count(evil) > 5
  assert 'ab12' in page.text and 'cd34' in page.text


def test_page_has_every_head_with_the_numbers_of_the_files(tmp_path):
  statistics, temperatures = make_calibration(tmp_path, granularity='head')
  show(tmp_path)
  page = (tmp_path / 'calibration.html').read_text()
  for head, solution in zip(
    temperatures['calibration']['heads'],
    temperatures['calibration']['solutions'],
  ):
    place = head['layer'], head['head']
    cells = [
      'encoder',
      *map(str, place),
      head['kind'],
      *(
        number(np.array(m[name])[place])
        for name in ('max_probability', 'entropy_nats')
        for m in statistics['measurements']
      ),
    ]
    assert ''.join(f'<td>{cell}</td>' for cell in cells) in page
    assert f'{solution["temperature"]:.3f}' in page


@pytest.mark.slow
@pytest.mark.parametrize('with_sample', [True, False])
def test_page_of_many_sites(tmp_path, with_sample):
  make_calibration(
    tmp_path,
    sites=SITES,
    granularity='layer',
    with_sample=with_sample,
    with_rules=False,
  )
  page = show(tmp_path)
  assert len(page.sources) == 3 + with_sample
  assert ('Where attention goes' in page.text) == with_sample
  for site in SITES:
    assert f'{site}: At 128 tokens the largest' in page.text


@pytest.mark.parametrize('granularity', ['model', 'head'])
def test_what_was_left_alone_is_said_to_be(tmp_path, granularity):
  statistics, temperatures = make_calibration(tmp_path, granularity=granularity)
  for solution in temperatures['calibration']['solutions']:
    solution.update(status='left_alone', temperature=1.0, ci95=None)
  write(tmp_path, statistics, temperatures)
  page = show(tmp_path)
  assert 'left alone: not meant to be aligned, or its rows see' in page.text
  assert '8 of 8 heads were left alone' in page.text
  assert 'brings them' not in page.text


def test_a_site_is_told_with_its_numbers(tmp_path):
  statistics, temperatures = make_calibration(tmp_path)
  told = words.about_site(read_calibration(tmp_path), 'encoder')
  training, before, after = statistics['measurements']
  for measurement in (training, before, after):
    assert number(np.mean(measurement['max_probability'])) in told
    assert number(np.mean(measurement['entropy_nats'])) in told
  assert 'attention is flatter' in told
  tau = temperatures['calibration']['solutions'][0]['temperature']
  assert f'A temperature of {tau:.3f}' in told


def test_words_do_not_promise_what_was_not_found(tmp_path):
  statistics, temperatures = make_calibration(tmp_path)
  training, before, after = statistics['measurements']
  before['entropy_nats'] = (np.array(training['entropy_nats']) / 2).tolist()
  before['max_probability'] = [[0.9] * 4] * 2
  temperatures['calibration'] |= {'solutions': [], 'selective': True}
  for head in temperatures['calibration']['heads']:
    head['kind'] = 'steady'
  write(tmp_path, statistics, temperatures)
  record = read_calibration(tmp_path)
  told = words.about_site(record, 'encoder')
  assert 'attention is sharper' in told and 'temperature' not in told
  assert '8 of 8 heads were left alone' in told
  assert words.about_heads(record, 'encoder') == (
    'encoder: no head became flatter.'
  )
  assert words.about_rules(record, 'encoder') == ''
  assert words.about_kinds(record, 'encoder') == (
    'encoder: of 8 heads, 8 steady.'
  )


def test_rules_are_compared_at_the_keys_that_were_calibrated(tmp_path):
  make_calibration(tmp_path)
  told = words.about_rules(read_calibration(tmp_path), 'encoder')
  assert 'rows of 1,024 keys' in told and 'log-n 0.70' in told
  assert 'none 1.00' in told and 'oracle 0.75' in told


def test_near_attention_is_the_sum_of_near_buckets(tmp_path):
  statistics, _ = make_calibration(tmp_path)
  told = words.about_distances(read_calibration(tmp_path), 'encoder')
  for measurement in statistics['measurements']:
    sample = measurement['sample']
    near = np.mean(np.sum(sample['distance_mass'][:4], axis=0))
    assert sample['distances'][4] == 8 and f'{near:.0%}' in told
