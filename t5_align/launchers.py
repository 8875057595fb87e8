"""Who started this process with others, and how they find each other.

Looked for in the environment, the innermost launcher first:

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID
    MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK              torchrun and others
    SLURM_STEP_NUM_TASKS, SLURM_PROCID, …                   srun
    OMPI_COMM_WORLD_SIZE, OMPI_COMM_WORLD_RANK              mpirun of Open MPI
    a TPU VM that is one of several of a slice, or of several slices

A laptop, a single TPU VM, a notebook and the shell of an allocation have none,
or one that says that there is a single process. What JAX finds out by itself
(`jax.distributed.initialize`, "Slurm, Open MPI, Cloud TPU") is left to it.

Synopsis:

    launch = find_launch(os.environ)       # None: this process is alone
    jax.distributed.initialize(**launch.arguments)
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import importlib.util
import pathlib
import re
from typing import Any
import urllib.error
import urllib.request

_JAX = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
_TORCHRUN = ('MASTER_ADDR', 'MASTER_PORT', 'WORLD_SIZE', 'RANK')
_TPU_DEVICES = ('/dev/accel0', '/dev/vfio/0')
# https://docs.cloud.google.com/compute/docs/metadata
_TPU_WORKERS = (
  'http://metadata.google.internal/computeMetadata/v1/instance/attributes/'
  'worker-network-endpoints'
)
_METADATA_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Launch:
  """How one of several processes finds the others.

  Attributes:
    source: who says so, for messages.
    arguments: of jax.distributed.initialize; what is left out JAX finds.
  """

  source: str
  arguments: Mapping[str, Any]


def find_launch(environment: Mapping[str, str]) -> Launch | None:
  """Return how to join the other processes; None where there are none.

  Args:
    environment: variables, such as os.environ.

  Raises:
    ValueError: some variables are there and others not, or no numbers.
  """
  for find in (_from_jax, _from_torchrun, _from_slurm, _from_mpi, _from_tpu):
    launch = find(environment)
    if launch is not None:
      return launch
  return None


def _from_jax(environment: Mapping[str, str]) -> Launch | None:
  given = [name for name in _JAX if environment.get(name)]
  if not given:
    return None
  missing = [name for name in _JAX if name not in given]
  if missing:
    raise ValueError(
      f'{" and ".join(given)} set, but not {" and ".join(missing)}: all three'
      ' are needed to run in several processes.'
    )
  count, index = _place(environment, 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
  return _launch(
    'JAX_COORDINATOR_ADDRESS', environment[_JAX[0]], count, index, None
  )


def _from_torchrun(environment: Mapping[str, str]) -> Launch | None:
  if not all(environment.get(name) for name in _TORCHRUN):
    return None
  count, index = _place(environment, 'WORLD_SIZE', 'RANK')
  if count == 1:
    return None
  port = _number(environment, 'MASTER_PORT')
  # torchrun itself listens there: beside it, then.
  port += environment.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
  ids = None
  if environment.get('LOCAL_WORLD_SIZE') != '1':
    ids = _one_device(environment, 'LOCAL_RANK')
  address = f'{environment["MASTER_ADDR"]}:{port}'
  return _launch('MASTER_ADDR', address, count, index, ids)


def _from_slurm(environment: Mapping[str, str]) -> Launch | None:
  # A batch script, and the shell of salloc, know the tasks of their allocation
  # but are one process: only a step of several tasks has others.
  if not environment.get('SLURM_STEP_NODELIST'):
    return None
  if environment.get('SLURM_STEP_NUM_TASKS', '1') == '1':
    return None
  count, index = _place(environment, 'SLURM_STEP_NUM_TASKS', 'SLURM_PROCID')
  arguments: dict[str, Any] = {'num_processes': count, 'process_id': index}
  tasks = environment.get('SLURM_STEP_TASKS_PER_NODE', '')
  if re.fullmatch(r'1(\(x\d+\))?', tasks):
    # JAX would take one GPU a task: here it has all of its node.
    num_gpus = environment.get('SLURM_GPUS_ON_NODE', '')
    if num_gpus.isdecimal():
      arguments['local_device_ids'] = list(range(int(num_gpus)))
  else:
    arguments['local_device_ids'] = _one_device(environment, 'SLURM_LOCALID')
  return Launch('SLURM_STEP_NUM_TASKS', arguments)


def _from_mpi(environment: Mapping[str, str]) -> Launch | None:
  if environment.get('OMPI_COMM_WORLD_SIZE', '1') == '1':
    return None
  count, index = _place(
    environment, 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'
  )
  arguments = {'num_processes': count, 'process_id': index}
  return Launch('OMPI_COMM_WORLD_SIZE', arguments)


def _from_tpu(environment: Mapping[str, str]) -> Launch | None:
  platforms = environment.get('JAX_PLATFORMS') or 'tpu'
  if 'tpu' not in platforms or not _has_tpu():
    return None
  slices = environment.get('MEGASCALE_NUM_SLICES', '1')
  if slices != '1':
    return Launch('MEGASCALE_NUM_SLICES', {})
  for name in ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES'):
    if environment.get(name):
      return Launch(name, {}) if ',' in environment[name] else None
  if environment.get('TPU_SKIP_MDS_QUERY'):
    return None
  return Launch('the TPU VM', {}) if ',' in _tpu_workers() else None


def _has_tpu() -> bool:
  if importlib.util.find_spec('libtpu') is None:
    return False
  return any(pathlib.Path(device).exists() for device in _TPU_DEVICES)


def _tpu_workers() -> str:
  """Return the slice's workers with commas between; '' where none answers."""
  request = urllib.request.Request(
    _TPU_WORKERS, headers={'Metadata-Flavor': 'Google'}
  )
  try:
    with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as answer:
      return answer.read().decode()
  except (OSError, urllib.error.URLError):
    return ''


def _launch(source, address, count, index, ids) -> Launch:
  """A launch that leaves nothing to be found."""
  arguments = {
    'coordinator_address': address,
    'num_processes': count,
    'process_id': index,
    'local_device_ids': ids,
    'cluster_detection_method': 'deactivate',
  }
  return Launch(source, arguments)


def _one_device(environment: Mapping[str, str], name: str) -> list[int] | None:
  """The GPU of the node's process of that number, of those it may see."""
  if not environment.get(name):
    return None
  visible = environment.get('CUDA_VISIBLE_DEVICES', '')
  if visible and ',' not in visible:
    return [0]
  return [_number(environment, name)]


def _place(
  environment: Mapping[str, str], count: str, index: str
) -> tuple[int, int]:
  """The number of processes, and which of them this one is."""
  num_processes, process = (_number(environment, n) for n in (count, index))
  if process >= num_processes:
    raise ValueError(
      f'{index} is {process} and {count} {num_processes}; wanted a number from'
      ' 0 up, and a larger one.'
    )
  return num_processes, process


def _number(environment: Mapping[str, str], name: str) -> int:
  text = environment.get(name, '')
  if not text.isdecimal():
    raise ValueError(f'{name} is {text!r}; wanted a whole number.')
  return int(text)
