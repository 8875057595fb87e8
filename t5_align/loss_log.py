"""The loss log of a training run: one JSON object a line.

A line holds the means of the steps since the line before: loss, share of
faultless sequences, gradient norm; and the learning rate and the seconds since
the run was started or continued. Values stay on the device until a line is
written, since reading one would stall the step behind it.

Synopsis:

    log = LossLog('runs/first/log.jsonl', schedule, first_step=0)
    log.add(metrics)      # every step
    log.write()           # now and then
"""

from collections.abc import Callable
import json
import pathlib
import time
from typing import NamedTuple

import jax
from jaxtyping import Array, Float
import numpy as np
import optax


class Metrics(NamedTuple):
  """What one step reports; scalars on the device."""

  loss: Float[Array, '']
  sequence_accuracy: Float[Array, '']
  gradient_norm: Float[Array, '']


class LossLog:
  """Collects metrics and appends their means to a file."""

  def __init__(
    self,
    path: str | pathlib.Path,
    schedule: optax.Schedule,
    first_step: int,
    report: Callable[[dict], None] | None = None,
  ):
    """Open a log, new or to be continued.

    Args:
      path: of the file.
      schedule: step, counted from 0, to learning rate.
      first_step: steps done so far. Lines from after it, of a run that was
        stopped between two checkpoints, are dropped: those steps come again.
      report: called with every line.
    """
    self._path = pathlib.Path(path)
    self._schedule = schedule
    self._report = report
    self._step = first_step  # steps whose metrics have been added
    self._pending: list[Metrics] = []
    self._start = time.perf_counter()
    lines = []
    if self._path.exists():
      # What a crash cut short has no line break.
      lines = self._path.read_text().split('\n')[:-1]
    lines = [line for line in lines if json.loads(line)['step'] <= first_step]
    self._path.write_text(''.join(line + '\n' for line in lines))

  def add(self, metrics: Metrics) -> None:
    """Add the metrics of the next step."""
    self._pending.append(metrics)
    self._step += 1

  def write(self) -> None:
    """Append a line.

    Raises:
      FloatingPointError: a loss since the last line isn't finite.
    """
    values = np.array(jax.device_get(self._pending))  # [steps, fields]
    self._pending = []
    bad = np.flatnonzero(~np.isfinite(values[:, 0]))
    if bad.size:
      step = self._step - len(values) + 1 + int(bad[0])
      raise FloatingPointError(
        f'the loss of step {step} is {values[bad[0], 0]}; lower the learning '
        'rate or lengthen the warm-up. The last checkpoint is from before it.'
      )
    means = values.mean(axis=0).tolist()
    row = {'step': self._step} | dict(zip(Metrics._fields, means, strict=True))
    row['learning_rate'] = float(np.asarray(self._schedule(self._step - 1)))
    row['seconds'] = round(time.perf_counter() - self._start, 3)
    with self._path.open('a') as file:
      file.write(json.dumps(row) + '\n')
    if self._report:
      self._report(row)
