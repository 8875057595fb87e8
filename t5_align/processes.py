"""Several processes that share one run: who does what, who writes, who is gone.

Each process works on its own devices; files are written by the first one. They
find each other as whoever started them says (`launchers`), and talk through the
key-value store of JAX's distributed runtime, which the first process keeps:

    sign/I      a number that process I raises every second
    end/I       how it ended: exit code and error, '' where nothing was wrong
    meeting/M/I  what it has done before it waits for the others

A process that fails tells the others, which stop at once; one that is killed
gives no more signs, which the others notice within T5_ALIGN_TIMEOUT seconds
(100 if not set). All end with a line that names it. What is written stays.

Synopsis:

    start()                      # before anything touches a device
    mine = deal(batches)
    wait_for_all('batches done')
    if is_writer(): ...
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
import contextlib
import ctypes
import functools
import os
import pathlib
import secrets
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn, TypeVar

import jax

from t5_align.launchers import find_launch

_T = TypeVar('_T')
_TIMEOUT = 'T5_ALIGN_TIMEOUT'
_DEFAULT_SECONDS = 100  # JAX's own, after which it aborts whoever is left
_MARGIN = 60  # JAX's runtime knows no names: it speaks later
_PERIOD = 1.0
_FAREWELL = 5.0
_STORE = 't5_align/'
_NEVER = 10**9  # milliseconds: twelve days
_HANDLERS: list[Any] = []  # C calls them: they must not be collected
INTERRUPTED = 130  # exit code: the same command continues


def start(environment: Mapping[str, str] | None = None) -> None:
  """Join the other processes, if there are any; see `launchers` for who says.

  From then on the end of one is the end of all.

  Args:
    environment: to read instead of the process's own.

  Raises:
    ValueError: the environment makes no sense, or JAX can't join the others.
  """
  if environment is None:
    environment = os.environ
  if not jax.distributed.is_initialized():
    launch = find_launch(environment)
    if launch is None:
      return
    # With it a process would not end by SIGTERM, and no run here asks it.
    jax.config.update('jax_enable_preemption_service', False)
    try:
      jax.distributed.initialize(
        **launch.arguments,
        heartbeat_timeout_seconds=int(_seconds(environment)) + _MARGIN,
      )
    except (RuntimeError, ValueError, ImportError, OSError) as error:
      raise ValueError(
        f'{launch.source} says that there are several processes, but this one,'
        f' {launch.arguments}, could not join the others: {error}'
      ) from error
  if _state().num_processes > 1:
    _watch().meet('started', '')


def is_writer() -> bool:
  """Return whether this process writes files and prints."""
  return jax.process_index() == 0


def deal(
  items: Sequence[_T], group: int | None = None, num_groups: int | None = None
) -> Sequence[_T]:
  """Return the share of a group of items that all have.

  Args:
    items: the same in all processes.
    group: of processes that work together; None if each is one of its own.
    num_groups: how many there are.
  """
  if group is None or num_groups is None:
    group, num_groups = jax.process_index(), jax.process_count()
  return items[group::num_groups]


def wait_for_all(what: str) -> None:
  """Return when every process has come here, for the same reason.

  However long it takes: processes that are gone end this one.

  Raises:
    RuntimeError: others came for another reason, which they can't have.
  """
  gather(what, '')


def gather(what: str, value: str) -> list[str]:
  """Return what each process says, in their order; waits for all.

  Args:
    what: they meet for; see `wait_for_all`.
    value: what this one says.
  """
  if jax.process_count() == 1:
    return [value]
  return _watch().meet(what, value)


def check_shared(folder: pathlib.Path) -> None:
  """Raise a ValueError unless all processes see the same folder.

  Where there are several, it is made.
  """
  if jax.process_count() == 1:
    return
  token = gather(f'token of {folder}', secrets.token_hex(8))[0]
  mark = folder / f'.seen_by_all_{token}'
  if is_writer():
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
  wait_for_all(f'marked {folder}')
  seen = gather(f'seen {folder}', str(mark.exists()))
  if is_writer():
    mark.unlink()
  if 'False' in seen:
    raise ValueError(
      f'{folder} of {name(seen.index("False"))} is not that of {name(0)}: where'
      ' there are several hosts, it must be on a file system that they share.'
    )


def name(process: int) -> str:
  """Return how messages call a process: by number and host."""
  if jax.process_count() == 1:
    return f'process {process} ({socket.gethostname()})'
  return _watch().name(process)


def end(code: int, error: str) -> None:
  """End this process where there are others, which stop for the same error.

  Nothing happens where there is only this one.

  Args:
    code: of the exit, of all processes.
    error: what went wrong, to be shown to all.
  """
  if _watch.cache_info().currsize:
    watch = _watch()
    watch.leave(code, f'{watch.name(watch.index)} failed: {error}')


def _seconds(environment: Mapping[str, str]) -> float:
  """How long a process may give no sign."""
  text = environment.get(_TIMEOUT) or str(_DEFAULT_SECONDS)
  if not text.isdecimal() or int(text) < 5:
    raise ValueError(f'{_TIMEOUT} is {text!r}; wanted 5 seconds or more.')
  return float(text)


def _state() -> Any:
  """The distributed runtime, whose store has no public name.

  Orbax takes it from there, too.
  """
  from jax._src import distributed

  return distributed.global_state


@functools.cache
def _watch() -> _Watch:
  return _Watch(_state(), _seconds(os.environ))


class _Watch:
  """Signs of life of this process and of the others.

  Attributes:
    index: of this process.
    count: of processes.
  """

  def __init__(self, state: Any, seconds: float):
    self.index, self.count = state.process_id, state.num_processes
    self._client = state.client
    self._coordinator = state.coordinator_address
    self._seconds = seconds
    self._hosts: dict[int, str] = {}
    self._num_signs = 0
    # Of each process: the latest sign, and when it came.
    self._signs: dict[int, tuple[str, float]] = {}
    self._num_meetings = 0
    self._meeting = ''  # where this process waits
    self._leaving = threading.Lock()
    self._code = INTERRUPTED
    self._has_ended = False  # well: the store may go any moment
    self._put('host', socket.gethostname())
    self._sign()
    _at_the_end(self)
    threading.Thread(target=self._run, name='watch', daemon=True).start()

  def name(self, process: int) -> str:
    """Return how messages call a process."""
    return f'process {process} ({self._hosts.get(process, "host unknown")})'

  def meet(self, what: str, value: str) -> list[str]:
    """Wait for all, and return what they say; see `gather`."""
    self._num_meetings += 1
    place = f'meeting/{self._num_meetings}'
    try:
      self._put(place, f'{what}\n{value}')
      self._meeting = place
      # The watch ends this process where somebody won't come.
      self._client.wait_at_barrier(_STORE + place, _NEVER)
      entries = self._read(place)
      if len(self._hosts) < self.count:
        self._hosts = self._read('host')
    except jax.errors.JaxRuntimeError:
      self.leave(INTERRUPTED, '', self._line(self._first_is_gone()))
    self._meeting = ''
    said = [entry.partition('\n') for _, entry in sorted(entries.items())]
    for process, (other, _, _) in enumerate(said):
      if other != what:
        raise RuntimeError(
          f'{self.name(process)} waits for {other!r}, this one for {what!r}:'
          ' they were not given the same command and the same files.'
        )
    return [value for _, _, value in said]

  def leave(self, code: int, error: str, line: str = '') -> NoReturn:
    """End, and tell the others why.

    Not by an exception: the main thread may be in a computation that waits for
    a process which is gone, and JAX would wait for it at the end, too.

    Args:
      code: of the exit.
      error: what went wrong, and where.
      line: to be shown here.
    """
    self._leaving.acquire()  # for good: whoever comes next has nothing to say
    self._code = code
    if line:
      print(line, file=sys.stderr)
    with contextlib.suppress(Exception):
      self._put('end', f'{code} {error}')
      # The first process keeps the store: the others read it before it goes.
      deadline = time.monotonic() + _FAREWELL
      while self.index == 0 and time.monotonic() < deadline:
        if len({0, *self._read('end'), *self._silent()}) == self.count:
          break
        time.sleep(_PERIOD / 10)
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(Exception):
        stream.flush()
    os._exit(code)

  def say_goodbye(self) -> None:
    """Tell the others that nothing went wrong."""
    self._has_ended = True
    with contextlib.suppress(Exception):
      self._put('end', '')

  def leave_if_first_is_gone(self) -> None:
    """End with a line that names the process which keeps the store."""
    host, _, port = self._coordinator.rpartition(':')
    with contextlib.suppress(OSError):
      # Another reason for an abort takes its course.
      socket.create_connection((host, int(port)), timeout=_FAREWELL).close()
      return
    # Not `leave`: the runtime, whose thread this is, waits for nothing more.
    if self._leaving.acquire(blocking=False):
      print(self._line(self._first_is_gone()), file=sys.stderr, flush=True)
    os._exit(self._code)

  def _first_is_gone(self) -> str:
    return (
      f'{self.name(0)} can no longer be reached: killed, or its host is gone.'
      ' The same command continues.'
    )

  def _line(self, error: str) -> str:
    return f't5_align: {self.name(self.index)}: {error}'

  def _run(self) -> None:
    while True:
      time.sleep(_PERIOD)
      try:
        self._sign()
        code, error = self._find_fault()
      except jax.errors.JaxRuntimeError:
        if self._has_ended:
          return
        code, error = INTERRUPTED, self._first_is_gone()
      if error:
        self.leave(code, error, self._line(error))

  def _sign(self) -> None:
    """Give a sign of life, and note those of the others."""
    self._num_signs += 1
    self._put('sign', str(self._num_signs))
    now = time.monotonic()
    for process, sign in self._read('sign').items():
      if self._signs.get(process, ('',))[0] != sign:
        self._signs[process] = sign, now

  def _find_fault(self) -> tuple[int, str]:
    """Return exit code and error of what ends all; an empty one if nothing."""
    ends = self._read('end')
    for end in ends.values():
      if end:
        code, _, error = end.partition(' ')
        return int(code), error
    for process in self._silent() - ends.keys():
      return INTERRUPTED, (
        f'{self.name(process)} gave no sign for {self._seconds:.0f} seconds:'
        ' killed, or its host is gone. The same command continues.'
      )
    if self._meeting:
      # None that is on its way out comes to a meeting.
      for process in ends.keys() - self._read(self._meeting).keys():
        return INTERRUPTED, f'{self.name(process)} ended before the others.'
    return 0, ''

  def _silent(self) -> set[int]:
    """Processes that gave signs, and no longer do."""
    before = time.monotonic() - self._seconds
    return {i for i, (_, when) in self._signs.items() if when < before}

  def _put(self, what: str, value: str) -> None:
    place = f'{_STORE}{what}/{self.index}'
    self._client.key_value_set(place, value, allow_overwrite=True)

  def _read(self, what: str) -> dict[int, str]:
    """Return what each process has put."""
    entries = self._client.key_value_dir_get(f'{_STORE}{what}/')
    return {int(key.rpartition('/')[2]): value for key, value in entries}


def _at_the_end(watch: _Watch) -> None:
  """Have the others hear of an exception and of a normal end."""
  show = sys.excepthook

  def show_and_leave(kind, error, trace):
    show(kind, error, trace)
    watch.leave(
      1, f'{watch.name(watch.index)} failed: {kind.__name__}: {error}'
    )

  sys.excepthook = show_and_leave
  # Runs before JAX's own, which waits for all.
  atexit.register(watch.say_goodbye)
  if watch.index > 0:
    _before_an_abort(watch.leave_if_first_is_gone)


def _before_an_abort(act: Callable[[], None]) -> None:
  """Have something done in place of what JAX's runtime does without its store.

  It aborts at once, in a thread of its own, with a trace of C++ that names no
  process. A handler of Python's `signal` would run too late.
  """
  handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: act())
  _HANDLERS.append(handler)
  with contextlib.suppress(OSError, TypeError):  # not on Windows
    c_library = ctypes.CDLL(None)
    c_library.signal.restype = ctypes.c_void_p
    c_library.signal(int(signal.SIGABRT), handler)
