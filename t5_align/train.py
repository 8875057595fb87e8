"""Train a model: `python -m t5_align.train --gin_file=…`.

One gin-bound function, `train`, trains a T5, encoder-decoder or decoder-only,
on a mixture of text and generated prompts, and leaves a folder that
`load_model` reads, and Hugging Face, too, if the model has an encoder. A
stopped run continues at its last checkpoint when the same command is given
again.

Synopsis:

    t5-align train --data=corpus --model_dir=/tmp/model   # the bundled model
    python -m t5_align.train \\
        --gin_file=t5_align/gin_configs/experiments/train_bundled.gin \\
        --gin.MODEL_DIR='"/tmp/model"' --gin.DATA='"corpus"'   # the same
    # or, without gin,
    train(T5Config(...), Training(...), Mixture(...), model_dir='/tmp/model',
          data='corpus', decoder_only=True)
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import shutil
import sys

import jax
import numpy as np

from t5_align import checkpoints, training_vocabulary
from t5_align import training as training_lib
from t5_align.network import DecoderOnlyTransformer, T5Config, Transformer
from t5_align.tasks.pretraining import token_stream
from t5_align.tasks.pretraining.mixture import Examples, Mixture, TextTask
from t5_align.training import Training
from t5_align.training_vocabulary import (
  VocabularyTraining as VocabularyTraining,
)

_BUNDLED = 't5_align/gin_configs/experiments/train_bundled.gin'


def train(
  network: T5Config,
  training: Training,
  mixture: Mixture,
  model_dir: str | os.PathLike,
  data: str | os.PathLike | Sequence[str] | None = None,
  vocabulary: str | os.PathLike | None = None,
  vocabulary_training: VocabularyTraining | None = None,
  decoder_only: bool = False,
  store_dtype: str = 'bfloat16',
) -> None:
  """Train a model, or continue to, and write it.

  Args:
    network: the model's shape; `vocab_size` bounds the vocabulary. Its dtype is
      that of activations; parameters are trained in float32.
    training: how it is trained.
    mixture: on what.
    model_dir: gets the weights (model.safetensors, or params/ of a decoder-only
      model), config.json, the vocabulary and, under run/, the log, the
      checkpoints and the tokenized text.
    data: text of the tasks that name none: file, folder or pattern, or several;
      of a folder with a train.jsonl only that.
    vocabulary: file or folder of a vocabulary, or 'bundled'; None: one is
      trained on the mixture.
    vocabulary_training: how; None for the defaults.
    decoder_only: whether the model has no encoder.
    store_dtype: of the weights that are written.

  Raises:
    ValueError: the vocabulary has more pieces than the network, a text task
      has no text, or model_dir holds another run.
    FileNotFoundError: text or vocabulary isn't there.
    FloatingPointError: a loss is NaN or infinite; names the step.
  """
  folder = pathlib.Path(model_dir)
  _check_lengths(mixture, training, decoder_only)
  files = _text_files(mixture, data)
  folder.mkdir(parents=True, exist_ok=True)
  every_file = dict.fromkeys(file for some in files.values() for file in some)
  training_vocabulary.put(
    folder,
    vocabulary,
    vocabulary_training or VocabularyTraining(),
    network.vocab_size,
    mixture,
    list(every_file),
  )
  streams = tuple(
    token_stream.tokenize(
      files[name], folder, folder / 'run', training.data_workers
    )
    if name in files
    else None
    for name in mixture.names
  )
  state = training_lib.fit(
    (DecoderOnlyTransformer if decoder_only else Transformer)(network),
    Examples(
      mixture,
      streams,
      os.fspath(folder.absolute()),
      decoder_only,
      training.input_lengths[-1],
      training.target_length,
    ),
    training,
    folder / 'run',
    tasks=mixture.names,
    recipe={
      'network': dataclasses.asdict(network),
      'decoder_only': decoder_only,
      'mixture': mixture.describe(),
      # The name of a stream's file has the hash of its text.
      'text': {
        name: stream and pathlib.Path(stream.path).stem
        for name, stream in zip(mixture.names, streams, strict=True)
      },
    },
    report=lambda row: print(_describe(row, training), flush=True),
  )
  params = jax.tree.map(
    lambda x: np.asarray(x.astype(store_dtype)), state.params
  )
  # The quickest attention at the training length is not that of longer inputs.
  network = dataclasses.replace(network, attention=None)
  if not decoder_only:
    checkpoints.save_safetensors(
      folder, network, params, training_length=training.input_lengths[-1]
    )
    return
  # What an earlier, shorter run wrote; the config, which marks the end, first.
  (folder / 'config.json').unlink(missing_ok=True)
  shutil.rmtree(folder / 'params', ignore_errors=True)
  checkpoints.save_orbax(
    folder, network, params, training_length=training.target_length
  )


def _check_lengths(
  mixture: Mixture, training: Training, decoder_only: bool
) -> None:
  """Raise ValueError where examples of a task can not fit a row."""
  input_length, row = training.input_lengths[-1], training.target_length
  for name, task in zip(mixture.names, mixture.tasks, strict=True):
    if isinstance(task, TextTask):
      inputs, targets = task.objective.longest
      targets += task.objective.ends
      inputs += not decoder_only
    else:
      # Answers are short: those that do not fit are drawn again.
      inputs, targets = task.longest_tokens - decoder_only, 0
    if decoder_only:
      inputs, targets = 0, inputs + targets
    if targets > row:
      raise ValueError(
        f'{name} has rows of {targets} tokens, target_length is {row}; raise it'
        ' or make them shorter.'
      )
    if inputs > input_length:
      raise ValueError(
        f'{name} has inputs of {inputs} tokens, input_lengths end at'
        f' {input_length}; raise them or make inputs shorter.'
      )


def _text_files(
  mixture: Mixture, data: str | os.PathLike | Sequence[str] | None
) -> dict[str, list[str]]:
  """Return the files of each text task by its name."""
  found = {}
  for name, task in zip(mixture.names, mixture.tasks, strict=True):
    if not isinstance(task, TextTask):
      continue
    place = data if task.data is None else task.data
    if place is None:
      raise ValueError(
        f'{name} has no text: set its data, or --data for every task.'
      )
    found[name] = token_stream.training_files(place)
  return found


def _describe(row: dict, training: Training) -> str:
  """Return one line of the log in words."""
  tasks = [
    f'{name} {loss:.4f} ({row["accuracies"][name]:.1%})'
    for name, loss in row['losses'].items()
  ]
  return (
    f'step {row["step"]:,} of {training.num_steps:,}: '
    f'loss {row["loss"]:.4f}; nats a token (and tokens right): '
    f'{", ".join(tasks)}; {row["tokens_per_second"]:,} tokens/s, '
    f'{row["seconds"]:.0f} s'
  )


def _run(argv: Sequence[str], prog: str) -> int:
  # Training itself runs where gin is not installed.
  from t5_align import command

  parser = command.Parser(
    prog=prog,
    description=(
      'Train a T5 on text and generated retrieval prompts. Without --gin_file:'
      ' the model that comes with the package, on the text of --data. A stopped'
      ' run continues when the same command is given again.'
    ),
    allow_abbrev=False,
  )
  parser.add_argument('--model_dir', help='where the model goes')
  parser.add_argument(
    '--data',
    help='text to train on: file, folder or pattern; of a folder with a'
    ' train.jsonl only that',
  )
  command.add_gin_flags(parser)
  flags, bindings = command.parse_flags(parser, argv)
  if flags.model_dir is not None:
    bindings.append(f'MODEL_DIR = {flags.model_dir!r}')
  if flags.data is not None:
    bindings.append(f'DATA = {flags.data!r}')
  command.parse_gin(
    flags.gin_file or [_BUNDLED],
    bindings,
    flags.gin_search_paths,
    {'MODEL_DIR': '--model_dir'},
  )
  arguments = command.bound_arguments(train)
  command.check_writable(arguments['model_dir'])
  train(**arguments)
  return 0


def main(
  argv: Sequence[str] | None = None, prog: str = 't5_align.train'
) -> int:
  """Run the command; return its exit code."""
  from t5_align import command

  return command.run(lambda arguments: _run(arguments, prog), argv, prog)


if __name__ == '__main__':
  # gin files name t5_align.train, not the copy of it that runs as __main__.
  from t5_align import train as train_script

  sys.exit(train_script.main())
