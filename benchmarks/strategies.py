"""Every way to choose temperatures, on the same samples, in one run.

Strategies (calibrated and closed form) x granularity x sites, selective
alignment, the rules of the literature, constants and the oracle. What measures
the model does so on generated prompts of a split that is not scored, at 2, 4,
8, … times the training length up to the longest task, and follows each row's
number of keys. Beside the score: the log-likelihood of the right answer, in
nats a token, with the paired difference to no temperature. What the files show
is for strategies_results.py.

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
import strategies_results as results

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
  'all': Configurations(_RULES, results.GRANULARITIES, True, True, log=True),
  'model': Configurations(_RULES, ('model',), True, True),
  'measured': Configurations(('none',), results.GRANULARITIES, False, False),
  'claim': Configurations(('none', 'log_n'), ('model',), False, False),
  'sites': Configurations(('none',), ('model',), True, False),
}


def calibrations_of(which, decoder_only, wanted=STRATEGIES):
  """Yield (name, options) of what measures attention."""
  main = results.MAIN_SITES[decoder_only]
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
    choice, lines = results.choose(options.choose)
    print(*lines, f'chosen: {choice}', sep='\n')
  elif options.choose_sites:
    choice, lines = results.choose_sites(options.choose_sites, options.choice)
    print(*lines, f'chosen: {choice}', sep='\n')
  elif options.table:
    print(results.markdown(json.loads(pathlib.Path(options.table).read_text())))
  elif options.output:
    measure(options)
  else:
    parser.error('give --output, --table, --choose or --choose_sites.')


if __name__ == '__main__':
  main()
