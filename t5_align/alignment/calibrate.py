"""Calibrate: from a model and token sequences to temperatures.

    measure at the training length  ->  what the statistic should be
    measure at the target length    ->  what it is
    solve, or the closed form       ->  the temperatures
    measure again                   ->  what it has become

A temperature is a constant of its heads, or follows the number of keys that a
row sees: then it is found at several lengths and interpolated between them, so
one calibration serves every input. A decoder's rows see every number of keys
up to the length, so there it is found for all of them at once.

Synopsis:

    options = CalibrationOptions(strategy='entropy', granularity='head')
    calibration = calibrate(network, params, text, 512, [16_384], options)
    calibration.temperatures, calibration.solutions, calibration.measurements
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any, Protocol, runtime_checkable

import numpy as np

from t5_align.alignment import closed_form, selection
from t5_align.alignment.calibration import Calibration, CalibrationOptions
from t5_align.alignment.measure import AttentionMeter
from t5_align.alignment.objectives import group_heads
from t5_align.alignment.remarks import remarks
from t5_align.alignment.solve import Solution, Unknown, solve
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.temperature import Law, Temperatures

_GROUPS_PER_OCTAVE = 2  # of a decoder's key counts


@runtime_checkable
class Text(Protocol):
  """Where token sequences come from; `calibration_text` has some."""

  source: str
  hash: str

  def draw(
    self, length: int, count: int, *, within: tuple[int, int] | None = None
  ) -> Any:
    """Return up to `count` sequences of `length` tokens: inputs, targets.

    With `within`, out of the text of a draw of that many longer ones.
    """


def calibrate(
  network: Transformer | DecoderOnlyTransformer,
  params: Any,
  text: Text,
  training_length: int,
  lengths: Sequence[int],
  options: CalibrationOptions | None = None,
) -> Calibration:
  """Choose temperatures for inputs longer than the training length.

  Args:
    network: the model; its own temperatures are not used.
    params: its parameters.
    text: gives token sequences of any length.
    training_length: tokens; what attention is aligned to.
    lengths: target lengths in tokens. A constant is found at the longest.
    options: how.

  Returns:
    Temperatures, and all that was measured on the way.

  Raises:
    ValueError: a target that is not longer than the training length, a site
      that the model doesn't have, or too little text.
  """
  job = _Job(
    network,
    params,
    text,
    training_length,
    lengths,
    options or CalibrationOptions(),
  )
  return job.run()


def octaves(training_length: int, longest: int, ratio: int = 2) -> list[int]:
  """Return 2, 4, 8, … times the training length, and at last the longest.

  Another ratio gives its powers. A length within a tenth of the longest adds
  nothing, and is left out.
  """
  lengths, length = [], ratio * training_length
  while 1.1 * length < longest:
    lengths.append(length)
    length *= ratio
  return [*lengths, longest] if longest > training_length else []


def key_groups(training_length: int, length: int) -> tuple[int, ...]:
  """Return edges of the groups of a causal pass's rows, by keys, ascending.

  The first group has the rows that an input of the training length has, too;
  beyond that there are two an octave.
  """
  if length <= training_length:
    return (0, length)
  num_octaves = np.log2(length / training_length)
  count = max(1, round(num_octaves * _GROUPS_PER_OCTAVE))
  edges = np.geomspace(training_length, length, count + 1)
  return (0, *(int(round(edge)) for edge in edges))


class _Job:
  """One calibration, from the first measurement to the last."""

  def __init__(self, network, params, text, training_length, lengths, options):
    self.config = network.config
    self.text = text
    self.training_length = training_length
    self.lengths = tuple(sorted(set(lengths)))
    decoder_only = isinstance(network, DecoderOnlyTransformer)
    sites = options.sites or (('decoder',) if decoder_only else ('encoder',))
    form = options.form or ('by_length' if decoder_only else 'constant')
    self.options = dataclasses.replace(options, sites=tuple(sites), form=form)
    self.is_causal = decoder_only
    self.meter = AttentionMeter(
      network, params, sites, tokens_per_batch=options.tokens_per_batch
    )
    self.sequences: dict[int, Any] = {}
    self._check()
    self.shown = self.lengths
    if options.measure_between and not self.is_causal:
      between = octaves(training_length, self.lengths[-1], options.length_ratio)
      self.shown = tuple(sorted({*self.lengths, *between}))

  def _check(self):
    if self.training_length < 2:
      raise ValueError(
        f'The training length is {self.training_length} tokens; wanted at'
        ' least 2.'
      )
    if not self.lengths:
      raise ValueError('No target length was given.')
    if self.lengths[0] <= self.training_length:
      raise ValueError(
        f'The target length, {self.lengths[0]} tokens, is not longer than the'
        f' training length, {self.training_length}: there is nothing to align.'
        ' Give a longer one, or another training_length.'
      )
    sees_no_more = 'decoder' in self.options.sites and not self.is_causal
    if self.options.form == 'by_length' and sees_no_more:
      raise ValueError(
        'The decoder beside an encoder sees no more keys where the input is'
        " longer: it has no temperature by length. Give form='constant', or"
        ' other sites.'
      )
    if self.options.form == 'constant' or self.is_causal:
      # A causal pass has rows of every length up to its own.
      self.lengths = self.lengths[-1:]

  def run(self) -> Calibration:
    options = self.options
    count = options.num_training_sequences or 8 * options.num_sequences
    # The longest first: it is what may not be there.
    longest, num = self.lengths[-1], options.num_sequences
    self.sequences[longest] = self.text.draw(longest, num)
    shorter = {n: num for n in self.shown[:-1]} | {self.training_length: count}
    for length, wanted in shorter.items():
      # Of the same text, so that only the length differs.
      self.sequences[length] = self.text.draw(
        length, wanted, within=(longest, num)
      )
    training = self._measure(
      self.training_length,
      Temperatures(),
      groups=self._reference_group(),
    )
    before = {n: self._measure(n, Temperatures()) for n in self.shown}
    at_longest = before[longest]
    kinds = {
      site: selection.classify(training.sites[site], at_longest.sites[site])
      for site in self.meter.sites
    }
    solutions, knots, left_alone = {}, {}, {}
    for length in self.lengths:
      unknowns = self._unknowns(training, before[length], kinds)
      is_free = [self._is_free(u, length, before) for u in unknowns]
      free = list(itertools.compress(unknowns, is_free))
      left_alone[length] = [u for u, its in zip(unknowns, is_free) if not its]
      if options.method == 'closed_form':
        found = closed_form.apply_closed_form(
          options.objective, free, training, before[length]
        )
      else:
        found = self._solve(length, free, before[length])
      solutions[length], knots[length] = found
    for length, unknowns in left_alone.items():
      solutions[length] += [
        self._left_alone(u, length, before, knots) for u in unknowns
      ]
    temperatures = self._temperatures(knots, before, options.form)
    after = {n: self._measure(n, temperatures) for n in self.shown}
    wide_heads = []
    solutions = self._with_outcome(solutions, after)
    if (options.method, options.strategy) == ('closed_form', 'entropy'):
      # The other strategy's conditional form holds for wide logits, too.
      wide_heads = closed_form.wide_heads(training, at_longest, knots[longest])
    counts = {n: len(s.inputs) for n, s in self.sequences.items()}
    return Calibration(
      temperatures=temperatures,
      options=options,
      training_length=self.training_length,
      lengths=self.lengths,
      training=training,
      before=before,
      after=after,
      solutions=solutions,
      kinds=kinds,
      num_sequences=counts,
      num_passes=self.meter.num_passes,
      warnings=remarks(
        options,
        {n: counts[n] for n in self.lengths},
        wide_heads,
        solutions,
      ),
    )

  def _reference_group(self) -> tuple[int, int] | None:
    """Edges of the key counts that stand for the training length."""
    if not self.is_causal:
      return None
    return (self.training_length * 7 // 8, self.training_length)

  def _groups(self, length: int) -> tuple[int, ...] | None:
    """Edges of the groups of key counts at a target length."""
    if not self.is_causal:
      return None
    if self.options.form == 'constant':
      return (length * 7 // 8, length)
    return key_groups(self.training_length, length)

  def _measure(self, length, temperatures, factors=None, groups=None):
    sequences = self.sequences[length]
    return self.meter.measure(
      sequences.inputs,
      sequences.targets,
      length,
      temperatures,
      factors=factors,
      groups=groups or self._groups(length),
      strata=getattr(sequences, 'strata', None),
      # A sweep is on the way to somewhere: whole rows are for what is shown.
      rows_per_sequence=self.options.rows_per_sequence
      if factors is None
      else 0,
    )

  def _unknowns(self, training, before, kinds) -> list[Unknown]:
    """What is to be found at one length, with the training-length targets."""
    name = self.options.objective.statistic
    unknowns = []
    for site in self.meter.sites:
      short, long = training.sites[site], before.sites[site]
      selected = np.ones(kinds[site].shape, bool)
      if self.options.selective:
        selected = kinds[site] == 'content'
      reference, each = short.mean(name)[..., 0], short.by_sequence(name)
      by_length = self.is_causal and self.options.form == 'by_length'
      for group in range(1 if by_length else 0, len(long.keys)):
        if not long.rows[:, group].sum():
          continue
        for layer, head, heads in group_heads(
          self.options.granularity, selected
        ):
          spread = each[..., 0][:, heads].mean(-1)
          unknowns.append(
            Unknown(
              site,
              layer,
              head,
              heads,
              group,
              target=float(reference[heads].mean()),
              target_stderr=float(short.stderr_of_mean(spread)),
            )
          )
    return unknowns

  def _solve(self, length, unknowns, before):
    """Solve on the model."""
    shapes = {
      site: (*statistics.sums['entropy_nats'].shape[1:3], len(statistics.keys))
      for site, statistics in before.sites.items()
    }
    if not unknowns:
      return [], {site: np.ones(shape) for site, shape in shapes.items()}

    # All rows of one length see as many keys, but those of a decoder alone.
    form = self.options.form if self.is_causal else 'constant'

    def measure(tau, factors):
      temperatures = self._temperatures({length: tau}, {length: before}, form)
      return self._measure(length, temperatures, factors)

    return solve(
      measure,
      self.options.objective,
      unknowns,
      shapes,
      tolerance=self.options.tolerance,
      clamp=self.options.clamp,
    )

  def _places(self, site, before) -> list[tuple[int, int, float]]:
    """Length, group and keys of each point of a site's curve, ascending.

    Prompts may be a little shorter than they were asked to be. Those that are
    no longer than in training, or than at the point before, add none.
    """
    places, most = [], float(self.training_length)
    for length in self.lengths:
      for group, keys in enumerate(before[length].sites[site].keys):
        if keys > most:  # nan, where there are no rows, is not
          most = float(keys)
          places.append((length, group, most))
    return places

  def _is_free(self, unknown, length, before) -> bool:
    """Whether it can have a temperature of its own."""
    if self.options.form == 'constant':
      return True
    places = [place[:2] for place in self._places(unknown.site, before)]
    return (length, unknown.group) in places

  def _left_alone(self, unknown, length, before, knots) -> Solution:
    """What rows without a point of their own get from the curve."""
    site, group = unknown.site, unknown.group
    head = tuple(np.argwhere(unknown.heads)[0])
    keys, tau = [float(self.training_length)], [1.0]
    for other, its_group, its_keys in self._places(site, before):
      keys.append(its_keys)
      tau.append(knots[other][site][head][its_group])
    own = before[length].sites[site]
    log_tau = np.interp(np.log(own.keys[group]), np.log(keys), np.log(tau))
    return Solution(
      unknown=unknown,
      temperature=float(np.exp(log_tau)),
      before=float(unknown.mean(own.mean(self.options.objective.statistic))),
      after=float('nan'),
      ci95=None,
      status='left_alone',
    )

  def _with_outcome(self, solutions, after):
    """Fill in what the statistic became, between knots and by formula too."""
    name = self.options.objective.statistic
    return {
      length: [
        dataclasses.replace(
          s,
          after=float(
            s.unknown.mean(after[length].sites[s.unknown.site].mean(name))
          ),
        )
        for s in found
      ]
      for length, found in solutions.items()
    }

  def _temperatures(self, knots, before, form) -> Temperatures:
    """Put τ [L, N, G] of each length and site into one Temperatures."""
    sites = {}
    for site in self.meter.sites:
      taus = {length: tau[site] for length, tau in knots.items()}
      if form == 'constant':
        sites[site] = _compact(taus[max(taus)][..., -1])
        continue
      coefficients: list[Any] = [float(self.training_length), 1.0]
      for length, group, keys in self._places(site, before):
        coefficients += [keys, _compact(taus[length][..., group])]
      sites[site] = Law('interpolated', tuple(coefficients))
    return Temperatures(**sites)


def _compact(tau: np.ndarray) -> Any:
  """Return [L, N] as a number, a tuple of layers or of layers and heads."""
  if (tau == tau.flat[0]).all():
    return float(tau.flat[0])
  if (tau == tau[:, :1]).all():
    return tuple(map(float, tau[:, 0]))
  return tuple(tuple(map(float, layer)) for layer in tau)
