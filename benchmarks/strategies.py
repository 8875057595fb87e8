"""Every way to choose temperatures, on the same samples, in one run.

Strategies (calibrated and closed form) x granularity x sites, selective
alignment, the rules of the literature, constants and the oracle. What measures
the model does so on generated prompts of a split that is not scored, at 2, 4,
8, … times the training length up to the longest task, and follows each row's
number of keys. Beside the score: the log-likelihood of the right answer, in
nats a token, with the paired difference to no temperature.

    python benchmarks/strategies.py --limit 200 --batch_size 64 \
        --data corpus/test.jsonl --output test.json
    python benchmarks/strategies.py --split dev --data corpus/dev.jsonl \
        --configurations measured --times 4,16 --limit 100 --output dev.json
    python benchmarks/strategies.py --choose dev.json dev_lm.json
    python benchmarks/strategies.py --split dev --data corpus/dev.jsonl \
        --configurations sites --strategies maximum_probability \
        --times 4,16 --limit 50 --output sites.json
    python benchmarks/strategies.py --choose_sites sites.json
    python benchmarks/strategies.py --table test.json         # Markdown of it
"""

import argparse
import json
import pathlib
import tempfile
import time
from typing import NamedTuple

import numpy as np
from scipy import stats

import t5_align
from t5_align import (
  aligning,
  calibration_text,
  evaluation,
  prompts,
  provenance,
)
from t5_align.alignment.calibrate import octaves
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.tasks import generators

STRATEGIES = ('entropy', 'maximum_probability')
GRANULARITIES = ('model', 'layer', 'head')  # coarsest first
MAIN_SITES = ('encoder', 'decoder')  # the second of a model without the first
_RULES = ('none', '0.8', '0.6', 'log_n', 'ssmax', 'yarn', 'infoscale', 'oracle')
# Options that say what is done with files, not what is measured.
_OF_FILES = ('output', 'table', 'choose', 'choose_sites', 'choice')


class Configurations(NamedTuple):
  """Rules, and calibrations: by each strategy and granularity."""

  rules: tuple[str, ...]
  granularities: tuple[str, ...]
  every_site: bool  # not the main one alone
  every_form: bool  # also in closed form, and selective
  log: bool = False  # once, the mean logarithm of the largest probability


CONFIGURATIONS = {
  'all': Configurations(_RULES, GRANULARITIES, True, True, log=True),
  'model': Configurations(_RULES, ('model',), True, True),
  'measured': Configurations(('none',), GRANULARITIES, False, False),
  'claim': Configurations(('none', 'log_n'), ('model',), False, False),
  'sites': Configurations(('none',), ('model',), True, False),
}


def calibrations_of(which, decoder_only, wanted=STRATEGIES):
  """Yield (name, options) of what measures attention."""
  main = MAIN_SITES[decoder_only]
  others = () if decoder_only else ('cross', 'encoder+cross')
  for strategy in wanted:
    for granularity in which.granularities:
      options = dict(strategy=strategy, granularity=granularity)
      name = f'{strategy}, {granularity}'
      yield f'{name}, {main}', options
      if which.every_site:
        for sites in others:
          yield (
            f'{name}, {sites}',
            dict(sites=tuple(sites.split('+')), **options),
          )
      if which.every_form:
        yield (
          f'{name}, {main}, closed form',
          dict(method='closed_form', **options),
        )
        yield f'{name}, {main}, selective', dict(selective=True, **options)
  if which.log:
    options = dict(strategy='maximum_probability', averaging='log')
    yield f'maximum_probability (log), model, {main}', options


def calibrated(model, name, options, lengths, text, num_sequences):
  """Return the alignment, and what is worth telling of its calibration."""
  start = time.perf_counter()
  calibration = model.calibrate(
    text,
    lengths,
    CalibrationOptions(
      form='by_length', num_sequences=num_sequences, **options
    ),
  )
  facts = {
    'seconds': round(time.perf_counter() - start, 1),
    'passes': calibration.num_passes,
    'temperatures': calibration.temperatures.to_json(),
    'warnings': list(calibration.warnings),
  }
  return aligning.Alignment(name, calibration.temperatures), facts


def log_likelihoods(model, prepared, temperatures):
  """Nats a token of each sample's right answer, EOS included."""
  vocabulary = model.vocabulary
  targets = [
    [*vocabulary.encode(p.sample.target), vocabulary.eos_id]
    for p in prepared.prompts
  ]
  scored = model.inference.score(
    [p.tokens for p in prepared.prompts], targets, temperatures
  )
  return np.array([s.log_likelihood / s.num_tokens for s in scored])


def interval(values):
  """Mean and 95 % t interval."""
  width = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
  mean = float(values.mean())
  return {'value': mean, 'ci95': [mean - float(width), mean + float(width)]}


def negative(measure):
  """Nats of loss as nats of log-likelihood."""
  ci95 = measure['ci95']
  return {'value': -measure['value'], 'ci95': ci95 and [-ci95[1], -ci95[0]]}


def scores(model, prepared, alignments, settings):
  """Yield the rows of one task; the first alignment is 'none'."""
  with tempfile.TemporaryDirectory() as folder:
    _, rows = evaluation.evaluate(
      model, [prepared.task], alignments, folder, settings
    )
  by_name = {row['alignment']: row for row in rows}
  baseline = None
  for alignment in alignments:
    row = by_name[alignment.name]
    kept = ('task', 'length', 'alignment', 'metric', 'n', 'n_clusters')
    result = {key: row[key] for key in kept}
    result['score'] = {k: row[k] for k in ('value', 'ci95', 'difference')}
    if prepared.task.scored:
      # The likelihood of the text is what was asked for, by document.
      others = {measure['metric']: measure for measure in row['other_measures']}
      nats = others['nats_per_token']
      same = {'value': 0.0, 'ci95': None}
      result['nats_per_token'] = negative(nats)
      result['nats_difference'] = negative(nats['difference'] or same)
    else:
      values = log_likelihoods(model, prepared, alignment.temperatures)
      baseline = values if baseline is None else baseline
      result['nats_per_token'] = interval(values)
      result['nats_difference'] = interval(values - baseline)
    yield result


def prepare(model, options):
  """Return the prompts of every task with their settings, shortest first."""
  found = []
  for family in options.families.split(','):
    is_text = family.startswith('perplexity')
    settings = prompts.Settings(
      batch_size=options.batch_size,
      limit=options.limit,
      split='test' if is_text else options.split,
      data=options.data if is_text else None,
    )
    for times in options.times.split(','):
      size = int(times) * model.training_length
      task = generators.get_task(f'{family}_{size}')
      found.append((prompts.prepare(task, model, settings), settings))
  return sorted(found, key=lambda pair: pair[0].task.size)


def all_alignments(model, asked, options):
  """Return the alignments, and the facts of those that measure."""
  generated = [pair for pair in asked if not pair[0].task.scored]
  text = calibration_text.GeneratedText(
    model.vocabulary,
    model.checkpoint.decoder_only,
    split='train' if options.split == 'dev' else 'dev',
  )
  longest = max(prepared.task.size for prepared, _ in asked)
  lengths = octaves(model.training_length, longest)
  which = CONFIGURATIONS[options.configurations]
  with tempfile.TemporaryDirectory() as folder:  # nothing is kept between runs
    context = aligning.Context(
      [prepared for prepared, _ in generated],
      generated[0][1],
      CalibrationOptions(),
      pathlib.Path(folder),
      lambda split: None,  # no rule here calibrates
    )
    alignments = [
      aligning.parse_alignment(rule, model, context) for rule in which.rules
    ]
  calibrations = {}
  for name, choice in calibrations_of(
    which, model.checkpoint.decoder_only, options.strategies.split(',')
  ):
    alignment, calibrations[name] = calibrated(
      model, name, choice, lengths, text, options.num_sequences
    )
    alignments.append(alignment)
    print(name, calibrations[name]['seconds'], flush=True)
  return alignments, calibrations, {'text': text.source, 'lengths': lengths}


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


def measure(options):
  """Write the results file, after each task what there is."""
  model = t5_align.load_model(
    options.model, dtype='float32', batch_size=options.batch_size
  )
  asked = prepare(model, options)
  alignments, calibrations, measured = all_alignments(model, asked, options)
  document = {
    'header': provenance.describe(model)
    | {
      'options': {n: x for n, x in vars(options).items() if n not in _OF_FILES}
    }
    | measured,
    'calibrations': calibrations,
    'temperatures': {a.name: a.temperatures.to_json() for a in alignments},
    'rows': [],
  }
  for prepared, settings in asked:
    document['rows'] += scores(model, prepared, alignments, settings)
    pathlib.Path(options.output).write_text(
      json.dumps(document, indent=1) + '\n'
    )
    print(prepared.task.name, flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add('--model', default='bundled')
  add(
    '--families',
    default='passkey,line_retrieval_tokens,kv_retrieval_tokens'
    ',perplexity_files',
  )
  add('--times', default='1,4,16', help='the training length')
  add('--split', default='test', help='of generated prompts')
  add('--data', help="text of perplexity (default: Python's library)")
  add('--configurations', default='all', choices=CONFIGURATIONS)
  add('--strategies', default=','.join(STRATEGIES))
  add('--limit', type=int, default=200)
  add('--batch_size', type=int, default=8)
  add('--num_sequences', type=int, default=8)
  add('--output', help='results file')
  add('--table', metavar='FILE', help='print the table of a results file')
  add('--choose', metavar='FILE', nargs='+', help='development results')
  add('--choose_sites', metavar='FILE', help='of --configurations sites')
  add('--choice', default='maximum_probability, model', help='whose sites')
  options = parser.parse_args()
  if options.choose:
    choice, lines = choose(options.choose)
    print(*lines, f'chosen: {choice}', sep='\n')
  elif options.choose_sites:
    choice, lines = choose_sites(options.choose_sites, options.choice)
    print(*lines, f'chosen: {choice}', sep='\n')
  elif options.table:
    print(markdown(json.loads(pathlib.Path(options.table).read_text())))
  elif options.output:
    measure(options)
  else:
    parser.error('give --output, --table, --choose or --choose_sites.')


if __name__ == '__main__':
  main()
