"""Calibrate a model: `t5-align calibrate`, or `python -m t5_align.calibrate`.

One gin-bound function, `calibrate`, measures attention at the training length
and at longer ones, solves for the temperatures that align it, and leaves

    temperatures.json    what eval, T5X and load_model read
    statistics.json      every statistic by site, layer, head and length
    *.png, calibration.html

Synopsis:

    t5-align calibrate                            # the bundled model
    t5-align calibrate --model FOLDER --data books/ --length 16384 \\
        --strategy entropy --granularity layer
    t5-align eval --model FOLDER \\
        --alignment t5_align_calibration/temperatures.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np

from t5_align import (
  calibration_text,
  command,
  opening,
  processes,
  provenance,
  results,
)
from t5_align import temperature as temperature_lib
from t5_align.alignment import closed_form, rules
from t5_align.alignment.calibration import Calibration, CalibrationOptions
from t5_align.alignment.objectives import STRATEGIES, Objective
from t5_align.checkpoints import CheckpointError
from t5_align.model import Model
from t5_align.temperature import SITES, Temperatures

_RUN = 't5_align/gin_configs/runs/calibrate.gin'
_BUNDLED = 't5_align/gin_configs/experiments/calibrate_bundled.gin'
_DEFAULT_TIMES = 8  # the training length

_OPTIONS = (
  'strategy',
  'method',
  'granularity',
  'sites',
  'form',
  'averaging',
  'selective',
  'clamp',
  'tolerance',
  'num_sequences',
)
# Short flag -> the macro or parameter that it binds.
_BINDINGS = {
  'model': 'CHECKPOINT_PATH',
  'output_dir': 'CALIBRATION_DIR',
  'vocabulary': 'VOCABULARY',
  **{
    name: f'calibrate_script.calibrate.{name}'
    for name in (
      'data',
      'length',
      'training_length',
      'seed',
      'dtype',
      'revision',
      'attention',
    )
  },
  **{name: f'calibration.CalibrationOptions.{name}' for name in _OPTIONS},
}


def calibrate(
  checkpoint_path: str,
  output_dir: str,
  options: CalibrationOptions,
  length: int | str | Sequence[int | str] | None = None,
  data: str | Sequence[str] | None = None,
  training_length: int | None = None,
  config: Any = None,
  vocabulary: str | None = None,
  dtype: str | None = None,
  revision: str | None = None,
  attention: str | None = None,
  seed: int = 0,
  split: str = 'dev',
) -> Temperatures:
  """Calibrate a checkpoint; report, and return its temperatures.

  Where there are several processes the first group measures, the others wait,
  and the first process writes.

  Args:
    checkpoint_path: a folder, a hub id or 'bundled'.
    output_dir: gets temperatures.json, statistics.json, plots and a page; what
      an earlier calibration left there is replaced.
    options: how temperatures are chosen.
    length: target length in tokens, or several, which options.form='by_length'
      interpolates between. None: 8 times the training length.
    data: text files, folders or patterns to measure on, in a sequence or
      separated by commas; None generates prompts.
    training_length: tokens; None for the model's own.
    config: a T5Config or a preset's name, in place of the checkpoint's own.
    vocabulary: a tokenizer's file or folder, in place of the checkpoint's own.
    dtype: of activations, 'float32' or 'bfloat16'; None for the device's best.
    revision: of a hub id.
    attention: implementation of attend(); None for the best that can.
    seed: of the generated prompts.
    split: of the generated prompts: 'train', 'dev' or 'test'. Don't evaluate on
      it.

  Raises:
    ValueError: a wrong option, a length that is not longer than the training
      length, or too little text for it.
  """
  lengths = None
  if length is not None:
    lengths = [_whole_number(n) for n in opening.as_list(length)]
    _check_lengths(lengths, options)
  command.check_writable(output_dir)
  model = opening.open_model(
    checkpoint_path,
    dtype=dtype,
    attention=attention,
    revision=revision,
    config=config,
    vocabulary=vocabulary,
    training_length=training_length,
    temperatures=Temperatures(),  # not those it has, which may not fit it
  )
  text = opening.open_text(model, data, split, seed)
  if lengths is None:
    lengths = [_DEFAULT_TIMES * (model.training_length or 0)]
  found = None
  if model.layout is None or model.layout.group == 0:
    calibration = model.calibrate(text, lengths, options)
    write(model, calibration, text, output_dir)
    found = calibration.temperatures.to_json()
  told = processes.gather('calibrated', results.to_json(found))
  if processes.is_writer():
    from t5_align import report

    report.show_calibration(output_dir)
  return Temperatures.from_json(json.loads(told[0]))


def write(
  model: Model,
  calibration: Calibration,
  text: calibration_text.CalibrationText,
  output_dir: str | os.PathLike,
) -> None:
  """Write temperatures.json and statistics.json, in the first process."""
  folder = pathlib.Path(output_dir)
  record = model.calibration_record(calibration, text)
  statistics = {
    'header': provenance.describe(model),
    'measurements': calibration.measurements(),
    'rules': _curves(model, calibration),
  }
  content = results.to_json(statistics, indent=1)
  if not processes.is_writer():
    return
  folder.mkdir(parents=True, exist_ok=True)
  # One right after the other: both are of this calibration, or neither is.
  temperature_lib.save(
    folder / 'temperatures.json', calibration.temperatures, **record
  )
  results.write_atomically(folder / 'statistics.json', content + '\n')


def _curves(model: Model, calibration: Calibration) -> list[dict[str, Any]]:
  """Return τ against keys for every rule that is a function of them."""
  first = calibration.training_length
  keys = np.geomspace(first, 4 * calibration.lengths[-1], 17)
  curves = []
  for site in calibration.training.sites:
    setting = rules.Setting(model.config, first, (site,))
    for name, rule in rules.RULES.items():
      try:
        temperature = getattr(rule.temperatures(setting), site)
      except rules.SettingError:
        continue  # measures the model
      curves.append(_curve(name, site, temperature, keys))
    own = getattr(calibration.temperatures, site)
    curves.append(_curve(calibration.name, site, own, keys))
    for strategy in STRATEGIES:
      name = f'{strategy}_closed_form'
      if name == calibration.name:
        continue
      tau = closed_form.model_curve(
        Objective(strategy), calibration.training.sites[site], keys.tolist()
      )
      points = [[float(n), t] for n, t in zip(keys, tau)]
      curves.append({'rule': name, 'site': site, 'points': points})
  return curves


def _curve(name, site, temperature, keys) -> dict[str, Any]:
  """One rule's mean τ over layers and heads at each number of keys."""
  values = temperature_lib.mean_over_heads(temperature, keys)
  points = [[float(n), float(tau)] for n, tau in zip(keys, values)]
  return {'rule': name, 'site': site, 'points': points}


def _check_lengths(lengths: Sequence[int], options: CalibrationOptions) -> None:
  """Raise unless every length that was asked for would count."""
  if len(set(lengths)) > 1 and options.form != 'by_length':
    raise ValueError(
      f'length is {", ".join(map(str, lengths))}, but a constant temperature'
      " is found at one length: give one, or form 'by_length' (--form"
      ' by_length), which follows them all.'
    )


def _whole_number(value: Any) -> int:
  try:
    return int(str(value))
  except ValueError:
    raise ValueError(
      f'length is {value!r}; wanted a number of tokens, such as 16384.'
    ) from None


def make_parser(prog: str) -> argparse.ArgumentParser:
  """Return the parser of the command's flags."""
  parser = command.Parser(
    prog=prog,
    description=(
      'Measure the attention of a T5 at its training length and at a longer'
      ' one, and choose temperatures that align it. Without --model: the model'
      ' that comes with the package, at 8 times its training length.'
    ),
    epilog=(
      'Exit codes: 0 done, 2 usage or configuration, 3 model or data'
      ' unreadable, 130 interrupted.'
    ),
    allow_abbrev=False,
  )
  command.add_model_flags(parser)
  add = parser.add_argument
  add(
    '--data',
    action='append',
    metavar='FILES',
    help='text files, folders or patterns to measure on; repeatable (default:'
    ' generated prompts of the development split)',
  )
  add(
    '--length',
    action='append',
    help='target length in tokens (default: 8 times the training length); with'
    " --form by_length several, '1024,4096'",
  )
  add('--strategy', help='entropy (default) or maximum_probability')
  add(
    '--granularity',
    help='a temperature for the model (default: each site), layer or head',
  )
  add('--sites', help=f'of {", ".join(SITES)}; with commas (default: encoder)')
  add(
    '--method',
    help='calibrated (default), or closed_form, from the spread of the logits',
  )
  add('--form', help='constant (default), or by_length: τ follows the keys')
  add('--averaging', help='arithmetic (default), or log, of the probability')
  add(
    '--selective',
    action='store_true',
    default=None,
    help='align only heads that disperse because of content',
  )
  add(
    '--clamp',
    action='store_true',
    default=None,
    help='set temperatures above 1 to 1',
  )
  add('--tolerance', type=float, help='of the statistic (default: 0.002)')
  add(
    '--num_sequences',
    type=int,
    help='at each target length (default: 8)',
  )
  add('--output_dir', help='default: t5_align_calibration')
  add('--seed', type=int, help='of the generated prompts (default: 0)')
  command.add_gin_flags(parser)
  return parser


def _run(argv: Sequence[str], prog: str) -> int:
  processes.start()
  command.run_gin(
    calibrate,
    make_parser(prog),
    argv,
    _BINDINGS,
    _RUN,
    _BUNDLED,
    convert={'sites': opening.as_list},
  )
  return 0


def main(
  argv: Sequence[str] | None = None, prog: str = 't5_align.calibrate'
) -> int:
  """Run the command; return its exit code."""
  return command.run(
    lambda arguments: _run(arguments, prog),
    argv,
    prog,
    unreadable=(CheckpointError,),
    resumes=False,
  )


if __name__ == '__main__':
  # gin files name t5_align.calibrate, not the copy that runs as __main__.
  from t5_align import calibrate as calibrate_script

  sys.exit(calibrate_script.main())
