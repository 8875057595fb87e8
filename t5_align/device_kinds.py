"""What a plan needs to know of devices that aren't here: memory and hosts.

Synopsis:

    parse_devices('8xH200')      # Devices(kind=H200, count=8, hosts=1)
    parse_devices('v4-32')       # 32 TensorCores: 16 chips on 4 hosts
    parse_devices('16xH200/2')   # on 2 hosts
"""

from __future__ import annotations

import dataclasses
import re

from t5_align.nearest import nearest

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class DeviceKind:
  """A kind of accelerator.

  Attributes:
    name: as users write it.
    platform: 'gpu' or 'tpu'.
    memory_bytes: of one device as JAX counts them, a chip on all these TPUs.
    source: where that number is from.
    cores_per_chip: of a TPU whose slices are named by TensorCores, else 1.
    one_host: chips of the largest slice that is one host.
    topology: name and chip configuration by which libtpu compiles for it.
  """

  name: str
  platform: str
  memory_bytes: int
  source: str
  cores_per_chip: int = 1
  one_host: int = 8
  topology: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Devices:
  """Devices of one kind.

  Attributes:
    kind: what they are; None for those of this machine.
    count: of all hosts together.
    hosts: processes, each with as many devices.
  """

  kind: DeviceKind
  count: int
  hosts: int

  def __str__(self) -> str:
    hosts = f' on {self.hosts} hosts' if self.hosts > 1 else ''
    return f'{self.count} x {self.kind.name}{hosts}'


_NVIDIA = 'https://www.nvidia.com/en-us/data-center/{}/, GPU memory'
_TPU = 'https://cloud.google.com/tpu/docs/{}, HBM capacity per chip'
_GPUS = {'H200': (141, 'h200'), 'H100': (80, 'h100'), 'A100': (80, 'a100')}
_GPUS |= {'A100-40GB': (40, 'a100'), 'L4': (24, 'l4')}

KINDS = {
  kind.name.lower(): kind
  for kind in (
    *(
      DeviceKind(name, 'gpu', size * 10**9, _NVIDIA.format(page))
      for name, (size, page) in _GPUS.items()
    ),
    # 4 chips a host; v5e and v6e have hosts of 8 where the slice is one host.
    DeviceKind(
      'v4', 'tpu', 32 * GIB, _TPU.format('v4'), 2, 4, ('v4', 'megacore')
    ),
    DeviceKind(
      'v5p', 'tpu', 95 * GIB, _TPU.format('v5p'), 2, 4, ('v5', 'megacore')
    ),
    DeviceKind(
      'v5e', 'tpu', 16 * GIB, _TPU.format('v5e'), 1, 8, ('v5e', 'default')
    ),
    DeviceKind('v6e', 'tpu', 32 * GIB, _TPU.format('v6e'), 1, 8),
  )
}
_CHIPS_PER_HOST = 4


def parse_devices(text: str) -> Devices:
  """Read '8xH200', '16xH200/2' (on 2 hosts), or a TPU slice, 'v4-32'.

  Raises:
    ValueError: what is wrong with it.
  """
  lower = text.strip().lower().replace('v5litepod', 'v5e')
  if tpu_slice := re.fullmatch(r'(v\d+[a-z]*)-(\d+)', lower):
    kind = _kind(tpu_slice[1])
    count, rest = divmod(int(tpu_slice[2]), kind.cores_per_chip)
    hosts = 1 if count <= kind.one_host else -(-count // _CHIPS_PER_HOST)
    if rest or not count or count % hosts:
      raise ValueError(f'There is no TPU slice {text!r}.')
    return Devices(kind, count, hosts)
  counted = re.fullmatch(r'(?:(\d+)x)?([a-z0-9-]+?)(?:/(\d+))?', lower)
  if counted is None:
    raise ValueError(
      f'devices is {text!r}; wanted for example 8xH200, 16xH200/2 (on 2 hosts)'
      ' or v4-32.'
    )
  count, hosts = int(counted[1] or 1), int(counted[3] or 1)
  if not count or not hosts or count % hosts:
    raise ValueError(f'{text!r}: {count} devices on {hosts} hosts.')
  return Devices(_kind(counted[2]), count, hosts)


def _kind(name: str) -> DeviceKind:
  if name not in KINDS:
    raise ValueError(f'Unknown device {name!r}; {nearest(name, KINDS)}')
  return KINDS[name]
