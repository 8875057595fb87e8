"""Licences: permissive ones are known, and one other is enough to say no."""

import pytest

from t5_align.tasks.data import licences


@pytest.mark.parametrize(
  ('expression', 'expected'),
  [
    ('MIT', True),
    ('BSD-3-Clause AND 0BSD AND Zlib', True),
    ('Apache-2.0 OR GPL-3.0-only', True),
    ('Apache-2.0 WITH LLVM-exception', True),
    ('MIT AND MPL-2.0', False),
    ('GPL-3.0-only', False),
    ('(MIT OR GPL-3.0-only) AND BSD-3-Clause', False),
    ('', False),
  ],
)
def test_spdx_expressions(expression, expected):
  assert licences.is_permissive(expression) == expected


def osi(name):
  return f'License :: OSI Approved :: {name}'


@pytest.mark.parametrize(
  ('stated', 'expected'),
  [
    (('MIT', [], None), 'MIT'),
    (('MPL-2.0', [osi('MIT License')], None), None),
    ((None, ['Topic :: Text', osi('BSD License')], None), 'BSD License'),
    ((None, [osi('BSD License'), osi('GNU GPL')], None), None),
    ((None, [osi('BSD License')], 'the text\nof it'), 'BSD License'),
    ((None, ['License :: OSI Approved'], 'BSD'), 'BSD'),
    ((None, ['Topic :: Text'], 'Apache 2.0\nand its text'), 'Apache 2.0'),
    ((None, [], 'As you like'), None),
    ((None, [], None), None),
  ],
)
def test_python_packages(stated, expected):
  assert licences.of_package(*stated) == expected


@pytest.mark.parametrize(
  ('notice', 'expected'),
  [
    ('Files: *\nLicense: Expat\n\nFiles: a\nLicense: ISC\n', 'Expat, ISC'),
    ('Files: *\nLicense: Expat\n\nFiles: a\nLicense: GPL-2+\n', None),
    ('This package may be copied freely.\n', None),
  ],
)
def test_debian_packages(notice, expected):
  assert licences.of_debian_package(notice) == expected
