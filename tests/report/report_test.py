"""Tables, plot and page, from result files alone."""

from matplotlib import image
import pytest
from rich import console as rich_console

from t5_align import report, results
from tests.report.made_up_results import (
  CODE,
  DOCUMENTS,
  PASSKEYS,
  TEXTS,
  make_results,
)
from tests.report.page_parser import Page

PNG = b'\x89PNG\r\n\x1a\n'
ALL = [*PASSKEYS, *DOCUMENTS, *CODE, *TEXTS]


def test_show_prints_tables_and_writes_pictures_and_page(tmp_path, capsys):
  make_results(tmp_path, ALL)
  report.show(tmp_path)
  out = capsys.readouterr().out
  assert 'passkey (passkey_match, n = 20)' in out
  tables, _, rest = out.partition('1 x cpu')
  assert max(map(len, tables.splitlines())) <= 80
  assert "passkey_128: the tokenizer cannot represent '<\\n'" in rest
  assert 'passkey_256' not in rest
  assert str(tmp_path / 'report.html') in out.replace('\n', '')
  for name in ('scores.png', 'depth_maps.png'):
    assert (tmp_path / name).read_bytes().startswith(PNG)


def render(rows, width=80):
  console = rich_console.Console(width=width, force_terminal=False)
  with console.capture() as capture:
    console.print(*report.make_tables(rows))
  return [line.split() for line in capture.get().splitlines()]


def test_table_shows_value_interval_difference_and_verdict(tmp_path):
  _, rows = make_results(tmp_path, PASSKEYS)
  lines = render(rows)
  assert ['128', 'none', '0.85', '[0.64,', '0.95]'] in lines
  last = [line for line in lines if 'temperature=0.8' in line][-1]
  assert last[:3] == ['temperature=0.8', '1.00', '[0.84,']
  assert last[4] == '+0.60' and last[-1] == 'better'


def test_table_counts_what_failed_was_cut_or_lost(tmp_path):
  _, rows = make_results(
    tmp_path,
    PASSKEYS[:1],
    finite=False,
    truncated_tokens=3,
    lost_characters='{',
  )
  title = 'passkey (passkey_match, n = 20, 20 failed, 20 cut, 20 lossy)'
  assert title.split() in render(rows)
  # Only some of the rows: below the table.
  rows[1] |= {'n_failed': 0, 'n_truncated': 0, 'n_lossy': 2}
  assert 'passkey_128 temperature=0.8: n = 20, 2 lossy'.split() in render(rows)


def test_a_row_without_a_value(tmp_path):
  _, rows = make_results(tmp_path, TEXTS)
  rows[0] |= {'value': None, 'ci95': None, 'n_failed': 1}
  rows[1] |= {'difference': {'to': 'none', 'value': None, 'ci95': None}}
  rows[3] |= {'ci95': [75.0, None]}  # a bound that overflows
  assert ['128', 'none', '-'] in render(rows)
  report.write_plot({}, rows, tmp_path / 'scores.png')
  report.write_plot({}, rows[:1], tmp_path / 'scores.png')


def test_other_measures_below_where_they_tell_more(tmp_path):
  _, rows = make_results(tmp_path, ALL)
  words = [word for line in render(rows) for word in line]
  assert 'exact' in words and 'byte' in words
  # Equal to the metric, nowhere below 1, nowhere above 0.
  assert not {'repaired', 'ceiling', 'share'} & set(words)


def test_results_of_before_there_were_other_measures(tmp_path):
  _, rows = make_results(tmp_path, PASSKEYS)
  new = ('family', 'numbers', 'n_lossy', 'other_measures')
  older = [{k: v for k, v in row.items() if k not in new} for row in rows]
  assert render(older) == render(rows)


def test_names_are_not_markup(tmp_path):
  _, rows = make_results(tmp_path, PASSKEYS, ('none', '[red]x[/red]'))
  assert any('[red]x[/red]' in line for line in render(rows))


def test_page_is_self_contained_and_escapes(tmp_path):
  header, rows = make_results(tmp_path, ALL)
  plot = tmp_path / 'scores.png'
  report.write_plot(header, rows, plot)
  path = report.write_page(tmp_path, header, rows, plot)
  page = Page(path.read_text())
  assert 'script' not in page.tags and 'b' not in page.tags
  assert '<script>alert(1)</script> [bold]&' in page.text
  assert 'ab12' in page.text and 'temperature=0.8' in page.text
  for measure in ('passkey_match_repaired', 'unknown_share', 'ceiling'):
    assert measure in page.text
  assert len(page.sources) == 1
  assert page.sources[0].startswith('data:image/png;base64,')


@pytest.mark.parametrize('training_length', [None, 128])
@pytest.mark.parametrize('task', [ALL[0], *DOCUMENTS[:1], *CODE, *TEXTS[:1]])
def test_plot_of_one_row(tmp_path, training_length, task):
  header, rows = make_results(tmp_path, [task], ('$x$',))
  header = header | {'training_length': training_length}
  path = tmp_path / 'one.png'
  report.write_plot(header, rows, path)
  assert path.read_bytes().startswith(PNG)


def test_legend_is_whole(tmp_path):
  names = ('none', 'maximum_probability', 'temperature=0.8', 'entropy', 'log_n')
  for tasks in (TEXTS[:1], PASSKEYS + TEXTS):
    header, rows = make_results(tmp_path, tasks, names)
    path = tmp_path / 'many.png'
    report.write_plot(header, rows, path)
    pixels = image.imread(path)[..., :3]
    assert pixels.min() < 0.5
    assert (pixels[:, [0, -1]] == 1).all()  # nothing runs over the edges


def test_results_without_rows_are_an_error(tmp_path):
  with pytest.raises(results.ResultsError, match='no results.json'):
    report.show(tmp_path)
  results.write_results(tmp_path, {}, [])
  with pytest.raises(results.ResultsError, match='no rows yet'):
    report.show(tmp_path)
