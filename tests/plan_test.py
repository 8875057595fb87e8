"""Plans: bytes that add up, kinds of devices, and models without weights."""

import dataclasses
import json
import subprocess

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import checkpoints, inference, presets, sharding
from t5_align import plan as plan_lib
from t5_align.checkpoints import huggingface_config, sizes
from t5_align.config import T5Config
from t5_align.device_kinds import KINDS, parse_devices
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.parameters import list_parameters

CONFIG = T5Config(
  vocab_size=384,
  emb_dim=16,
  num_heads=8,
  num_encoder_layers=2,
  num_decoder_layers=2,
  head_dim=4,
  mlp_dim=32,
)


@pytest.mark.parametrize(
  ('text', 'kind', 'count', 'hosts'),
  [
    ('8xH200', 'H200', 8, 1),
    ('16xh200/2', 'H200', 16, 2),
    ('A100-40GB', 'A100-40GB', 1, 1),
    # Slices are named by TensorCores up to v5p, by chips in v5e and v6e:
    # cloud.google.com/tpu/docs/v4, /v5p, /v5e.
    ('v4-8', 'v4', 4, 1),
    ('v4-32', 'v4', 16, 4),
    ('v5p-16', 'v5p', 8, 2),
    ('v5e-8', 'v5e', 8, 1),
    ('v5litepod-16', 'v5e', 16, 4),
  ],
)
def test_devices(text, kind, count, hosts):
  devices = parse_devices(text)
  assert devices.kind.name == kind
  assert (devices.count, devices.hosts) == (count, hosts)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('8xH20', "did you mean 'h200'"),
    ('v4-31', 'no TPU slice'),
    ('0xH200', '0 devices'),
    ('8xH200/3', '8 devices on 3 hosts'),
    ('many GPUs', 'wanted for example 8xH200'),
  ],
)
def test_wrong_devices(text, message):
  with pytest.raises(ValueError, match=message):
    parse_devices(text)


def test_every_kind_says_where_its_memory_is_from():
  for kind in KINDS.values():
    assert kind.source.startswith('https://')
    assert 10 * 10**9 < kind.memory_bytes < 300 * 10**9


def folder_of(config, tmp_path):
  """A folder with a config.json and nothing else."""
  tmp_path.mkdir(exist_ok=True)
  path = tmp_path / 'config.json'
  fields = huggingface_config.to_json(config, dtype='float32')
  path.write_text(json.dumps(fields))
  return tmp_path


def test_plan_of_this_machines_devices(tmp_path, monkeypatch):
  """Nothing is allocated; parameters are those of a model that is loaded."""

  def refuse(*args, **kwargs):
    raise AssertionError('An array was made.')

  config = dataclasses.replace(CONFIG, attention='reference')
  folder = folder_of(config, tmp_path)
  monkeypatch.setattr(jax, 'make_array_from_callback', refuse)
  monkeypatch.setattr(jax, 'device_put', refuse)
  found = plan_lib.plan(
    str(folder), 100, num_partitions=4, batch_size=3, attention='reference'
  )
  mesh = sharding.make_mesh(4, jax.devices())
  split = sharding.parameter_shardings(mesh, CONFIG, decoder_only=False)
  wanted = sum(
    4 * int(np.prod(split[path].shard_shape(parameter.shape)))
    for path, parameter in list_parameters(CONFIG, decoder_only=False).items()
  )
  assert found.parameters == wanted
  assert (found.mesh, found.num_groups) == ((2, 4), 1)
  assert (found.batch_size, found.length) == (4, 112)
  assert found.activations > 0 and found.fits is None
  assert f'{found.total_bytes:,}' in str(found)
  assert 'compiled for cpu.' in str(found)


@pytest.mark.slow
def test_plan_of_devices_that_are_elsewhere(tmp_path):
  folder = str(folder_of(CONFIG, tmp_path))
  ask = dict(devices='v4-32', batch_size=8, max_new_tokens=8)
  found = plan_lib.plan(folder, 64, num_partitions=8, **ask)
  assert (found.mesh, found.num_groups) == ((1, 8), 2)
  assert found.fits and 'It fits.' in str(found)
  assert 'v4' in str(found) and '4 hosts' in str(found)
  half = plan_lib.plan(folder, 64, num_partitions=4, **ask)
  assert half.mesh == (1, 4) and half.num_groups == 4
  assert half.parameters > found.parameters
  tight = plan_lib.plan(
    folder, 64, num_partitions=4, device_memory=found.parameters, **ask
  )
  assert tight.fits is False
  assert 'try a larger num_partitions' in str(tight)


@pytest.mark.parametrize('decoder_only', [False, True])
def test_cache_is_that_of_the_network(decoder_only):
  """Leaf by leaf of the cache that `generate` makes, by its shapes."""
  job = {'mesh': (2, 4), 'batch_size': 4, 'length': 32, 'max_new_tokens': 8}
  job |= {'num_beams': 2, 'decoder_only': decoder_only}
  network = (DecoderOnlyTransformer if decoder_only else Transformer)(CONFIG)
  start = (
    inference._start_decoder_only
    if decoder_only
    else inference._start_encoder_decoder
  )
  mesh = sharding.make_mesh(4, jax.devices())
  params = plan_lib._parameter_structs(mesh, CONFIG, decoder_only)
  cache = jax.eval_shape(
    lambda params, inputs: start(
      network, params, inputs, CONFIG.temperatures.as_arrays(CONFIG), 8, 2
    )[1],
    params,
    jax.ShapeDtypeStruct((4, 32), jnp.int32),
  )
  whole = sum(
    leaf.size * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(cache)
    if leaf.ndim == 4
  )
  assert plan_lib._cache_bytes(CONFIG, job) == whole // 8


def test_sizes_without_weights(tmp_path, monkeypatch):
  untied = dataclasses.replace(CONFIG, mlp_activations=('gelu', 'linear'))
  folder = folder_of(untied, tmp_path)
  assert sizes.read_sizes(folder) == sizes.Sizes(untied, False)
  preset = presets.PRESETS['umt5-xxl'].config
  assert sizes.read_sizes('umt5-xxl').config == preset
  assert sizes.read_sizes('bundled').config.num_heads > 0
  (tmp_path / 'config.json').unlink()
  with pytest.raises(checkpoints.CheckpointError, match='neither config.json'):
    sizes.read_sizes(folder)


@pytest.mark.parametrize('decoder_only', [False, True])
def test_sizes_of_folders_that_declare_them(tmp_path, decoder_only):
  flat = {
    path: np.zeros(parameter.shape, np.float32)
    for path, parameter in list_parameters(
      CONFIG, decoder_only=decoder_only
    ).items()
  }
  params = flax.traverse_util.unflatten_dict(flat, sep='/')
  config = CONFIG
  if decoder_only:
    config = dataclasses.replace(CONFIG, num_encoder_layers=0)
  checkpoints.save_orbax(tmp_path / 'orbax', config, params)
  checkpoints.save_t5x(tmp_path / 't5x', params, step=1)
  for name in ('orbax', 't5x'):
    found = sizes.read_sizes(tmp_path / name)
    assert found == sizes.Sizes(config, decoder_only)


def test_sizes_that_do_not_divide():
  with pytest.raises(ValueError, match='of size 6 .* 1 or 2 would'):
    plan_lib.plan('flan-t5-small', 64, devices='8xH200', num_partitions=8)
  with pytest.raises(ValueError, match='wanted one of 1, 2, 4, 8, 16'):
    plan_lib.plan('flan-t5-xxl', 64, devices='v4-32', num_partitions=3)
  with pytest.raises(ValueError, match='must be 1 or more'):
    plan_lib.plan('flan-t5-xxl', 0, devices='v4-32')


def test_a_compilation_that_fails_says_why(monkeypatch):
  failed = subprocess.CompletedProcess([], 1, '', 'Traceback\nKeyError: x\n')
  monkeypatch.setattr(subprocess, 'run', lambda *args, **kwargs: failed)
  with pytest.raises(ValueError, match='could not be compiled: KeyError: x'):
    plan_lib.plan('flan-t5-small', 64, devices='8xH200')


@pytest.mark.slow
def test_the_command_prints_a_plan_and_leaves_nothing(
  tmp_path, capsys, elsewhere
):
  from t5_align import eval as eval_script

  folder = folder_of(CONFIG, tmp_path / 'model')
  flags = ['--plan', '--model', str(folder), '--num_partitions', '8']
  with jax.default_device(None):
    assert eval_script.main([*flags, '--max_input_tokens', '64']) == 0
  assert 'a mesh of 1 (data) x 8 (model)' in capsys.readouterr().out
  assert [path.name for path in tmp_path.iterdir()] == ['model']
  assert eval_script.main(flags) == 2
  assert 'set --max_input_tokens' in capsys.readouterr().err


def test_a_compiler_that_finds_too_little_memory_is_believed(monkeypatch):
  """libtpu refuses; what stands in for the TPU still gives the bytes."""
  bytes_of = dict.fromkeys(('parameters', 'cache', 'logits', 'activations'), 1)
  found = bytes_of | {'program': 'generate', 'how': 'by stand-ins'}
  words = 'XlaRuntimeError: RESOURCE_EXHAUSTED: out of memory on HBM'
  monkeypatch.setattr(plan_lib, '_topology', lambda kind: ('v4', 'megacore'))

  def run(*args, input, **kwargs):
    refuses = json.loads(input)['topology'] is not None
    return subprocess.CompletedProcess(
      [], int(refuses), json.dumps(found), f'Traceback\n{words}\n'
    )

  monkeypatch.setattr(subprocess, 'run', run)
  refused = plan_lib.plan('flan-t5-small', 64, devices='v4-8')
  assert refused.fits is False
  assert f'The compiler: {words}' in str(refused)
