"""Who is alone, and how the others find each other."""

import pytest

from t5_align import launchers

JAX = {
  'JAX_COORDINATOR_ADDRESS': 'host0:1234',
  'JAX_NUM_PROCESSES': '4',
  'JAX_PROCESS_ID': '2',
}
TORCHRUN = {
  'MASTER_ADDR': 'host0',
  'MASTER_PORT': '1234',
  'WORLD_SIZE': '4',
  'RANK': '3',
  'LOCAL_RANK': '1',
}
# What srun sets for the third of four tasks, two on a node.
SLURM = {
  'SLURM_JOB_ID': '77',
  'SLURM_NTASKS': '4',
  'SLURM_PROCID': '2',
  'SLURM_LOCALID': '0',
  'SLURM_STEP_NODELIST': 'node[1-2]',
  'SLURM_STEP_NUM_TASKS': '4',
  'SLURM_STEP_TASKS_PER_NODE': '2(x2)',
}


def arguments(environment):
  launch = launchers.find_launch(environment)
  assert launch is not None
  return launch.arguments


@pytest.mark.parametrize(
  'environment',
  [
    {},
    # The shell of an allocation of four tasks, and a batch script.
    {'SLURM_JOB_ID': '77'},
    {'SLURM_JOB_ID': '77', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'},
    # salloc's interactive step, and srun --pty.
    SLURM | {'SLURM_STEP_NUM_TASKS': '1'},
    {'MASTER_ADDR': 'host0', 'MASTER_PORT': '1234'},
    TORCHRUN | {'WORLD_SIZE': '1', 'RANK': '0'},
    {'OMPI_COMM_WORLD_SIZE': '1', 'OMPI_COMM_WORLD_RANK': '0'},
    # These count on a machine with TPUs alone.
    {'TPU_WORKER_HOSTNAMES': 'host0,host1'},
  ],
)
def test_alone(environment):
  assert launchers.find_launch(environment) is None


def test_jax_names_them():
  assert arguments(JAX | SLURM) == {
    'coordinator_address': 'host0:1234',
    'num_processes': 4,
    'process_id': 2,
    'local_device_ids': None,
    'cluster_detection_method': 'deactivate',
  }


@pytest.mark.parametrize(
  'more, address, devices',
  [
    ({}, 'host0:1234', [1]),
    ({'TORCHELASTIC_USE_AGENT_STORE': 'True'}, 'host0:1235', [1]),
    ({'LOCAL_WORLD_SIZE': '1'}, 'host0:1234', None),
    ({'CUDA_VISIBLE_DEVICES': '5'}, 'host0:1234', [0]),
    ({'CUDA_VISIBLE_DEVICES': '4,5'}, 'host0:1234', [1]),
  ],
)
def test_torchrun(more, address, devices):
  found = arguments(TORCHRUN | more)
  assert found['coordinator_address'] == address
  assert found['local_device_ids'] == devices
  assert (found['num_processes'], found['process_id']) == (4, 3)


def test_slurm_leaves_the_address_to_jax():
  assert arguments(SLURM) == {
    'num_processes': 4,
    'process_id': 2,
    'local_device_ids': [0],
  }
  alone = {'SLURM_STEP_TASKS_PER_NODE': '1(x4)'}
  assert 'local_device_ids' not in arguments(SLURM | alone)
  found = arguments(SLURM | alone | {'SLURM_GPUS_ON_NODE': '4'})
  assert found['local_device_ids'] == [0, 1, 2, 3]


def test_open_mpi():
  variables = {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '1'}
  assert arguments(variables) == {'num_processes': 2, 'process_id': 1}


@pytest.mark.parametrize(
  'environment, workers, source',
  [
    # A notebook's TPU, a single VM, a pod of GKE, one of queued resources.
    ({'TPU_SKIP_MDS_QUERY': '1'}, 'a,b', None),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, 'a,b', None),
    ({}, '', None),
    ({}, '10.0.0.2', None),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, '', 'TPU_WORKER_HOSTNAMES'),
    ({}, '10.0.0.2,10.0.0.3', 'the TPU VM'),
    ({'MEGASCALE_NUM_SLICES': '2'}, '', 'MEGASCALE_NUM_SLICES'),
    ({'JAX_PLATFORMS': 'cpu'}, '10.0.0.2,10.0.0.3', None),
  ],
)
def test_tpu(monkeypatch, environment, workers, source):
  monkeypatch.setattr(launchers, '_has_tpu', lambda: True)
  monkeypatch.setattr(launchers, '_tpu_workers', lambda: workers)
  launch = launchers.find_launch(environment)
  assert (launch and launch.source) == source
  assert launch is None or launch.arguments == {}


@pytest.mark.parametrize(
  ('environment', 'complaint'),
  [
    ({'JAX_NUM_PROCESSES': '2'}, 'not JAX_COORDINATOR_ADDRESS and JAX_PROCESS'),
    (JAX | {'JAX_PROCESS_ID': '4'}, 'JAX_PROCESS_ID is 4 and JAX_NUM_PROC'),
    (
      JAX | {'JAX_PROCESS_ID': 'two'},
      "JAX_PROCESS_ID is 'two'; wanted a whole",
    ),
    (TORCHRUN | {'MASTER_PORT': 'x'}, "MASTER_PORT is 'x'"),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, "OMPI_COMM_WORLD_RANK is ''"),
  ],
)
def test_an_environment_that_makes_no_sense(environment, complaint):
  with pytest.raises(ValueError, match=complaint):
    launchers.find_launch(environment)
