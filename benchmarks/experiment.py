"""What alignment gives the bundled models: tables and a figure from the files.

Reads what `strategies.py` wrote for three training seeds of each model, with
the strategy and granularity that the development files choose, writes the
tables of docs/experiment.md and draws the scores by length beside it.

    python benchmarks/experiment.py
"""

import argparse
import json
import pathlib

from matplotlib import figure as mpl_figure
import strategies

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'experiment'
DOCUMENT = ROOT / 'docs' / 'experiment.md'
MODELS = {'bundled': 'encoder', 'bundled_lm': 'decoder'}
SEEDS = (0, 1, 2)
SIZES = (256, 512, 1024, 2048, 4096, 8192)
FAMILIES = {
  'passkey': 'passkey, share right',
  'line_retrieval_tokens': 'line retrieval, share right',
  'kv_retrieval_tokens': 'key-value retrieval, share right',
  'perplexity_files': 'perplexity of Python code',
}


def read(name):
  return json.loads((RESULTS / f'{name}.json').read_text())


def chosen():
  """Return the strategy and granularity that development data choose."""
  granularity, strategy = strategies.choose(
    [RESULTS / f'{model}_dev.json' for model in MODELS], show=lambda line: None
  )
  return f'{strategy}, {granularity}'


def by_task(document):
  """Return task -> alignment -> row."""
  found = {}
  for row in document['rows']:
    found.setdefault(row['task'], {})[row['alignment']] = row
  return found


def split(task):
  """Return a task's family and its size in tokens."""
  family, _, size = task.rpartition('_')
  return family, int(size)


def claim_table(sizes=(1024, 4096)):
  """Return Markdown: without and with alignment, for every seed."""
  lines = [
    '| model | task | tokens | seed | none | aligned | paired difference |',
    '|---|---|---|---|---|---|---|',
  ]
  for model, site in MODELS.items():
    documents = {seed: by_task(read(f'{model}_seed{seed}')) for seed in SEEDS}
    for family in FAMILIES:
      for size in sizes:
        for seed, tasks in documents.items():
          rows = tasks.get(f'{family}_{size}')
          if rows is None:
            continue
          none, row = rows['none'], rows[f'{chosen()}, {site}']
          cells = (
            *(model, family.removesuffix('_tokens'), f'{size:,}', f'{seed}'),
            *(strategies.cell(r['score'], family) for r in (none, row)),
            _difference(row),
          )
          lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def _difference(row):
  """Return points of the score, or nats a token of text, with the interval."""
  if row['task'].startswith('perplexity'):
    gain = row['nats_difference']
    low, high = gain['ci95']
    return f'{-gain["value"]:+.3f} [{-high:+.3f}, {-low:+.3f}] nats a token'
  difference = row['score']['difference']
  low, high = difference['ci95']
  return (
    f'{100 * difference["value"]:+.1f} [{100 * low:+.0f}, {100 * high:+.0f}]'
    ' points'
  )


def draw(path):
  """Draw scores by length of every seed, without and with alignment."""
  figure = mpl_figure.Figure((13, 6), layout='constrained')
  axes = figure.subplots(2, len(FAMILIES), sharex=True)
  for (model, site), panels in zip(MODELS.items(), axes):
    panels[0].set_ylabel(model)
    for (family, title), panel in zip(FAMILIES.items(), panels):
      panel.set_title(title, fontsize=10)
      panel.set_xscale('log', base=2)
      panel.set_xticks(SIZES, [f'{size:,}' for size in SIZES], fontsize=8)
      _draw_panel(panel, model, site, family)
  for panel in axes[-1]:
    panel.set_xlabel('tokens of the prompt')
  axes[0, 0].legend(fontsize=8)
  figure.savefig(path, dpi=110)


def _draw_panel(panel, model, site, family):
  is_empty = True
  for seed in SEEDS:
    document = read(f'{model}_seed{seed}')
    first = document['header']['training_length']
    for name, color in (('none', 'tab:red'), (chosen(), 'tab:blue')):
      points = []
      for task, rows in by_task(document).items():
        row = rows[name if name == 'none' else f'{name}, {site}']
        if split(task)[0] == family:
          points.append((split(task)[1], row['score']))
      if not points:
        continue
      is_empty = False
      points.sort(key=lambda point: point[0])
      sizes = [size for size, _ in points]
      values = [score['value'] for _, score in points]
      label = None if seed else {'none': 'not aligned'}.get(name, 'aligned')
      panel.plot(sizes, values, '-o', color=color, ms=3, lw=1, label=label)
      if not family.startswith('perplexity'):
        bounds = zip(*(score['ci95'] for _, score in points))
        panel.fill_between(sizes, *bounds, color=color, alpha=0.12, lw=0)
        panel.set_ylim(-0.03, 1.03)
    panel.axvline(first, color='gray', ls=':', lw=1)
  if is_empty:
    panel.text(
      *(0.5, 0.5, 'not trained on it'),
      ha='center',
      transform=panel.transAxes,
      fontsize=9,
    )
    panel.set_yticks([])


def development_table():
  """Return Markdown: what each choice gained on development data."""
  lines = []
  strategies.choose(
    [RESULTS / f'{model}_dev.json' for model in MODELS], show=lines.append
  )
  return '\n'.join(f'- {line}' for line in lines)


TABLES = {
  'claim': claim_table,
  'development': development_table,
  'bundled_lm_all': lambda: strategies.markdown(read('bundled_lm_all')),
}


def with_tables(text):
  """Return a document with its tables made anew, between their marks."""
  for name, table in TABLES.items():
    first, last = f'<!-- {name} -->\n', f'\n<!-- /{name} -->'
    before, rest = text.split(first)
    _, after = rest.split(last)
    text = f'{before}{first}{table()}{last}{after}'
  return text


def main():
  argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
  draw(DOCUMENT.with_suffix('.png'))
  DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
  print(f'chosen on development data: {chosen()}')


if __name__ == '__main__':
  main()
