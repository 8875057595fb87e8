"""Which weights these are, whatever format they are stored in.

A folder's content hash changes with its format; this doesn't. Norms and
position biases are few numbers, and any training changes all of them.

Synopsis:

    fingerprint(checkpoint.params)          # 64 hexadecimal digits
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
from typing import Any

import flax.traverse_util
import jax.numpy as jnp

from t5_align import sharding

_NAMES = ('rel_embedding', 'scale')


def fingerprint(params: Mapping[str, Any]) -> str:
  """Return SHA-256 of the norms and position biases, rounded to bfloat16.

  Args:
    params: T5X's tree. Weights stored in float32 and, rounded, in bfloat16
      have the same fingerprint. Where they are spread over processes, all of
    those must ask.
  """
  digest = hashlib.sha256()
  for path, value in sorted(flax.traverse_util.flatten_dict(params).items()):
    if path[-1] in _NAMES:
      digest.update('/'.join(path).encode())
      digest.update(sharding.to_host(value).astype(jnp.bfloat16).tobytes())
  return digest.hexdigest()
