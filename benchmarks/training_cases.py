"""What `training.py` measures: models and their data, variants, products.

A `Case` is a model and the random examples that it is trained on; a `Variant`
is a program of it that is timed, and differences between them tell what bounds
a step:

  step                 `make_step`: forward, backward, optimizer
  forward, gradient    without what follows
  chunked attention    in place of 'reference', which the recipes set
  reference attention  in place of 'chunked', attend()'s default
  no attention         each query gets itself and the mean key and value
  small vocabulary     next to no logits and loss
  quarter batch        as long a step, where starting its kernels is what counts

Counted are the products that a step must do, 2 FLOPs a multiplication, thrice
the forward pass's: 6 times the matrix parameters times the tokens that meet
them (cross-attention's key and value meet the encoder's), 6 D V times the
targets for logits, and 12 T S N H of each attention and row, causal or not.
Embeddings are looked up and count nothing; nor does what is computed again.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from t5_align import batches, training
from t5_align.network import T5Config
from t5_align.presets import get_preset
from t5_align.tasks.pretraining import (
  LanguageModel,
  PrefixLM,
  SpanCorruption,
)
from t5_align.tasks.pretraining.mixture import Example

_SENTINELS = 100
_SMALL_VOCABULARY = 128


class Variant(NamedTuple):
  """A program that is timed."""

  what: str = 'step'
  config: dict[str, Any] = {}
  attention: bool = True
  batch_share: float = 1.0


VARIANTS = {
  'step': Variant(),
  'forward': Variant('forward'),
  'gradient': Variant('gradient'),
  'chunked attention': Variant(config={'attention': 'chunked'}),
  'reference attention': Variant(config={'attention': 'reference'}),
  'no attention': Variant(attention=False),
  'small vocabulary': Variant(config={'vocab_size': _SMALL_VOCABULARY}),
  'quarter batch': Variant(batch_share=0.25),
}
# With the attention that the recipes set, and the other kind; what takes too
# long to compile in all variants gets the first ones.
_BUNDLED = tuple(name for name in VARIANTS if name != 'reference attention')
_PRESET = tuple(name for name in VARIANTS if name != 'chunked attention')


@dataclasses.dataclass(frozen=True)
class Case:
  """A model and what it is trained on; its `draw` makes random examples."""

  config: T5Config
  objective: Any
  batch_size: int
  variants: tuple[str, ...] = _BUNDLED
  decoder_only: bool = False
  pack: bool = False

  @property
  def lengths(self):
    """Tokens of a row's inputs and targets."""
    inputs, targets = self.objective.longest
    inputs = 0 if self.decoder_only else inputs + 1
    return inputs, targets + self.objective.ends

  @property
  def tokens(self):
    return self.batch_size * sum(self.lengths)

  def training(self, **fields):
    inputs, targets = self.lengths
    return training.Training(
      batch_size=self.batch_size,
      input_lengths=(max(inputs, 1),),
      target_length=targets,
      pack=self.pack,
      **fields,
    )

  def draw(self, rng):
    last = self.config.vocab_size - 1
    ids = random_ids(last - _SENTINELS)
    window = self.objective.window_tokens
    start = rng.integers(len(ids) - window)
    inputs, targets = self.objective(
      ids[start : start + window], rng, range(last, last - _SENTINELS, -1)
    )
    if not self.decoder_only:
      inputs = np.append(inputs, 1)
    return Example(
      inputs, np.append(targets, 1) if self.objective.ends else targets
    )

  def batch(self):
    return batches.make_batch(self.draw, self.training(), self.decoder_only, 0)


@functools.cache
def random_ids(end):
  return np.random.default_rng(0).integers(2, end, 1 << 20, np.int32)


def preset(name, batch_size, variants):
  return Case(
    get_preset(name).config,
    SpanCorruption(512),
    batch_size,
    variants,
    pack=True,
  )


def bundled(**layers):
  """As gin_configs/experiments/train_bundled*.gin have it."""
  return T5Config(
    vocab_size=6144,
    emb_dim=256,
    num_heads=4,
    head_dim=64,
    mlp_dim=1024,
    logits_via_embedding=True,
    dropout_rate=0.0,
    attention='reference',
    **layers,
  )


CASES = {
  'bundled': Case(
    bundled(num_encoder_layers=2, num_decoder_layers=2),
    PrefixLM(255, 255, 128),
    128,
  ),
  'bundled_lm': Case(
    bundled(num_encoder_layers=0, num_decoder_layers=6),
    LanguageModel(256),
    256,
    decoder_only=True,
  ),
  't5-v1_1-small': preset('t5-v1_1-small', 128, _PRESET),
  't5-v1_1-base': preset('t5-v1_1-base', 128, _PRESET[:3]),
  't5-v1_1-large': preset('t5-v1_1-large', 64, _PRESET[:1]),
}


def quick(case):
  """Return a case of the same kind for a smoke test."""
  config = dataclasses.replace(
    case.config,
    vocab_size=256,
    emb_dim=32,
    num_heads=2,
    head_dim=8,
    mlp_dim=64,
    num_encoder_layers=1,
    num_decoder_layers=1,
  )
  objectives = {
    'span_corruption': SpanCorruption(32),
    'prefix_lm': PrefixLM(15, 15, 8),
    'language_model': LanguageModel(16),
  }
  objective = objectives[case.objective.name]
  variants = case.variants[:1] if case.pack else case.variants
  return dataclasses.replace(
    case,
    config=config,
    objective=objective,
    batch_size=4,
    variants=variants,
  )


def forward_flops(case, config, attention=True):
  """Count as the module's docstring says."""
  S, T = case.lengths
  D, F, joined = config.emb_dim, config.mlp_dim, config.num_heads
  joined *= config.head_dim
  mlp = (len(config.mlp_activations) + 1) * D * F
  decoder = config.num_decoder_layers
  encoder = 0 if case.decoder_only else config.num_encoder_layers
  met = encoder * (4 * D * joined + mlp) * S  # parameters times tokens
  met += decoder * (4 * D * joined + mlp) * T + D * config.vocab_size * T
  pairs = encoder * S * S + decoder * T * T
  if encoder:
    met += decoder * 2 * D * joined * (S + T)
    pairs += decoder * T * S
  return case.batch_size * (2 * met + 4 * pairs * joined * attention)
