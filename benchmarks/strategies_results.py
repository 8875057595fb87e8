"""What `strategies.py` measured: what it chooses, and Markdown of it."""

import json
import pathlib

import numpy as np
from scipy import stats

GRANULARITIES = ('model', 'layer', 'head')  # coarsest first
MAIN_SITES = ('encoder', 'decoder')  # the second of a model without the first


def choose(files):
  """Return the strategy and granularity that development data choose, and why.

  What counts is the likelihood of the right answers, in nats a token against no
  temperature, over all tasks of all files, which weigh alike. The granularity
  is the coarsest one that falls short of the best choice by less than its 95 %
  interval; the strategy is the better one at that granularity.

  Returns:
    'strategy, granularity', and lines that compare all of them.
  """
  found = gains(
    files,
    lambda strategy, granularity, sites: (
      f'{strategy}, {granularity}' if sites in MAIN_SITES else None
    ),
  )
  near, lines = near_best(found)
  return min(
    near, key=lambda name: GRANULARITIES.index(name.split(', ')[1])
  ), lines


def choose_sites(file, choice):
  """Return the sites that development data choose, and why, as `choose` does.

  They are the fewest ones that are near the best.

  Args:
    file: of --configurations sites.
    choice: strategy and granularity.
  """
  found = gains(
    [file],
    lambda strategy, granularity, sites: (
      sites if f'{strategy}, {granularity}' == choice else None
    ),
  )
  near, lines = near_best(found)
  return min(near, key=lambda sites: sites.count('+')), lines


def gains(files, name):
  """Return name -> nats a token against none of every task.

  Args:
    files: results.
    name: of a strategy, granularity and sites; None to leave it out.
  """
  found = {}
  for file in files:
    for row in json.loads(pathlib.Path(file).read_text())['rows']:
      parts = row['alignment'].split(', ')
      if len(parts) == 3 and (own := name(*parts)) is not None:
        found.setdefault(own, []).append(row['nats_difference']['value'])
  if not found:
    raise SystemExit(f'{", ".join(map(str, files))}: nothing to choose from.')
  return found


def near_best(found):
  """Return which names are near the best, best first, and lines about all.

  These fall short of it by less than a 95 % interval, paired by task.
  """
  means = {name: float(np.mean(values)) for name, values in found.items()}
  best = max(means, key=lambda name: means[name])
  near, lines = [], []
  for name in sorted(means, key=lambda name: -means[name]):
    behind = np.subtract(found[best], found[name])
    width = stats.t.ppf(0.975, len(behind) - 1) * stats.sem(behind)
    if behind.mean() <= width:
      near.append(name)
    lines.append(
      f'{name}: {means[name]:+.4f} nats a token over {len(behind)} tasks;'
      f' behind the best by {behind.mean():.4f} +- {width:.4f}'
    )
  return near, lines


def split(task):
  """Return a task's family and its size in tokens."""
  family, _, size = task.rpartition('_')
  return family, int(size)


def markdown(document, sizes=None, alignments=None):
  """Return the table of a results file: scores [95 %], nats a token.

  Of all sizes and alignments, or of some; of those that were asked all tasks.
  """
  rows = {}
  for row in document['rows']:
    rows.setdefault(row['alignment'], {})[row['task']] = row
  # At the training length itself nothing is to be aligned.
  first = document['header']['training_length']
  tasks = [
    task
    for task in rows['none']
    if split(task)[1] != first and (sizes is None or split(task)[1] in sizes)
  ]
  longest = {split(task)[0]: task for task in tasks}.values()
  heads = [_short(task) for task in tasks]
  heads += [f'{_short(task)}: nats a token' for task in longest]
  lines = [
    '| temperatures | ' + ' | '.join(heads) + ' |',
    '|---' * (len(heads) + 1) + '|',
  ]
  for alignment, own in rows.items():
    if alignments is not None and alignment not in alignments:
      continue
    if not own.keys() >= set(tasks):
      continue
    cells = [alignment]
    cells += [cell(own[task]['score'], task) for task in tasks]
    for task in longest:
      gain = own[task]['nats_difference']
      if alignment == 'none' or gain['ci95'] is None:
        cells.append('')
      else:
        low, high = gain['ci95']
        cells.append(f'{gain["value"]:+.2f} [{low:+.2f}, {high:+.2f}]')
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def cell(score, task):
  """Per cent right, or a perplexity, with its interval."""
  value, ci95 = score['value'], score['ci95']
  if task.startswith('perplexity'):
    around = f' [{ci95[0]:.1f}, {ci95[1]:.1f}]' if ci95 else ''
    return f'{value:.2f}{around}'
  return f'{100 * value:.1f} [{100 * ci95[0]:.0f}, {100 * ci95[1]:.0f}]'


def _short(task):
  family, size = split(task)
  for ending in ('_tokens', '_files', '_retrieval'):
    family = family.removesuffix(ending)
  return f'{family} {size:,}'
