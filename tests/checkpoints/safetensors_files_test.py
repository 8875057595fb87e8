"""Damaged safetensors: declared against actual size, and nothing read."""

import json
import struct

from etils import epath
import numpy as np
import pytest
import safetensors.numpy

from t5_align.checkpoints import CheckpointError, safetensors_files


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'model.safetensors'
  safetensors.numpy.save_file({'a': np.arange(100, dtype=np.float32)}, path)
  return path


def open_folder(file):
  return safetensors_files.open_folder(epath.Path(file.parent))


def with_header(fields, data=b''):
  header = json.dumps(fields).encode()
  return struct.pack('<Q', len(header)) + header + data


def test_reads(file):
  tensors, files = open_folder(file)
  assert files == [epath.Path(file)]
  assert (tensors['a'].shape, tensors['a'].dtype) == ((100,), 'float32')
  np.testing.assert_array_equal(tensors['a'].read(()), np.arange(100))


def test_truncated(file):
  whole = file.read_bytes()
  file.write_bytes(whole[:-10])
  message = f'declares {len(whole)} bytes, the file has {len(whole) - 10} bytes'
  with pytest.raises(CheckpointError, match=message) as error:
    open_folder(file)
  assert str(file) in str(error.value)


@pytest.mark.parametrize('length', [0, 5, 8, 20])
def test_cut_in_the_header(file, length):
  file.write_bytes(file.read_bytes()[:length])
  with pytest.raises(CheckpointError, match=r'model\.safetensors.* bytes'):
    open_folder(file)


def test_header_longer_than_the_file(file):
  file.write_bytes(struct.pack('<Q', 2**60) + b'{}')
  with pytest.raises(CheckpointError, match='declares a header of 1,152,921'):
    open_folder(file)


def test_header_that_is_no_json(file):
  file.write_bytes(struct.pack('<Q', 4) + b'abcd')
  with pytest.raises(CheckpointError, match='the header is damaged'):
    open_folder(file)


def test_tensor_larger_than_the_file(file):
  fields = {'dtype': 'F32', 'shape': [2**40], 'data_offsets': [0, 2**42]}
  file.write_bytes(with_header({'a': fields}, b'\0' * 4))
  with pytest.raises(CheckpointError, match='declares 4,398,046,511,'):
    open_folder(file)


def test_overlapping_tensors(file):
  fields = {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}
  file.write_bytes(with_header({'a': fields, 'b': fields}, b'\0' * 4))
  with pytest.raises(CheckpointError, match='header contradicts itself'):
    open_folder(file)


def test_quantized(file):
  safetensors.numpy.save_file({'a': np.zeros(3, np.int8)}, file)
  with pytest.raises(CheckpointError, match='a is stored as I8.*quantized'):
    open_folder(file)
