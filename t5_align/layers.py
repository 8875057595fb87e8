"""The plain layers of T5: dense, MLP, RMS layer norm, embedding, bias table.

Parameter names, shapes and logical axes are T5X's, so its checkpoints load and
its partitioner shards them; every parameter is made with `param_with_axes`.

Synopsis:

    x = LayerNorm(dtype, name='pre_mlp_layer_norm')(x)              # [B, T, D]
    y = MlpBlock(config, name='mlp')(x, deterministic=True)         # [B, T, D]
    table = RelativePositionBias(config, name='relpos_bias')()      # [N, K]
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import math
import operator
from typing import Any

from flax import linen as nn
from flax.linen.partitioning import param_with_axes
from flax.linen.spmd import with_logical_constraint
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t5_align.config import T5Config

KERNEL_INIT = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
_MLP_INIT = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
_BIAS_INIT = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')


class DenseGeneral(nn.Module):
  """A matrix without bias from the last axes to new ones.

  Attributes:
    features: sizes of the new axes; stored as one, in a [in, out] kernel.
    kernel_axes: logical names of the kernel's two axes.
    dtype: of the computation.
    kernel_init: initializer.
    num_input_axes: how many of the input's last axes are contracted.
  """

  features: tuple[int, ...]
  kernel_axes: tuple[str, str]
  dtype: Any = 'float32'
  kernel_init: Callable[..., Array] = _MLP_INIT
  num_input_axes: int = 1

  @nn.compact
  def __call__(self, inputs: Float[Array, '...']) -> Float[Array, '...']:
    axes = tuple(range(-self.num_input_axes, 0))
    in_shape = tuple(inputs.shape[a] for a in axes)
    kernel = param_with_axes(
      'kernel',
      self.kernel_init,
      (math.prod(in_shape), math.prod(self.features)),
      jnp.float32,
      axes=self.kernel_axes,
    )
    kernel = kernel.astype(self.dtype).reshape(*in_shape, *self.features)
    contract = tuple(inputs.ndim + a for a in axes)
    dimensions = ((contract, tuple(range(len(axes)))), ((), ()))
    return lax.dot_general(inputs.astype(self.dtype), kernel, dimensions)


class MlpBlock(nn.Module):
  """T5's feed-forward block: one activation (1.0) or a gated one (1.1)."""

  config: T5Config

  @nn.compact
  def __call__(
    self, inputs: Float[Array, 'B T D'], *, deterministic: bool
  ) -> Float[Array, 'B T D']:
    cfg = self.config
    gated = len(cfg.mlp_activations) > 1
    factors = []
    for i, activation in enumerate(cfg.mlp_activations):
      x = DenseGeneral(
        (cfg.mlp_dim,),
        ('embed', 'mlp'),
        cfg.dtype,
        name=f'wi_{i}' if gated else 'wi',
      )(inputs)
      factors.append(
        x if activation == 'linear' else getattr(nn, activation)(x)
      )
    x = functools.reduce(operator.mul, factors)
    # [B, T, F], the same mask for all positions, as in T5X
    x = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
      x, deterministic=deterministic
    )
    x = with_logical_constraint(x, ('batch', 'length', 'mlp'))
    return DenseGeneral(
      (inputs.shape[-1],), ('mlp', 'embed'), cfg.dtype, name='wo'
    )(x)


class LayerNorm(nn.Module):
  """T5's layer norm: root mean square, no mean and no bias, in float32."""

  config: T5Config

  @nn.compact
  def __call__(self, x: Float[Array, '... D']) -> Float[Array, '... D']:
    scale = param_with_axes(
      'scale',
      nn.initializers.ones,
      (x.shape[-1],),
      jnp.float32,
      axes=('embed',),
    )
    x = x.astype(jnp.float32)
    mean_square = jnp.mean(lax.square(x), axis=-1, keepdims=True)
    x = x * lax.rsqrt(mean_square + self.config.layer_norm_epsilon)
    dtype = self.config.dtype
    scale = scale.astype(dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    return x.astype(dtype) * scale


class Embed(nn.Module):
  """Token embedding, and the output layer where T5 ties the two."""

  config: T5Config

  def setup(self):
    cfg = self.config
    self.embedding = param_with_axes(
      'embedding',
      nn.initializers.normal(stddev=1.0),
      (cfg.vocab_size, cfg.emb_dim),
      jnp.float32,
      axes=('vocab', 'embed'),
      module=self,
    )

  def __call__(self, tokens: Int[Array, 'B T']) -> Float[Array, 'B T D']:
    # A token outside the vocabulary becomes NaN and so is noticed.
    rows = jnp.take(self.embedding, tokens, axis=0, mode='fill')
    x = rows.astype(self.config.dtype)
    return with_logical_constraint(x, ('batch', 'length', 'embed'))

  def attend(self, x: Float[Array, 'B T D']) -> Float[Array, 'B T V']:
    """Return float32 logits of each piece."""
    return jnp.einsum(
      'BTD,VD->BTV', x.astype(jnp.float32), jnp.asarray(self.embedding)
    )


class RelativePositionBias(nn.Module):
  """The table of relative position biases, one value a head and bucket."""

  config: T5Config

  @nn.compact
  def __call__(self) -> Float[Array, 'N K']:
    cfg = self.config
    return param_with_axes(
      'rel_embedding',
      _BIAS_INIT,
      (cfg.num_heads, cfg.relative_attention_num_buckets),
      jnp.float32,
      axes=('heads', 'relpos_buckets'),
    )


def query_init(head_dim: int) -> Callable[..., Array]:
  """Fold 1/sqrt(H) into the query's initial kernel: T5 scales nothing else."""

  def init(key: jax.Array, shape, dtype=jnp.float32):
    return KERNEL_INIT(key, shape, dtype) / math.sqrt(head_dim)

  return init
