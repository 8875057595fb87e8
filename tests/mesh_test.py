"""Models on meshes of eight devices: the numbers of one device.

Tolerances are of the largest value and stem from sums in another order: float32
keeps 6e-8 of a term, and these sums have some hundred terms.
"""

import dataclasses
import functools
import os
import pathlib
import socket
import subprocess
import sys

import flax
import jax
import numpy as np
import pytest

from t5_align import checkpoints, load_model, sharding
from t5_align.alignment.measure import AttentionMeter
from t5_align.config import T5Config
from t5_align.inference import Inference, Sampling
from t5_align.kernels import blocks
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.temperature import Law, Temperatures
from tests.random_parameters import random_parameters

CONFIG = T5Config(
  vocab_size=384,
  emb_dim=16,
  num_heads=8,
  num_encoder_layers=1,
  num_decoder_layers=1,
  head_dim=4,
  mlp_dim=32,
  mlp_activations=('gelu', 'linear'),
  attention='reference',
)
MESHES = {'1x8': 8, '2x4': 4, '8x1': 1}
KINDS = (Transformer, DecoderOnlyTransformer)
LENGTHS = (3, 40, 17, 29, 8)

on_meshes = pytest.mark.parametrize(
  'partitions', MESHES.values(), ids=MESHES.keys()
)
of_kinds = pytest.mark.parametrize('kind', KINDS, ids=['encdec', 'decoder'])


@functools.cache
def parameters(kind):
  return random_parameters(CONFIG, decoder_only=kind is not Transformer)


def layout(partitions):
  return sharding.make_layout(partitions, jax.devices())


def spread(kind, partitions):
  """The parameters on a mesh."""
  if not partitions:
    return parameters(kind)
  shardings = sharding.parameter_shardings(
    layout(partitions).mesh, CONFIG, decoder_only=kind is not Transformer
  )
  shardings = flax.traverse_util.unflatten_dict(shardings, sep='/')
  return jax.device_put(parameters(kind), shardings)


@functools.cache
def inference(kind, partitions):
  return Inference(kind(CONFIG), spread(kind, partitions), batch_size=3)


def tokens(seed, lengths=LENGTHS):
  random = np.random.default_rng(seed)
  return [random.integers(2, 384, n).tolist() for n in lengths]


def assert_close(ours, theirs, tolerance=1e-5):
  scale = max(1.0, np.abs(theirs).max())
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


@of_kinds
@on_meshes
def test_logits(kind, partitions):
  """The batch is of five: it doesn't divide over two or eight devices."""
  inputs, targets = (
    np.stack([row[:16] for row in tokens(seed, (16,) * 5)]) for seed in (0, 1)
  )
  inputs = inputs if kind is Transformer else None
  temperatures = Temperatures(0.7, 0.8, Law('log_n', (9.0,)))
  ours, theirs = (
    inference(kind, n).logits(inputs, targets, temperatures)
    for n in (partitions, None)
  )
  assert ours.shape == (5, 16, 384)
  assert_close(ours, theirs)


@pytest.mark.slow
@of_kinds
@on_meshes
def test_scores(kind, partitions):
  """A log-likelihood is a sum of so many logits' differences."""
  targets = tokens(1, (4, 9, 1, 5, 7))
  ours, theirs = (
    inference(kind, n).score(tokens(0), targets) for n in (partitions, None)
  )
  assert all(score.finite for score in ours)
  assert_close(
    np.array([score.log_likelihood for score in ours]),
    np.array([score.log_likelihood for score in theirs]),
  )


@pytest.mark.slow
@of_kinds
@pytest.mark.parametrize(
  'partitions, options',
  [
    (8, {}),
    (4, {'num_beams': 2}),
    (4, {'sampling': Sampling(0.9, top_k=50), 'seed': 3}),
    (1, {}),
  ],
  ids=['1x8-greedy', '2x4-beams', '2x4-sampling', '8x1-greedy'],
)
def test_generation(kind, partitions, options):
  ours, theirs = (
    inference(kind, n).generate(tokens(2), max_new_tokens=5, **options)
    for n in (partitions, None)
  )
  assert [g.tokens for g in ours] == [g.tokens for g in theirs]
  assert_close(
    np.array([g.log_probability for g in ours]),
    np.array([g.log_probability for g in theirs]),
  )


@pytest.mark.slow
@of_kinds
@pytest.mark.parametrize('partitions', [4])
def test_chunked_attention(kind, partitions, monkeypatch):
  """Several blocks of queries and keys, split over heads and examples."""
  monkeypatch.setattr(blocks, 'block_lengths', lambda num_rows: (16, 8))
  network = kind(dataclasses.replace(CONFIG, attention='chunked'))
  ours, theirs = (
    Inference(network, spread(kind, n)).score(
      tokens(0), tokens(1, (4, 9, 1, 5, 7))
    )
    for n in (partitions, None)
  )
  assert_close(
    np.array([score.log_likelihood for score in ours]),
    np.array([score.log_likelihood for score in theirs]),
  )


@pytest.mark.slow
@of_kinds
@pytest.mark.parametrize('partitions', [4])
def test_statistics_and_sweep(kind, partitions):
  sites = ('encoder', 'decoder', 'cross')
  if kind is DecoderOnlyTransformer:
    sites = ('decoder',)
  measured = [
    AttentionMeter(
      kind(CONFIG), spread(kind, n), sites, tokens_per_batch=100
    ).measure(
      tokens(0),
      tokens(1),
      40,
      Temperatures(decoder=0.8),
      factors=np.array([0.5, 2.0]),
      rows_per_sequence=2,
    )
    for n in (partitions, None)
  ]
  for site in sites:
    ours, theirs = (statistics.sites[site] for statistics in measured)
    assert ours.rows.shape[0] == len(LENGTHS)
    assert_close(ours.rows, theirs.rows, 0)
    for name, value in theirs.sums.items():
      assert_close(ours.sums[name], value)
    for name, value in theirs.sweep.items():
      assert_close(ours.sweep[name], value)
    assert_close(ours.sample.entropy_nats, theirs.sample.entropy_nats)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  checkpoints.save_safetensors(folder, CONFIG, parameters(Transformer))
  (folder / 'tokenizer_config.json').write_text(
    '{"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}'
  )
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('partitions', [4])
def test_calibration_finds_the_same_temperatures(folder, partitions):
  """The solver's own tolerance is 0.002, of the temperature."""
  found = [
    load_model(
      folder, attention='reference', training_length=64, layout=placed
    ).align(128, num_sequences=3)
    for placed in (layout(partitions), None)
  ]
  assert found[0].temperatures.encoder == pytest.approx(
    found[1].temperatures.encoder, rel=0.002
  )


def test_all_devices_share_a_batch_unless_told_otherwise(folder):
  with jax.default_device(None):
    model = load_model(folder, attention='reference', batch_size=3)
  assert model.layout.data_size == 8
  assert model.inference.batch_size == 8
  alone = load_model(folder, attention='reference', batch_size=3)
  assert alone.inference.mesh is None
  assert alone.inference.batch_size == 3
  prompts = ['one', 'two, three']
  assert_close(
    np.array(model.score(prompts, prompts)),
    np.array(alone.score(prompts, prompts)),
  )


def test_size_that_does_not_divide_is_named_before_data_is_read(folder):
  six = sharding.make_layout(6, jax.devices()[:6])
  with pytest.raises(ValueError, match='of size .* 1 or 2 would do'):
    load_model(folder, layout=six)


@pytest.mark.parametrize('partitions', [2, 8])
def test_saved_from_one_mesh_loads_on_another(folder, tmp_path, partitions):
  model = load_model(folder, layout=layout(4))
  kernel = model.params['encoder']['layers_0']['mlp']['wi_0']['kernel']
  assert {s.data.shape for s in kernel.addressable_shards} == {(16, 8)}
  model.save(tmp_path / 'huggingface')
  checkpoints.save_orbax(tmp_path / 'orbax', model.config, model.params)
  checkpoints.save_t5x(tmp_path / 't5x', model.params, step=1)
  flat = flax.traverse_util.flatten_dict(parameters(Transformer))
  for name in ('huggingface', 'orbax', 't5x'):
    loaded = checkpoints.load_checkpoint(
      tmp_path / name, layout=layout(partitions)
    )
    assert loaded.fingerprint == model.fingerprint
    for path, array in flax.traverse_util.flatten_dict(loaded.params).items():
      assert array.sharding.mesh.shape['model'] == partitions
      np.testing.assert_array_equal(array, flat[path], err_msg='/'.join(path))


def test_one_device_is_where_jax_puts_arrays(folder):
  """Nothing is committed to a device: the same programs as without a mesh."""
  model = load_model(folder)
  assert model.layout.is_default
  assert not jax.tree.leaves(model.params)[0].committed


_PROCESS = """
import sys
import jax
index, address, folder, output = int(sys.argv[1]), *sys.argv[2:]
jax.distributed.initialize(address, 2, index)
import t5_align
model = t5_align.load_model(
  folder, num_partitions=4, attention='reference', training_length=64
)
assert model.layout.is_leader == (index == 0)
prompts = ['one', 'two, three']
model.save(output)
statistics = model.statistics(None, 96, num_sequences=2, rows_per_sequence=2)
entropy = statistics.sites['encoder'].sums['entropy_nats'].mean()
print(model.fingerprint, *model.score(prompts, prompts), entropy)
"""


@pytest.mark.slow
def test_a_model_over_the_devices_of_two_processes(folder, tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  two = '--xla_force_host_platform_device_count=2'
  flags = f'{os.environ["XLA_FLAGS"]} {two}'  # the last one counts
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', _PROCESS, str(i), address, folder, tmp_path],
      env=os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
      cwd=pathlib.Path(__file__).parents[1],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=240) for process in processes]
  model = load_model(folder, attention='reference', training_length=64)
  statistics = model.statistics(None, 96, num_sequences=2)
  prompts = ['one', 'two, three']
  wanted = model.score(prompts, prompts)
  wanted.append(statistics.sites['encoder'].sums['entropy_nats'].mean())
  for process, (printed, errors) in zip(processes, outputs):
    assert process.returncode == 0, errors[-2000:]
    mark, *numbers = printed.strip().splitlines()[-1].split()
    assert mark == model.fingerprint
    assert_close(np.array(numbers, float), np.array(wanted))
  saved = load_model(tmp_path).params
  flat = flax.traverse_util.flatten_dict(model.params)
  for path, array in flax.traverse_util.flatten_dict(saved).items():
    np.testing.assert_array_equal(array, flat[path])
