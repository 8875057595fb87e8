"""Which packages are under permissive licences, by what they state.

A package counts only if all that it states is known to be permissive: a name
that is not listed here, however free, leaves it out.

Sources: https://spdx.org/licenses, https://packaging.python.org/en/latest/
specifications/core-metadata, https://www.debian.org/doc/packaging-manuals/
copyright-format/1.0.

Synopsis:

    is_permissive('MIT OR GPL-2.0-only')                      # True
    of_package(None, ['License :: OSI Approved :: MIT License'], None)
    of_debian_package('License: Expat\\n …')          # 'Expat'
"""

from collections.abc import Sequence
import re

PERMISSIVE = frozenset(
  """0BSD Apache-2.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0
  CNRI-Python HPND ISC MIT MIT-CMU MIT-0 PSF-2.0 Python-2.0 Unlicense
  Zlib""".split()
)
# As classifiers, the field `License` and Debian write them, in lower case.
_NAMES = frozenset(
  [
    *(name.lower() for name in PERMISSIVE),
    *('apache 2', 'apache 2.0', 'apache license 2.0', 'apache-2'),
    *('apache 2.0 license', 'apache license'),
    *('apache license, version 2.0', 'apache software license'),
    *('bsd', 'bsd license', '3-clause bsd license', 'bsd 3-clause license'),
    *('bsd-2-clauses', 'bsd-3-clauses', 'bsd 3-clause', 'new bsd'),
    *('mit license', 'the mit license', 'expat', 'public-domain', 'x11'),
    *('isc license', 'isc license (iscl)', 'zlib/libpng license'),
    *('python software foundation license', 'the unlicense (unlicense)'),
  ]
)


def is_permissive(expression: str) -> bool:
  """Whether an SPDX expression names permissive licences alone.

  Of 'A OR B' the user may choose one; to all of 'A AND B' one is bound.
  Parentheses and unknown names are not permissive.
  """
  return all(
    any(_bare(name) in PERMISSIVE for name in part.split(' OR '))
    for part in expression.split(' AND ')
  )


def _bare(name: str) -> str:
  """Return a licence without its exception, which only permits more."""
  return name.split(' WITH ')[0].strip()


def of_package(
  expression: str | None, classifiers: Sequence[str], field: str | None
) -> str | None:
  """Return the licence that a Python package's metadata state, if permissive.

  Args:
    expression: `License-Expression`, which decides where there is one.
    classifiers: `Classifier`; those of licences decide where there are any.
    field: `License`, a name or the whole text; the first line of it is read.
  """
  if expression:
    return expression if is_permissive(expression) else None
  names = [
    classifier.split(' :: ')[-1].strip()
    for classifier in classifiers
    if classifier.startswith('License ::')
    and not classifier.endswith(':: OSI Approved')
  ]
  names = names or (field or '').strip().splitlines()[:1]
  known = [name.lower() in _NAMES for name in names]
  return ', '.join(names) if known and all(known) else None


def of_debian_package(copyright_file: str) -> str | None:
  """Return the licences of a Debian package's source, if all are permissive.

  Args:
    copyright_file: its text; only the machine-readable form is understood,
      which has one paragraph a group of files.
  """
  stated = re.findall(r'^License:[ \t]*(\S.*)$', copyright_file, re.MULTILINE)
  names = sorted(set(stated))
  permissive = all(name.strip().lower() in _NAMES for name in names)
  return ', '.join(names) if names and permissive else None
