"""Every way to choose temperatures, on the same samples, in one run.

Strategies (calibrated and closed form) x granularity x sites, selective
alignment, the rules of the literature, constants and the oracle. What measures
the model does so on development text, at 2, 4, 8, … times the training length
up to the longest task, and follows each row's number of keys; what is scored
are test samples. Beside the score: the log-likelihood of the right answer, in
nats a token, with the paired difference to no temperature.

    python benchmarks/strategies.py --limit 200 --batch_size 64 \
        --output benchmarks/results/strategies_bundled.json
    python benchmarks/strategies.py --table \
        --output benchmarks/results/strategies_bundled.json    # Markdown of it
"""

import argparse
import functools
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
  preparation,
  provenance,
)
from t5_align.alignment.calibrate import octaves
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.prompts import Settings
from t5_align.tasks import generators

SITES = {
  'encoder': ('encoder',),
  'cross': ('cross',),
  'encoder+cross': ('encoder', 'cross'),
}
RULES = ('none', '0.8', '0.6', 'log_n', 'ssmax', 'yarn', 'infoscale', 'oracle')


def configurations():
  """Yield (name, options) of everything that measures attention."""
  for strategy in ('entropy', 'maximum_probability'):
    for granularity in ('model', 'layer', 'head'):
      for label, sites in SITES.items():
        name = f'{strategy}, {granularity}, {label}'
        yield (
          name,
          dict(strategy=strategy, granularity=granularity, sites=sites),
        )
      name = f'{strategy}, {granularity}, encoder'
      options = dict(strategy=strategy, granularity=granularity)
      yield f'{name}, closed form', options | dict(method='closed_form')
      yield f'{name}, selective', options | dict(selective=True)
  yield (
    'maximum_probability (log), model, encoder',
    dict(strategy='maximum_probability', averaging='log'),
  )


def calibrated(model, name, options, lengths, num_sequences):
  """Return the alignment, and what is worth telling of its calibration."""
  start = time.perf_counter()
  text = calibration_text.GeneratedText(
    model.vocabulary, model.checkpoint.decoder_only
  )
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


def scores(model, prepared, alignments, settings):
  """Return the rows of one task; the first alignment is 'none'."""
  with tempfile.TemporaryDirectory() as folder:
    _, rows = evaluation.evaluate(
      model, [prepared.task], alignments, folder, settings
    )
  by_name = {row['alignment']: row for row in rows}
  nats = functools.partial(log_likelihoods, model, prepared)
  baseline = nats(alignments[0].temperatures)
  result = []
  for alignment in alignments:
    row, values = by_name[alignment.name], nats(alignment.temperatures)
    result.append(
      {k: row[k] for k in ('task', 'length', 'alignment', 'metric', 'n')}
      | {
        'score': {k: row[k] for k in ('value', 'ci95', 'difference')},
        'nats_per_token': interval(values),
        'nats_difference': interval(values - baseline),
      }
    )
  return result


def markdown(document):
  """Return the table of a results file: per cent right [95 %], nats a token."""
  rows = {}
  for row in document['rows']:
    rows.setdefault(row['alignment'], {})[row['task']] = row
  # At the training length itself nothing is to be aligned.
  first = document['header']['training_length']
  tasks = [t for t in rows['none'] if not t.endswith(f'_{first}')]
  families = dict.fromkeys(task.rpartition('_')[0] for task in tasks)
  longest = [
    max(
      (t for t in tasks if t.startswith(f)), key=lambda t: int(t.split('_')[-1])
    )
    for f in families
  ]
  heads = [_short(task) for task in tasks]
  heads += [f'{_short(task)}: nats a token' for task in longest]
  lines = [
    '| temperatures | ' + ' | '.join(heads) + ' |',
    '|---' * (len(heads) + 1) + '|',
  ]
  for alignment, own in rows.items():
    cells = [alignment]
    for task in tasks:
      value, (low, high) = (
        own[task]['score']['value'],
        own[task]['score']['ci95'],
      )
      cells.append(f'{100 * value:.1f} [{100 * low:.0f}, {100 * high:.0f}]')
    for task in longest:
      gain = own[task]['nats_difference']
      low, high = gain['ci95']
      cells.append(
        ''
        if alignment == 'none'
        else f'{gain["value"]:+.2f} [{low:+.2f}, {high:+.2f}]'
      )
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _short(task):
  family, _, size = task.rpartition('_')
  return f'{family.removesuffix("_retrieval_tokens")} {int(size):,}'


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='bundled')
  parser.add_argument('--families', default='passkey,line_retrieval_tokens')
  parser.add_argument('--times', default='1,4,8,16')
  parser.add_argument('--limit', type=int, default=200)
  parser.add_argument('--batch_size', type=int, default=8)
  parser.add_argument('--num_sequences', type=int, default=8)
  parser.add_argument('--output', required=True)
  parser.add_argument('--table', action='store_true', help='show --output')
  options = parser.parse_args()
  if options.table:
    print(markdown(json.loads(pathlib.Path(options.output).read_text())))
    return
  model = t5_align.load_model(
    options.model, dtype='float32', batch_size=options.batch_size
  )
  sizes = [int(t) * model.training_length for t in options.times.split(',')]
  settings = Settings(batch_size=options.batch_size, limit=options.limit)
  tasks = [
    generators.get_task(f'{family}_{size}')
    for family in options.families.split(',')
    for size in sizes
  ]
  asked = preparation.Preparation(tasks, model, settings)
  lengths = octaves(model.training_length, max(sizes))
  with tempfile.TemporaryDirectory() as folder:  # nothing is kept between runs
    context = aligning.Context(
      asked,
      settings,
      CalibrationOptions(),
      pathlib.Path(folder),
      lambda split: None,  # no rule here calibrates
    )
    alignments = [aligning.parse_alignment(r, model, context) for r in RULES]
  calibrations = {}
  for name, choice in configurations():
    alignment, facts = calibrated(
      model, name, choice, lengths, options.num_sequences
    )
    alignments.append(alignment)
    calibrations[name] = facts
    print(name, facts['seconds'], flush=True)
  document = {
    'header': provenance.describe(model)
    | {'options': vars(options) | {'output': None}, 'lengths': lengths},
    'calibrations': calibrations,
    'temperatures': {a.name: a.temperatures.to_json() for a in alignments},
    'rows': [],
  }
  for group in asked:
    document['rows'] += scores(model, group, alignments, settings)
    # Of use even if a later task takes too long.
    pathlib.Path(options.output).write_text(
      json.dumps(document, indent=1) + '\n'
    )
    print(group.task.name, flush=True)


if __name__ == '__main__':
  main()
