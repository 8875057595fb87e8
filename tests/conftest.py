"""Strict settings that every test runs under.

Set before JAX, TensorFlow or t5_align is imported:

- eight virtual CPU devices, so that sharding runs on any machine, and the
  first of them for all that doesn't ask for several;
- no accelerator, unless JAX_PLATFORMS asks for one;
- no network: the Hugging Face hub is offline;
- strict dtype promotion, and rank promotion raises;
- shapes in annotations are checked at every call (jaxtyping and beartype).

Warnings are errors: see `filterwarnings` in pyproject.toml.
"""

import contextlib
import importlib.metadata
import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
if os.environ['JAX_PLATFORMS'] == 'cpu':
  # TensorFlow and PyTorch would take the GPU's memory.
  os.environ['CUDA_VISIBLE_DEVICES'] = ''
os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
os.environ['XLA_FLAGS'] = ' '.join(
  [
    '--xla_force_host_platform_device_count=8',
    # Compiles forward passes sooner, though training steps later, and most
    # of a run is compiling. Later versions have no such flag.
    '--xla_cpu_use_fusion_emitters=false'
    if importlib.metadata.version('jaxlib').startswith('0.10.')
    else '',
    os.environ.get('XLA_FLAGS', ''),  # the last one counts
  ]
)

# PyTorch with CUDA loads Triton, which crashes the process if TensorFlow is
# there before it.
with contextlib.suppress(ImportError):
  import triton._C.libtriton  # noqa: F401

import jax
import jaxtyping
import pytest

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
# What doesn't ask for several devices runs on one.
jax.config.update('jax_default_device', jax.devices()[0])
jaxtyping.install_import_hook('t5_align', 'beartype.beartype')


@pytest.fixture(scope='session')
def model_folder(
  tmp_path_factory: pytest.TempPathFactory,
) -> pathlib.Path:
  """The folder of a tiny model: to be read, not to be changed."""
  from tests.tiny_model import save_tiny_model

  folder = tmp_path_factory.mktemp('model')
  save_tiny_model(folder)
  return folder


@pytest.fixture
def elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """Run in an empty folder, and leave the user's compilation cache alone."""
  from t5_align import inference

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(inference, 'use_compilation_cache', lambda: None)
