"""The corpus: what is taken, how it is split, and that it is the same again."""

import gzip
import json

import pytest

from t5_align.tasks.data import corpus, documents

LINES = [f'value_{i} = find_the_one(value, in_these={i})' for i in range(40)]
TEXT = '\n'.join(LINES) + '\n'


def text(name):
  """A text of its own lines, long enough."""
  return TEXT.replace('value', f'{name}_value')


@pytest.fixture
def make_project(tmp_path):
  def make(name, files):
    listed = []
    for file, content in files.items():
      path = tmp_path / name / file
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(
        content if isinstance(content, bytes) else content.encode()
      )
      listed.append((file, path))
    return corpus.Project(name, '1.0', 'MIT', tuple(listed))

  return make


def project_in(split, make_project, files, skip=0):
  """A project whose name the hash puts into a split."""
  names = (f'project-{i}' for i in range(1000))
  found = (
    name for name in names if corpus.Project(name, '', '', ()).split == split
  )
  for _ in range(skip):
    next(found)
  return make_project(next(found), files)


def test_split_is_by_project_and_has_these_shares():
  splits = [
    corpus.Project(f'project-{i}', str(i), '', ()).split for i in range(2000)
  ]
  shares = [splits.count(split) / 2000 for split in corpus.SPLITS]
  assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.03)
  # Another version of a project is in the same split.
  assert corpus.Project('numpy', '1', '', ()).split == 'train'
  assert corpus.Project('numpy', '2', 'MIT', ()).split == 'train'


@pytest.mark.parametrize(
  ('content', 'why'),
  [
    ('x = 1\n', 'short'),
    (TEXT * 500, 'long'),
    (TEXT + 'x' * 501, 'a long line'),
    (TEXT.encode() + b'\xff', 'not UTF-8'),
    (TEXT + '\0', 'binary'),
    ('1234567890, ' * 9 + '\n' + TEXT, None),
    (('1234567890, ' * 40 + '\n') * 20, 'numbers'),
    (TEXT, None),
  ],
  ids=['short', 'long', 'line', 'utf8', 'binary', 'few', 'numbers', 'code'],
)
def test_takes_continuous_text_alone(make_project, content, why):
  projects = [make_project('numpy', {'a.py': content})]
  _, found = corpus.gather(projects)
  assert bool(found) == (why is None)


def test_line_ends_marks_and_gzip_are_undone(make_project):
  content = '\ufeff' + text('a').replace('\n', '\r\n')
  packed = gzip.compress(text('b').encode(), mtime=0)
  project = make_project(
    'numpy', {'a.py': content, 'b.txt.gz': packed, 'c.txt.gz': packed[:-9]}
  )
  _, found = corpus.gather([project])
  assert [(d.file, d.kind) for d in found] == [
    ('a.py', 'code'),
    ('b.txt.gz', 'prose'),
  ]
  assert [d.text for d in found] == [text('a'), text('b')]


def test_equal_texts_are_taken_once_and_sizes_are_bounded(make_project):
  files = {f'{i}.py': text(f'x{i // 2}') for i in range(20)}
  project = make_project('numpy', files)
  size = len(text('x0'))
  _, found = corpus.gather([project])
  assert len({d.text for d in found}) == len(found) == 10
  _, few = corpus.gather([project], project_bytes=4 * size)
  assert len(few) == 4
  assert set(few) < set(found)


def test_copies_of_training_text_leave_test(make_project):
  copy = text('train').splitlines()[:20] + text('own').splitlines()[:20]
  train = project_in('train', make_project, {'a.py': text('train')})
  held_out = project_in(
    'test',
    make_project,
    {
      'copy.py': '\n'.join(copy),
      'equal.py': text('train'),
      'own.py': text('own'),
    },
  )
  projects, found = corpus.gather([held_out, train])
  assert [(d.split, d.file) for d in found if d.split == 'test'] == [
    ('test', 'own.py')
  ]
  assert len(projects) == 2


def test_copies_of_the_library_leave_training(make_project):
  copy = text('library').splitlines()[:20] + text('own').splitlines()[:20]
  library = make_project('python', {'a.py': text('library')})
  train = project_in(
    'train',
    make_project,
    {
      'copy.py': '\n'.join(copy),
      'equal.py': text('library'),
      'own.py': text('own'),
    },
  )
  _, found = corpus.gather([train, library])
  assert [(d.split, d.file) for d in found] == [
    ('train', 'own.py'),
    ('test', 'a.py'),
  ]


def test_written_corpus_is_the_same_again_and_reads_as_documents(
  make_project, tmp_path
):
  projects = [
    project_in(split, make_project, {f'{split}.py': text(split)})
    for split in corpus.SPLITS
  ]
  manifests = [
    corpus.write(corpus.gather(order), tmp_path / f'corpus{i}')
    for i, order in enumerate((projects, projects[::-1]))
  ]
  assert manifests[0] == manifests[1]
  folder = tmp_path / 'corpus0'
  assert json.loads((folder / 'manifest.json').read_text()) == manifests[0]
  for split in corpus.SPLITS:
    part = manifests[0]['splits'][split]
    assert part['documents'] == 1
    assert part['characters'] == len(text(split))
    (project,) = part['projects']
    assert (project['version'], project['licence']) == ('1.0', 'MIT')
    (document,) = documents.read_documents(str(folder / f'{split}.jsonl'))
    assert document == text(split)
  changed = [*projects[:2], project_in('test', make_project, {'a.py': TEXT})]
  other = corpus.write(corpus.gather(changed), tmp_path / 'other')
  assert other['sha256'] != manifests[0]['sha256']


def test_debian_documents_need_a_permissive_notice(tmp_path):
  for name, licence in {'a': 'Expat', 'b': 'GPL-2', 'c': None}.items():
    folder = tmp_path / name
    folder.mkdir()
    (folder / 'README.txt').write_text(TEXT)
    (folder / 'changelog.txt').write_text(TEXT)
    notice = f'Files: *\nLicense: {licence}\n ...\n' if licence else 'Free.\n'
    (folder / 'copyright').write_text(notice)
  (project,) = corpus.debian_documents(tmp_path)
  assert project.name == 'debian-a'
  assert [name for name, _ in project.files] == ['README.txt']


def test_standard_library_has_no_tests_and_no_packages():
  project = corpus.standard_library()
  names = [name for name, _ in project.files]
  assert 'json/decoder.py' in names
  assert not [n for n in names if n.startswith(('test/', 'site-packages/'))]


def test_command_prints_the_hash(make_project, tmp_path, monkeypatch, capsys):
  project = make_project('numpy', {'a.py': TEXT})
  monkeypatch.setattr(corpus, 'standard_library', lambda: project)
  monkeypatch.setattr(corpus, 'installed_packages', list)
  monkeypatch.setattr(corpus, 'debian_documents', list)
  corpus.main(['--output', str(tmp_path / 'out'), '--project_bytes', '9999'])
  manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
  printed = capsys.readouterr().out
  assert printed.splitlines()[0].startswith('train: 1 projects, 1 documents')
  assert printed.endswith(f'sha256: {manifest["sha256"]}\n')


def test_a_folder_of_packages_is_all_there_is(
  make_project, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    corpus, 'standard_library', lambda: make_project('python', {'a.py': TEXT})
  )
  folder = tmp_path / 'packages'
  for name, licence in {'one': 'MIT', 'two': 'GPL-3.0-only'}.items():
    information = folder / f'{name}-1.0.dist-info'
    information.mkdir(parents=True)
    (information / 'METADATA').write_text(
      f'Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n'
      f'License-Expression: {licence}\n'
    )
    (folder / f'{name}.py').write_text(TEXT.replace('value', name))
    (information / 'RECORD').write_text(f'{name}.py,,\n')
  corpus.main(['--packages', str(folder), '--output', str(tmp_path / 'out')])
  manifest = json.loads((tmp_path / 'out' / 'manifest.json').read_text())
  projects = [p for s in manifest['splits'].values() for p in s['projects']]
  assert sorted(p['name'] for p in projects) == ['one', 'python']


def test_a_folder_of_packages_that_is_not_there(tmp_path, capsys):
  with pytest.raises(SystemExit):
    corpus.main(['--packages', str(tmp_path / 'no'), '--output', 'out'])
  assert 'no such folder' in capsys.readouterr().err
