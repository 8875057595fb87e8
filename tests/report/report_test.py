"""Tables, plot and page, from result files alone."""

import types

import pytest
from rich import console as rich_console

from t5_align import report, results
from t5_align.report import table
from tests.report.page_parser import Page

PNG = b'\x89PNG\r\n\x1a\n'


def make_results(
  output_dir, names=('none', 'temperature=0.8'), **sample_fields
):
  rows = []
  for size in (128, 256, 512):
    task = types.SimpleNamespace(
      name=f'passkey_{size}',
      size=size,
      unit='tokens',
      metric='passkey_match',
      higher_is_better=True,
    )
    baseline = []
    for name in names:
      right = 20 if name != 'none' else 20 - size // 40
      samples = [
        {
          'id': f'sample-{i}',
          'target': 'the key',
          'prediction': '<script>alert(1)</script> [bold]&',
          'score': float(i < right),
          'finite': True,
          'prompt_tokens': size - 5,
          'truncated_tokens': 0,
        }
        | sample_fields
        for i in range(20)
      ]
      path = results.samples_path(output_dir, task.name, name)
      path.parent.mkdir(exist_ok=True)
      path.write_text(''.join(results.to_json(s) + '\n' for s in samples))
      rows.append(results.make_row(task, name, samples, baseline))
      baseline = baseline or samples
  header = {
    'checkpoint': {'path': '/models/<b>tiny</b>', 'content_hash': 'ab12'},
    'device': {'kind': 'cpu', 'count': 1},
    'dtype': 'float32',
    'training_length': 128,
    'compiled_shapes': 3,
    'lost_characters': {'passkey_128': '<\n', 'passkey_256': ''},
  }
  results.write_results(output_dir, header, rows)
  return header, rows


def test_show_prints_tables_and_writes_plot_and_page(tmp_path, capsys):
  make_results(tmp_path)
  report.show(tmp_path)
  out = capsys.readouterr().out
  assert 'passkey (passkey_match)' in out
  assert max(map(len, out.splitlines()[:12])) <= 80
  assert "passkey_128: the tokenizer cannot represent '<\\n'" in out
  assert 'passkey_256' not in out
  assert str(tmp_path / 'report.html') in out.replace('\n', '')
  assert (tmp_path / 'scores.png').read_bytes().startswith(PNG)


def render(rows, width=80):
  console = rich_console.Console(width=width, force_terminal=False)
  with console.capture() as capture:
    console.print(*report.make_tables(rows))
  return capture.get()


def test_table_shows_value_interval_and_difference(tmp_path):
  _, rows = make_results(tmp_path)
  lines = [line.split() for line in render(rows).splitlines()]
  assert ['128', '123', 'none', '0.85', '[0.64,', '0.95]', '20'] in lines
  sharp = next(line for line in lines if 'temperature=0.8' in line)
  assert sharp[:4] == ['123', 'temperature=0.8', '1.00', '[0.84,']
  assert sharp[6] == '+0.15'


def test_table_counts_what_failed_or_was_cut(tmp_path):
  _, rows = make_results(tmp_path, finite=False, truncated_tokens=3)
  assert '20 (20 failed, 20 cut)' in table.cells(rows[0])


def test_one_table_a_family(tmp_path):
  _, rows = make_results(tmp_path)
  other = [row | {'task': 'lcc', 'size': None} for row in rows[:1]]
  assert len(report.make_tables(rows)) == 1
  assert [table.family(row) for row in [*rows[:1], *other]] == [
    'passkey',
    'lcc',
  ]


def test_names_are_not_markup(tmp_path):
  _, rows = make_results(tmp_path, names=('none', '[red]x[/red]'))
  assert '[red]x[/red]' in render(rows)


def test_sure_differences(tmp_path):
  _, rows = make_results(tmp_path)
  assert [table.is_sure(row) for row in rows] == [
    False, False, False, True, False, True,
  ]  # fmt: skip


def test_page_is_self_contained_and_escapes(tmp_path):
  header, rows = make_results(tmp_path)
  plot = tmp_path / 'scores.png'
  report.write_plot(header, rows, plot)
  path = report.write_page(tmp_path, header, rows, plot)
  page = Page(path.read_text())
  assert 'script' not in page.tags and 'b' not in page.tags
  assert '<script>alert(1)</script> [bold]&' in page.text
  assert 'ab12' in page.text and 'temperature=0.8' in page.text
  assert len(page.sources) == 1
  assert page.sources[0].startswith('data:image/png;base64,')


@pytest.mark.parametrize('training_length', [None, 128])
def test_plot_of_one_length(tmp_path, training_length):
  header, rows = make_results(tmp_path)
  header |= {'training_length': training_length}
  path = tmp_path / 'one.png'
  report.write_plot(header, rows[:1], path)
  assert path.read_bytes().startswith(PNG)


def test_results_without_rows_are_an_error(tmp_path):
  with pytest.raises(results.ResultsError, match='no results.json'):
    report.show(tmp_path)
  results.write_results(tmp_path, {}, [])
  with pytest.raises(results.ResultsError, match='no rows yet'):
    report.show(tmp_path)
