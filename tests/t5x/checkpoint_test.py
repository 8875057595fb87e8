"""T5X's own checkpointer reads our folders, and we read its.

This is the path of `t5x.eval`: parameters and step, no optimizer.
"""

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align.checkpoints import load_checkpoint, save_t5x
from t5_align.network import T5Config, Transformer

_REASON = 'T5X is not importable; tests/t5x/README.md says how to make it so.'
t5x_checkpoints = pytest.importorskip('t5x.checkpoints', reason=_REASON)
t5x_partitioning = pytest.importorskip('t5x.partitioning', reason=_REASON)
t5x_train_state = pytest.importorskip('t5x.train_state', reason=_REASON)

# Its own code leaves event loops unclosed.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning',
  'ignore::ResourceWarning',
)

# Sizes that T5X can spread over the eight virtual devices.
CONFIG = T5Config(
  vocab_size=24,
  emb_dim=8,
  num_heads=8,
  num_encoder_layers=2,
  num_decoder_layers=1,
  head_dim=3,
  mlp_dim=16,
  mlp_activations=('gelu', 'linear'),
)


@pytest.fixture
def variables():
  tokens = jnp.ones((1, 1), jnp.int32)
  network = Transformer(CONFIG)
  return network.init(jax.random.key(0), *[tokens] * 3, enable_dropout=False)


def checkpointer(variables, folder):
  """As T5X's runners make it, and the state that it is for."""
  state = t5x_train_state.InferenceState.create(variables)
  partitioner = t5x_partitioning.PjitPartitioner(num_partitions=1)
  return t5x_checkpoints.Checkpointer(state, partitioner, str(folder)), state


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_t5x_reads_ours(tmp_path, variables, dtype):
  params = jax.tree.map(lambda x: x.astype(dtype), variables['params'])
  save_t5x(tmp_path, params, 7)
  zeros = jax.tree.map(jnp.zeros_like, variables)
  reader, _ = checkpointer(zeros, tmp_path)
  state = reader.restore()
  assert int(state.step) == 7
  restored = jax.tree.map(np.asarray, flax.core.unfreeze(state.params))
  assert {leaf.dtype.name for leaf in jax.tree.leaves(restored)} == {dtype}
  jax.tree.map(np.testing.assert_array_equal, restored, params)


def test_we_read_t5xs(tmp_path, variables):
  writer, state = checkpointer(variables, tmp_path)
  writer.save(state.replace(step=jnp.int32(3)))
  checkpoint = load_checkpoint(tmp_path)
  assert checkpoint.path.name == 'checkpoint_3'
  assert checkpoint.format == 't5x'
  assert checkpoint.config == CONFIG
  jax.tree.map(
    np.testing.assert_array_equal, checkpoint.params, variables['params']
  )
