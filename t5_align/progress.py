"""How far a run is: a bar on a terminal, a line now and then elsewhere.

Work is counted in tokens, because samples of different lengths take very
different times; that keeps the time left honest.

Synopsis:

    with progress_display(total_tokens, total_samples, console) as advance:
      advance(4_096, 8, 'passkey_512 none')
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import datetime
import time

from rich import console as rich_console
from rich import progress as rich_progress

SECONDS_BETWEEN_LINES = 10.0

# advance(tokens, samples, description): work done since the last call.
Advance = Callable[[int, int, str], None]


def silent(tokens: int, samples: int, description: str) -> None:
  """Advance nothing: for callers who want no display."""
  del tokens, samples, description


@contextlib.contextmanager
def progress_display(
  total_tokens: int, total_samples: int, console: rich_console.Console
) -> Iterator[Advance]:
  """Show progress while the block runs, on the console that is given."""
  if console.is_terminal:
    with _bar(total_tokens, console) as advance:
      yield advance
  else:
    yield _lines(total_tokens, total_samples, console)


@contextlib.contextmanager
def _bar(total_tokens: int, console: rich_console.Console) -> Iterator[Advance]:
  columns = (
    rich_progress.TextColumn('{task.description}'),
    rich_progress.BarColumn(),
    rich_progress.TaskProgressColumn(),
    rich_progress.TextColumn('{task.fields[rate]}'),
    rich_progress.TimeRemainingColumn(elapsed_when_finished=True),
  )
  with rich_progress.Progress(*columns, console=console) as bar:
    task = bar.add_task('starting', total=total_tokens, rate='')
    start, done_samples = time.monotonic(), 0

    def advance(tokens: int, samples: int, description: str) -> None:
      nonlocal done_samples
      done_samples += samples
      rate = done_samples / max(time.monotonic() - start, 1e-9)
      bar.update(
        task,
        advance=tokens,
        description=description,
        rate=_rate(rate),
      )

    yield advance


def _lines(
  total_tokens: int, total_samples: int, console: rich_console.Console
) -> Advance:
  start = last = time.monotonic()
  done_tokens = done_samples = 0

  def advance(tokens: int, samples: int, description: str) -> None:
    nonlocal last, done_tokens, done_samples
    done_tokens += tokens
    done_samples += samples
    now = time.monotonic()
    finished = done_samples >= total_samples
    if not finished and now - last < SECONDS_BETWEEN_LINES:
      return
    last = now
    seconds = max(now - start, 1e-9)
    left = seconds * (total_tokens - done_tokens) / max(done_tokens, 1)
    console.print(
      f'{done_samples}/{total_samples} samples,'
      f' {_rate(done_samples / seconds)},'
      f' {datetime.timedelta(seconds=round(left))} left: {description}',
      soft_wrap=True,
      highlight=False,
    )

  return advance


def _rate(samples_per_second: float) -> str:
  """Return a rate that stays readable where a sample takes a minute."""
  if samples_per_second < 1:
    return f'{1 / max(samples_per_second, 1e-9):.1f} s/sample'
  return f'{samples_per_second:.1f} samples/s'
