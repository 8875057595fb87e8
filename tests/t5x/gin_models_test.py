"""Model files for T5X say what they are named after, with T5X and without it.

What they say of our network needs nothing of T5X.
"""

import dataclasses
import pathlib
import re
import subprocess
import sys

import pytest

from t5_align import presets
from t5_align.config import T5Config
from t5_align.temperature import Temperatures

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = {
  path.stem: path.read_text()
  for path in (ROOT / 'gin_configs' / 't5x' / 'models').glob('*.gin')
}
FAMILIES = {
  't5_1_0': 't5-{}',
  't5_1_1': 't5-v1_1-{}',
  'lm_adapted': 't5-{}-lm-adapt',
  'flan_t5': 'flan-t5-{}',
  'byt5': 'byt5-{}',
  'umt5': 'umt5-{}',
}
SIZES = ('small', 'base', 'large', 'xl', 'xxl', '3b', '11b')
# What the files name of T5X.
THEIRS = [
  'adafactor.Adafactor',
  'adafactor.standard_logical_factor_rules',
  'decoding.temperature_sample',
  'models.DecoderOnlyModel',
  'models.DecoderOnlyModel.predict_batch_with_aux',
  'models.EncoderDecoderModel',
  'models.EncoderDecoderModel.predict_batch_with_aux',
]

# Gin's configuration is a process's own.
_SHOW = """
import importlib.util, sys
import gin
unknown = {unknown!r}
if unknown:
  sys.modules['t5x'] = None
from t5_align import network
gin.add_config_file_search_path({root!r})
for name in {names!r}:
  gin.clear_config()
  gin.parse_config_file(
    't5_align/gin_configs/t5x/models/' + name + '.gin', skip_unknown=unknown
  )
  print(name, repr(gin.config.get_configurable(network.T5Config)()))
"""


def show(names, unknown):
  """Return what the network's configuration is after each file."""
  code = _SHOW.format(root=str(ROOT), names=list(names), unknown=unknown)
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  assert not done.returncode, done.stderr[-3000:]
  lines = [line.partition(' ') for line in done.stdout.splitlines()]
  return {name: config for name, _, config in lines if name in names}


def wanted():
  """Every size of every family, with T5X's own defaults."""
  plain = dict(dtype='bfloat16', dropout_rate=0.0, temperatures=Temperatures())
  found = {}
  for family, pattern in FAMILIES.items():
    for size in SIZES:
      if preset := presets.PRESETS.get(pattern.format(size)):
        found[f'{family}_{size}'] = dataclasses.replace(preset.config, **plain)
  assert len(found) == len(presets.PRESETS)
  # The decoder of T5 1.1, whose embedding is its output layer, too.
  for size in SIZES[:5]:
    found[f'decoder_only_{size}'] = dataclasses.replace(
      found[f't5_1_1_{size}'],
      num_encoder_layers=T5Config.num_encoder_layers,  # not used
      logits_via_embedding=True,
    )
  return {name: repr(config) for name, config in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize('unknown', [THEIRS, False], ids=['without', 'with'])
@pytest.mark.filterwarnings('ignore')
def test_each_is_the_preset_it_is_named_after(unknown):
  if not unknown:
    reason = 'T5X is not importable; README.md beside this file says how.'
    pytest.importorskip('t5x.models', reason=reason)
  expected = wanted()
  assert show(expected, unknown) == expected


def test_there_are_no_other_files_than_they_include():
  included = re.findall(
    r"^include 't5_align/gin_configs/t5x/models/(\w+)\.gin'$",
    '\n'.join(FILES.values()),
    re.MULTILINE,
  )
  assert set(FILES) == {*wanted(), *included}
