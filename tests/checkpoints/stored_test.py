"""Single arrays: sizes, dtypes, NaN; the hash of a checkpoint."""

import dataclasses

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align.checkpoints import CheckpointError
from t5_align.checkpoints import stored as stored_lib


def stored(array):
  array = np.asarray(array)
  return stored_lib.StoredArray(
    'file: x', array.shape, array.dtype.name, lambda index: array[index]
  )


DTYPES = ['float32', 'bfloat16', 'float16']


@pytest.mark.parametrize('source', ['float64', *DTYPES])
@pytest.mark.parametrize('target', DTYPES)
def test_casts(source, target):
  array = np.linspace(-2, 2, 12).reshape(3, 4).astype(jnp.dtype(source)).T
  loaded = stored(array).load(target)
  assert loaded.dtype == target
  np.testing.assert_array_equal(loaded, array.astype(jnp.dtype(target)))


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('dtype', DTYPES)
def test_non_finite(value, dtype):
  array = np.ones((3, 4), jnp.dtype(dtype))
  array[1, 2] = array[2, 0] = value
  message = f'file: x: 2 of 12 values are NaN or infinite in {dtype}'
  with pytest.raises(CheckpointError, match=message):
    stored(array).load('float32')
  assert stored(array).load('float32', check_finite=False).shape == (3, 4)


def test_overflow_of_the_cast_is_told_from_damage():
  with pytest.raises(CheckpointError, match='1 of 2 .* finite in the stored'):
    with np.errstate(over='ignore'):
      stored(np.array([1.0, 1e5], np.float32)).load('float16')


def test_largest_bfloat16_is_finite():
  largest = jnp.finfo(jnp.bfloat16).max
  assert stored(np.full(3, largest)).load('bfloat16')[0] == largest


def test_huge_array_is_refused_before_it_is_read():
  def read(index):
    raise AssertionError('It was read.')

  limit = stored_lib.MAX_ARRAY_BYTES
  stored_lib.StoredArray('x', (limit // 4,), 'float32', read)
  with pytest.raises(CheckpointError, match='x declares .* the limit for one'):
    stored_lib.StoredArray('x', (limit // 4 + 1,), 'float32', read)


def test_only_floats_are_weights():
  with pytest.raises(CheckpointError, match='stored as int8'):
    stored(np.zeros(3, np.int8))


def test_hash_sees_names_and_contents(tmp_path):
  folder = epath.Path(tmp_path)
  a, b, c = folder / 'a', folder / 'b', folder / 'sub' / 'c'
  a.write_text('one')
  b.write_text('one')
  c.parent.mkdir()
  c.write_text('one')
  hashes = [stored_lib.hash_files(folder, files) for files in ([a], [b], [c])]
  assert len(set(hashes)) == 3
  assert stored_lib.hash_files(folder, [b, a]) == (
    stored_lib.hash_files(folder, [a, b])
  )
  a.write_text('two')
  assert stored_lib.hash_files(folder, [a]) != hashes[0]


class OtherProcess:
  """The sharding that one of several processes sees: a part of the array."""

  def __init__(self, *indices):
    self.indices = indices

  def addressable_devices_indices_map(self, shape):
    del shape
    return dict(enumerate(self.indices))


@pytest.mark.parametrize(
  ('indices', 'read'),
  [
    # Two devices' columns; a copy on another device; what all devices have.
    (
      [np.s_[:, 6:9], np.s_[:, 9:12], np.s_[:, 6:9]],
      (slice(0, 8), slice(6, 12)),
    ),
    ([np.s_[2:4, :]], (slice(2, 4), slice(0, 12))),
    ([np.s_[:, :], None], (slice(0, 8), slice(0, 12))),
  ],
)
def test_a_process_reads_once_and_only_what_its_devices_hold(
  indices, read, monkeypatch
):
  array = np.arange(96, dtype=np.float32).reshape(8, 12)
  seen, placed = [], []
  monkeypatch.setattr(
    jax,
    'make_array_from_callback',
    lambda shape, sharding, take: placed.extend(map(take, sharding.indices)),
  )
  opened = stored(array)
  opened = dataclasses.replace(
    opened, read=lambda index: seen.append(index) or array[index]
  )
  # Not `load`, whose annotation wants a sharding of JAX's.
  type(opened).load.__wrapped__(
    opened, 'float32', sharding=OtherProcess(*indices)
  )
  assert seen == [read]
  for index, part in zip(indices, placed):
    np.testing.assert_array_equal(part, array[index or ...])


def test_only_what_is_read_is_checked():
  """NaN in another process's part is its to report."""
  array = np.ones((4, 4), np.float32)
  array[0, 0] = np.nan
  checked = stored(array)._read_as('float32', True, np.s_[2:4, :])
  assert np.isfinite(checked).all()
  with pytest.raises(CheckpointError, match='1 of 8 values'):
    stored(array)._read_as('float32', True, np.s_[:2, :])
