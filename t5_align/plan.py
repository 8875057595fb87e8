"""How much memory a model takes, before anything is allocated.

Parameters, cache and logits follow from shapes and the mesh. Activations are
what the compiler says that the compiled programs need beside them: `generate`
and `score` are compiled on shapes alone, for one group's mesh, and nothing is
loaded or run. Where the devices are not here, others stand in for them:

  compiled for them      these devices are here, or libtpu is, for a TPU
  CPU devices stand in   virtual ones, in a process of its own. An estimate: a
                         CPU computes bfloat16 in float32, which takes more, and
                         a TPU pads and copies arrays, which a CPU does not.

Synopsis:

    found = plan('t5-11b', 16_384, devices='8xH200', num_partitions=8)
    found.total_bytes, found.fits
    print(found)
    python -c "from t5_align.plan import plan; print(plan('flan-t5-xl', 8192))"
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from t5_align import inference, sharding
from t5_align.checkpoints.sizes import read_sizes
from t5_align.config import T5Config
from t5_align.device_kinds import (
  GIB,
  KINDS,
  DeviceKind,
  Devices,
  parse_devices,
)
from t5_align.kernels import blocks
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.parameters import list_parameters

# A GPU's share that JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says else:
# docs.jax.dev/en/latest/gpu_memory_allocation.html
_GPU_SHARE = 0.75
# Of a TPU's memory: libtpu 0.0.52 compiles for 30.75 of a v4's 32 GiB.
_TPU_SHARE = 0.96
_SHARES = {'gpu': _GPU_SHARE, 'tpu': _TPU_SHARE}
PROGRAMS = ('generate', 'score')

_NO_ROOM = 'RESOURCE_EXHAUSTED'

# What an accelerator's compiler does and a CPU's does not: order operations for
# little memory, and convert weights and cache at each step, not before them.
_STAND_IN_FLAGS = (
  '--xla_cpu_enable_concurrency_optimized_scheduler=false'
  ' --xla_disable_hlo_passes=while-loop-invariant-code-motion,'
  'while-loop-expensive-invariant-code-motion'
  ' --xla_force_host_platform_device_count={}'
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """Bytes of each device.

  Attributes:
    model: what was asked for.
    devices: where it is to run.
    mesh: data by model axis of a group.
    num_groups: groups of devices, each with a whole model.
    batch_size: examples of a group at a time.
    length: padded tokens of an input.
    program: which of PROGRAMS takes the most.
    parameters: float32.
    cache: keys and values of attention while generating.
    logits: of one step of generating, or of the targets scored at a time.
    activations: all other temporaries, and inputs and outputs.
    how: what the activations were compiled for.
    refusal: what the devices' own compiler said if it found too little memory.
  """

  model: str
  devices: Devices
  mesh: tuple[int, int]
  num_groups: int
  batch_size: int
  length: int
  program: str
  parameters: int
  cache: int
  logits: int
  activations: int
  how: str
  refusal: str = ''

  @property
  def total_bytes(self) -> int:
    """All of it, on one device."""
    return self.parameters + self.cache + self.logits + self.activations

  @property
  def usable_bytes(self) -> int:
    """What JAX has of a device unless it is told otherwise."""
    kind = self.devices.kind
    return int(kind.memory_bytes * _SHARES.get(kind.platform, 1.0))

  @property
  def fits(self) -> bool | None:
    """Whether the device has room; None where its memory is not known."""
    if self.refusal:
      return False
    if not self.devices.kind.memory_bytes:
      return None
    return self.total_bytes <= self.usable_bytes

  def __str__(self) -> str:
    kind = self.devices.kind
    rows = [
      (name, getattr(self, name))
      for name in ('parameters', 'cache', 'logits', 'activations')
    ]
    lines = [
      f'{self.model} on {self.devices}: {self.num_groups} group(s), each a mesh'
      f' of {self.mesh[0]} (data) x {self.mesh[1]} (model);'
      f' batches of {self.batch_size} x {self.length:,} tokens',
      '',
      f'  {"each device":14}{"bytes":>18}{"GiB":>10}',
      *(f'  {n:14}{size:18,}{size / GIB:10.2f}' for n, size in rows),
      f'  {"total":14}{self.total_bytes:18,}{self.total_bytes / GIB:10.2f}',
    ]
    if self.fits is not None:
      share = _SHARES.get(kind.platform)
      share = f'{share:.0%} of ' if share else ''
      lines.append(
        f'  {kind.name:14}{self.usable_bytes:18,}'
        f'{self.usable_bytes / GIB:10.2f}  {share}{kind.memory_bytes:,}'
      )
      lines += ['', 'It fits.' if self.fits else _advice(self)]
    if self.refusal:
      lines.append(f'The compiler: {self.refusal}')
    lines += ['', f'Activations: of {self.program}, {self.how}.']
    if kind.source:
      lines.append(f'Memory of a device: {kind.source}.')
    return '\n'.join(lines)


def plan(
  model: str,
  length: int,
  *,
  devices: str | Devices | None = None,
  num_partitions: int = 1,
  batch_size: int = 8,
  max_new_tokens: int = 64,
  num_beams: int = 1,
  config: T5Config | str | None = None,
  dtype: str | None = None,
  attention: str | None = None,
  revision: str | None = None,
  device_memory: int | None = None,
) -> Plan:
  """Plan the memory of a run; no weights are read and none are made.

  Args:
    model: a preset, a folder (its config.json is enough) or a hub id.
    length: tokens of the longest input.
    devices: such as '8xH200' or 'v4-32'; None for this process's.
    num_partitions: devices that share one copy of the parameters.
    batch_size: examples of a group at a time.
    max_new_tokens: of an answer, and of the targets that are scored.
    num_beams: of beam search.
    config: a T5Config or a preset's name, in place of the model's own.
    dtype: of activations; None for bfloat16, and float32 on CPUs.
    attention: implementation of attend().
    revision: of a hub id.
    device_memory: bytes of a device, in place of what is known of its kind.

  Raises:
    CheckpointError: the model says no sizes.
    ValueError: unknown devices, or sizes that don't divide over them.
  """
  if length < 1 or batch_size < 1 or max_new_tokens < 1:
    raise ValueError(
      f'length {length}, batch_size {batch_size} and max_new_tokens'
      f' {max_new_tokens} must be 1 or more.'
    )
  sizes = read_sizes(config if isinstance(config, str) else model, revision)
  if isinstance(config, T5Config):
    sizes = sizes._replace(config=config)
  where = parse_devices(devices) if isinstance(devices, str) else devices
  here = where is None
  where = where or _devices_here()
  if device_memory is not None:
    kind = dataclasses.replace(
      where.kind, memory_bytes=device_memory, source='given'
    )
    where = dataclasses.replace(where, kind=kind)
  dtype = dtype or ('float32' if where.kind.platform == 'cpu' else 'bfloat16')
  shape, num_groups = _group_shape(where, num_partitions)
  parameters = list_parameters(sizes.config, decoder_only=sizes.decoder_only)
  sharding.check_divides(num_partitions, parameters, where.count)
  job = {
    'sizes': dataclasses.asdict(sizes.config)
    | {'dtype': dtype, 'attention': attention, 'temperatures': None},
    'decoder_only': sizes.decoder_only,
    'mesh': shape,
    'batch_size': -(-batch_size // shape[0]) * shape[0],
    'length': inference.padded_length(length),
    'max_new_tokens': max_new_tokens,
    'num_beams': num_beams,
    'platform': where.kind.platform,
    'topology': None if here else _topology(where.kind),
  }
  found = measure(job) if here else _measure_elsewhere(job)
  return Plan(
    model=model,
    devices=where,
    mesh=shape,
    num_groups=num_groups,
    batch_size=job['batch_size'],
    length=job['length'],
    **found,
  )


def measure(job: dict[str, Any]) -> dict[str, Any]:
  """Compile the programs of a plan; return its fields that depend on them.

  Args:
    job: what `plan` asks for, in JSON types.
  """
  config = T5Config(
    **{k: v for k, v in job['sizes'].items() if k != 'temperatures'}
  )
  network = Transformer(config)
  if job['decoder_only']:
    network = DecoderOnlyTransformer(config)
  devices, how = _stand_ins(job)
  mesh = jax.sharding.Mesh(
    np.array(devices[: job['mesh'][0] * job['mesh'][1]]).reshape(job['mesh']),
    (sharding.DATA, sharding.MODEL),
  )
  params = _parameter_structs(mesh, config, job['decoder_only'])
  parameters = _bytes_per_device(params)
  B, V = job['batch_size'] // job['mesh'][0], config.vocab_size
  found: list[dict[str, Any]] = []
  for program in PROGRAMS:
    with blocks.compile_for(job['platform']), sharding.use_mesh(mesh):
      lowered = _lower(program, network, params, mesh, job)
      memory: Any = lowered.compile().memory_analysis()
    arguments = memory.argument_size_in_bytes - parameters
    rest = memory.temp_size_in_bytes + memory.output_size_in_bytes + arguments
    # A step's logits are float32, split over the vocabulary.
    logits = 4 * B * (V // job['mesh'][1])
    cache = 0
    if program == 'generate':
      logits *= job['num_beams']
      cache = _cache_bytes(config, job)
    else:
      at_once = inference.positions_at_once(job['batch_size'], V)
      logits *= min(at_once, inference.padded_length(job['max_new_tokens']))
    found.append(
      {
        'program': program,
        'parameters': parameters,
        'cache': cache,
        'logits': logits,
        # The compiler may put the cache where other arrays were before.
        'activations': max(0, rest - cache - logits),
        'how': how,
      }
    )
  return max(found, key=lambda f: f['cache'] + f['logits'] + f['activations'])


def _lower(program, network, params, mesh, job):
  """Trace one of PROGRAMS on shapes."""
  whole = sharding.replicated(mesh)
  split = NamedSharding(mesh, PartitionSpec(sharding.DATA))
  B = job['batch_size']

  def struct(shape, dtype, placed):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=placed)

  config = network.config
  temperatures = jax.tree.map(
    lambda x: struct(x.shape, x.dtype, whole),
    # Made here, they would be put on the mesh.
    jax.eval_shape(lambda: config.temperatures.as_arrays(config)),
  )
  inputs = struct((B, job['length']), jnp.int32, split)
  if program == 'score':
    length = inference.padded_length(job['max_new_tokens'])
    function = jax.jit(
      functools.partial(inference.score_batch, network), out_shardings=whole
    )
    targets = struct((B, length), jnp.int32, split)
    return function.lower(params, inputs, targets, temperatures)
  function = jax.jit(
    functools.partial(
      inference.generate_batch,
      network,
      max_new_tokens=job['max_new_tokens'],
      num_beams=job['num_beams'],
      length_penalty=1.0,
      sampling=inference.Sampling(),
    ),
    out_shardings=whole,
  )
  numbers = struct((B,), jnp.int32, split)
  key = struct((2,), jnp.uint32, whole)
  return function.lower(params, inputs, numbers, temperatures, key)


def _parameter_structs(mesh, config, decoder_only):
  """Shapes of the parameters, with their shardings, as a tree."""
  shardings = sharding.parameter_shardings(
    mesh, config, decoder_only=decoder_only
  )
  parameters = list_parameters(config, decoder_only=decoder_only)
  flat = {
    path: jax.ShapeDtypeStruct(
      parameter.shape, jnp.float32, sharding=shardings[path]
    )
    for path, parameter in parameters.items()
  }
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def _bytes_per_device(structs: Any) -> int:
  return sum(
    int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(structs)
  )


def _cache_bytes(config: T5Config, job: dict[str, Any]) -> int:
  """Keys and values, of the examples and heads of one device."""
  data, model = job['mesh']
  examples, new = job['batch_size'] // data, job['max_new_tokens']
  tokens = examples * (job['length'] + job['num_beams'] * new)
  if job['decoder_only']:
    tokens = examples * job['num_beams'] * (job['length'] + 1 + new)
  width = config.num_heads // model * config.head_dim
  itemsize = jnp.dtype(config.dtype).itemsize
  return 2 * config.num_decoder_layers * tokens * width * itemsize


def _devices_here() -> Devices:
  devices = jax.devices()
  kind = devices[0].device_kind
  known = next((k for name, k in KINDS.items() if name in kind.lower()), None)
  stats = devices[0].memory_stats() if devices[0].platform != 'cpu' else None
  if stats and 'bytes_limit' in stats:
    source = 'bytes_limit of jax.Device.memory_stats()'
    found = DeviceKind(kind, 'here', stats['bytes_limit'], source)
  else:
    found = known or DeviceKind(kind, devices[0].platform, 0, '')
  return Devices(found, len(devices), jax.process_count())


def _group_shape(
  devices: Devices, num_partitions: int
) -> tuple[tuple[int, int], int]:
  """Mesh of a group (data, model), and the number of groups."""
  local = devices.count // devices.hosts
  processes = [i // local for i in range(devices.count)]
  _, num_groups, _, members = sharding.find_group(num_partitions, processes, 0)
  return (len(members) // num_partitions, num_partitions), num_groups


def _topology(kind: DeviceKind) -> tuple[str, str] | None:
  return kind.topology if importlib.util.find_spec('libtpu') else None


def _stand_ins(job):
  """Devices to compile for, and what they are in words."""
  needed = job['mesh'][0] * job['mesh'][1]
  if job['topology'] is None:
    devices = jax.devices()
    how = f'compiled for {devices[0].device_kind}'
    if job['platform'] in ('gpu', 'tpu') and devices[0].platform == 'cpu':
      how = 'compiled for CPU devices that stand in: an estimate'
    return devices, how
  from jax.experimental import topologies

  name, chip = job['topology']
  hosts = max(1, needed // 4)
  shape = f'2x2x{hosts}' if name in ('v4', 'v5') else f'{2 * hosts}x2'
  topology = topologies.get_topology_desc(
    platform='tpu',
    topology_name=f'{name}:{shape}',
    chip_config_name=chip,
    chips_per_host_bounds=(2, 2, 1),
  )
  kind = topology.devices[0].device_kind
  return topology.devices, f'compiled for {kind} by libtpu'


def _measure_elsewhere(job: dict[str, Any]) -> dict[str, Any]:
  """Run `measure` in a process that has as many virtual CPU devices."""
  count = job['mesh'][0] * job['mesh'][1]
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': _STAND_IN_FLAGS.format(count),
    'TPU_SKIP_MDS_QUERY': '1',
    'TF_CPP_MIN_LOG_LEVEL': '3',
  }
  for name in ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES'):
    environment.pop(name, None)
  code = (
    'import json, sys; from t5_align import plan;'
    ' print(json.dumps(plan.measure(json.load(sys.stdin))))'
  )
  child = subprocess.run(
    [sys.executable, '-c', code],
    input=json.dumps(job),
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  if child.returncode and job['topology']:
    # libtpu does not know that slice, does not fit this JAX, or has found that
    # the program does not fit the memory.
    refusals = [x for x in child.stderr.splitlines() if _NO_ROOM in x]
    found = _measure_elsewhere(job | {'topology': None})
    return found | {'refusal': refusals[-1] if refusals else ''}
  if child.returncode:
    reason = child.stderr.strip().rpartition('\n')[2]
    raise ValueError(f'The plan could not be compiled: {reason}')
  return json.loads(child.stdout.strip().splitlines()[-1])


def _advice(found: Plan) -> str:
  advice = 'It does not fit: try a larger num_partitions'
  if found.batch_size > found.mesh[0]:
    advice += ', a smaller batch_size'
  return advice + ', or a shorter input.'
