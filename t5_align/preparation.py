"""Tasks made ready while the device works.

One thread makes all tasks ready, in order, as fast as it can; whoever evaluates
takes each as it comes. What is wrong with the last task is known as soon as it
has been read, not when its turn comes.

Synopsis:

    preparation = Preparation(tasks, model, settings)
    for prepared in preparation:
      preparation.check()                 # raises what is wrong with any task
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent import futures
import itertools
import threading
from typing import Any
import weakref

from t5_align import prompts
from t5_align.tasks.generators import task as task_lib

# How long the end of a program waits for a file that is being read.
_MOST_SECONDS = 5.0


class StoppedError(Exception):
  """Nobody wants the tasks any more."""


class Preparation:
  """The tasks of a run with their prompts, each once."""

  def __init__(
    self,
    tasks: Sequence[task_lib.TaskDefinition],
    model: Any,
    settings: prompts.Settings,
  ):
    """Begin at once.

    Args:
      tasks: what to ask.
      model: what load_model returns.
      settings: which samples, and how long they may be.
    """
    # Asked for twice, a task would write the same samples twice.
    self._tasks = list({task.name: task for task in tasks}.values())
    self._futures: list[futures.Future[prompts.Prepared]] = [
      futures.Future() for _ in self._tasks
    ]
    is_stopped = threading.Event()
    # A daemon: an interrupted run doesn't wait until a file has been read.
    thread = threading.Thread(
      target=_prepare,
      args=(self._tasks, self._futures, is_stopped, model, settings),
      daemon=True,
    )
    thread.start()
    # Also called as the interpreter ends, where a thread that is in native code
    # would abort the process.
    self.stop = weakref.finalize(self, _stop, is_stopped, thread)

  def __len__(self) -> int:
    return len(self._tasks)

  def __iter__(self) -> Iterator[prompts.Prepared]:
    """Yield the tasks in order, each as soon as it is ready."""
    return (future.result() for future in self._futures)

  @property
  def ready(self) -> list[prompts.Prepared]:
    """The first tasks, as far as they are ready."""
    done = itertools.takewhile(futures.Future.done, self._futures)
    return [future.result() for future in done]

  def check(self) -> None:
    """Raise what was found wrong with any task so far."""
    for future in self._futures:
      if future.done():
        future.result()


def _prepare(
  tasks: Sequence[task_lib.TaskDefinition],
  results: Sequence[futures.Future[prompts.Prepared]],
  is_stopped: threading.Event,
  model: Any,
  settings: prompts.Settings,
) -> None:
  """Make tasks ready, in order; knows nothing of who wants them."""

  def refuse_if_stopped() -> None:
    if is_stopped.is_set():
      raise StoppedError

  for task, future in zip(tasks, results, strict=True):
    try:
      refuse_if_stopped()
      future.set_result(
        prompts.prepare(task, model, settings, refuse_if_stopped)
      )
    except BaseException as error:
      future.set_exception(error)


def _stop(is_stopped: threading.Event, thread: threading.Thread) -> None:
  """Make nothing more ready, and wait for what is being made."""
  is_stopped.set()
  # Garbage is collected in any thread, that one too.
  if thread is not threading.current_thread():
    thread.join(_MOST_SECONDS)
