"""Progress on a terminal and in a log."""

import io

from rich import console as rich_console

from t5_align import progress


def test_lines_where_there_is_no_terminal(monkeypatch):
  clock = iter([0.0, 1.0, 12.0, 13.0, 20.0])
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
  file = io.StringIO()
  console = rich_console.Console(file=file, width=20)
  with progress.progress_display(1000, 4, console) as advance:
    for i in range(4):
      advance(250, 1, f'task {i}')
  assert file.getvalue().splitlines() == [
    '2/4 samples, 6.0 s/sample, 0:00:12 left: task 1',
    '4/4 samples, 5.0 s/sample, 0:00:00 left: task 3',
  ]


def test_bar_on_a_terminal():
  file = io.StringIO()
  console = rich_console.Console(file=file, width=100, force_terminal=True)
  with progress.progress_display(1000, 2, console) as advance:
    advance(500, 1, 'passkey_512 none')
    advance(500, 1, 'passkey_512 none')
  text = file.getvalue()
  assert '100%' in text and 'passkey_512 none' in text and 'samples/s' in text


def test_silence():
  progress.silent(1, 1, 'anything')
