"""A T5 of two layers with random weights, which reads bytes, in a folder."""

import json
import pathlib

from t5_align import checkpoints
from t5_align.config import T5Config
from tests.random_parameters import random_parameters


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
  checkpoints.save_safetensors(folder, config, random_parameters(config))
  tokenizer = {'tokenizer_class': 'ByT5Tokenizer', 'extra_ids': 125}
  (folder / 'tokenizer_config.json').write_text(json.dumps(tokenizer))
