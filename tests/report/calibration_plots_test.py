"""Pictures of a calibration: what is drawn is what the files say."""

import numpy as np
import pytest

from t5_align.report import (
  calibration_curves,
  calibration_maps,
  calibration_plots,
)
from t5_align.report.calibration_files import read_calibration
from tests.report.made_up_calibration import make_calibration, write

PNG = b'\x89PNG\r\n\x1a\n'
NAMES = ['heads', 'lengths', 'temperatures', 'distances']


@pytest.mark.slow
@pytest.mark.parametrize(
  'options',
  [
    {},
    {'sites': ('encoder', 'decoder', 'cross'), 'key_groups': 4},
    {'granularity': 'layer', 'num_layers': 1, 'num_heads': 1},
    {'granularity': 'head', 'lengths': (256, 4096), 'num_heads': 12},
  ],
  ids=['model', 'sites', 'one head', 'heads'],
)
def test_every_picture_is_written(tmp_path, options):
  make_calibration(tmp_path, **options)
  paths = calibration_plots.write_calibration_plots(
    read_calibration(tmp_path), tmp_path
  )
  assert list(paths) == NAMES
  for path in paths.values():
    assert path.read_bytes().startswith(PNG)


def test_what_is_not_known_is_not_drawn(tmp_path):
  statistics, temperatures = make_calibration(
    tmp_path,
    with_sample=False,
    with_rules=False,
    calibration_fields={'solutions': []},
  )
  for measurement in statistics['measurements']:
    measurement['entropy_nats'] = [[None] * 4] * 2
  statistics['measurements'].pop()  # what it is like aligned
  write(tmp_path, statistics, temperatures)
  (tmp_path / 'distances.png').write_bytes(b'of an earlier calibration')
  paths = calibration_plots.write_calibration_plots(
    read_calibration(tmp_path), tmp_path
  )
  assert list(paths) == NAMES[:2]
  assert not (tmp_path / 'distances.png').exists()


def test_maps_share_a_scale_and_write_their_numbers(tmp_path):
  statistics, _ = make_calibration(tmp_path)
  figure = calibration_maps.draw_heads(read_calibration(tmp_path))
  panels = [panel for panel in figure.axes if panel.images]
  names = ('max_probability', 'entropy_nats')
  for name, row in zip(names, (panels[:3], panels[3:])):
    for panel, measurement in zip(row, statistics['measurements']):
      (image,) = panel.images
      np.testing.assert_allclose(image.get_array(), measurement[name])
      assert image.norm.vmin == row[0].images[0].norm.vmin
      assert image.norm.vmax == row[0].images[0].norm.vmax
  texts = [text.get_text() for text in panels[0].texts]
  wanted = np.ravel(statistics['measurements'][0]['max_probability'])
  assert texts == [f'{value:#.2g}' for value in wanted]


def test_many_heads_have_no_numbers_and_few_ticks(tmp_path):
  make_calibration(tmp_path, num_layers=24, num_heads=32)
  figure = calibration_maps.draw_heads(read_calibration(tmp_path))
  for panel in figure.axes:
    if panel.images:
      assert not panel.texts
      assert list(panel.get_xticks()) == list(range(0, 32, 4))
      assert list(panel.get_yticks()) == list(range(0, 24, 4))


def test_bold_lines_are_means_by_length_or_by_keys(tmp_path):
  statistics, _ = make_calibration(
    tmp_path, sites=('encoder', 'decoder'), lengths=(256, 1024), key_groups=3
  )
  figure = calibration_curves.draw_lengths(read_calibration(tmp_path))
  for panel, site, place in (
    (figure.axes[1], 'encoder', 'length'),
    (figure.axes[3], 'decoder', 'keys'),
  ):
    lines = {line.get_label(): line for line in panel.lines}
    wanted = sorted(
      (m[place], np.mean(m['entropy_nats']))
      for m in statistics['measurements']
      if m['site'] == site and m['alignment'] == 'none'
    )
    got = lines['mean, without alignment'].get_xydata()
    np.testing.assert_allclose(got[:, 0], [x for x, _ in wanted])
    np.testing.assert_allclose(sorted(got[:, 1]), sorted(y for _, y in wanted))


def test_each_rule_is_named_beside_its_line_without_overlap(tmp_path):
  statistics, _ = make_calibration(tmp_path)
  figure = calibration_curves.draw_temperatures(read_calibration(tmp_path))
  (panel,) = figure.axes
  labels = {text.get_text(): text for text in panel.texts}
  del labels['training length']
  assert len(labels) == len(statistics['rules'])
  assert labels.keys() >= {
    'none',
    'log-n',
    'SSMax',
    'YaRN',
    'aligned (entropy)',
  }
  figure.draw_without_rendering()
  height = labels['none'].get_fontsize() * figure.dpi / 72 / panel.bbox.height
  gaps = np.diff(sorted(text.xyann[1] for text in labels.values()))
  assert gaps.min() > height


def test_rules_may_be_missing(tmp_path):
  make_calibration(tmp_path, with_rules=False)
  figure = calibration_curves.draw_temperatures(read_calibration(tmp_path))
  texts = [text.get_text() for text in figure.axes[0].texts]
  assert sorted(texts) == ['aligned (entropy)', 'training length']


def test_bars_are_means_by_distance(tmp_path):
  statistics, _ = make_calibration(tmp_path)
  figure = calibration_maps.draw_distances(read_calibration(tmp_path))
  first, second, third = figure.axes[0].containers
  for bars, measurement in zip(
    (first, second, third), statistics['measurements']
  ):
    mass = np.mean(measurement['sample']['distance_mass'], axis=(1, 2))
    heights = [bar.get_height() for bar in bars][: len(mass)]
    np.testing.assert_allclose(heights, mass)
  labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
  assert labels[:4] == ['0', '1', '2-3', '4-7'] and labels[-1] == '512+'
