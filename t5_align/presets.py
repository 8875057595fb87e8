"""Sizes of the public T5 models, as data, with the length each was trained at.

Synopsis:

    PRESETS['flan-t5-xl'].config            # T5Config
    PRESETS['flan-t5-xl'].training_length   # 512, in tokens of the encoder
    get_preset('flan-t5-xll')               # ValueError: did you mean … 'xxl'?

Sizes: the configuration files of the models on the Hugging Face hub and of
T5X's `examples/t5/*/*.gin`.
"""

from __future__ import annotations

import dataclasses

from t5_align.config import T5Config
from t5_align.nearest import nearest


@dataclasses.dataclass(frozen=True)
class Preset:
  """A public model.

  Attributes:
    config: its sizes.
    training_length: tokens of the encoder's input in training.
    training_length_source: where that number is from.
  """

  config: T5Config
  training_length: int
  training_length_source: str


_T5_LENGTH = (512, 'Raffel et al. 2020, arXiv 1910.10683, section 3.1.2')
_LM_LENGTH = (
  512,
  'pretraining length of T5 1.1; the LM adaptation states none'
  ' (text-to-text-transfer-transformer, released_checkpoints.md)',
)
_FLAN_LENGTH = (
  512,
  'pretraining length of T5 1.1; disputed: the Flan collection finetuned with'
  ' inputs of up to 2048 (FLAN, flan/v2/constants.py)',
)
_BYT5_LENGTH = (1024, 'bytes; Xue et al. 2022, arXiv 2105.13626, section 3.1')
_UMT5_LENGTH = (
  1024,
  'as mT5, Xue et al. 2021, arXiv 2010.11934, section 3.2; not confirmed for'
  ' umT5',
)

#                  D     N   H    F      L_enc L_dec
_T5_SIZES = {
  'small': (512, 8, 64, 2048, 6, 6),
  'base': (768, 12, 64, 3072, 12, 12),
  'large': (1024, 16, 64, 4096, 24, 24),
  '3b': (1024, 32, 128, 16384, 24, 24),
  '11b': (1024, 128, 128, 65536, 24, 24),
}
_T5_1_1_SIZES = {
  'small': (512, 6, 64, 1024, 8, 8),
  'base': (768, 12, 64, 2048, 12, 12),
  'large': (1024, 16, 64, 2816, 24, 24),
  'xl': (2048, 32, 64, 5120, 24, 24),
  'xxl': (4096, 64, 64, 10240, 24, 24),
}
_BYT5_SIZES = {
  'small': (1472, 6, 64, 3584, 12, 4),
  'base': (1536, 12, 64, 3968, 18, 6),
  'large': (1536, 16, 64, 3840, 36, 12),
  'xl': (2560, 32, 64, 6720, 36, 12),
  'xxl': (4672, 64, 64, 12352, 36, 12),
}
_UMT5_SIZES = {
  name: _T5_1_1_SIZES[name] for name in ('small', 'base', 'xl', 'xxl')
}
_GATED = {'mlp_activations': ('gelu', 'linear')}


def _family(pattern, sizes, training_length, vocab_size, **fields):
  names = ('emb_dim', 'num_heads', 'head_dim', 'mlp_dim')
  names += ('num_encoder_layers', 'num_decoder_layers')
  return {
    pattern.format(size): Preset(
      T5Config(vocab_size=vocab_size, **dict(zip(names, numbers)), **fields),
      *training_length,
    )
    for size, numbers in sizes.items()
  }


PRESETS: dict[str, Preset] = {
  **_family('t5-{}', _T5_SIZES, _T5_LENGTH, 32128, logits_via_embedding=True),
  **_family('t5-v1_1-{}', _T5_1_1_SIZES, _T5_LENGTH, 32128, **_GATED),
  **_family('t5-{}-lm-adapt', _T5_1_1_SIZES, _LM_LENGTH, 32128, **_GATED),
  **_family('flan-t5-{}', _T5_1_1_SIZES, _FLAN_LENGTH, 32128, **_GATED),
  **_family('byt5-{}', _BYT5_SIZES, _BYT5_LENGTH, 384, **_GATED),
  **_family(
    'umt5-{}',
    _UMT5_SIZES,
    _UMT5_LENGTH,
    256384,
    relative_bias_per_layer=True,
    **_GATED,
  ),
}


def get_preset(name: str) -> Preset:
  """Return a preset; raise ValueError that names the nearest for others."""
  if name not in PRESETS:
    raise ValueError(f'Unknown model {name!r}; {nearest(name, PRESETS)}')
  return PRESETS[name]
