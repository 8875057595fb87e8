"""Where arrays live: one mesh and one table of rules, for CPU, GPU and TPU.

A mesh has two axes. Examples of a batch are split over 'data'; heads, MLP and
vocabulary over 'model', as T5X does (Megatron's split, Shoeybi et al. 2019,
arXiv 1909.08053). Which dimension of a parameter is which, the network says by
logical names. A group of devices holds one copy of the model on 'model', or
several on 'data'; groups, where there are several processes, never exchange
arrays.

Synopsis:

    layout = make_layout(num_partitions=2)           # of 8 devices: mesh (4, 2)
    shardings = parameter_shardings(layout.mesh, config, decoder_only=False)
    mesh = mesh_of(params)                           # None on one device
    with use_mesh(mesh):
      compiled(params, replicate(mesh, tokens))
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import math
from typing import Any, TypeVar, cast

from flax import linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from t5_align.config import T5Config
from t5_align.parameters import Parameter, list_parameters

_T = TypeVar('_T')
DATA, MODEL = 'data', 'model'

# Logical axis -> axis of the mesh. T5X's defaults:
# t5x/partitioning.py, standard_logical_axis_rules().
LOGICAL_AXIS_RULES: tuple[tuple[str, str | None], ...] = (
  ('batch', DATA),
  ('vocab', MODEL),
  ('mlp', MODEL),
  ('heads', MODEL),
  ('joined_kv', MODEL),
  ('embed', None),
  ('kv', None),
  ('length', None),
  ('relpos_buckets', None),
)

# Logical axis of a parameter -> the field of T5Config that sets its size.
_FIELDS = {
  'vocab': 'vocab_size',
  'mlp': 'mlp_dim',
  'heads': 'num_heads',
  'joined_kv': 'num_heads · head_dim',
}


@dataclasses.dataclass(frozen=True)
class Layout:
  """The devices that work together, and which of several groups they are.

  Attributes:
    mesh: of this group's devices, with axes ('data', 'model').
    group: number of this process's group.
    num_groups: how many there are; samples are dealt to them by id.
    is_leader: whether this process writes what its group found.
  """

  mesh: Mesh
  group: int = 0
  num_groups: int = 1
  is_leader: bool = True

  @property
  def is_default(self) -> bool:
    """Whether all is on the one device where JAX puts arrays anyway."""
    default: Any = jax.config.values['jax_default_device']
    if not isinstance(default, jax.Device):
      default = jax.local_devices(backend=default)[0]
    return list(self.mesh.devices.flat) == [default]

  @property
  def num_partitions(self) -> int:
    """Devices that share one copy of the parameters."""
    return self.mesh.shape[MODEL]

  @property
  def num_processes(self) -> int:
    """Processes that run the group's programs together."""
    return len({device.process_index for device in self.mesh.devices.flat})

  @property
  def data_size(self) -> int:
    """Copies of the parameters, each with its part of a batch."""
    return self.mesh.shape[DATA]


def make_layout(
  num_partitions: int = 1, devices: Sequence[Any] | None = None
) -> Layout:
  """Lay a model out over devices.

  Args:
    num_partitions: devices that share one copy of the parameters. Up to the
      number of devices of a process (which it must divide), a group is one
      process; beyond (a multiple of it), a group is as many processes as are
      needed, which then run the same programs.
    devices: of all processes. None for all there are; where
      jax_default_device is set, for that one.

  Raises:
    ValueError: num_partitions doesn't fit the devices; says what would.
  """
  if devices is None:
    default: Any = jax.config.values['jax_default_device']
    is_device = isinstance(default, jax.Device)
    devices = [default] if is_device else jax.devices(default)
  devices = sorted(devices, key=lambda d: (d.process_index, d.id))
  group, num_groups, is_leader, members = find_group(
    num_partitions, [d.process_index for d in devices], jax.process_index()
  )
  mesh = make_mesh(num_partitions, [devices[i] for i in members])
  return Layout(mesh, group, num_groups, is_leader)


def find_group(
  num_partitions: int, processes: Sequence[int], process: int
) -> tuple[int, int, bool, list[int]]:
  """Form groups of devices, and find the one that a process belongs to.

  Args:
    num_partitions: devices that share one copy of the parameters.
    processes: which process has each device, in ascending order.
    process: who asks.

  Returns:
    The group's number, the number of groups, whether the process leads its
    group, and the indices of the group's devices.

  Raises:
    ValueError: num_partitions doesn't fit the devices; says what would.
  """
  counts = collections.Counter(processes)
  names = sorted(counts)
  if process not in counts:
    raise ValueError(
      f'Process {process} has none of the {len(processes)} devices.'
    )
  local = counts[process]
  fitting = [n for n in range(1, local + 1) if local % n == 0]
  if set(counts.values()) == {local}:
    wholes = range(2, len(names) + 1)
    fitting += [local * n for n in wholes if len(names) % n == 0]
  if num_partitions not in fitting:
    raise ValueError(
      f'num_partitions is {num_partitions}, and there are {local} devices in'
      f' each of {len(names)} processes; wanted one of'
      f' {", ".join(map(str, fitting))}.'
    )
  span = max(1, num_partitions // local)  # processes in a group
  place = names.index(process)
  members = names[place // span * span :][:span]
  return (
    place // span,
    len(names) // span,
    place % span == 0,
    [i for i, name in enumerate(processes) if name in members],
  )


def make_mesh(num_partitions: int, devices: Sequence[Any]) -> Mesh:
  """Return the (data, model) mesh of these devices."""
  return jax.make_mesh(
    (len(devices) // num_partitions, num_partitions),
    (DATA, MODEL),
    axis_types=(AxisType.Auto,) * 2,
    devices=devices,
  )


def parameter_shardings(
  mesh: Mesh, config: T5Config, *, decoder_only: bool
) -> dict[str, NamedSharding]:
  """Return path and sharding of every parameter.

  Raises:
    ValueError: a dimension does not divide over its axis of the mesh; names
      the parameter, its size, and which num_partitions would do.
  """
  parameters = list_parameters(config, decoder_only=decoder_only)
  check_divides(mesh.shape[MODEL], parameters, mesh.size)
  return {
    path: NamedSharding(mesh, logical_spec(parameter.axes))
    for path, parameter in parameters.items()
  }


def logical_spec(axes: Sequence[str]) -> P:
  """Translate logical axes to those of the mesh."""
  rules = dict(LOGICAL_AXIS_RULES)
  return P(*(rules[axis] for axis in axes))


def check_divides(
  num_partitions: int, parameters: Mapping[str, Parameter], num_devices: int
) -> None:
  """Raise ValueError unless all dimensions divide; see parameter_shardings."""
  sizes: dict[int, tuple[str, Parameter, str]] = {}
  for path, parameter in parameters.items():
    for size, axis, mesh_axis in zip(
      parameter.shape, parameter.axes, logical_spec(parameter.axes)
    ):
      if mesh_axis == MODEL:
        sizes.setdefault(size, (path, parameter, axis))
  for size, (path, parameter, axis) in sizes.items():
    if size % num_partitions == 0:
      continue
    common = math.gcd(*sizes)
    fitting = [
      n
      for n in range(1, max(num_devices, num_partitions) + 1)
      if common % n == 0 and num_devices % n == 0
    ]
    raise ValueError(
      f"{path} {list(parameter.shape)}: its axis '{axis}' ({_FIELDS[axis]}) of"
      f" size {size} does not divide over the mesh's axis '{MODEL}' of"
      f' {num_partitions} devices; num_partitions={num_partitions} was asked'
      f' for, {" or ".join(map(str, fitting))} would do.'
    )


def mesh_of(params: Any) -> Mesh | None:
  """Return the mesh that parameters are spread over; None on one device."""
  for leaf in jax.tree.leaves(params):
    sharding = getattr(leaf, 'sharding', None)
    if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
      mesh = sharding.mesh
      return mesh if isinstance(mesh, Mesh) else None
  return None


def data_size(mesh: Mesh | None) -> int:
  """Return what a batch's size must be a multiple of."""
  return 1 if mesh is None else mesh.shape[DATA]


def round_up(batch_size: int, mesh: Mesh | None) -> int:
  """Return the next batch size that divides over the mesh's data axis."""
  return -(-batch_size // data_size(mesh)) * data_size(mesh)


@contextlib.contextmanager
def use_mesh(mesh: Mesh | None) -> Iterator[None]:
  """Let the network's logical names of activations mean axes of the mesh.

  Constraints of activations act only inside; None changes nothing.
  """
  if mesh is None:
    yield
    return
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
    yield


def replicated(mesh: Mesh) -> NamedSharding:
  """Return the sharding of what every device has whole."""
  return NamedSharding(mesh, P())


def replicate(mesh: Mesh | None, tree: _T) -> _T:
  """Give every device of the mesh the same arrays; None changes nothing."""
  if mesh is None:
    return tree
  return jax.tree.map(lambda x: place(np.asarray(x), replicated(mesh)), tree)


def keep_whole(tree: _T) -> _T:
  """In a compiled function, give all devices of use_mesh whole results."""
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, P()), tree)


def split_batch(mesh: Mesh | None, tree: _T) -> _T:
  """Split arrays [B, …] over the data axis; None changes nothing."""
  if mesh is None:
    return tree
  sharding = NamedSharding(mesh, P(DATA))
  return jax.tree.map(lambda x: place(np.asarray(x), sharding), tree)


def place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  """Place an array that every process of the mesh has, by its sharding."""
  return jax.make_array_from_callback(
    array.shape, sharding, lambda index: array[index]
  )


def is_writer(params: Any) -> bool:
  """Return whether this process writes what its mesh's processes share."""
  mesh = mesh_of(params)
  if mesh is None:
    return True
  return jax.process_index() == min(d.process_index for d in mesh.devices.flat)


def to_host(array: Any) -> np.ndarray:
  """Return a whole array; all processes of its mesh must ask for it."""
  if isinstance(array, jax.Array) and not (
    array.is_fully_addressable or array.is_fully_replicated
  ):
    mesh = cast(Any, array.sharding).mesh
    gather: Callable[[jax.Array], jax.Array] = jax.jit(
      lambda x: x, out_shardings=replicated(mesh)
    )
    array = gather(array)
  return np.asarray(array)
