"""Arrays on disk: what they declare, how they are read, when they are refused.

Every format is read into the same thing: T5X paths and `StoredArray`s, whose
shapes are known before a byte of data is read. So a wrong tree is refused
cheaply, and the weights come in one array at a time: at no moment is there a
second copy of the model. On a mesh of several processes each reads the slice
that its own devices hold, and nothing else.

Synopsis:

    stored = read_safetensors(folder)                  # a StoredCheckpoint
    stored.arrays['token_embedder/embedding'].shape
    stored.arrays['token_embedder/embedding'].load('float32')
    stored.arrays['token_embedder/embedding'].load('float32', sharding=sharding)
    hash_files(stored.files)                           # sha256, hexadecimal
"""

from collections.abc import Callable, Iterable
import concurrent.futures
import dataclasses
import hashlib
import math

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from t5_align import config as config_lib

# The largest array of the largest T5 (umT5-XXL's embedding, float32) is 4 GiB.
# A header that declares more than this is damaged or hostile.
MAX_ARRAY_BYTES = 2**35

# Which part of an array: one slice a dimension, () for all of it.
Index = tuple[slice, ...]

_FLOAT_DTYPES = ('float64', 'float32', 'bfloat16', 'float16')


class CheckpointError(ValueError):
  """A checkpoint cannot be read, or does not fit the model."""


@dataclasses.dataclass(frozen=True)
class StoredArray:
  """An array in a file: its declared shape and dtype, and a way to read it.

  Attributes:
    name: what the file calls it, with the file: for messages.
    shape: shape in T5X's orientation.
    dtype: name of the stored dtype.
    read: reads a part of the data, () for all of it, in the stored dtype and
      T5X's orientation.
  """

  name: str
  shape: tuple[int, ...]
  dtype: str
  read: Callable[[Index], np.ndarray]

  def __post_init__(self):
    if self.dtype not in _FLOAT_DTYPES:
      raise CheckpointError(
        f'{self.name} is stored as {self.dtype}; weights must be one of'
        f' {", ".join(_FLOAT_DTYPES)} (quantized checkpoints are not read).'
      )
    num_bytes = math.prod(self.shape) * jnp.dtype(self.dtype).itemsize
    if num_bytes > MAX_ARRAY_BYTES:
      raise CheckpointError(
        f'{self.name} declares shape {self.shape}, {num_bytes:,} bytes; the'
        f' limit for one array is {MAX_ARRAY_BYTES:,}. The file is damaged'
        ' or no T5 (t5_align.checkpoints.stored.MAX_ARRAY_BYTES raises the'
        ' limit).'
      )

  def load(
    self,
    dtype: str,
    check_finite: bool = True,
    sharding: jax.sharding.Sharding | None = None,
  ) -> jax.Array:
    """Read the array as `dtype`; refuse NaN and infinity.

    Args:
      dtype: of the array in memory.
      check_finite: whether what is read is checked.
      sharding: where it goes; None for the default device. Read is what lies
        between the first and the last element that this process's devices hold.
    """
    if sharding is None:
      return jnp.array(self._read_as(dtype, check_finite, ()))
    held = sharding.addressable_devices_indices_map(self.shape)
    parts = [_bounds(index, self.shape) for index in held.values()]
    start = np.min([[low for low, _ in part] for part in parts], axis=0)
    stop = np.max([[high for _, high in part] for part in parts], axis=0)
    read = self._read_as(
      dtype, check_finite, tuple(map(slice, start.tolist(), stop.tolist()))
    )

    def take(index: Index | None) -> np.ndarray:
      bounds = _bounds(index, self.shape)
      return read[
        tuple(slice(a - i, b - i) for i, (a, b) in zip(start, bounds))
      ]

    return jax.make_array_from_callback(self.shape, sharding, take)

  def _read_as(
    self, dtype: str, check_finite: bool, index: Index
  ) -> np.ndarray:
    stored = self.read(index)
    array = stored.astype(jnp.dtype(dtype), copy=False)
    if check_finite and (count := _count_non_finite(array)):
      before = _count_non_finite(stored)
      raise CheckpointError(
        f'{self.name}: {before or count} of {array.size} values are NaN or'
        f' infinite in {self.dtype if before else dtype}. '
        + (
          'The file is damaged or its training diverged; take another'
          ' copy or step.'
          if before
          else f'They are finite in the stored {self.dtype}: load with'
          " dtype='bfloat16' or 'float32'."
        )
      )
    return array


@dataclasses.dataclass(frozen=True)
class StoredCheckpoint:
  """A checkpoint whose arrays have not been read yet.

  Attributes:
    format: name of the format, for messages and records.
    path: folder that holds it.
    arrays: T5X path to array; a parameter that has no T5X path keeps its name.
    files: files that the weights and the config were read from.
    config: the config that the folder states; None where it states none.
  """

  format: str
  path: epath.Path
  arrays: dict[str, StoredArray]
  files: tuple[epath.Path, ...]
  config: config_lib.T5Config | None = None


def files_below(folder: epath.Path) -> list[epath.Path]:
  """List the files of a folder and its subfolders, on gs:// too."""
  files = []
  for child in folder.iterdir():
    files.extend(files_below(child) if child.is_dir() else [child])
  return files


def hash_files(folder: epath.Path, files: Iterable[epath.Path]) -> str:
  """Return the sha256 of the files' contents and relative names."""

  def hash_file(file: epath.Path) -> str:
    digest = hashlib.sha256()
    with file.open('rb') as stream:
      while block := stream.read(2**20):
        digest.update(block)
    return digest.hexdigest()

  files = sorted(files)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    digests = list(pool.map(hash_file, files))
  names = [str(file.relative_to(folder)) for file in files]
  lines = [f'{digest}  {name}\n' for digest, name in zip(digests, names)]
  return hashlib.sha256(''.join(lines).encode()).hexdigest()


def _bounds(
  index: Index | None, shape: tuple[int, ...]
) -> list[tuple[int, int]]:
  """First and last plus one of each dimension of a part."""
  slices = index or (slice(None),) * len(shape)
  return [s.indices(size)[:2] for s, size in zip(slices, shape)]


def _count_non_finite(array: np.ndarray) -> int:
  if array.dtype == jnp.bfloat16:
    # Exponent bits all ones; four times as fast as isfinite on bfloat16.
    return int(np.count_nonzero((array.view(np.uint16) & 0x7F80) == 0x7F80))
  return array.size - int(np.count_nonzero(np.isfinite(array)))
