"""The loss log of a training run: one JSON object a line.

A line holds the means of the steps since the line before: loss, share of
faultless rows, gradient norm; for each task the loss of its target tokens in
nats, unweighted, and the share of them that is right; and the learning rate,
the tokens a second that are not padding, inputs and targets together, and the
seconds since the run was started or continued. Values stay on the device until
a line is written, since reading one would stall the step behind it.

Synopsis:

    log = LossLog('runs/first/log.jsonl', schedule, first_step=0)
    log.add(metrics, num_tokens)      # every step
    log.write()                       # now and then
"""

from collections.abc import Callable, Sequence
import json
import pathlib
import time
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float
import numpy as np
import optax


class Metrics(NamedTuple):
  """What one step reports; on the device."""

  loss: Float[Array, '']
  sequence_accuracy: Float[Array, '']
  gradient_norm: Float[Array, '']
  task_losses: Float[Array, 'tasks']
  """Sums over the target tokens of each task, in nats."""
  task_right: Float[Array, 'tasks']
  """How many of them the model would write."""
  task_tokens: Float[Array, 'tasks']
  """How many there are."""


class LossLog:
  """Collects metrics and appends their means to a file."""

  def __init__(
    self,
    path: str | pathlib.Path,
    schedule: optax.Schedule,
    first_step: int,
    report: Callable[[dict], None] | None = None,
    tasks: Sequence[str] = ('all',),
  ):
    """Open a log, new or to be continued.

    Args:
      path: of the file.
      schedule: step, counted from 0, to learning rate.
      first_step: steps done so far. Lines from after it, of a run that was
        stopped between two checkpoints, are dropped: those steps come again.
      report: called with every line.
      tasks: names of the tasks.
    """
    self._path = pathlib.Path(path)
    self._schedule = schedule
    self._report = report
    self._tasks = tasks
    self._step = first_step  # steps whose metrics have been added
    self._pending: list[Metrics] = []
    self._num_tokens = 0  # since the last line
    self._start = self._last = time.perf_counter()
    lines = []
    if self._path.exists():
      # What a crash cut short has no line break.
      lines = self._path.read_text().split('\n')[:-1]
    lines = [line for line in lines if json.loads(line)['step'] <= first_step]
    self._path.write_text(''.join(line + '\n' for line in lines))

  def add(self, metrics: Metrics, num_tokens: int = 0) -> None:
    """Add the metrics of the next step, and its tokens without padding."""
    self._pending.append(metrics)
    self._num_tokens += num_tokens
    self._step += 1

  def write(self) -> None:
    """Append a line.

    Raises:
      FloatingPointError: a loss since the last line isn't finite.
    """
    pending = jax.device_get(self._pending)
    self._pending = []
    losses = np.array([metrics.loss for metrics in pending])
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size:
      step = self._step - len(losses) + 1 + int(bad[0])
      raise FloatingPointError(
        f'the loss of step {step} is {losses[bad[0]]}; lower the learning '
        'rate or lengthen the warm-up. The last checkpoint is from before it.'
      )
    row: dict[str, Any] = {'step': self._step}
    for field in ('loss', 'sequence_accuracy', 'gradient_norm'):
      row[field] = float(np.mean([getattr(m, field) for m in pending]))
    row |= self._by_task(pending)
    row['learning_rate'] = float(np.asarray(self._schedule(self._step - 1)))
    now = time.perf_counter()
    # Of a first step that compiles, there may be less than one.
    speed = self._num_tokens / (now - self._last)
    row['tokens_per_second'] = round(speed, 1 if speed < 100 else None)
    row['seconds'] = round(now - self._start, 3)
    self._last, self._num_tokens = now, 0
    with self._path.open('a') as file:
      file.write(json.dumps(row) + '\n')
    if self._report:
      self._report(row)

  def _by_task(self, pending: Sequence[Metrics]) -> dict[str, dict]:
    """Return loss and accuracy of each task that had a token."""
    fields = ('task_losses', 'task_right', 'task_tokens')
    losses, right, tokens = (
      np.sum([getattr(metrics, field) for metrics in pending], axis=0)
      for field in fields
    )
    return {
      name: {
        task: float(total / count)
        for task, total, count in zip(self._tasks, totals, tokens, strict=True)
        if count
      }
      for name, totals in (('losses', losses), ('accuracies', right))
    }
