"""What alignment gives the bundled models: tables and figures from the files.

Reads what `strategies.py` wrote:

  {model}_dev, bundled_sites_dev  development data, which choose
  {model}_seed{n}                 the choice, for three training seeds
  {model}_all_*                   every configuration at 4 and 16 times the
                                  training length, seed 0
  {model}_far_*                   those of one temperature a site, 2, 8 and 32

and writes the tables of docs/experiment.md and docs/experiment_grid.md, and
figures beside them.

    python benchmarks/experiment.py
"""

import argparse
import functools
import json
import pathlib

from matplotlib import figure as mpl_figure
import strategies_results

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results' / 'experiment'
DOCUMENT = ROOT / 'docs' / 'experiment.md'
GRID = ROOT / 'docs' / 'experiment_grid.md'
MODELS = {'bundled': 'encoder', 'bundled_lm': 'decoder'}
SEEDS = (0, 1, 2)
SIZES = (256, 512, 1024, 2048, 4096, 8192)
FOUR_TIMES, SIXTEEN_TIMES, FAR = (1024,), (4096,), (512, 2048, 8192)
DECISIVE = FOUR_TIMES + SIXTEEN_TIMES
# Colours of the choices of sites.
SITES = {
  'cross': 'tab:orange',
  'encoder': 'tab:blue',
  'encoder+cross': 'tab:green',
}
FAMILIES = {
  'passkey': 'passkey, share right',
  'line_retrieval_tokens': 'line retrieval, share right',
  'kv_retrieval_tokens': 'key-value retrieval, share right',
  'perplexity_files': 'perplexity of Python code',
}


def read(name):
  return json.loads((RESULTS / f'{name}.json').read_text())


@functools.cache
def grid(model):
  """Return every configuration, of what there is at each length.

  As one document, in which the rows of a task follow each other.
  """
  documents = [
    json.loads(path.read_text())
    for part in ('all', 'far')
    for path in sorted(RESULTS.glob(f'{model}_{part}_*.json'))
  ]
  (_,) = {d['header']['checkpoint']['content_hash'] for d in documents}
  families = list(FAMILIES)

  def place(row):
    family, size = strategies_results.split(row['task'])
    return families.index(family), size

  rows = [row for document in documents for row in document['rows']]
  return {'header': documents[0]['header'], 'rows': sorted(rows, key=place)}


@functools.cache
def choice():
  """Return the strategy and granularity that development data choose, why."""
  return strategies_results.choose(
    [RESULTS / f'{model}_dev.json' for model in MODELS]
  )


def chosen():
  return choice()[0]


@functools.cache
def sites_choice():
  """Return the sites that the same rule chooses, and why."""
  return strategies_results.choose_sites(
    RESULTS / 'bundled_sites_dev.json', chosen()
  )


def comparison(choice, lines):
  """Return Markdown of what a choice was made from."""
  return '\n'.join(f'- {line}' for line in (*lines, f'chosen: {choice}'))


def by_task(document):
  """Return task -> alignment -> row."""
  found = {}
  for row in document['rows']:
    found.setdefault(row['task'], {})[row['alignment']] = row
  return found


def claim_table():
  """Return Markdown: without and with alignment, for every seed."""
  lines = [
    '| model | task | tokens | seed | none | aligned | paired difference |',
    '|---|---|---|---|---|---|---|',
  ]
  for model, site in MODELS.items():
    documents = {seed: by_task(read(f'{model}_seed{seed}')) for seed in SEEDS}
    for family in FAMILIES:
      for size in DECISIVE:
        for seed, tasks in documents.items():
          rows = tasks.get(f'{family}_{size}')
          if rows is None:
            continue
          none, row = rows['none'], rows[f'{chosen()}, {site}']
          cells = (
            *(model, family.removesuffix('_tokens'), f'{size:,}', f'{seed}'),
            *(strategies_results.cell(r['score'], family) for r in (none, row)),
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
      _name_lengths(panel, title)
      _draw_panel(panel, model, site, family)
  for panel in axes[-1]:
    panel.set_xlabel('tokens of the prompt')
  axes[0, 0].legend(fontsize=8)
  figure.savefig(path, dpi=110)


def seed_tasks(model, seed):
  """Return task -> alignment -> row of a seed.

  Where its run was stopped, seed 0 has what the grid has there.
  """
  tasks = by_task(read(f'{model}_seed{seed}'))
  return tasks if seed else by_task(grid(model)) | tasks


def _draw_panel(panel, model, site, family):
  is_empty = True
  for seed in SEEDS:
    tasks = seed_tasks(model, seed)
    for name, color in (('none', 'tab:red'), (chosen(), 'tab:blue')):
      alignment = name if name == 'none' else f'{name}, {site}'
      label = None if seed else {'none': 'not aligned'}.get(name, 'aligned')
      drawn = _draw_scores(panel, tasks, family, alignment, color, label)
      is_empty = is_empty and not drawn
  panel.axvline(SIZES[0], color='gray', ls=':', lw=1)  # the training length
  if is_empty:
    panel.text(
      *(0.5, 0.5, 'not trained on it'),
      ha='center',
      transform=panel.transAxes,
      fontsize=9,
    )
    panel.set_yticks([])


def _draw_scores(panel, tasks, family, alignment, color, label):
  """Draw a family's scores by length; return whether there are any.

  Where texts of two lengths are not the same ones, no line joins them.
  """
  is_text = family.startswith('perplexity')
  by_samples = {}
  for task, rows in tasks.items():
    own, size = strategies_results.split(task)
    if own == family and alignment in rows:
      row = rows[alignment]
      group = by_samples.setdefault(row['n'] if is_text else None, [])
      group.append((size, row['score']))
  for dashed, (_, group) in enumerate(sorted(by_samples.items(), reverse=True)):
    group.sort(key=lambda point: point[0])
    sizes = [size for size, _ in group]
    values = [score['value'] for _, score in group]
    style = dict(color=color, ms=3, lw=1, label=None if dashed else label)
    panel.plot(sizes, values, ':s' if dashed else '-o', **style)
    if not is_text:
      bounds = zip(*(score['ci95'] for _, score in group))
      panel.fill_between(sizes, *bounds, color=color, alpha=0.12, lw=0)
      panel.set_ylim(-0.03, 1.03)
  return bool(by_samples)


def draw_sites(path):
  """Draw scores by length with each choice of sites, seed 0."""
  figure = mpl_figure.Figure((13, 3.4), layout='constrained')
  tasks = by_task(grid('bundled'))
  for (family, title), panel in zip(
    FAMILIES.items(), figure.subplots(1, len(FAMILIES))
  ):
    _name_lengths(panel, title)
    panel.set_xlabel('tokens of the prompt')
    _draw_scores(panel, tasks, family, 'none', 'tab:red', 'not aligned')
    for sites, color in SITES.items():
      alignment = f'{chosen()}, {sites}'
      _draw_scores(panel, tasks, family, alignment, color, sites)
    if family == 'passkey':
      panel.legend(fontsize=8)
  figure.savefig(path, dpi=110)


def _name_lengths(panel, title):
  panel.set_title(title, fontsize=10)
  panel.set_xscale('log', base=2)
  panel.set_xticks(SIZES, [f'{size:,}' for size in SIZES], fontsize=8)


def sites_table():
  """Return Markdown of each choice of sites."""
  shown = ['none', *(f'{chosen()}, {sites}' for sites in SITES)]
  return strategies_results.markdown(
    grid('bundled'), (*DECISIVE, SIZES[-1]), shown
  )


def grid_table(model, sizes):
  """Return Markdown of every configuration."""
  return strategies_results.markdown(grid(model), sizes)


TABLES = {
  DOCUMENT: {
    'claim': claim_table,
    'development': lambda: comparison(*choice()),
    'sites_development': lambda: comparison(*sites_choice()),
    'sites': sites_table,
  },
  GRID: {
    f'{model}_{name}': functools.partial(grid_table, model, sizes)
    for model in MODELS
    for name, sizes in (('4', FOUR_TIMES), ('16', SIXTEEN_TIMES), ('far', FAR))
  },
}


def with_tables(path):
  """Return a document with its tables made anew, between their marks."""
  text = path.read_text('utf-8')
  for name, table in TABLES[path].items():
    first, last = f'<!-- {name} -->\n', f'\n<!-- /{name} -->'
    before, rest = text.split(first)
    _, after = rest.split(last)
    text = f'{before}{first}{table()}{last}{after}'
  return text


def main():
  argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
  draw(DOCUMENT.with_suffix('.png'))
  draw_sites(DOCUMENT.with_name('experiment_sites.png'))
  for document in TABLES:
    document.write_text(with_tables(document), 'utf-8')
  print(f'chosen on development data: {chosen()}; {sites_choice()[0]}')


if __name__ == '__main__':
  main()
