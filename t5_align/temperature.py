"""What divides the attention logits: by site, layer and head, or by length.

    softmax((q·k + bias) / τ)

τ = 1 is off; τ < 1 sharpens, which undoes the dispersion of long inputs (Chi,
Fan and Rudnicky 2024, arXiv 2311.00684). T5 attends at three sites: `encoder`,
`decoder` (its self-attention) and `cross`. A site has one number, one a layer,
one a layer and head, or a law τ(n) of the number of keys n that a row sees.

Temperatures are configuration (hashable, in T5Config). The same class with
arrays for leaves is a pytree, which our own runners pass to compiled functions.

Synopsis:

    Temperatures(encoder=0.8)
    Temperatures(encoder=(0.9, 0.7), cross=Law('log_n', (512,)))
    Law('interpolated', (512, 1.0, 8192, (0.8, 0.7)))  # τ, or one τ a layer
    temperatures.as_arrays(config)              # leaves [L, N], for tracing
    save('temperatures.json', temperatures);  load('temperatures.json')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import itertools
import json
import os
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from t5_align.laws import LAWS
from t5_align.nearest import nearest

SITES = ('encoder', 'decoder', 'cross')
_FILE_VERSION = 1
_LARGEST = float(np.finfo(np.float32).max)


class TemperatureError(ValueError):
  """A temperature that can't divide logits, or doesn't fit the model."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Law:
  """A temperature as a function of the number of keys that a row sees.

  Attributes:
    name: a key of `laws.LAWS`, which says what the coefficients are.
    coefficients: numbers, each one for the site, one a layer, or one a layer
      and head, like a temperature.

  Raises:
    TemperatureError: an unknown law, or coefficients that it can't have.
  """

  name: str = dataclasses.field(metadata={'static': True})
  coefficients: tuple[Any, ...]

  def __post_init__(self):
    if self.name not in LAWS:
      raise TemperatureError(
        f'Unknown law of temperature {self.name!r}; {nearest(self.name, LAWS)}'
      )
    coefficients = _tuples(self.coefficients)
    if not isinstance(coefficients, tuple):
      coefficients = (coefficients,)
    definition = LAWS[self.name]
    try:
      bounds = definition.bounds(len(coefficients))
    except ValueError as error:
      raise TemperatureError(f'Law {self.name!r} has {error}.') from None
    for (label, above), value in zip(bounds.items(), coefficients):
      _check_numbers(value, f'{self.name}: {label}', above)
    if definition.repeated:
      positions = coefficients[:: len(definition.coefficients)]
      if all(isinstance(n, (int, float, np.number)) for n in positions):
        _check_ascending(positions, self.name)
    object.__setattr__(self, 'coefficients', coefficients)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Temperatures:
  """The temperatures of a model's attention.

  Each site is a number, a tuple with one number a layer, a tuple with one tuple
  of head numbers a layer, or a Law. All are dimensionless and positive.

  Attributes:
    encoder: the encoder's self-attention.
    decoder: the decoder's self-attention.
    cross: the decoder's attention to the encoder's output.
  """

  encoder: Any = 1.0
  decoder: Any = 1.0
  cross: Any = 1.0

  def __post_init__(self):
    for site in SITES:
      value = _tuples(getattr(self, site))
      _check_numbers(value, f'{site}: temperature')
      object.__setattr__(self, site, value)

  def check(self, config) -> None:
    """Raise TemperatureError unless the sizes are those of a model.

    Args:
      config: a T5Config.
    """
    for site in SITES:
      _broadcast(getattr(self, site), site, *_site_shape(config, site))

  def as_arrays(self, config) -> Temperatures:
    """Return the same temperatures as float32 arrays, one a layer and head.

    All granularities get the same shapes, so a compiled function that takes
    the result serves every one of them.

    Args:
      config: a T5Config, for the numbers of layers and heads.

    Returns:
      Temperatures with [L, N] leaves.
    """
    whole = Temperatures(
      **{
        site: _broadcast(getattr(self, site), site, *_site_shape(config, site))
        for site in SITES
      }
    )
    return jax.tree.map(jnp.asarray, whole)

  def to_json(self) -> dict[str, Any]:
    """Return the value as JSON types; `from_json` is the inverse."""
    return {site: _site_to_json(getattr(self, site)) for site in SITES}

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> Temperatures:
    """Read what `to_json` gives; raise TemperatureError for anything else."""
    if not isinstance(value, dict):
      raise TemperatureError(
        f'Temperatures are an object with the keys {", ".join(SITES)}; got'
        f' {type(value).__name__}.'
      )
    for key in value:
      if key not in SITES:
        raise TemperatureError(
          f'Unknown attention site {key!r}; {nearest(key, SITES)}'
        )
    return cls(**{k: _site_from_json(k, v) for k, v in value.items()})


def at_layer(value: Any, layer: int) -> Any:
  """Return one layer's part of a site's temperature.

  Args:
    value: a site of Temperatures.
    layer: index of the layer.

  Returns:
    A number, one number a head, or a Law with such coefficients.
  """
  if isinstance(value, Law):
    return Law(
      value.name, tuple(at_layer(c, layer) for c in value.coefficients)
    )
  if isinstance(value, tuple) or jnp.ndim(value) > 0:
    return value[layer]
  return value


def resolve(
  value: Any, key_counts: Callable[[], Int[Array, 'b T']]
) -> Float[Array, '...'] | float:
  """Turn one layer's temperature into what `attend` takes.

  Args:
    value: from `at_layer`.
    key_counts: gives the number of keys that each row sees; called for a Law.

  Returns:
    A scalar, [N], or for a Law [B or 1, N, T].
  """
  if isinstance(value, Law):
    counts = key_counts().astype(jnp.float32)[:, None, :]
    # a number or [N] -> [1, 1 or N, 1]
    coefficients = (
      jnp.asarray(c, jnp.float32).reshape(1, -1, 1) for c in value.coefficients
    )
    return LAWS[value.name].function(counts, *coefficients)
  if isinstance(value, tuple):
    return jnp.asarray(value, jnp.float32)
  return value


def mean_over_heads(
  value: Any, num_keys: Float[np.ndarray, 'n'] | Sequence[float]
) -> Float[np.ndarray, 'n']:
  """Return a site's mean τ over layers and heads, for rows of so many keys.

  Args:
    value: a site of Temperatures.
    num_keys: of a row.
  """
  keys = np.asarray(num_keys, np.float32)
  if not isinstance(value, Law):
    return np.full(keys.shape, np.mean(np.asarray(value, np.float64)))
  coefficients = [np.asarray(c, np.float32) for c in value.coefficients]
  shape = np.broadcast_shapes(
    *((c[:, None] if c.ndim == 1 else c).shape for c in coefficients)
  )
  # number, [L] or [L, N] -> [heads, 1]
  columns = (
    np.broadcast_to(c[:, None] if c.ndim == 1 else c, shape).reshape(-1, 1)
    for c in coefficients
  )
  tau = LAWS[value.name].function(keys[None], *columns)
  return np.asarray(tau).mean(0)


def save(
  path: epath.PathLike, temperatures: Temperatures, **calibration: Any
) -> None:
  """Write a temperatures.json.

  Args:
    path: the file.
    temperatures: what to write.
    **calibration: how they were found, in JSON types; kept beside them.
  """
  document = {
    'version': _FILE_VERSION,
    'temperatures': temperatures.to_json(),
    'calibration': calibration,
  }
  text = json.dumps(document, indent=2, allow_nan=False)
  path = epath.Path(path)
  # A reader sees it whole or not at all.
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_text(text + '\n')
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def load(path: epath.PathLike) -> Temperatures:
  """Read a temperatures.json; raise TemperatureError naming what is wrong."""
  return load_calibrated(path)[0]


def load_calibrated(
  path: epath.PathLike,
) -> tuple[Temperatures, dict[str, Any]]:
  """Read a temperatures.json, and how they were found.

  Returns:
    The temperatures, and what `save` was given as calibration; an empty dict
    for a file that was written by hand.

  Raises:
    TemperatureError: naming what is wrong with the file.
  """
  try:
    document = json.loads(epath.Path(path).read_text())
  except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise TemperatureError(f'{path}: no temperatures here: {error}') from error
  if not isinstance(document, dict) or 'temperatures' not in document:
    raise TemperatureError(
      f'{path}: wanted an object with "version" and "temperatures".'
    )
  if document.get('version') != _FILE_VERSION:
    raise TemperatureError(
      f'{path}: version {document.get("version")!r}, wanted {_FILE_VERSION}.'
    )
  calibration = document.get('calibration', {})
  if not isinstance(calibration, dict):
    raise TemperatureError(
      f'{path}: "calibration" is {type(calibration).__name__}, wanted an'
      ' object.'
    )
  try:
    return Temperatures.from_json(document['temperatures']), calibration
  except TemperatureError as error:
    raise TemperatureError(f'{path}: {error}') from error


def _site_shape(config, site):
  if site == 'encoder':
    return config.num_encoder_layers, config.num_heads
  return config.num_decoder_layers, config.num_heads


def _broadcast(value, label, num_layers, num_heads, above=0.0):
  """Give a site's value the shape [L, N], or say what doesn't fit.

  In NumPy: a config is checked before anything touches a device, which several
  processes must not do before they have found each other.
  """
  if isinstance(value, Law):
    label = f'{label}.{value.name}'
    definition = LAWS[value.name]
    bounds = definition.bounds(len(value.coefficients)).values()
    coefficients = tuple(
      _broadcast(c, label, num_layers, num_heads, bound)
      for c, bound in zip(value.coefficients, bounds)
    )
    if definition.repeated:
      positions = coefficients[:: len(definition.coefficients)]
      _check_ascending(positions, label)
    return Law(value.name, coefficients)
  try:
    array = np.asarray(value, np.float32)
  except ValueError as error:
    raise TemperatureError(
      f'{label}: layers have different numbers of heads.'
    ) from error
  for number in array.flat:
    _check_numbers(number, f'{label}: temperature', above)
  if array.ndim and array.shape[0] != num_layers:
    raise TemperatureError(
      f'{label}: temperatures for {array.shape[0]} layers, but the model has'
      f' {num_layers}. Calibrate with this model.'
    )
  if array.ndim == 2 and array.shape[1] != num_heads:
    raise TemperatureError(
      f'{label}: temperatures for {array.shape[1]} heads, but the model has'
      f' {num_heads}. Calibrate with this model.'
    )
  if array.ndim > 2:
    raise TemperatureError(
      f'{label}: {array.ndim} levels of nesting, wanted at most 2: layers and'
      ' heads.'
    )
  if array.ndim == 1:
    array = array[:, None]
  return np.broadcast_to(array, (num_layers, num_heads))


def _tuples(value):
  """Make lists tuples: gin and JSON give lists, and those can't be hashed."""
  if isinstance(value, (list, tuple)):
    return tuple(_tuples(v) for v in value)
  return value


def _check_numbers(value, label, above=0.0):
  """Check numbers; arrays pass, which in a pytree may be a gradient."""
  if isinstance(value, tuple):
    for v in value:
      _check_numbers(v, label, above)
  elif isinstance(value, (bool, str, dict)):
    raise TemperatureError(f'{label}: wanted a number, got {value!r}.')
  elif isinstance(value, (int, float, np.number)):
    if not above < value <= _LARGEST:  # nan is neither
      hint = '' if above else ' (1 is off, below 1 sharpens)'
      raise TemperatureError(
        f'{label} {value} can not divide logits; wanted a finite number above'
        f' {above:g}{hint}.'
      )


def _check_ascending(positions, label):
  """Check where the knots of a law are; the numbers must be known."""
  for low, high in itertools.pairwise(positions):
    low, high = np.broadcast_arrays(low, high)
    wrong = high <= low
    if np.any(wrong):
      raise TemperatureError(
        f'{label}: the knots must ascend in n, the number of keys; got'
        f' {low[wrong][0]:g} before {high[wrong][0]:g}.'
      )


def _site_to_json(value):
  if isinstance(value, Law):
    coefficients = [_site_to_json(c) for c in value.coefficients]
    return {'law': value.name, 'coefficients': coefficients}
  if isinstance(value, (int, float)):
    return float(value)
  return np.asarray(value, np.float64).tolist()


def _site_from_json(site, value):
  if isinstance(value, dict):
    if set(value) != {'law', 'coefficients'}:
      raise TemperatureError(
        f'{site}: a law is an object with "law" and "coefficients"; got'
        f' {sorted(value)}.'
      )
    return Law(str(value['law']), _tuples(value['coefficients']))
  if not isinstance(value, (int, float, list)):
    raise TemperatureError(
      f'{site}: wanted a number, a list or a law; got {type(value).__name__}.'
    )
  return value
