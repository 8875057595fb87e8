"""A calibration in plain words, with its own numbers.

Each function returns sentences as text. They say what was measured, whether
or not it is what one had hoped for.

Synopsis:

    words.about_site(record, 'encoder')
    # At 128 tokens the largest attention probability of a row is 0.377 …
"""

from __future__ import annotations

import math

import numpy as np

from t5_align.report.calibration_record import (
  KINDS,
  CalibrationRecord,
  Measurement,
  known_mean,
)
from t5_align.report.calibration_table import number, temperature

_NEAR = 8  # tokens; T5 tells all distances below 8 apart
KIND_MEANINGS = {
  'content': 'looks by what tokens say, and is flatter at the longer length',
  'position': 'content adds little to what distance alone would give',
  'averaging': 'looks at most tokens alike, at the training length already',
  'steady': 'about as sharp at the longer length as at the training length',
}
STATUS_MEANINGS = {
  'solved': 'the temperature brings the statistic back',
  'sharper': (
    'attention is sharper than at the training length, not flatter, so the'
    ' temperature is above 1'
  ),
  'clamped': 'the temperature would be above 1, and was set to 1 instead',
  'saturated': 'no temperature brings the statistic back; it was left at 1',
  'left alone': (
    'not meant to be aligned, or its rows see no more keys than in training or'
    ' than at a shorter length, whose temperature it has'
  ),
}


def introduction(record: CalibrationRecord) -> str:
  """Say what dispersion is and what this run did about it."""
  kept = 'entropy'
  if record.strategy == 'maximum_probability':
    kept = 'largest probability'
  return (
    'For each token it reads, a model spreads its attention over all tokens of'
    ' the input: a row of probabilities that add up to one. The more tokens'
    ' there are, the thinner it is spread. A model that was trained on'
    f' {record.training_length:,} tokens has not learned to read rows as flat'
    f' as those of {record.target_length:,} tokens usually are; that is called'
    ' dispersed attention. Two numbers tell how flat a row is: its largest'
    ' probability (P_max), which falls as attention spreads, and its entropy,'
    ' which rises.'
    ' Dividing what goes into the softmax by a temperature below 1 sharpens'
    ' the row again, without any training. Here the temperature was chosen to'
    f' keep the {kept} of attention as it was at the training length.'
  )


def about_site(record: CalibrationRecord, site: str) -> str:
  """Say what attention was, is, and is with the temperature."""
  view = record.view(site)
  sentences = [
    f'At {record.training_length:,} tokens the largest attention probability'
    f' of a row is {_probability(view.training)} on average, and the entropy'
    f' {_entropy(view.training)}.'
  ]
  if view.before:
    sentences.append(
      f'At {record.target_length:,} tokens they are'
      f' {_probability(view.before)} and {_entropy(view.before)}:'
      f' {_change(view.training, view.before)}.'
    )
  if view.after and record.head_solutions(site):
    sentences.append(
      f'{_temperatures(record, site)} to {_probability(view.after)} and'
      f' {_entropy(view.after)}.'
    )
  heads = view.training.max_probability.size
  left = heads - len(record.head_solutions(site))
  if left:
    sentences.append(f'{left:,} of {heads:,} heads were left alone.')
  return ' '.join(sentences)


def about_kinds(record: CalibrationRecord, site: str) -> str:
  """Count the heads of each kind."""
  own = [kind for (its, _, _), kind in record.kinds.items() if its == site]
  counts = [f'{own.count(k):,} {k}' for k in KINDS if k in own]
  if not counts:
    return f'{site}: its heads were not told apart.'
  return f'{site}: of {len(own):,} heads, {", ".join(counts)}.'


def about_heads(record: CalibrationRecord, site: str) -> str:
  """Name the head whose largest probability fell by most."""
  view = record.view(site)
  if view.before is None:
    return ''
  ratio = view.before.max_probability / view.training.max_probability
  if np.isnan(ratio).all():
    return ''
  layer, head = np.unravel_index(np.nanargmin(ratio), ratio.shape)
  if ratio[layer, head] >= 1:
    return f'{site}: no head became flatter.'
  values = [
    number(float(m.max_probability[layer, head]))
    for m in (view.training, view.before, view.after)
    if m
  ]
  return (
    f'{site}: head {head} of layer {layer} dispersed most: its P_max fell from'
    f' {values[0]} to {values[1]}'
    + (f', and is {values[2]} aligned.' if len(values) > 2 else '.')
  )


def about_lengths(record: CalibrationRecord, site: str) -> str:
  """Say by how much entropy grows, without and with alignment."""
  view = record.view(site)
  if view.before is None:
    return ''
  start = known_mean(view.training.entropy_nats)
  grown = [
    # + 0.0 makes a rounded -0 a 0.
    f'{round(known_mean(m.entropy_nats) - start, 2) + 0.0:+.2f} nats {name}'
    for m, name in (
      (view.before, 'without alignment'),
      (view.after, 'with it'),
    )
    if m
  ]
  return (
    f'{site}: from {record.training_length:,} to {record.target_length:,}'
    f' tokens the mean entropy changes by {", ".join(grown)}.'
  )


def about_rules(record: CalibrationRecord, site: str) -> str:
  """List what every rule would take at the keys that were calibrated."""
  own = record.shown_solutions(site)
  if not own:
    return ''
  keys = own[0].keys
  values = {record.aligned_label: float(np.mean([s.temperature for s in own]))}
  for rule in record.rules:
    if rule.site == site and rule.points:
      places, tau = np.array(rule.points).T
      is_own = rule.name == record.aligned
      if len(places) == 1 or places[0] <= keys <= places[-1]:
        values[record.aligned_label if is_own else rule.label] = float(
          np.interp(math.log(keys), np.log(places), tau)
        )
  listed = ', '.join(f'{name} {value:.2f}' for name, value in values.items())
  return f'{site}, rows of {keys:,.0f} keys: {listed}.'


def about_distances(record: CalibrationRecord, site: str) -> str:
  """Say how much of attention stays near."""
  view = record.view(site)
  shares = []
  for measurement, where in (
    (view.training, f'at {record.training_length:,} tokens'),
    (view.before, f'at {record.target_length:,} tokens'),
    (view.after, 'aligned'),
  ):
    if (
      measurement is None
      or measurement.distance_mass is None
      or _NEAR not in measurement.distances
    ):
      continue
    near = measurement.distance_mass[: measurement.distances.index(_NEAR)]
    shares.append(f'{known_mean(near.sum(0)):.0%} {where}')
  if not shares:
    return ''
  return (
    f'{site}: of all attention, {", ".join(shares)} goes to tokens nearer'
    f' than {_NEAR}.'
  )


def _probability(measurement: Measurement) -> str:
  return number(known_mean(measurement.max_probability))


def _entropy(measurement: Measurement) -> str:
  entropy = known_mean(measurement.entropy_nats)
  if math.isnan(entropy):
    return 'not known'
  return (
    f'{number(entropy)} nats, as if it looked at {math.exp(entropy):,.0f}'
    ' tokens alike'
  )


def _change(training: Measurement, longer: Measurement) -> str:
  before = known_mean(training.entropy_nats)
  growth = known_mean(longer.entropy_nats) - before
  if abs(growth) <= 0.01 * abs(before):
    return 'attention is about as it was'
  return 'attention is flatter' if growth > 0 else 'attention is sharper'


def _temperatures(record: CalibrationRecord, site: str) -> str:
  own = record.shown_solutions(site)
  if len(own) == 1:
    return f'A temperature of {temperature(own[0])} brings them'
  values = [solution.temperature for solution in own]
  return (
    f'Temperatures from {min(values):.3f} to {max(values):.3f} (median'
    f' {np.median(values):.3f}), one a {record.settings["granularity"]},'
    ' bring them'
  )
