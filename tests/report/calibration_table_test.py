"""Tables of a calibration: their numbers are the files', and they fit."""

import numpy as np
import pytest
from rich import console as rich_console

from t5_align.report import calibration_table
from t5_align.report.calibration_files import read_calibration
from tests.report.made_up_calibration import make_calibration, write

SITES = ('encoder', 'decoder', 'cross')


def render(record):
  console = rich_console.Console(width=80, force_terminal=False)
  with console.capture() as capture:
    console.print(*calibration_table.make_calibration_tables(record))
  return capture.get()


@pytest.mark.parametrize(
  'value, text',
  [
    (0.15234, '0.152'),
    (0.0154, '0.015'),
    (6.0421, '6.04'),
    (1.0, '1.00'),
    (0.00012, '1e-04'),
    (0.0, '0.0'),
    (float('nan'), '-'),
  ],
)
def test_numbers_are_short(value, text):
  assert calibration_table.number(value) == text


@pytest.mark.parametrize('granularity', ['model', 'layer', 'head'])
@pytest.mark.parametrize('sites', [('encoder',), SITES])
def test_tables_fit_a_terminal(tmp_path, granularity, sites):
  make_calibration(
    tmp_path,
    sites=sites,
    granularity=granularity,
    num_layers=3,
    num_heads=32,
    training_length=512,
    lengths=(131072,),
  )
  text = render(read_calibration(tmp_path))
  assert '…' not in text
  assert max(map(len, text.splitlines())) <= 80
  assert '! The text gives 2 of the 8 sequences' in text
  assert all(f'{site}: mean P_max' in text for site in sites)


def test_a_temperature_stands_with_what_it_does(tmp_path):
  _, document = make_calibration(tmp_path, sites=SITES)
  lines = [
    line.split() for line in render(read_calibration(tmp_path)).splitlines()
  ]
  for wanted in document['calibration']['solutions']:
    low, high = wanted['ci95']
    assert [
      wanted['site'],
      '1,024',
      '1,024',
      *(f'{wanted[name]:.2f}' for name in ('target', 'before', 'after')),
      f'{wanted["temperature"]:.3f}',
      f'[{low:.3f},',
      f'{high:.3f}]',
      'solved',
    ] in lines


def test_layers_are_means_of_their_heads(tmp_path):
  statistics, document = make_calibration(tmp_path)
  record = read_calibration(tmp_path)
  kinds = [
    h['kind'] for h in document['calibration']['heads'] if h['layer'] == 1
  ]
  assert calibration_table.layer_cells(record, 'encoder', 1) == (
    '1',
    *(
      calibration_table.number(np.mean(m[name][1]))
      for name in ('max_probability', 'entropy_nats')
      for m in statistics['measurements']
    ),
    *(
      f'{kinds.count(kind) or "-"}'
      for kind in ('content', 'position', 'averaging', 'steady')
    ),
  )


def test_heads_that_need_a_word_are_named(tmp_path):
  _, document = make_calibration(tmp_path, granularity='head', num_heads=8)
  lines = render(read_calibration(tmp_path)).splitlines()
  _, wanted = [
    solution
    for solution in document['calibration']['solutions']
    if solution['status'] != 'solved' or solution['head'] == 0
  ][:2]
  (line,) = [line for line in lines if ' 1.200 ' in line]
  words = line.split()
  assert words[0] == f'{wanted["layer"]}'
  assert words[-2:] == [wanted['status'], f'{wanted["head"]}']


def test_layers_left_alone_say_so(tmp_path):
  statistics, temperatures = make_calibration(tmp_path, granularity='layer')
  del temperatures['calibration']['solutions'][0]
  write(tmp_path, statistics, temperatures)
  lines = render(read_calibration(tmp_path)).splitlines()
  assert ['0', '-', '-', '-', '1', 'left', 'alone'] in map(str.split, lines)


def test_what_is_not_known_is_a_dash(tmp_path):
  make_calibration(
    tmp_path,
    calibration_fields={'heads': [], 'lengths': [2048], 'warnings': []},
  )
  cells = calibration_table.layer_cells(
    read_calibration(tmp_path), 'encoder', 0
  )
  assert cells[2:4] == ('-', '-') and cells[-4:] == ('-',) * 4


def test_names_are_not_markup(tmp_path):
  make_calibration(
    tmp_path, calibration_fields={'warnings': ['[red]look[/red]']}
  )
  assert '[red]look[/red]' in render(read_calibration(tmp_path))
