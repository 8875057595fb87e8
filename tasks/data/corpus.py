"""A corpus of source code and documentation, made from what is installed.

Its text is what most machines hold or can install under a permissive licence:
Python's standard library, the installed Python packages, and the documentation
of Debian's packages. Nothing is downloaded, and no text of it is in this
repository. It is decided before anything is trained:

- whose text: a package that states permissive licences alone (`licences`);
- of what: Python code and plain prose, from `MIN_CHARACTERS` to
  `MAX_CHARACTERS` long, without vendored copies, tests or data in disguise;
- how much: at most `project_bytes` of one project, the files of the smallest
  hashes, so that no project is most of the corpus;
- which split: Python's own library is test, since tasks read it on every
  machine; any other project goes to train, dev or test by a hash of its name.
  Of two equal texts one is kept; a text of train that shares a third of its
  longer lines with Python's library is left out, and one of dev or test that
  shares a third with train.

The same packages of the same versions give the same bytes, hence the same
SHA-256, which `manifest.json` states with the projects, their versions, their
licences and what was counted.

Synopsis:

    python -m t5_align.tasks.data.corpus --output corpus
    # corpus/{train,dev,test}.jsonl: one document a row, as `documents` reads
    # them, with its project, file and kind ('code' or 'prose') under `meta`

    pip install --no-deps --target packages -r tasks/data/corpus_packages.txt
    python -m t5_align.tasks.data.corpus --packages packages --output corpus
    # the corpus of the bundled models, of these versions and no others

    manifest = write(gather(), 'corpus')
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import gzip
import hashlib
from importlib import metadata
import json
import pathlib
import re
import sys
import sysconfig
import zlib

from t5_align.tasks.data import licences

SPLITS = ('train', 'dev', 'test')
# Shares of the projects.
_DEV = _TEST = 0.15
# Another salt is another split: never change it for a better result.
_SALT = 't5_align corpus 1'
# `perplexity_files` reads it where no other text is given.
_LIBRARY = 'python'

MIN_CHARACTERS = 1_000
MAX_CHARACTERS = 200_000
PROJECT_BYTES = 16 * 2**20
# Longer lines are data: tables, encoded files, minified code.
_MAX_LINE = 500
_MAX_DIGITS = 0.2
# Lines that decide whether a text is a copy; shorter ones are everywhere.
_LONG_LINE = 30
_MAX_SHARED = 1 / 3

_KINDS = {'.py': 'code', '.rst': 'prose', '.md': 'prose', '.txt': 'prose'}
# Copies of other projects, and files without continuous text.
_SKIPPED_FOLDERS = frozenset(
  """_vendor _vendored vendor vendored vendors third_party extern externals
  _distutils test tests testing testdata idle_test lib2to3 site-packages
  dist-packages __pycache__""".split()
)
_SKIPPED_NAMES = ('_pb2.py', '_pb2_grpc.py', 'top_level.txt', 'SOURCES.txt')


@dataclasses.dataclass(frozen=True)
class Project:
  """One source of text.

  Attributes:
    name: in lower case, with '-'; decides the split.
    version: of what is installed.
    licence: as its metadata state it.
    files: (name within the project, where it lies).
  """

  name: str
  version: str
  licence: str
  files: tuple[tuple[str, pathlib.Path], ...]

  @property
  def split(self) -> str:
    """The split that all of its text belongs to."""
    if self.name == _LIBRARY:
      return 'test'
    share = int(_hash(f'{_SALT}/{self.name}')[:8], 16) / 2**32
    if share < _TEST:
      return 'test'
    return 'dev' if share < _TEST + _DEV else 'train'


@dataclasses.dataclass(frozen=True)
class Document:
  """One text.

  Attributes:
    project: name of its project.
    split: 'train', 'dev' or 'test'.
    file: name within the project.
    kind: 'code' or 'prose'.
    text: lines end in '\\n'.
  """

  project: str
  split: str
  file: str
  kind: str
  text: str


def standard_library() -> Project:
  """Return Python's own modules."""
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  files = [(p.relative_to(root).as_posix(), p) for p in root.rglob('*.py')]
  version = '.'.join(map(str, sys.version_info[:3]))
  return Project(_LIBRARY, version, 'PSF-2.0', tuple(_wanted(files)))


def installed_packages(
  folder: str | pathlib.Path | None = None,
) -> Iterator[Project]:
  """Yield the installed packages that are permissively licensed.

  Args:
    folder: where `pip install --target` put them; None: where Python looks.
  """
  path = sys.path if folder is None else [str(folder)]
  for package in metadata.distributions(path=path):
    stated = package.metadata.get_all
    licence = licences.of_package(
      next(iter(stated('License-Expression') or ()), None),
      stated('Classifier') or (),
      next(iter(stated('License') or ()), None),
    )
    if licence:
      files = [
        (path.as_posix(), pathlib.Path(str(package.locate_file(path))))
        for path in package.files or ()
      ]
      name = re.sub(r'[-_.]+', '-', package.metadata['Name']).lower()
      yield Project(name, package.version, licence, tuple(_wanted(files)))


def debian_documents(
  root: str | pathlib.Path = '/usr/share/doc',
) -> Iterator[Project]:
  """Yield the Debian packages whose whole source is permissively licensed."""
  for notice in sorted(pathlib.Path(root).glob('*/copyright')):
    text = notice.read_text(encoding='utf-8', errors='replace')
    licence = licences.of_debian_package(text)
    if licence:
      folder = notice.parent
      files = [
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob('*')
        if not path.is_symlink() and 'changelog' not in path.name.lower()
      ]
      name = f'debian-{folder.name}'
      yield Project(name, '', licence, tuple(_wanted(files)))


def _wanted(
  files: Iterable[tuple[str, pathlib.Path]],
) -> Iterator[tuple[str, pathlib.Path]]:
  """Yield the files that may hold text, sorted by name."""
  for name, path in sorted(files):
    folders = pathlib.PurePosixPath(name).parts[:-1]
    if (
      _kind(name)
      and not name.endswith(_SKIPPED_NAMES)
      # Scripts of an environment, and of pip install --target.
      and not name.startswith(('..', 'bin/'))
      and not any(
        f in _SKIPPED_FOLDERS or f.endswith('.dist-info') for f in folders
      )
    ):
      yield name, path


def _kind(name: str) -> str | None:
  """Return what a file of this name holds; None if it is not wanted."""
  return _KINDS.get(pathlib.PurePosixPath(name.removesuffix('.gz')).suffix)


def gather(
  projects: Iterable[Project] | None = None,
  project_bytes: int = PROJECT_BYTES,
) -> tuple[list[Project], list[Document]]:
  """Read the corpus.

  Args:
    projects: by default all that this machine holds.
    project_bytes: at most this much UTF-8 of one project.

  Returns:
    The projects that gave any text, and their documents, both sorted by name.
  """
  if projects is None:
    projects = (
      standard_library(),
      *installed_packages(),
      *debian_documents(),
    )
  by_name = {project.name: project for project in projects}
  ordered = sorted(by_name.values(), key=lambda project: project.name)
  seen = set()
  documents = []
  # The library first, then train: what they hold is no text of what follows.
  for project in sorted(
    ordered, key=lambda p: (p.name != _LIBRARY, SPLITS.index(p.split))
  ):
    documents += _read_project(project, project_bytes, seen)
  documents = _without_copies(documents)
  documents.sort(key=lambda d: (d.project, d.file))
  giving = {document.project for document in documents}
  return [p for p in ordered if p.name in giving], documents


def _read_project(
  project: Project, project_bytes: int, seen: set[str]
) -> Iterator[Document]:
  """Yield a project's documents, up to a size, whose texts are new."""
  size = 0
  for name, path in sorted(project.files, key=lambda f: _hash(f[0])):
    text = _read(path)
    if text is None or not _is_continuous(text) or _hash(text) in seen:
      continue
    size += len(text.encode())
    if size > project_bytes:
      return
    seen.add(_hash(text))
    kind = _kind(name)
    assert kind
    yield Document(project.name, project.split, name, kind, text)


def _read(path: pathlib.Path) -> str | None:
  """Return a file's text; None if it is gone or not UTF-8."""
  try:
    content = path.read_bytes()
    if path.suffix == '.gz':
      content = gzip.decompress(content)
    text = content.decode('utf-8-sig')
  except (OSError, UnicodeDecodeError, EOFError, zlib.error):
    return None
  return text.replace('\r\n', '\n').replace('\r', '\n')


def _is_continuous(text: str) -> bool:
  """Whether a text is of the wanted length, and no data."""
  return (
    MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS
    and '\0' not in text
    and max(map(len, text.split('\n'))) <= _MAX_LINE
    and sum(map(str.isdigit, text)) <= _MAX_DIGITS * len(text)
  )


def _without_copies(documents: Sequence[Document]) -> list[Document]:
  """Drop what is largely in the library, then what is largely in train."""
  library = [d for d in documents if d.project == _LIBRARY]
  others = [d for d in documents if d.project != _LIBRARY]
  known = _all_long_lines(library)
  train = [
    d for d in others if d.split == 'train' and _shared(d, known) < _MAX_SHARED
  ]
  known |= _all_long_lines(train)
  held_out = [
    d for d in others if d.split != 'train' and _shared(d, known) < _MAX_SHARED
  ]
  return [*library, *train, *held_out]


def _all_long_lines(documents: Iterable[Document]) -> set[int]:
  """Return hashes of the telling lines of documents."""
  return set().union(*(_long_lines(document.text) for document in documents))


def _shared(document: Document, known: set[int]) -> float:
  """Return the share of a document's telling lines that are known."""
  lines = _long_lines(document.text)
  return len(lines & known) / max(len(lines), 1)


def _long_lines(text: str) -> set[int]:
  """Return hashes of the lines that are long enough to be telling."""
  lines = (line.strip() for line in text.split('\n'))
  return {
    int(_hash(line)[:16], 16) for line in lines if len(line) >= _LONG_LINE
  }


def _hash(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def write(
  gathered: tuple[Sequence[Project], Sequence[Document]],
  folder: str | pathlib.Path,
) -> dict:
  """Write the splits and the manifest.

  Args:
    gathered: from `gather`.
    folder: gets train.jsonl, dev.jsonl, test.jsonl and manifest.json.

  Returns:
    The manifest: `sha256` of the corpus, and of each split, with its counts
    and its projects.
  """
  projects, documents = gathered
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  manifest: dict = {'sha256': '', 'splits': {}}
  for split in SPLITS:
    chosen = [document for document in documents if document.split == split]
    content = ''.join(_row(document) for document in chosen).encode()
    (folder / f'{split}.jsonl').write_bytes(content)
    manifest['splits'][split] = {
      'sha256': hashlib.sha256(content).hexdigest(),
      'documents': len(chosen),
      'characters': sum(len(document.text) for document in chosen),
      'projects': [_describe(p, chosen) for p in projects if p.split == split],
    }
  hashes = [part['sha256'] for part in manifest['splits'].values()]
  manifest['sha256'] = _hash(' '.join(hashes))
  text = json.dumps(manifest, indent=2) + '\n'
  (folder / 'manifest.json').write_text(text, encoding='utf-8')
  return manifest


def _row(document: Document) -> str:
  meta = {
    'project': document.project,
    'file': document.file,
    'kind': document.kind,
  }
  return json.dumps({'text': document.text, 'meta': meta}) + '\n'


def _describe(project: Project, documents: Sequence[Document]) -> dict:
  """Return a project's entry in the manifest."""
  own = [d for d in documents if d.project == project.name]
  characters = {
    kind: sum(len(d.text) for d in own if d.kind == kind)
    for kind in ('code', 'prose')
  }
  return {
    'name': project.name,
    'version': project.version,
    'licence': project.licence,
    'documents': len(own),
    'characters': characters,
  }


def main(arguments: Sequence[str] | None = None) -> None:
  """Write the corpus of this machine and print its hash."""
  parser = argparse.ArgumentParser(
    prog='python -m t5_align.tasks.data.corpus',
    description='Gather source code and documentation from what is installed.',
  )
  parser.add_argument('--output', required=True, help='folder for the corpus')
  parser.add_argument(
    '--project_bytes',
    type=int,
    default=PROJECT_BYTES,
    help='at most this much of one project (default: %(default)s)',
  )
  parser.add_argument(
    '--packages',
    help="folder of pip install --target: these packages and Python's library"
    ' alone (default: whatever this machine holds)',
  )
  options = parser.parse_args(arguments)
  projects = None
  if options.packages is not None:
    if not pathlib.Path(options.packages).is_dir():
      parser.error(f'--packages {options.packages}: no such folder.')
    projects = [standard_library(), *installed_packages(options.packages)]
  gathered = gather(projects, options.project_bytes)
  manifest = write(gathered, options.output)
  for split, part in manifest['splits'].items():
    print(
      f'{split}: {len(part["projects"])} projects, {part["documents"]}'
      f' documents, {part["characters"]} characters'
    )
  print(f'sha256: {manifest["sha256"]}')


if __name__ == '__main__':
  main()
