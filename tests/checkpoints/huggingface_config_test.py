"""config.json of transformers up to 4 and from 5 on, and its faults."""

import dataclasses

import pytest

from t5_align import presets
from t5_align.checkpoints import CheckpointError, huggingface_config
from t5_align.config import T5Config

# As on the hub: google/t5-v1_1-small, without fields that say nothing.
T5_1_1 = {
  'architectures': ['T5ForConditionalGeneration'],
  'd_ff': 1024,
  'd_kv': 64,
  'd_model': 512,
  'dropout_rate': 0.1,
  'feed_forward_proj': 'gated-gelu',
  'layer_norm_epsilon': 1e-06,
  'model_type': 't5',
  'num_decoder_layers': 8,
  'num_heads': 6,
  'num_layers': 8,
  'relative_attention_num_buckets': 32,
  'tie_word_embeddings': False,
  'vocab_size': 32128,
}
# As on the hub: t5-small, which leaves more out.
T5_SMALL = {
  'd_ff': 2048,
  'd_kv': 64,
  'd_model': 512,
  'dropout_rate': 0.1,
  'layer_norm_epsilon': 1e-06,
  'model_type': 't5',
  'num_heads': 8,
  'num_layers': 6,
  'relative_attention_num_buckets': 32,
  'vocab_size': 32128,
}


def read(fields, untied, relative_bias_per_layer=False):
  return huggingface_config.from_json(
    fields, untied=untied, relative_bias_per_layer=relative_bias_per_layer
  )


def test_hub_files_are_the_presets():
  assert read(T5_1_1, True) == presets.PRESETS['t5-v1_1-small'].config
  assert read(T5_SMALL, False) == presets.PRESETS['t5-small'].config


@pytest.mark.parametrize(
  ('tie_word_embeddings', 'scale_decoder_outputs', 'untied', 'scaled'),
  [
    # Up to version 4 one flag says both.
    (True, None, False, True),
    (False, None, True, False),
    (None, None, False, True),
    # From 5 on it is always true, and the other flag says one of them.
    (True, False, True, False),
    (True, True, False, True),
    (True, False, False, False),
    # umT5 saved by version 5, which scales it.
    (True, None, True, True),
  ],
)
def test_both_generations(
  tie_word_embeddings, scale_decoder_outputs, untied, scaled
):
  flags = {
    'tie_word_embeddings': tie_word_embeddings,
    'scale_decoder_outputs': scale_decoder_outputs,
  }
  flags = {name: flag for name, flag in flags.items() if flag is not None}
  config = read(T5_SMALL | flags, untied)
  assert config.logits_via_embedding == (not untied)
  assert config.scales_decoder_outputs == scaled


def test_round_trip(config):
  config = dataclasses.replace(
    config, dropout_rate=0.0, relative_attention_max_distance=64
  )
  fields = huggingface_config.to_json(config, dtype='bfloat16')
  assert config == read(
    fields,
    untied=not config.logits_via_embedding,
    relative_bias_per_layer=config.relative_bias_per_layer,
  )
  assert fields['torch_dtype'] == 'bfloat16'


def test_every_preset_has_a_hugging_face_form():
  for name, preset in presets.PRESETS.items():
    fields = huggingface_config.to_json(preset.config, dtype='float32')
    assert fields['model_type'] == ('umt5' if 'umt5' in name else 't5')


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'d_kv': None}, 'd_kv is missing'),
    ({'d_model': '512'}, "d_model is '512', not a number"),
    ({'d_model': 0}, 'd_model is 0'),
    ({'vocab_size': True}, 'vocab_size is True'),
    ({'num_layers': 10**9}, 'num_layers is 1000000000; .* up to 4,096'),
    ({'layer_norm_epsilon': float('nan')}, 'layer_norm_epsilon is nan'),
    ({'feed_forward_proj': 'gated-silu'}, "'relu', 'gated-gelu'"),
    ({'scale_decoder_outputs': 1}, 'true or false'),
  ],
)
def test_faults(fields, message):
  with pytest.raises(CheckpointError, match=message):
    read(T5_1_1 | fields, True)


def test_model_type():
  assert huggingface_config.check_model_type({}) is None
  assert huggingface_config.check_model_type({'model_type': 'mt5'}) == 'mt5'
  with pytest.raises(CheckpointError, match="'longt5'; read are t5, mt5"):
    huggingface_config.check_model_type({'model_type': 'longt5'})


def test_activation_without_a_form():
  config = T5Config(vocab_size=10, mlp_activations=('silu', 'linear'))
  with pytest.raises(CheckpointError, match='silu.*has no Hugging Face form'):
    huggingface_config.to_json(config, dtype='float32')
