"""Random parameters, as a network's initializers would draw them, at once.

Compiling the initialization of a network takes longer than most tests.
"""

import math

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from t5_align.parameters import list_parameters


def random_parameters(config, *, decoder_only=False, seed=0):
  """Return nested float32 parameters; T5's scales, all normal."""
  random = np.random.default_rng(seed)
  found = {}
  listed = list_parameters(config, decoder_only=decoder_only)
  for path, parameter in listed.items():
    value = np.ones(parameter.shape)
    if not path.endswith('/scale'):
      value = random.normal(size=parameter.shape)
    if path.endswith('/kernel'):
      value /= math.sqrt(parameter.shape[0])
    if path.endswith('/query/kernel'):
      value /= math.sqrt(config.head_dim)
    if path.endswith('/rel_embedding'):
      value /= math.sqrt(sum(parameter.shape) / 2)
    found[path] = jnp.asarray(value, jnp.float32)
  return flax.traverse_util.unflatten_dict(found, sep='/')
