"""Several processes that share one run: who does what, and who writes.

Each process works on its own devices; files are written by the first one. They
find each other by JAX's distributed runtime, from the environment:

    JAX_COORDINATOR_ADDRESS=host0:1234 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0

Synopsis:

    start()                      # before anything touches a device
    mine = deal(batches)
    wait_for_all('batches done')
    if is_writer(): ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
from typing import TypeVar

import jax

_T = TypeVar('_T')
_VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


def start(environment: Mapping[str, str] | None = None) -> None:
  """Join the other processes, if the environment says that there are any.

  Args:
    environment: to read instead of the process's own.

  Raises:
    ValueError: some of the variables are there and others not, or no numbers.
  """
  if environment is None:
    environment = os.environ
  given = [name for name in _VARIABLES if environment.get(name)]
  if not given or jax.distributed.is_initialized():
    return
  missing = [name for name in _VARIABLES if name not in given]
  if missing:
    raise ValueError(
      f'{" and ".join(given)} set, but not {" and ".join(missing)}: all three'
      ' are needed to run in several processes.'
    )
  address, count, index = (environment[name] for name in _VARIABLES)
  if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
    raise ValueError(
      f'JAX_PROCESS_ID is {index!r} and JAX_NUM_PROCESSES {count!r}; wanted a'
      ' number from 0 up, and a larger one.'
    )
  jax.distributed.initialize(address, int(count), int(index))


def is_writer() -> bool:
  """Return whether this process writes files and prints."""
  return jax.process_index() == 0


def deal(items: Sequence[_T]) -> Sequence[_T]:
  """Return this process's share of items that all processes have."""
  return items[jax.process_index() :: jax.process_count()]


def wait_for_all(what: str) -> None:
  """Return when every process has come here, for the same reason."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(what)
