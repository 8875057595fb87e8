"""What a user should know before trusting a calibration.

Synopsis:

    warnings = remarks(options, counts, wide_heads, solutions)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from t5_align.alignment.calibration import CalibrationOptions
from t5_align.alignment.solve import Solution, Unknown

_NUM_NAMES = 12  # that a remark lists
_OF_STATUS = {
  'sharper': 'Attention is sharper than at the training length already, so its'
  ' temperature is above 1 (clamp sets it to 1)',
  'clamped': 'The temperature would be above 1, and was clamped to 1',
  'left_alone': 'The text has no rows that see more keys than in training, or'
  ' than at a shorter length, so nothing was to be found',
  'saturated': 'No temperature reaches the value of the training length, so it'
  ' was left at 1',
}


def remarks(
  options: CalibrationOptions,
  counts: Mapping[int, int],
  wide_heads: Sequence[str],
  solutions: Mapping[int, Sequence[Solution]],
) -> tuple[str, ...]:
  """Return sentences, each about one thing.

  Args:
    options: how temperatures were chosen.
    counts: target length -> sequences that were measured.
    wide_heads: those that the closed form, if it was used, doesn't hold for.
    solutions: target length -> what was found there.
  """
  found = []
  for length, count in counts.items():
    if count < options.num_sequences:
      found.append(
        f'The text gives {count} of the {options.num_sequences} sequences of'
        f' {length:,} tokens that were wanted: more text makes the temperature'
        ' surer.'
      )
    elif count == 1:
      found.append(
        f'One sequence of {length:,} tokens was measured: how sure the'
        ' temperature is can be known from two or more.'
      )
  if options.selective and not any(solutions.values()):
    found.append(
      'No head disperses because of content, so selective alignment leaves all'
      ' of them alone.'
    )
  for status, remark in _OF_STATUS.items():
    names = [
      f'{_name(s.unknown)} at {length:,} tokens'
      for length, some in solutions.items()
      for s in some
      if s.status == status
    ]
    if names:
      found.append(f'{remark}: {_some(names)}.')
  if wide_heads:
    found.append(
      'The closed form holds while the variance of the logits is below'
      ' ln(keys). Heads (layer.head) beyond that are better calibrated:'
      f' {_some(wide_heads)}.'
    )
  return tuple(found)


def _name(unknown: Unknown) -> str:
  parts = [unknown.site]
  if unknown.layer is not None:
    parts.append(f'layer {unknown.layer}')
  if unknown.head is not None:
    parts.append(f'head {unknown.head}')
  return ' '.join(parts)


def _some(names: Sequence[str]) -> str:
  """List names, but not hundreds of them."""
  more = len(names) - _NUM_NAMES
  shown = ', '.join(names[:_NUM_NAMES])
  return shown + (f' and {more} more' if more > 0 else '')
