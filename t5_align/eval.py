"""Evaluate a model: `t5-align eval`, or `python -m t5_align.eval`.

One gin-bound function, `evaluate`. Short flags become bindings of the macros
in runs/eval.gin, so both styles, mixed as one likes, end in the same call; and
OUTPUT_DIR/config.gin, which is written beside the results, repeats any run.

Synopsis:

    t5-align eval                                    # the bundled model
    t5-align eval --model FOLDER --task 'passkey_*' --alignment none,0.8
    python -m t5_align.eval --gin_file=t5_align/gin_configs/runs/eval.gin \\
        --gin.CHECKPOINT_PATH="'FOLDER'" --gin.BATCH_SIZE=4 \\
        --gin.MIXTURE_OR_TASK_NAME="'line_retrieval_200'"
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import pathlib
import sys
from typing import Any

from rich import console as rich_console

from t5_align import (
  aligning,
  command,
  evaluation,
  opening,
  preparation,
  processes,
  prompts,
  results,
)
from t5_align import plan as plan_lib
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.checkpoints import CheckpointError
from t5_align.tasks import generators
from t5_align.temperature import Temperatures

_RUN = 't5_align/gin_configs/runs/eval.gin'
_BUNDLED = 't5_align/gin_configs/experiments/bundled.gin'
_SOME_FAILED = 1

# Short flag -> the macro or parameter that it binds.
_BINDINGS = {
  'model': 'CHECKPOINT_PATH',
  'task': 'MIXTURE_OR_TASK_NAME',
  'alignment': 'TEMPERATURES',
  'output_dir': 'EVAL_OUTPUT_DIR',
  'batch_size': 'BATCH_SIZE',
  'num_partitions': 'NUM_PARTITIONS',
  'max_input_tokens': 'TASK_FEATURE_LENGTHS',
  'vocabulary': 'VOCABULARY',
  'template': 'eval_script.evaluate.prompt_template',
  'granularity': 'calibration.CalibrationOptions.granularity',
  'sites': 'calibration.CalibrationOptions.sites',
  **{
    name: f'eval_script.evaluate.{name}'
    for name in (
      'limit',
      'seed',
      'truncation',
      'data',
      'training_length',
      'calibration_data',
      'dtype',
      'revision',
      'attention',
      'plan',
      'devices',
    )
  },
}


def evaluate(
  tasks: str | Sequence[str],
  checkpoint_path: str,
  output_dir: str,
  alignments: Any = None,
  task_feature_lengths: Mapping[str, int | None] | None = None,
  batch_size: int = 8,
  config: Any = None,
  vocabulary: str | None = None,
  dtype: str | None = None,
  revision: str | None = None,
  attention: str | None = None,
  limit: int | None = None,
  seed: int = 0,
  split: str = 'test',
  truncation: str = 'error',
  prompt_template: str | None = None,
  data: str | None = None,
  training_length: int | None = None,
  calibration: CalibrationOptions | None = None,
  calibration_data: str | Sequence[str] | None = None,
  num_partitions: int = 1,
  plan: bool = False,
  devices: str | None = None,
) -> list[dict[str, Any]]:
  """Evaluate a checkpoint on tasks under alignments; report and return rows.

  Args:
    tasks: names or globs, in a sequence or separated by commas.
    checkpoint_path: a folder, a hub id or 'bundled'.
    output_dir: gets results.json, samples/, report.html and a plot; holds an
      earlier run of the same configuration or nothing.
    alignments: one or several of what parse_alignment takes. None: 'none', and
      the model's own temperatures if it has any.
    task_feature_lengths: 'inputs': the longest prompt in tokens, EOS included;
      'targets': the longest answer. Left out: no limit, and the task's own.
    batch_size: prompts generated together.
    config: a T5Config or a preset's name, in place of the checkpoint's own.
    vocabulary: a tokenizer's file or folder, in place of the checkpoint's own.
    dtype: of activations, 'float32' or 'bfloat16'; None for the device's best.
    revision: of a hub id.
    attention: implementation of attend(); None for the best that can.
    limit: samples of each task; None for all of them.
    seed: of the generated samples.
    split: of the generated samples: 'train', 'dev' or 'test'.
    truncation: of prompts over the limit: 'error', 'left', 'right', 'middle'.
    prompt_template: name or JSON file of the prompts' wording; None for the
      task's.
    data: file or folder of published samples; None to generate them.
    training_length: tokens; None for the model's own.
    calibration: how 'entropy' and 'maximum_probability' are calibrated.
    calibration_data: text files to calibrate on; None for generated prompts of
      another split.
    num_partitions: devices that share one copy of the parameters.
    plan: only print what memory the run takes; nothing is loaded.
    devices: that a plan is for, such as '8xH200' or 'v4-32'; None for those
      that are here.

  Returns:
    The rows of results.json, those of earlier runs in the folder included.
  """
  lengths = dict(task_feature_lengths or {})
  if plan:
    longest = lengths.get('inputs')
    if not longest:
      raise ValueError(
        'A plan needs the longest prompt in tokens: set --max_input_tokens.'
      )
    found = plan_lib.plan(
      checkpoint_path,
      longest,
      devices=devices,
      num_partitions=num_partitions,
      batch_size=batch_size,
      max_new_tokens=lengths.get('targets') or 64,
      config=config,
      dtype=dtype,
      attention=attention,
      revision=revision,
    )
    if processes.is_writer():
      print(found)
    return []
  settings = prompts.Settings(
    batch_size=batch_size,
    limit=limit,
    seed=seed,
    split=split,
    max_input_tokens=lengths.pop('inputs', None),
    max_new_tokens=lengths.pop('targets', None),
    truncation=truncation,
    template=prompt_template,
    data=data,
  )
  if lengths:
    raise ValueError(
      f'task_feature_lengths has {", ".join(lengths)}; wanted inputs, targets.'
    )
  definitions = generators.select_tasks(opening.as_list(tasks))
  command.check_writable(output_dir)
  model = opening.open_model(
    checkpoint_path,
    dtype=dtype,
    attention=attention,
    revision=revision,
    config=config,
    vocabulary=vocabulary,
    training_length=training_length,
    # Batches are padded: no larger than there are samples to fill them.
    batch_size=min(batch_size, limit or batch_size),
    num_partitions=num_partitions,
  )
  if alignments is None:
    own = [model.temperatures] * (model.temperatures != Temperatures())
    alignments = [results.BASELINE, *own]
  # Tasks are made ready while the model is calibrated and asked.
  asked = preparation.Preparation(definitions, model, settings)
  console = rich_console.Console(stderr=True, quiet=not processes.is_writer())
  context = aligning.Context(
    asked,
    settings,
    calibration or CalibrationOptions(),
    pathlib.Path(output_dir),
    lambda split: opening.open_text(model, calibration_data, split, seed),
    lambda message: console.print(
      message, highlight=False, markup=False, soft_wrap=True
    ),
  )
  _, rows = evaluation.evaluate(
    model,
    asked,
    [
      aligning.parse_alignment(a, model, context)
      for a in opening.as_list(alignments)
    ],
    output_dir,
    settings,
    console,
  )
  if processes.is_writer():
    # Not before there is something to show: matplotlib takes a second.
    from t5_align import report

    report.show(output_dir)
  return rows


def make_parser(prog: str) -> argparse.ArgumentParser:
  """Return the parser of the command's flags."""
  parser = command.Parser(
    prog=prog,
    description=(
      'Evaluate a T5 on long inputs, with and without attention temperatures.'
      ' Without --model: the model that comes with the package, at 1 to 16'
      ' times its training length, in a few minutes on a CPU.'
    ),
    epilog=(
      'An interrupted run continues when the same command is given again.'
      ' Exit codes: 0 all scored, 1 some samples failed, 2 usage or'
      ' configuration, 3 model or data unreadable, 130 interrupted.'
    ),
    allow_abbrev=False,
  )
  command.add_model_flags(parser)
  add = parser.add_argument
  add(
    '--task',
    action='append',
    metavar='NAME',
    help="task, such as passkey_4096; repeatable, 'a,b', 'passkey_*'",
  )
  add(
    '--alignment',
    action='append',
    metavar='ALIGNMENT',
    help='none; entropy or maximum_probability, calibrated on the way; log_n,'
    ' ssmax, yarn, infoscale; oracle; a number that divides the attention'
    " logits; a temperatures.json; repeatable, 'none,entropy'",
  )
  add(
    '--granularity',
    help='of what is calibrated: model (default: one temperature a site),'
    ' layer or head',
  )
  add(
    '--sites',
    help='where alignments divide the logits: encoder, cross, decoder; with'
    ' commas (default: encoder; decoder without one)',
  )
  add('--output_dir', help='where results go (default: t5_align_results)')
  add(
    '--limit',
    type=int,
    help='samples of each task (default: 100; of the bundled run: 24)',
  )
  add('--batch_size', type=int, help='prompts at a time (default: 8)')
  add('--seed', type=int, help='of the generated samples (default: 0)')
  add(
    '--max_input_tokens',
    type=int,
    help='limit of a prompt, EOS included (default: none)',
  )
  add(
    '--truncation',
    choices=prompts.TRUNCATIONS,
    help='what to do with a longer prompt (default: error)',
  )
  add(
    '--prompt_template',
    '--template',
    dest='template',
    metavar='TEMPLATE',
    help='wording of the prompts: a name or a JSON file',
  )
  add(
    '--num_partitions',
    type=int,
    help='devices that share one copy of the parameters (default: 1)',
  )
  add(
    '--plan',
    action='store_const',
    const=True,
    help='print the memory that --max_input_tokens take on each device, and'
    ' exit; nothing is loaded',
  )
  add(
    '--devices',
    help='that a plan is for: 8xH200, v4-32 (default: those that are here)',
  )
  add('--data', help='published samples: a file or a folder')
  add(
    '--calibration_data',
    help='text files to calibrate on (default: generated prompts of a split'
    ' that is not evaluated)',
  )
  command.add_gin_flags(parser)
  return parser


def _run(argv: Sequence[str], prog: str) -> int:
  processes.start()
  if '--plan' in argv:
    argv = ["--gin.MIXTURE_OR_TASK_NAME=''", *argv]  # no task is run
  rows = command.run_gin(
    evaluate,
    make_parser(prog),
    argv,
    _BINDINGS,
    _RUN,
    _BUNDLED,
    convert={
      'max_input_tokens': lambda longest: {'inputs': longest},
      'sites': opening.as_list,
    },
  )
  return _SOME_FAILED if any(row['n_failed'] for row in rows) else 0


def main(argv: Sequence[str] | None = None, prog: str = 't5_align.eval') -> int:
  """Run the command; return its exit code."""
  return command.run(
    lambda arguments: _run(arguments, prog),
    argv,
    prog,
    unreadable=(CheckpointError, prompts.DataError),
  )


if __name__ == '__main__':
  # gin files name t5_align.eval, not the copy of it that runs as __main__.
  from t5_align import eval as eval_script

  sys.exit(eval_script.main())
