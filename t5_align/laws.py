"""Temperatures as functions of the number of keys that a row sees: τ(n).

A softmax over more keys is flatter. Each law divides the logits of a row of n
keys by τ(n), which falls with n. Those with a training length L_tr are 1 up to
it, so that short inputs stay as they were.

    log_n                           ln L_tr / ln n
    ssmax                           1 / (s ln n)
    yarn                            (1 + 0.1 ln(n / L_tr))⁻²
    infoscale                       √((1 - L_tr^(-2/d)) / (1 - n^(-2/d)))
    gaussian_entropy                σ / √(σ² + 2 ln(n / L_tr))
    gaussian_maximum_probability    σ / (σ + √(2 ln n) - √(2 ln L_tr))
    interpolated                    through given points of (ln n, ln τ)

σ is the standard deviation of a row's logits at the training length; the two
laws that have it are derived, with their limits, in `alignment/gaussian.py`.
A new law is a function here, an entry of LAWS, and a test.

Synopsis:

    LAWS['log_n'].function(num_keys, 512.0)     # τ, of num_keys' shape
    LAWS['log_n'].bounds(1)                     # {'training_length': 1.0}
    Temperatures(encoder=Law('interpolated', (512, 1.0, 8192, 0.7)))
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class LawDefinition:
  """One rule τ(n).

  Attributes:
    function: f(num_keys, *coefficients) -> τ, on float arrays that broadcast
      (numbers too); can be traced and differentiated.
    coefficients: name of each coefficient -> what it must be above.
    source: where the rule comes from.
    repeated: the coefficients are one knot, given any number of times; the
      first of them ascends from knot to knot.
  """

  function: Callable[..., Float[Array, '...']]
  coefficients: dict[str, float]
  source: str
  repeated: bool = False

  def bounds(self, count: int) -> dict[str, float]:
    """Name each of `count` coefficients, with what it must be above.

    Raises:
      ValueError: the law does not take so many.
    """
    size = len(self.coefficients)
    names = ', '.join(self.coefficients)
    if not self.repeated:
      if count != size:
        raise ValueError(f'{count} coefficients, wanted {size}: {names}')
      return self.coefficients
    if count < size or count % size:
      raise ValueError(
        f'{count} coefficients, wanted {size} for every knot: {names}'
      )
    return {
      f'{name}_{knot + 1}': above
      for knot in range(count // size)
      for name, above in self.coefficients.items()
    }


def _log_n(num_keys, training_length):
  longer = jnp.maximum(num_keys, training_length)
  return jnp.log(training_length) / jnp.log(longer)


def _ssmax(num_keys, scale):
  # One key has weight 1 at any temperature, and ln 1 would divide by zero.
  return 1 / (scale * jnp.log(jnp.maximum(num_keys, 2.0)))


def _yarn(num_keys, training_length):
  # YaRN multiplies queries and keys each, hence the square.
  return (1 + 0.1 * _log_ratio(num_keys, training_length)) ** -2


def _infoscale(num_keys, training_length, head_dim):
  def spread(length):  # 1 - length^(-2/d), without cancellation
    return -jnp.expm1(-2 / head_dim * jnp.log(length))

  longer = jnp.maximum(num_keys, training_length)
  return jnp.sqrt(spread(training_length) / spread(longer))


def _gaussian_entropy(num_keys, training_length, sigma):
  ratio = _log_ratio(num_keys, training_length)
  return sigma / jnp.sqrt(sigma * sigma + 2 * ratio)


def _gaussian_maximum_probability(num_keys, training_length, sigma):
  longer = jnp.maximum(num_keys, training_length)
  later = jnp.sqrt(2 * jnp.log(longer)) - jnp.sqrt(2 * jnp.log(training_length))
  return sigma / (sigma + later)


def _interpolated(num_keys, *knots):
  # A row without keys has no logarithm, and its τ divides nothing.
  position = jnp.log(jnp.maximum(num_keys, 1.0))
  positions = [jnp.log(n) for n in knots[::2]]
  values = [jnp.log(tau) for tau in knots[1::2]]
  # Each piece adds its whole rise to what is beyond it: no search, and
  # constant outside. 0 · position is for the shape, where there is one knot.
  result = values[0] + 0 * position
  for (left, right), (low, high) in zip(
    itertools.pairwise(positions), itertools.pairwise(values)
  ):
    share = jnp.clip((position - left) / (right - left), 0, 1)
    result = result + share * (high - low)
  return jnp.exp(result)


def _log_ratio(num_keys, training_length):
  return jnp.log(jnp.maximum(num_keys, training_length) / training_length)


# ln 1 = 0: from one key nothing can be scaled.
_LENGTH = {'training_length': 1.0}

LAWS: dict[str, LawDefinition] = {
  'log_n': LawDefinition(
    _log_n,
    _LENGTH,
    'Su 2021, https://kexue.fm/archives/8823; Chiang and Cholak 2022,'
    ' arXiv 2202.12172',
  ),
  'ssmax': LawDefinition(
    _ssmax, {'scale': 0.0}, 'Nakanishi 2025, arXiv 2501.19399'
  ),
  'yarn': LawDefinition(
    _yarn, _LENGTH, 'Peng, Quesnelle, Fan and Shippole 2023, arXiv 2309.00071'
  ),
  'infoscale': LawDefinition(
    _infoscale, _LENGTH | {'head_dim': 0.0}, 'Li et al. 2025, arXiv 2501.08570'
  ),
  'gaussian_entropy': LawDefinition(
    _gaussian_entropy,
    _LENGTH | {'sigma': 0.0},
    'The entropy strategy of Chi, Fan and Rudnicky 2024, arXiv 2311.00684, in'
    ' the random energy model (Derrida 1981,'
    ' https://doi.org/10.1103/PhysRevB.24.2613)',
  ),
  'gaussian_maximum_probability': LawDefinition(
    _gaussian_maximum_probability,
    _LENGTH | {'sigma': 0.0},
    'The maximum probability strategy of arXiv 2311.00684, in the random'
    ' energy model (https://doi.org/10.1103/PhysRevB.24.2613)',
  ),
  'interpolated': LawDefinition(
    _interpolated,
    {'n': 0.0, 'tau': 0.0},
    'Temperatures found at some lengths by arXiv 2311.00684, and ln τ linear'
    ' in ln n between them',
    repeated=True,
  ),
}
