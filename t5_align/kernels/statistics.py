"""What the softmax of each attention row leaves behind.

With logits z = (q·k + bias) / τ of a row, its largest m and the denominator
d = Σ exp(z - m), the largest probability and the entropy follow without the
row itself:

    P_max = 1 / d        H = ln d + m - Σ p·z        (nats)

Synopsis:

    out, statistics = attend(..., return_statistics=True)
    statistics.max_probability, statistics.entropy_nats          # [B, N, T]
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class SoftmaxStatistics(NamedTuple):
  """Statistics of each row, float32; rows that see no key have zeros.

  Attributes:
    maximum: largest logit m.
    denominator: d = Σ exp(z - m), at least 1; 0 for a row without keys.
    expected_logit: Σ p·z.
    logit_mean: mean of z over the keys that the row sees.
    logit_variance: variance of z over them (divided by their number).
  """

  maximum: Float[Array, 'B N T']
  denominator: Float[Array, 'B N T']
  expected_logit: Float[Array, 'B N T']
  logit_mean: Float[Array, 'B N T']
  logit_variance: Float[Array, 'B N T']

  @property
  def valid(self) -> Array:
    """Whether the row sees a key at all."""
    return self.denominator > 0

  @property
  def max_probability(self) -> Array:
    """Largest attention probability of the row; 0 without keys."""
    safe = jnp.where(self.valid, self.denominator, 1.0)
    return jnp.where(self.valid, 1 / safe, 0.0)

  @property
  def entropy_nats(self) -> Array:
    """Entropy of the row; 0 without keys."""
    safe = jnp.where(self.valid, self.denominator, 1.0)
    entropy = jnp.log(safe) + self.maximum - self.expected_logit
    return jnp.where(self.valid, entropy, 0.0)
