"""How far a run is: a bar on a terminal, a line now and then elsewhere.

Work is counted in tokens, because samples of different lengths take very
different times; that keeps the time left honest.

Synopsis:

    with progress_display(console) as display:
      display.expect(4_096, 8)
      display.advance(4_096, 8, 'passkey_512 none')
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import datetime
import time

from rich import console as rich_console
from rich import progress as rich_progress

SECONDS_BETWEEN_LINES = 10.0


class Display:
  """Shows nothing; the others show what is done of what is expected."""

  def __init__(self):
    self._start = time.monotonic()
    self._expected_tokens = self._expected_samples = 0
    self._done_tokens = self._done_samples = 0

  def expect(self, tokens: int, samples: int) -> None:
    """Tell of work to come."""
    self._expected_tokens += tokens
    self._expected_samples += samples
    self._show('', False)

  def advance(self, tokens: int, samples: int, description: str) -> None:
    """Tell of work done since the last call."""
    self._done_tokens += tokens
    self._done_samples += samples
    self._show(description, self._done_samples >= self._expected_samples)

  @property
  def _seconds(self) -> float:
    return max(time.monotonic() - self._start, 1e-9)

  @property
  def _rate(self) -> str:
    """A rate that stays readable where a sample takes a minute."""
    samples_per_second = self._done_samples / self._seconds
    if samples_per_second < 1:
      return f'{1 / max(samples_per_second, 1e-9):.1f} s/sample'
    return f'{samples_per_second:.1f} samples/s'

  def _show(self, description: str, finished: bool) -> None:
    """Show where the run is; no description before anything is done."""
    del description, finished


@contextlib.contextmanager
def progress_display(
  console: rich_console.Console | None,
) -> Iterator[Display]:
  """Show progress while the block runs; no console, no progress."""
  if console is None:
    yield Display()
  elif console.is_terminal:
    with _Bar(console) as bar:
      yield bar
  else:
    yield _Lines(console)


class _Bar(Display, contextlib.AbstractContextManager):
  """A bar with the time left."""

  def __init__(self, console: rich_console.Console):
    super().__init__()
    self._bar = rich_progress.Progress(
      rich_progress.TextColumn('{task.description}'),
      rich_progress.BarColumn(),
      rich_progress.TaskProgressColumn(),
      rich_progress.TextColumn('{task.fields[rate]}'),
      rich_progress.TimeRemainingColumn(elapsed_when_finished=True),
      console=console,
    )
    self._task = self._bar.add_task('starting', total=None, rate='')

  def __enter__(self) -> _Bar:
    self._bar.start()
    return self

  def __exit__(self, *error) -> None:
    self._bar.stop()

  def _show(self, description: str, finished: bool) -> None:
    self._bar.update(
      self._task,
      total=self._expected_tokens,
      completed=self._done_tokens,
      description=description or None,
      rate=self._rate if self._done_samples else '',
    )


class _Lines(Display):
  """A line now and then, and one at the end."""

  def __init__(self, console: rich_console.Console):
    super().__init__()
    self._console = console
    self._last = time.monotonic()

  def _show(self, description: str, finished: bool) -> None:
    now = time.monotonic()
    if not description or (
      not finished and now - self._last < SECONDS_BETWEEN_LINES
    ):
      return
    self._last = now
    tokens_left = self._expected_tokens - self._done_tokens
    left = self._seconds * tokens_left / max(self._done_tokens, 1)
    self._console.print(
      f'{self._done_samples}/{self._expected_samples} samples, {self._rate},'
      f' {datetime.timedelta(seconds=round(left))} left: {description}',
      soft_wrap=True,
      highlight=False,
    )
