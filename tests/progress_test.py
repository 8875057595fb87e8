"""Progress on a terminal and in a log."""

import io

from rich import console as rich_console

from t5_align import progress


def test_lines_where_there_is_no_terminal(monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: clock[-1])
  file = io.StringIO()
  console = rich_console.Console(file=file, width=20)
  with progress.progress_display(console) as display:
    display.expect(500, 2)
    for i, now in enumerate([1.0, 12.0, 13.0, 20.0]):
      clock.append(now)
      if i == 1:
        display.expect(500, 2)
      display.advance(250, 1, f'task {i}')
  assert file.getvalue().splitlines() == [
    '2/4 samples, 6.0 s/sample, 0:00:12 left: task 1',
    '4/4 samples, 5.0 s/sample, 0:00:00 left: task 3',
  ]


def test_bar_on_a_terminal():
  file = io.StringIO()
  console = rich_console.Console(file=file, width=100, force_terminal=True)
  with progress.progress_display(console) as display:
    display.expect(1000, 2)
    display.advance(500, 1, 'passkey_512 none')
    display.advance(500, 1, 'passkey_512 none')
  text = file.getvalue()
  assert '100%' in text and 'passkey_512 none' in text and 'samples/s' in text


def test_silence(capsys):
  with progress.progress_display(None) as display:
    display.expect(1, 1)
    display.advance(1, 1, 'anything')
  assert capsys.readouterr() == ('', '')
