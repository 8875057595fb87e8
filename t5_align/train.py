"""Train a model: `python -m t5_align.train --gin_file=…`.

One gin-bound function, `train`, trains an encoder-decoder T5 on prompts and
targets that the task generators write, at random lengths, and leaves a folder
that `load_model` and Hugging Face read. A stopped run continues at its last
checkpoint when the same command is given again.

Synopsis:

    t5-align train --model_dir=/tmp/model            # the bundled model again
    python -m t5_align.train \\
        --gin_file=t5_align/gin_configs/experiments/train_bundled.gin \\
        --gin.MODEL_DIR='"/tmp/model"'               # the same
    # or, without gin,
    train(T5Config(...), Training(...), Mixture(...), model_dir='/tmp/model')
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import os
import pathlib
import sys

import jax
import numpy as np

from t5_align import checkpoints
from t5_align import training as training_lib
from t5_align import vocabulary as vocabulary_lib
from t5_align.bundled import BUNDLED_MODEL
from t5_align.network import T5Config, Transformer
from t5_align.tasks import generators
from t5_align.tasks.generators.haystack import Encode
from t5_align.training import Training

_BUNDLED = 't5_align/gin_configs/experiments/train_bundled.gin'


@dataclasses.dataclass(frozen=True)
class Mixture:
  """What a model is trained on: generated tasks, each as likely.

  Attributes:
    families: names of task families, such as 'passkey'.
    shortest_tokens: of the prompts, in the model's own tokens, EOS included.
    longest_tokens: of the prompts; lengths are uniform in between.
    default_template_share: how often a prompt has its family's first wording;
      otherwise it has one of the others.
  """

  families: tuple[str, ...] = ('passkey', 'line_retrieval')
  shortest_tokens: int = 64
  longest_tokens: int = 128
  default_template_share: float = 0.5

  def sample(
    self, generator: np.random.Generator, encode: Encode
  ) -> generators.Sample:
    """Draw one sample; `encode` measures its length."""
    family = self.families[generator.integers(len(self.families))]
    first, *others = generators.get_family(family).templates
    if others and generator.random() >= self.default_template_share:
      first = others[generator.integers(len(others))]
    length = generator.integers(self.shortest_tokens, self.longest_tokens + 1)
    return generators.training_sample(
      generator, encode, int(length), family=family, template=first
    )

  def texts(self, num_samples: int) -> Iterator[str]:
    """Yield text to train a vocabulary on, about `longest_tokens` long."""
    generator = np.random.default_rng(0)
    for _ in range(num_samples):
      # No vocabulary yet: a word counts as two tokens.
      sample = self.sample(generator, lambda text: [0, 0] * len(text.split()))
      yield sample.prompt
      yield sample.target


@dataclasses.dataclass(frozen=True)
class Examples:
  """Draw examples of a mixture as token ids; small enough to be pickled.

  Attributes:
    mixture: what is drawn.
    vocabulary: path of the vocabulary.
  """

  mixture: Mixture
  vocabulary: str

  def __call__(
    self, generator: np.random.Generator
  ) -> tuple[list[int], list[int]]:
    encode, eos_id = _load_encoder(self.vocabulary)
    sample = self.mixture.sample(generator, encode)
    return encode(sample.prompt) + [eos_id], encode(sample.target) + [eos_id]


def _load_vocabulary(
  path: str | os.PathLike,
) -> vocabulary_lib.SentencePieceVocabulary:
  content = pathlib.Path(path).read_bytes()
  return vocabulary_lib.SentencePieceVocabulary(content)


@functools.cache
def _load_encoder(path: str) -> tuple[Encode, int]:
  """Return a vocabulary's encoder and its end of sequence."""
  vocabulary = _load_vocabulary(path)
  return generators.by_words(vocabulary.encode), vocabulary.eos_id


def train(
  network: T5Config,
  training: Training,
  mixture: Mixture,
  model_dir: str | os.PathLike,
  vocabulary: str | os.PathLike | None = None,
  num_vocabulary_samples: int = 20_000,
  store_dtype: str = 'bfloat16',
) -> None:
  """Train a model, or continue to, and write it.

  Args:
    network: the model's shape; `vocab_size` bounds the vocabulary.
    training: how it is trained.
    mixture: on what.
    model_dir: gets config.json, model.safetensors, spiece.model and, under
      run/, the log and the checkpoints.
    vocabulary: file of a SentencePiece model, or 'bundled'; None: one is
      trained on the mixture's text.
    num_vocabulary_samples: how much text that is.
    store_dtype: of the weights in model.safetensors.

  Raises:
    ValueError: the vocabulary has more pieces than the network, or model_dir
      holds another run.
    FloatingPointError: a loss is NaN or infinite; names the step.
  """
  folder = pathlib.Path(model_dir)
  folder.mkdir(parents=True, exist_ok=True)
  own = folder / 'spiece.model'
  if vocabulary is not None:
    bundled = BUNDLED_MODEL / 'spiece.model'
    source = bundled if vocabulary == 'bundled' else pathlib.Path(vocabulary)
    content = source.read_bytes()
    if own.exists() and own.read_bytes() != content:
      raise ValueError(
        f'{own} is another vocabulary than {source}; choose a new model_dir.'
      )
    own.write_bytes(content)
  elif not own.exists():
    texts = mixture.texts(num_vocabulary_samples)
    own.write_bytes(
      vocabulary_lib.train_sentencepiece(texts, network.vocab_size)
    )
  num_pieces = _load_vocabulary(own).vocab_size
  if num_pieces > network.vocab_size:
    raise ValueError(
      f'{own} has {num_pieces} pieces, the network has vocab_size='
      f'{network.vocab_size}; raise it or use a smaller vocabulary.'
    )
  state = training_lib.fit(
    Transformer(network),
    Examples(mixture, os.fspath(own)),
    training,
    folder / 'run',
    recipe={
      'network': dataclasses.asdict(network),
      'mixture': dataclasses.asdict(mixture),
    },
    report=lambda row: print(_describe(row, training), flush=True),
  )
  params = jax.tree.map(
    lambda x: np.asarray(x.astype(store_dtype)), state.params
  )
  checkpoints.save_safetensors(
    folder, network, params, training_length=mixture.longest_tokens
  )


def _describe(row: dict, training: Training) -> str:
  """Return one line of the log in words."""
  return (
    f'step {row["step"]:,} of {training.num_steps:,}: '
    f'loss {row["loss"]:.4f}, '
    f'{row["sequence_accuracy"]:.1%} of the answers right, '
    f'{row["seconds"]:.0f} s'
  )


def _run(argv: Sequence[str], prog: str) -> int:
  # Training itself runs where gin is not installed.
  from t5_align import command

  parser = command.Parser(
    prog=prog,
    description=(
      'Train a T5 on generated retrieval prompts. Without --gin_file: the'
      ' model that comes with the package. A stopped run continues when'
      ' the same command is given again.'
    ),
    allow_abbrev=False,
  )
  parser.add_argument('--model_dir', help='where the model goes')
  command.add_gin_flags(parser)
  flags, bindings = command.parse_flags(parser, argv)
  if flags.model_dir is not None:
    bindings.append(f'MODEL_DIR = {flags.model_dir!r}')
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
