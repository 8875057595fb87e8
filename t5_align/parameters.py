"""Every parameter of a network: its path, shape and logical axes.

Nothing is initialized: the network is traced on shapes. The layers of a stack
are alike, so one of each is traced.

Synopsis:

    parameters = list_parameters(config, decoder_only=False)
    parameters['encoder/layers_3/mlp/wo/kernel']
    # Parameter(shape=(2048, 512), axes=('mlp', 'embed'))
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp

from t5_align.config import T5Config
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.temperature import Temperatures


class Parameter(NamedTuple):
  """What a network says of one of its parameters.

  Attributes:
    shape: in T5X's orientation.
    axes: logical name of each dimension, such as ('embed', 'mlp').
  """

  shape: tuple[int, ...]
  axes: tuple[str, ...]


def list_parameters(
  config: T5Config, *, decoder_only: bool
) -> dict[str, Parameter]:
  """Return path and description of every parameter that the network has."""
  one_layer = dataclasses.replace(
    config,
    num_encoder_layers=1,
    num_decoder_layers=1,
    temperatures=Temperatures(),
    # Some kernels cannot be traced on every machine; none has parameters.
    attention='reference',
  )
  parameters = {}
  for path, parameter in _trace(one_layer, decoder_only).items():
    stack, is_layer, rest = path.partition('/layers_0/')
    if not is_layer:
      parameters[path] = parameter
      continue
    for i in range(getattr(config, f'num_{stack}_layers')):
      parameters[f'{stack}/layers_{i}/{rest}'] = parameter
  return parameters


@functools.lru_cache(maxsize=16)  # a trace takes a second
def _trace(config: T5Config, decoder_only: bool) -> Mapping[str, Parameter]:
  tokens = jnp.zeros((1, 1), jnp.int32)
  if decoder_only:
    module, inputs = DecoderOnlyTransformer(config), [tokens] * 2
  else:
    module, inputs = Transformer(config), [tokens] * 3
  variables = jax.eval_shape(
    lambda key: module.init(key, *inputs, enable_dropout=False),
    jax.random.key(0),
  )
  leaves: dict[str, Any] = flax.traverse_util.flatten_dict(
    variables['params'], sep='/'
  )
  axes: dict[str, Any] = flax.traverse_util.flatten_dict(
    variables['params_axes'], sep='/'
  )
  return {
    path: Parameter(leaf.shape, axes[f'{path}_axes'].names)
    for path, leaf in leaves.items()
  }
