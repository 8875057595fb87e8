"""Tables in docs/ are those of the files that they name."""

import importlib.util
import json
import pathlib
import re

from t5_align.alignment.rules import RULES

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_table_of_strategies_is_that_of_its_file():
  path = ROOT / 'benchmarks' / 'strategies.py'
  spec = importlib.util.spec_from_file_location('strategies', path)
  strategies = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(strategies)
  file = ROOT / 'benchmarks' / 'results' / 'strategies_bundled.json'
  table = strategies.markdown(json.loads(file.read_text('utf-8')))
  document = (ROOT / 'docs' / 'alignment.md').read_text('utf-8')
  (shown,) = re.findall(
    '<!-- strategies -->\n(.*)\n<!-- /strategies -->', document, re.DOTALL
  )
  assert shown == table


def test_table_of_rules_is_that_of_the_registry():
  document = (ROOT / 'docs' / 'alignment.md').read_text('utf-8')
  (shown,) = re.findall(
    r'<!-- rules -->\n(.*)\n<!-- /rules -->', document, re.DOTALL
  )
  assert shown.splitlines()[2:] == [
    f'| `{name}` | {rule.description} | {rule.source} |'
    for name, rule in RULES.items()
  ]


def test_readme_figure_is_that_of_the_results():
  """The numbers of the text are those of the rows beside the picture."""
  file = ROOT / 'docs' / 'bundled' / 'results.json'
  names = {row['alignment'] for row in json.loads(file.read_text())['rows']}
  assert names == {'none', 'entropy'}


def test_attention_table_is_that_of_the_benchmarks_file():
  """Medians and the compiler's temporary memory, as the table rounds them."""
  document = (ROOT / 'docs' / 'speed.md').read_text('utf-8')
  file = ROOT / 'benchmarks' / 'results' / 'attention_cpu.json'
  for length in json.loads(file.read_text())['lengths']:
    for row in length['rows'].values():
      if 'median_ms' in row:
        assert f'{row["median_ms"]:,.0f} ms' in document
      if 'temporary_mib' in row:
        assert f'{row["temporary_mib"]:,.0f} MiB' in document
