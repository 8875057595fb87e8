"""Layouts of devices, and where parameters go on them."""

import jax
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from t5_align import presets, sharding
from t5_align.config import T5Config

CONFIG = T5Config(
  vocab_size=48,
  emb_dim=16,
  num_heads=4,
  num_encoder_layers=2,
  num_decoder_layers=1,
  head_dim=6,
  mlp_dim=32,
)


@pytest.mark.parametrize('partitions', [1, 2, 4, 8])
def test_a_process_is_a_group(partitions):
  layout = sharding.make_layout(partitions, jax.devices())
  assert layout.mesh.axis_names == ('data', 'model')
  assert (layout.data_size, layout.num_partitions) == (
    8 // partitions,
    partitions,
  )
  assert (layout.group, layout.num_groups, layout.is_leader) == (0, 1, True)
  assert set(layout.mesh.devices.flat) == set(jax.devices())


def test_default_device_of_jax_is_taken():
  with jax.default_device(jax.devices()[3]):
    layout = sharding.make_layout()
  assert list(layout.mesh.devices.flat) == [jax.devices()[3]]


@pytest.mark.parametrize('partitions', [0, 3, 16])
def test_partitions_that_do_not_fit_the_devices(partitions):
  with pytest.raises(ValueError, match=f'is {partitions}, .* 1, 2, 4, 8'):
    sharding.make_layout(partitions, jax.devices())


@pytest.mark.parametrize(
  ('partitions', 'process', 'group', 'num_groups', 'leader', 'members'),
  [
    (1, 2, 2, 4, True, [4, 5]),
    (2, 3, 3, 4, True, [6, 7]),
    (4, 0, 0, 2, True, [0, 1, 2, 3]),
    (4, 3, 1, 2, False, [4, 5, 6, 7]),
    (8, 3, 0, 1, False, list(range(8))),
  ],
)
def test_groups_of_four_processes_of_two_devices(
  partitions, process, group, num_groups, leader, members
):
  processes = [i // 2 for i in range(8)]
  found = sharding.find_group(partitions, processes, process)
  assert found == (group, num_groups, leader, members)


def test_groups_of_unlike_processes():
  """Three devices and two: a group spans processes only if all are alike."""
  processes = [0, 0, 0, 1, 1]
  assert sharding.find_group(2, processes, 1) == (1, 2, True, [3, 4])
  with pytest.raises(ValueError, match='wanted one of 1, 3'):
    sharding.find_group(6, processes, 0)
  with pytest.raises(ValueError, match='Process 2 has none'):
    sharding.find_group(1, processes, 2)


def test_parameters_follow_t5x_rules():
  """Specs as T5X's partitioner gives them by its default rules."""
  mesh = sharding.make_mesh(4, jax.devices())
  found = {
    path: s.spec
    for path, s in sharding.parameter_shardings(
      mesh, CONFIG, decoder_only=False
    ).items()
  }
  assert found['token_embedder/embedding'] == P('model', None)
  assert found['encoder/relpos_bias/rel_embedding'] == P('model', None)
  assert found['encoder/layers_1/attention/query/kernel'] == P(None, 'model')
  assert found['encoder/layers_1/attention/out/kernel'] == P('model', None)
  assert found['decoder/layers_0/mlp/wi/kernel'] == P(None, 'model')
  assert found['decoder/layers_0/mlp/wo/kernel'] == P('model', None)
  assert found['decoder/logits_dense/kernel'] == P(None, 'model')
  assert found['decoder/decoder_norm/scale'] == P(None)


def test_dimension_that_does_not_divide():
  mesh = sharding.make_mesh(8, jax.devices())
  wanted = (
    r"relpos_bias/rel_embedding \[4, 32\]: its axis 'heads' \(num_heads\) of"
    " size 4 .*'model' of 8 devices.* 1 or 2 or 4 would do"
  )
  with pytest.raises(ValueError, match=wanted):
    sharding.parameter_shardings(mesh, CONFIG, decoder_only=False)


def test_what_would_do_divides_heads_and_devices():
  """Of six heads on eight devices: 3 divides the heads, not the devices."""
  config = presets.get_preset('flan-t5-small').config
  mesh = sharding.make_mesh(4, jax.devices())
  with pytest.raises(ValueError, match='was asked for, 1 or 2 would do'):
    sharding.parameter_shardings(mesh, config, decoder_only=False)


def test_batches_are_split_and_the_rest_is_copied():
  mesh = sharding.make_mesh(2, jax.devices())
  tokens = np.arange(24).reshape(8, 3)
  split = sharding.split_batch(mesh, tokens)
  assert {s.data.shape for s in split.addressable_shards} == {(2, 3)}
  copied = sharding.replicate(mesh, {'a': tokens})['a']
  assert {s.data.shape for s in copied.addressable_shards} == {(8, 3)}
  np.testing.assert_array_equal(sharding.to_host(split), tokens)
  assert sharding.mesh_of([copied]) == mesh
  assert sharding.round_up(5, mesh) == 8


def test_one_device_is_no_mesh():
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  placed = sharding.replicate(mesh, np.ones(3))
  assert sharding.mesh_of([placed]) is None
  assert sharding.replicate(None, 'anything') == 'anything'
  assert sharding.round_up(5, None) == 5
