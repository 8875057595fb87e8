"""How little a calibration needs: how few sequences, and how few lengths.

Sequences: calibrations on few, with several seeds each, against one on many:
the spread of τ over seeds, the mean width of its 95 % interval, and how often
that holds the τ of many. Lengths: τ in between, read off a calibration at every
other octave or at the longest length alone, against one at each length.

    python benchmarks/calibration_size.py \
        --output benchmarks/results/calibration_size_bundled.json
"""

import argparse
import json
import pathlib
import time

import numpy as np

import t5_align
from t5_align import calibration_text, provenance, temperature
from t5_align.alignment.calibration import CalibrationOptions


def calibrate(model, lengths, count, seed, **options):
  text = calibration_text.GeneratedText(
    model.vocabulary, model.checkpoint.decoder_only, seed=seed
  )
  return model.calibrate(
    text, lengths, CalibrationOptions(num_sequences=count, **options)
  )


def by_sequences(model, options, strategy):
  """Return one row for each number of sequences."""
  length = options.times * model.training_length
  many = calibrate(
    model, [length], options.many, seed=1_000, strategy=strategy
  ).solutions[length][0]
  rows = []
  for count in map(int, options.counts.split(',')):
    solutions, seconds = [], []
    for seed in range(options.seeds):
      start = time.perf_counter()
      calibration = calibrate(model, [length], count, seed, strategy=strategy)
      seconds.append(time.perf_counter() - start)
      solutions += calibration.solutions[length]
    tau = np.array([s.temperature for s in solutions])
    low, high = np.array([s.ci95 for s in solutions]).T
    rows.append(
      {
        'strategy': strategy,
        'sequences': count,
        'temperature_mean': float(tau.mean()),
        'temperature_sd': float(tau.std(ddof=1)),
        'largest_error': float(np.abs(tau / many.temperature - 1).max()),
        'interval_width': float((high - low).mean()),
        'share_holding_the_value_of_many': float(
          ((low <= many.temperature) & (many.temperature <= high)).mean()
        ),
        'median_seconds': float(np.median(seconds)),
      }
    )
    print(rows[-1], flush=True)
  return {
    'many': {
      'sequences': options.many,
      'temperature': many.temperature,
      'ci95': many.ci95,
    },
    'rows': rows,
  }


def by_lengths(model, options, strategy):
  """Return τ at each octave, measured there or interpolated."""
  first, octaves = model.training_length, int(np.log2(options.times))
  lengths = [first * 2**i for i in range(1, octaves + 1)]
  kept = {
    'every length': lengths,
    'every other': lengths[::-1][::2][::-1],
    'the longest': lengths[-1:],
  }
  result = {'lengths': lengths}
  for name, subset in kept.items():
    calibration = calibrate(
      model, subset, 8, seed=0, strategy=strategy, form='by_length'
    )
    site = calibration.options.sites[0]
    law = getattr(calibration.temperatures, site)
    result[name] = [float(t) for t in temperature.mean_over_heads(law, lengths)]
  print(result, flush=True)
  return result


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='bundled')
  parser.add_argument('--times', type=int, default=8)
  parser.add_argument('--counts', default='4,8,16')
  parser.add_argument('--many', type=int, default=64)
  parser.add_argument('--seeds', type=int, default=10)
  parser.add_argument('--output', required=True)
  options = parser.parse_args()
  model = t5_align.load_model(options.model, dtype='float32')
  strategies = ('entropy', 'maximum_probability')
  document = {
    'header': provenance.describe(model)
    | {'options': vars(options) | {'output': None}},
    'sequences': {s: by_sequences(model, options, s) for s in strategies},
    'lengths': {s: by_lengths(model, options, s) for s in strategies},
  }
  pathlib.Path(options.output).write_text(json.dumps(document, indent=1) + '\n')


if __name__ == '__main__':
  main()
