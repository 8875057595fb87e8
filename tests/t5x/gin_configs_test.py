"""Gin files for T5X: each one parses, and says what it is named after."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import pytest

from t5_align import presets
from t5_align.temperature import Temperatures

_REASON = 'T5X is not importable; tests/t5x/README.md says how to make it so.'
pytest.importorskip('t5x.utils', reason=_REASON)

pytestmark = pytest.mark.filterwarnings('ignore')

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'gin_configs' / 't5x'
SIZED = sorted(
  path.stem
  for path in (FOLDER / 'models').glob('*.gin')
  if re.search(r'_(small|base|large|xl|xxl|3b|11b)$', path.stem)
)
FAMILIES = {
  't5_1_0': 't5-{}',
  't5_1_1': 't5-v1_1-{}',
  'lm_adapted': 't5-{}-lm-adapt',
  'flan_t5': 'flan-t5-{}',
  'byt5': 'byt5-{}',
  'umt5': 'umt5-{}',
}


# Gin's configuration is a process's own, and T5X's names are those of __main__.
# Not finalized: what the checks refuse is tested with them.
_PARSE = """
import importlib.util, sys
import gin
{binary}
gin.add_config_file_search_path({root!r})
gin.parse_config_files_and_bindings(
  {files!r}, {bindings!r}, finalize_config=False
)
{rest}
"""


def parse(files, bindings=(), binary='', rest=''):
  """Parse files in a process of its own; return what `rest` prints."""
  code = _PARSE.format(
    binary=f'from t5x.{binary} import *' if binary else '',
    root=str(ROOT),
    files=[f't5_align/gin_configs/t5x/{file}.gin' for file in files],
    bindings=list(bindings),
    rest=rest,
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  assert not done.returncode, done.stderr[-3000:]
  return done.stdout


def test_models_are_the_presets():
  """Every size of every family, and nothing else, with T5X's own defaults."""
  shown = parse(
    [],
    rest=f"""
from t5_align import network
for name in {SIZED!r}:
  gin.clear_config()
  gin.parse_config_files_and_bindings(
    ['t5_align/gin_configs/t5x/models/' + name + '.gin'], [])

  print(name, repr(gin.config.get_configurable(network.T5Config)()))
""",
  )
  found = {}
  for line in shown.splitlines():
    name, _, config = line.partition(' ')
    if name in SIZED:
      found[name] = config
  assert set(found) == set(SIZED)
  expected = set()
  for family, pattern in FAMILIES.items():
    for preset, content in presets.PRESETS.items():
      size = re.fullmatch(pattern.format('(.+)'), preset)
      if not size or f'{family}_{size[1]}' not in SIZED:
        continue
      name = f'{family}_{size[1]}'
      expected.add(name)
      config = dataclasses.replace(
        content.config,
        dtype='bfloat16',
        dropout_rate=0.0,
        temperatures=Temperatures(),
      )
      assert found[name] == repr(config), name
  assert expected == {name for name in SIZED if 'decoder' not in name}
  assert len(expected) == len(presets.PRESETS)


NEEDED = {
  'eval': ['EVAL_OUTPUT_DIR="e"', 'CHECKPOINT_PATH="c"'],
  'infer': [
    'INFER_OUTPUT_DIR="i"',
    'CHECKPOINT_PATH="c"',
    'TASK_FEATURE_LENGTHS={"inputs": 8, "targets": 8}',
  ],
  'finetune': [
    'MODEL_DIR="m"',
    'INITIAL_CHECKPOINT_PATH="c"',
    'TASK_FEATURE_LENGTHS={"inputs": 8, "targets": 8}',
    'TRAIN_STEPS=1',
  ],
  'pretrain': [
    'MODEL_DIR="m"',
    'TASK_FEATURE_LENGTHS={"inputs": 8, "targets": 8}',
    'TRAIN_STEPS=1',
  ],
}
KNOBS = [
  'temperature.Temperatures.encoder=[0.8, 0.9]',
  'temperature.Temperatures.cross=[[0.8, 0.9], [1.0, 1.1]]',
  'temperature.load.path="t.json"',
  'network.T5Config.emb_dim=16',
  'NUM_PARTITIONS=2',
  'BATCH_SIZE=2',
  'utils.RestoreCheckpointConfig.mode="latest"',
]


@pytest.mark.parametrize('model', ['t5_1_1_small', 'decoder_only_base'])
@pytest.mark.parametrize(
  'run', sorted(path.stem for path in (FOLDER / 'runs').glob('*.gin'))
)
def test_run_parses_with_every_knob(run, model):
  """As a flag binds it: after the files, without importing anything."""
  kind = 'DecoderOnlyModel' if 'decoder' in model else 'EncoderDecoderModel'
  knobs = [
    *KNOBS,
    f'models.{kind}.predict_batch_with_aux.num_decodes=2',
    'MIXTURE_OR_TASK_NAME="passkey_128"',
  ]
  binary = run if run in ('eval', 'infer') else 'train'
  parse([f'models/{model}', f'runs/{run}'], [*NEEDED[run], *knobs], binary)
