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
    python benchmarks/strategies.py --table test.json         # Markdown of it
"""

import argparse
import json
import pathlib
import tempfile
import time

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
_RULES = ('none', '0.8', '0.6', 'log_n', 'ssmax', 'yarn', 'infoscale', 'oracle')
# Of --configurations: the rules beside what measures the model.
RULES = {
  'all': _RULES,
  'model': _RULES,  # the same, but one temperature a site
  'measured': ('none',),  # both strategies, all granularities, main site
  'claim': ('none', 'log_n'),  # both strategies, one temperature a site
}
ONE_A_SITE = ('model', 'claim')


def configurations(which, decoder_only):
  """Yield (name, options) of what measures attention."""
  main = 'decoder' if decoder_only else 'encoder'
  others = () if decoder_only else ('cross', 'encoder+cross')
  for strategy in STRATEGIES:
    for granularity in GRANULARITIES[: 1 if which in ONE_A_SITE else None]:
      options = dict(strategy=strategy, granularity=granularity)
      name = f'{strategy}, {granularity}'
      yield f'{name}, {main}', options
      if which in ('all', 'model'):
        for sites in others:
          yield (
            f'{name}, {sites}',
            dict(sites=tuple(sites.split('+')), **options),
          )
        yield (
          f'{name}, {main}, closed form',
          dict(method='closed_form', **options),
        )
        yield f'{name}, {main}, selective', dict(selective=True, **options)
  if which == 'all':
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
  with tempfile.TemporaryDirectory() as folder:  # nothing is kept between runs
    context = aligning.Context(
      [prepared for prepared, _ in generated],
      generated[0][1],
      CalibrationOptions(),
      pathlib.Path(folder),
      lambda split: None,  # no rule here calibrates
    )
    alignments = [
      aligning.parse_alignment(rule, model, context)
      for rule in RULES[options.configurations]
    ]
  calibrations = {}
  for name, choice in configurations(
    options.configurations, model.checkpoint.decoder_only
  ):
    alignment, calibrations[name] = calibrated(
      model, name, choice, lengths, text, options.num_sequences
    )
    alignments.append(alignment)
    print(name, calibrations[name]['seconds'], flush=True)
  return alignments, calibrations, {'text': text.source, 'lengths': lengths}


def choose(files, show=print):
  """Show and return the strategy and granularity that development data choose.

  What counts is the likelihood of the right answers, in nats a token against no
  temperature, over all tasks of all files, which weigh alike. The granularity
  is the coarsest one that falls short of the best choice by less than its 95 %
  interval; the strategy is the better one at that granularity.
  """
  gains = {}
  for file in files:
    for row in json.loads(pathlib.Path(file).read_text())['rows']:
      strategy, _, rest = row['alignment'].partition(', ')
      if rest:
        name = (rest.partition(', ')[0], strategy)
        gains.setdefault(name, []).append(row['nats_difference']['value'])
  means = {name: float(np.mean(values)) for name, values in gains.items()}
  best = max(means, key=lambda name: means[name])
  allowed = []
  for name in sorted(means, key=lambda name: -means[name]):
    behind = np.subtract(gains[best], gains[name])
    width = stats.t.ppf(0.975, len(behind) - 1) * stats.sem(behind)
    if behind.mean() <= width:
      allowed.append(name)
    show(
      f'{name[1]}, {name[0]}: {means[name]:+.4f} nats a token over'
      f' {len(behind)} tasks; behind the best by {behind.mean():.4f} +-'
      f' {width:.4f}'
    )
  chosen = min(allowed, key=lambda name: GRANULARITIES.index(name[0]))
  show(f'chosen: {chosen[1]}, {chosen[0]}')
  return chosen


def markdown(document):
  """Return the table of a results file: scores [95 %], nats a token."""
  rows = {}
  for row in document['rows']:
    rows.setdefault(row['alignment'], {})[row['task']] = row
  # At the training length itself nothing is to be aligned.
  first = document['header']['training_length']
  tasks = [t for t in rows['none'] if not t.endswith(f'_{first}')]
  longest = {task.rpartition('_')[0]: task for task in tasks}.values()
  heads = [_short(task) for task in tasks]
  heads += [f'{_short(task)}: nats a token' for task in longest]
  lines = [
    '| temperatures | ' + ' | '.join(heads) + ' |',
    '|---' * (len(heads) + 1) + '|',
  ]
  for alignment, own in rows.items():
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
  family, _, size = task.rpartition('_')
  for ending in ('_tokens', '_files', '_retrieval'):
    family = family.removesuffix(ending)
  return f'{family} {int(size):,}'


def measure(options):
  """Write the results file, after each task what there is."""
  model = t5_align.load_model(
    options.model, dtype='float32', batch_size=options.batch_size
  )
  asked = prepare(model, options)
  alignments, calibrations, measured = all_alignments(model, asked, options)
  document = {
    'header': provenance.describe(model)
    | {'options': vars(options) | dict.fromkeys(('output', 'choose', 'table'))}
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
  add('--configurations', default='all', choices=RULES)
  add('--limit', type=int, default=200)
  add('--batch_size', type=int, default=8)
  add('--num_sequences', type=int, default=8)
  add('--output', help='results file')
  add('--table', metavar='FILE', help='print the table of a results file')
  add('--choose', metavar='FILE', nargs='+', help='development results')
  options = parser.parse_args()
  if options.choose:
    choose(options.choose)
  elif options.table:
    print(markdown(json.loads(pathlib.Path(options.table).read_text())))
  elif options.output:
    measure(options)
  else:
    parser.error('give --output, --table or --choose.')


if __name__ == '__main__':
  main()
