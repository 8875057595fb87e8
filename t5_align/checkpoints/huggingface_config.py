"""Hugging Face's config.json, read and written, in both of its generations.

Up to transformers 4, `tie_word_embeddings: false` says two things of T5: the
output matrix `lm_head` is separate, and logits are not scaled by 1/sqrt(d).
From 5 on that flag is forced to true on saving, `scale_decoder_outputs` holds
the second meaning, and the first is seen only from the weights: the output is
separate if `lm_head.weight` is there and differs from `shared.weight`. We read
either and write both, so that old and new versions load the same model.

transformers 5 scales umT5's logits whatever its config says; a folder that
version 5 saved is read as it computes it there.

Sources: `transformers/models/{t5,umt5}/configuration_*.py`, 4.57 and 5.23.

Synopsis:

    config = from_json(fields, untied=True, relative_bias_per_layer=False)
    to_json(config, dtype='float32')
"""

from collections.abc import Mapping
from typing import Any

from t5_align import config as config_lib
from t5_align.checkpoints import stored as stored_lib

CheckpointError = stored_lib.CheckpointError

_MODEL_TYPES = ('t5', 'mt5', 'umt5')
_ACTIVATIONS = {'relu': ('relu',), 'gated-gelu': ('gelu', 'linear')}
# A damaged number of layers or heads must not be built before it is refused.
# The largest T5 has 24 layers and 128 heads.
_MOST = {'num_layers': 4096, 'num_decoder_layers': 4096, 'num_heads': 4096}
_FEED_FORWARD = {value: key for key, value in _ACTIVATIONS.items()}


def from_json(
  fields: Mapping[str, Any], *, untied: bool, relative_bias_per_layer: bool
) -> config_lib.T5Config:
  """Make a T5Config of a config.json.

  Args:
    fields: the parsed file.
    untied: whether the weights hold an output matrix of their own.
    relative_bias_per_layer: whether every layer has its own bias (umT5).

  Raises:
    CheckpointError: a field is missing, no positive number, or not a T5's.
  """
  feed_forward = fields.get('feed_forward_proj', 'relu')
  if feed_forward not in _ACTIVATIONS:
    raise CheckpointError(
      f'config.json: feed_forward_proj is {feed_forward!r}; known are'
      f' {", ".join(map(repr, _ACTIVATIONS))}.'
    )
  scaled = fields.get(
    'scale_decoder_outputs', fields.get('tie_word_embeddings', True)
  )
  if not isinstance(scaled, bool):
    raise CheckpointError(
      'config.json: scale_decoder_outputs or tie_word_embeddings is'
      f' {scaled!r}; true or false is wanted.'
    )
  num_layers = _number(fields, 'num_layers')
  return config_lib.T5Config(
    vocab_size=_number(fields, 'vocab_size'),
    emb_dim=_number(fields, 'd_model'),
    num_heads=_number(fields, 'num_heads'),
    num_encoder_layers=num_layers,
    num_decoder_layers=_number(fields, 'num_decoder_layers', num_layers),
    head_dim=_number(fields, 'd_kv'),
    mlp_dim=_number(fields, 'd_ff'),
    mlp_activations=_ACTIVATIONS[feed_forward],
    dropout_rate=_number(fields, 'dropout_rate', 0.1),
    logits_via_embedding=not untied,
    scale_decoder_outputs=None if scaled != untied else scaled,
    # Files older than the field have 128, the constant of T5.
    relative_attention_max_distance=_number(
      fields, 'relative_attention_max_distance', 128
    ),
    relative_attention_num_buckets=_number(
      fields, 'relative_attention_num_buckets', 32
    ),
    relative_bias_per_layer=relative_bias_per_layer,
    layer_norm_epsilon=_number(fields, 'layer_norm_epsilon', 1e-6),
  )


def to_json(
  config: config_lib.T5Config,
  *,
  dtype: str,
  training_length: int | None = None,
) -> dict[str, Any]:
  """Return the fields of config.json for weights stored as `dtype`.

  `training_length` goes where the configs of T5 1.0 have it, `n_positions`.

  Raises:
    CheckpointError: Hugging Face's T5 has no such activation.
  """
  if tuple(config.mlp_activations) not in _FEED_FORWARD:
    raise CheckpointError(
      f'mlp_activations={config.mlp_activations!r} has no Hugging Face form;'
      f' known are {", ".join(map(repr, _FEED_FORWARD))}. save_orbax and'
      ' save_t5x keep any.'
    )
  name = 'UMT5' if config.relative_bias_per_layer else 'T5'
  scaled = config.scales_decoder_outputs
  length = {} if training_length is None else {'n_positions': training_length}
  return {
    'architectures': [f'{name}ForConditionalGeneration'],
    'model_type': name.lower(),
    'is_encoder_decoder': True,
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'num_heads': config.num_heads,
    'relative_attention_num_buckets': config.relative_attention_num_buckets,
    'relative_attention_max_distance': config.relative_attention_max_distance,
    'dropout_rate': config.dropout_rate,
    'layer_norm_epsilon': config.layer_norm_epsilon,
    'feed_forward_proj': _FEED_FORWARD[tuple(config.mlp_activations)],
    'tie_word_embeddings': config.logits_via_embedding and scaled,
    'scale_decoder_outputs': scaled,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'decoder_start_token_id': 0,
    **length,
    'torch_dtype': dtype,
  }


def check_model_type(fields: Mapping[str, Any]) -> str | None:
  """Return the model type, None if unsaid; refuse what is not a T5."""
  model_type = fields.get('model_type')
  if model_type is None or model_type in _MODEL_TYPES:
    return model_type
  raise CheckpointError(
    f'config.json: model_type is {model_type!r}; read are'
    f' {", ".join(_MODEL_TYPES)}.'
  )


def _number(fields: Mapping[str, Any], name: str, default: Any = None) -> Any:
  """Return a number of the file; of the default's kind, if it has one."""
  value = fields.get(name)
  if value is None:
    value = default
  if value is None:
    raise CheckpointError(f'config.json: {name} is missing.')
  kind = (int, float) if isinstance(default, float) else int
  if isinstance(value, bool) or not isinstance(value, kind):
    raise CheckpointError(f'config.json: {name} is {value!r}, not a number.')
  most = _MOST.get(name, 2**31)
  if not 0 <= value <= most or (value == 0 and name != 'dropout_rate'):
    raise CheckpointError(
      f'config.json: {name} is {value}; wanted is a positive number up to'
      f' {most:,}.'
    )
  return value
