"""The layout is a rule: who may import whom, and what a wheel contains.

A file imports only from files above it in `ORDER`. `__init__.py` is exempt,
because it re-exports. The statements are read with `ast`, lazy imports too,
so the rule holds for code that no test runs.
"""

import ast
from collections.abc import Iterator
import configparser
import fnmatch
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# One rank a line, lowest first. A folder ends in '/'; files of one rank may
# import each other, without cycles. The longest match decides.
ORDER = (
  ('t5_align/nearest.py',),
  ('t5_align/mask.py',),
  ('t5_align/position_bias.py',),
  ('t5_align/laws.py',),
  ('t5_align/temperature.py',),
  ('t5_align/kernels/',),
  ('t5_align/tokenizer_json.py',),
  ('t5_align/vocabulary.py',),
  ('t5_align/config.py',),
  ('t5_align/layers.py',),
  ('t5_align/attention.py',),
  ('t5_align/stacks.py',),
  ('t5_align/network.py',),
  ('t5_align/presets.py',),
  ('t5_align/parameters.py',),
  ('t5_align/sharding.py',),
  ('t5_align/checkpoints/',),
  ('t5_align/decoding.py',),
  ('t5_align/inference.py',),
  ('t5_align/device_kinds.py',),
  ('t5_align/plan.py',),
  ('t5_align/alignment/',),
  ('tasks/metrics.py', 'tasks/intervals.py'),
  ('tasks/measures.py',),
  ('tasks/data/',),
  ('tasks/generators/',),
  ('tasks/pretraining/',),
  ('t5_align/calibration_text.py',),
  ('t5_align/loss_log.py',),
  ('t5_align/run_settings.py',),
  ('t5_align/training_options.py',),
  ('t5_align/training_vocabulary.py',),
  ('t5_align/optimizers.py',),
  ('t5_align/batches.py',),
  ('t5_align/losses.py',),
  ('t5_align/training.py',),
  ('tasks/',),
  ('t5_align/launchers.py',),
  ('t5_align/processes.py',),
  ('t5_align/results.py',),
  ('t5_align/sample_files.py',),
  ('t5_align/provenance.py',),
  ('t5_align/prompts.py',),
  ('t5_align/preparation.py',),
  ('t5_align/answering.py',),
  ('t5_align/aligning.py',),
  ('t5_align/progress.py',),
  ('t5_align/evaluation.py',),
  ('t5_align/model.py',),
  ('t5_align/report/',),
  ('t5_align/t5x_models.py',),
  (
    't5_align/t5x_checkpoints.py',
    't5_align/t5x_checks.py',
    't5_align/t5x_processes.py',
  ),
  ('t5_align/command.py',),
  ('t5_align/opening.py',),
  (
    't5_align/eval.py',
    't5_align/infer.py',
    't5_align/calibrate.py',
    't5_align/train.py',
    't5_align/tasks_command.py',
  ),
  ('t5_align/cli.py',),
)
RUNNERS = ('t5_align/command.py', *ORDER[-2], *ORDER[-1])
# Packages without code: anyone may name them.
DATA_FOLDERS = ('gin_configs/', 't5_align/bundled/', 't5_align/bundled_lm/')

# Library -> the only places that may import it, '*' for a folder's own files
# but not its subfolders. An empty tuple: nobody.
ALLOWED_IMPORTERS = {
  'gin': ('t5_align/t5x_checks.py', *RUNNERS),
  'absl.flags': RUNNERS,
  'absl.app': RUNNERS,
  't5x': ('t5_align/t5x_models.py',),
  **dict.fromkeys(
    ('seqio', 'tensorflow', 'tensorflow_datasets', 'tensorflow_text'),
    (
      'tasks/*',
      'tasks/pretraining/registration.py',
      't5_align/evaluation.py',
      't5_align/t5x_models.py',
      't5_align/t5x_checks.py',
      *RUNNERS,
    ),
  ),
  **dict.fromkeys(
    ('pickle', 'cPickle', 'cloudpickle', 'dill', 'joblib', 'shelve'), ()
  ),
  **dict.fromkeys(('torch', 'transformers'), ()),
}
# Inside these functions only, on top of the above.
LAZY_IMPORTERS = {
  ('t5_align/vocabulary.py', 'to_seqio'): ('seqio',),
  ('tasks/data/tfds_text.py', 'read_texts'): (
    'tensorflow',
    'tensorflow_datasets',
  ),
}
SEQIO_FREE = ('tasks/metrics.py',)
# tasks/ describes data: it never computes with the network.
NOT_IN_TASKS = ('jax', 'jaxlib', 'flax', 'optax', 't5_align.network')


def source_files(root: pathlib.Path = ROOT) -> list[str]:
  """All Python files of the package, relative to the root, in order."""
  # Links to tasks/ and gin_configs/ in an uninstalled checkout are skipped.
  return sorted(
    path.relative_to(root).as_posix()
    for top in ('t5_align', 'tasks', 'gin_configs')
    for path in (root / top).rglob('*.py')
    if not any(part.is_symlink() for part in path.parents)
  )


def rank(file: str) -> int:
  """The line of `ORDER` that names the file or, failing that, its folder."""
  matches = [
    (len(entry), line)
    for line, entries in enumerate(ORDER)
    for entry in entries
    if file == entry or (entry.endswith('/') and file.startswith(entry))
  ]
  if not matches:
    raise LookupError(f'{file} has no place in the import order.')
  return max(matches)[1]


def module_name(file: str) -> str:
  """'tasks/generators/passkey.py' -> 't5_align.tasks.generators.passkey'."""
  parts = list(pathlib.PurePosixPath(file).with_suffix('').parts)
  if parts[0] != 't5_align':
    parts.insert(0, 't5_align')
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(file: str) -> Iterator[tuple[str, int, str | None]]:
  """Yields every imported name as (dotted name, line, enclosing function)."""
  package = module_name(file).split('.')
  if not file.endswith('__init__.py'):
    package = package[:-1]

  def visit(node: ast.AST, function: str | None):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name, node.lineno, function
    elif isinstance(node, ast.ImportFrom):
      base = package[: len(package) - node.level + 1] if node.level else []
      base = base + (node.module.split('.') if node.module else [])
      for alias in node.names:
        yield '.'.join([*base, alias.name]), node.lineno, function
    elif isinstance(node, ast.FunctionDef):
      function = node.name
    for child in ast.iter_child_nodes(node):
      yield from visit(child, function)

  yield from visit(ast.parse((ROOT / file).read_text('utf-8')), None)


def imported_file(name: str, files: dict[str, str]) -> str | None:
  """The file of ours that an import of the dotted name reads."""
  parts = name.split('.')
  for end in range(len(parts), 0, -1):
    if '.'.join(parts[:end]) in files:
      return files['.'.join(parts[:end])]
  return None


def imports_library(name: str, library: str) -> bool:
  """True for the library itself and everything inside it."""
  return name == library or name.startswith(library + '.')


def is_allowed(file: str, places: tuple[str, ...]) -> bool:
  """True where one of the places is the file or, with '*', its folder."""
  return any(
    file == place
    or (place.endswith('/*') and file.rpartition('/')[0] == place[:-2])
    for place in places
  )


FILES = source_files()
MODULES = {module_name(file): file for file in FILES}
ORDERED_FILES = [file for file in FILES if not file.endswith('__init__.py')]


def rank_of_target(target: str) -> int:
  """A package's `__init__.py` stands where its folder stands."""
  return rank(target) if target in ORDERED_FILES else rank(target[:-11])


@pytest.mark.parametrize('file', ORDERED_FILES)
def test_imports_only_from_files_above(file: str):
  wrong = []
  for name, line, _ in imports(file):
    target = imported_file(name, MODULES)
    if target is None or target == file:
      continue
    if target == 't5_align/__init__.py':
      if name != 't5_align.__version__':
        wrong.append(f'{file}:{line} takes {name} from the front door')
    elif not target.startswith(DATA_FOLDERS) and (
      rank_of_target(target) > rank(file)
    ):
      wrong.append(f'{file}:{line} imports {target}, which stands below it')
  assert not wrong


def test_no_import_cycles():
  """Files of one rank may import each other, but not in a circle."""
  graph = {
    file: {
      target
      for name, _, function in imports(file)
      if function is None
      and (target := imported_file(name, MODULES)) in ORDERED_FILES
      and target != file
    }
    for file in ORDERED_FILES
  }
  while leaves := {file for file, targets in graph.items() if not targets}:
    graph = {
      file: targets - leaves
      for file, targets in graph.items()
      if file not in leaves
    }
  assert not graph, f'These files import each other: {sorted(graph)}'


@pytest.mark.parametrize('file', FILES)
def test_libraries_stay_in_their_place(file: str):
  wrong = []
  for name, line, function in imports(file):
    for library, places in ALLOWED_IMPORTERS.items():
      lazy = LAZY_IMPORTERS.get((file, function or ''), ())
      if (
        imports_library(name, library)
        and library not in lazy
        and (file in SEQIO_FREE or not is_allowed(file, places))
      ):
        wrong.append(f'{file}:{line} imports {name}; only {places} may')
    if file.startswith('tasks/'):
      wrong.extend(
        f'{file}:{line} imports {name}; tasks describe data only'
        for library in NOT_IN_TASKS
        if imports_library(name, library)
      )
  assert not wrong


@pytest.mark.parametrize('file', FILES)
def test_no_pickle_is_ever_opened(file: str):
  for node in ast.walk(ast.parse((ROOT / file).read_text('utf-8'))):
    if isinstance(node, ast.keyword) and node.arg == 'allow_pickle':
      assert isinstance(node.value, ast.Constant) and node.value.value is False


def test_no_drawer_files():
  drawers = {'utils', 'util', 'common', 'helpers', 'misc'}
  assert not [f for f in FILES if pathlib.PurePath(f).stem in drawers]


def setup_cfg() -> configparser.ConfigParser:
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  return parser


def test_setup_cfg_lists_every_package():
  listed = setup_cfg()['options']['packages'].split()
  folders = [module_name(f) for f in FILES if f.endswith('__init__.py')]
  assert sorted(listed) == sorted(folders)
  assert listed == sorted(listed)


def test_setup_cfg_declares_every_import():
  """Nothing works only because another package happens to bring it."""
  requirements = setup_cfg()['options']['install_requires'].split('\n')
  declared = {re.split(r'[ \[]', line)[0] for line in requirements if line}
  # What TensorFlow's wheel is called differs; seqio brings the right one.
  declared |= {'tensorflow', 'tensorflow-cpu', 'jaxlib'}
  distributions = importlib.metadata.packages_distributions()
  missed = {
    f'{file}:{line} {name}'
    for file in FILES
    for name, line, _ in imports(file)
    if (top := name.partition('.')[0]) not in sys.stdlib_module_names
    and top not in ('t5_align', '__gin__', 't5x')
    and not declared
    & {d.lower().replace('_', '-') for d in distributions.get(top, [])}
  }
  assert not missed


@pytest.mark.parametrize('suffix', ['.py', '.gin'])
def test_every_folder_is_a_package(suffix: str):
  """gin finds a file by its package only where there is an `__init__.py`."""
  folders = {
    path.parent
    for top in ('t5_align', 'tasks', 'gin_configs')
    for path in (ROOT / top).rglob('*' + suffix)
  }
  assert not [f for f in folders if not (f / '__init__.py').exists()]


def test_wheel_takes_every_data_file():
  data = setup_cfg()['options.package_data']
  patterns = data['*'].replace(',', ' ').split()
  whole = [  # folders of a package, with all that is in them
    f'{package.replace(".", "/")}/{pattern.removesuffix("**")}'
    for package, pattern in data.items()
    if pattern.endswith('/**')
  ]
  missed = [
    path.relative_to(ROOT).as_posix()
    for top in ('t5_align', 'tasks', 'gin_configs')
    for path in (ROOT / top).rglob('*')
    if path.is_file()
    and path.suffix not in ('.py', '.pyc')
    and not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
    and not path.relative_to(ROOT).as_posix().startswith(tuple(whole))
  ]
  assert whole == ['t5_align/bundled_lm/params/']
  assert not missed


def test_import_is_light():
  """TensorFlow costs seconds and would take the GPU's memory."""
  heavy = ('tensorflow', 'seqio', 'gin', 'matplotlib', 'torch', 't5x')
  code = (
    f'import sys, t5_align; print(*[m for m in {heavy!r} if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.split() == []


def test_order_and_rules_can_fail():
  """The checks above see what they should see."""
  assert rank('tasks/generators/passkey.py') < rank('tasks/passkey.py')
  assert rank('t5_align/mask.py') < rank('t5_align/kernels/attend.py')
  with pytest.raises(LookupError, match='no place'):
    rank('t5_align/unheard_of.py')
  assert is_allowed('tasks/passkey.py', ('tasks/*',))
  assert not is_allowed('tasks/generators/passkey.py', ('tasks/*',))
  assert imports_library('tensorflow.io', 'tensorflow')
  assert not imports_library('tensorflow_text', 'tensorflow')
  assert imported_file('t5_align.mask.Mask', {'t5_align.mask': 'm'}) == 'm'
