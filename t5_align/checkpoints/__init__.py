"""Checkpoints: Hugging Face safetensors, T5X folders, our own by Orbax."""

from t5_align.checkpoints.huggingface import (
  save_safetensors as save_safetensors,
)
from t5_align.checkpoints.load import Checkpoint as Checkpoint
from t5_align.checkpoints.load import load_checkpoint as load_checkpoint
from t5_align.checkpoints.orbax import save_orbax as save_orbax
from t5_align.checkpoints.stored import CheckpointError as CheckpointError
from t5_align.checkpoints.t5x import save_t5x as save_t5x
