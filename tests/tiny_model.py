"""A T5 of two layers with random weights, which reads bytes, in a folder."""

import json
import pathlib

import flax
import jax
import jax.numpy as jnp

from t5_align import checkpoints
from t5_align.config import T5Config
from t5_align.network import Transformer


def save_tiny_model(folder: pathlib.Path) -> None:
  config = T5Config(
    vocab_size=384,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=8,
    mlp_dim=32,
  )
  tokens = jnp.ones((1, 4), jnp.int32)
  variables = Transformer(config).init(
    jax.random.key(0), tokens, tokens, tokens, enable_dropout=False
  )
  params = flax.core.unfreeze(variables['params'])
  checkpoints.save_safetensors(folder, config, params)
  tokenizer = {'tokenizer_class': 'ByT5Tokenizer', 'extra_ids': 125}
  (folder / 'tokenizer_config.json').write_text(json.dumps(tokenizer))
