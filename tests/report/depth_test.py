"""Scores by length and depth, from samples files."""

import numpy as np

from t5_align.report import depth
from tests.report.made_up_results import (
  ALIGNMENTS,
  CODE,
  DOCUMENTS,
  PASSKEYS,
  TEXTS,
  make_results,
)


def test_cells_are_means_over_sizes_and_tenths(tmp_path):
  _, rows = make_results(tmp_path, PASSKEYS)
  maps = depth.read_depth_maps(tmp_path, rows)
  assert [found.alignment for found in maps] == list(ALIGNMENTS)
  none = maps[0]
  assert (none.group, none.unit, none.sizes) == (
    'passkey',
    'tokens',
    (128, 256, 512),
  )
  # Twenty samples, two a tenth; at 512 the last twelve are wrong.
  np.testing.assert_array_equal(none.counts, 2)
  np.testing.assert_array_equal(none.scores[2], [0.5] * 8 + [0, 0])
  np.testing.assert_array_equal(none.scores[0], [1] * 7 + [0.5] * 3)
  np.testing.assert_array_equal(maps[1].scores, 1)


def test_places_of_one_size_share_a_column(tmp_path):
  _, rows = make_results(tmp_path, DOCUMENTS)
  found = depth.read_depth_maps(tmp_path, rows)[0]
  assert found.sizes == (10, 20)
  wanted = [[20] + [0] * 8 + [20], [20, 0, 0, 0, 20, 0, 0, 0, 0, 20]]
  np.testing.assert_array_equal(found.counts, wanted)
  assert np.isnan(found.scores[0, 1])
  assert ('multi_doc_qa', '20 documents', '0.4-0.5', 'none', '1.00', '20') in (
    depth.lines([found])
  )
  assert len(depth.lines([found])) == 5


def test_no_map_without_depths_or_with_one(tmp_path):
  _, rows = make_results(tmp_path, [*CODE, *TEXTS, DOCUMENTS[0]])
  assert depth.read_depth_maps(tmp_path, rows) == []
  _, rows = make_results(tmp_path, PASSKEYS[:1], depth=0.0)
  assert depth.read_depth_maps(tmp_path, rows) == []


def test_samples_that_are_gone_are_left_out(tmp_path):
  _, rows = make_results(tmp_path, PASSKEYS)
  for file in (tmp_path / 'samples').glob('*none*'):
    file.unlink()
  maps = depth.read_depth_maps(tmp_path, rows)
  assert [found.alignment for found in maps] == [ALIGNMENTS[1]]
  depth.write_depth_maps(maps, tmp_path / 'depth_maps.png')
