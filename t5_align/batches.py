"""Batches: examples as the arrays that a network is called with.

By T5X's names, each [B, tokens]:

  encoder_input_tokens    inputs; an encoder-decoder's alone
  decoder_target_tokens   targets; a decoder-only model's inputs before them
  decoder_input_tokens    those, shifted right within each example
  decoder_loss_weights    an example's weight at its targets, else 0
  *_segment_ids, *_positions   of packed rows

and `decoder_tasks`, which task of the mixture a token is of. Token 0 is
padding. Batch i is a function of (seed, i) alone, whoever makes it.

Synopsis:

    for batch in prefetched_batches(draw, training, first_step=0):
      batch['decoder_target_tokens']      # [batch_size, target_length]
"""

from collections.abc import Iterator, Sequence
import functools

import numpy as np

from t5_align.tasks.pretraining import packing
from t5_align.tasks.pretraining.ahead import map_ahead
from t5_align.tasks.pretraining.mixture import Draw, Example
from t5_align.training_options import Training

Batch = dict[str, np.ndarray]


def prefetched_batches(
  draw: Draw, training: Training, first_step: int, decoder_only: bool = False
) -> Iterator[Batch]:
  """Yield the batches of `first_step` onwards, made ahead of their use.

  With `training.data_workers` above 0 `draw` is pickled.
  """
  make = functools.partial(make_batch, draw, training, decoder_only)
  steps = range(first_step, training.num_steps)
  return map_ahead(make, steps, training.data_workers)


def make_batch(
  draw: Draw, training: Training, decoder_only: bool, step: int
) -> Batch:
  """Return the batch of one step: a pure function of (seed, step).

  Args:
    draw: makes an example.
    training: the shapes, and the seed.
    decoder_only: whether inputs and targets share a row.
    step: counted from 0.

  Raises:
    ValueError: an example is longer than the longest shape.
  """
  rng = np.random.default_rng([training.seed, step])
  target_length = training.target_length
  lengths = (0,) if decoder_only else training.input_lengths
  if training.pack:
    room = lengths[-1], target_length
    try:
      rows = packing.pack(draw, rng, training.batch_size, room)
    except ValueError as error:
      raise ValueError(f'step {step}: {error}') from None
    return features(rows, room, packed=True)
  rows = [[draw(rng)] for _ in range(training.batch_size)]
  sizes = [packing.needed(row[0], decoder_only) for row in rows]
  inputs, targets = np.max(sizes, axis=0).tolist()
  input_length = _fitting(inputs, lengths, f'step {step}: an input')
  _fitting(targets, (target_length,), f'step {step}: a target')
  return features(rows, (input_length, target_length), packed=False)


def features(
  rows: Sequence[Sequence[Example]], room: tuple[int, int], packed: bool
) -> Batch:
  """Return the arrays of some rows.

  Args:
    rows: of a batch, the examples of each.
    room: tokens of a row's inputs and targets; (0, tokens) for a decoder-only
      model, whose targets have the inputs before them.
    packed: whether to make segment ids and positions.
  """
  decoder_only = room[0] == 0
  batch = {
    'decoder_target_tokens': np.zeros((len(rows), room[1]), np.int32),
    'decoder_input_tokens': np.zeros((len(rows), room[1]), np.int32),
    'decoder_loss_weights': np.zeros((len(rows), room[1]), np.float32),
    'decoder_tasks': np.zeros((len(rows), room[1]), np.uint8),
  }
  if not decoder_only:
    encoded = np.zeros((len(rows), room[0]), np.int32)
    batch = {'encoder_input_tokens': encoded, **batch}
  for i, examples in enumerate(rows):
    start = input_start = 0
    for example in examples:
      end = start + packing.needed(example, decoder_only)[1]
      first = end - len(example.targets)
      tokens = batch['decoder_target_tokens'][i]
      if decoder_only:
        tokens[start:first] = example.inputs
      else:
        input_end = input_start + len(example.inputs)
        batch['encoder_input_tokens'][i, input_start:input_end] = example.inputs
        input_start = input_end
      tokens[first:end] = example.targets
      batch['decoder_input_tokens'][i, start + 1 : end] = tokens[
        start : end - 1
      ]
      batch['decoder_loss_weights'][i, first:end] = example.loss_weight
      batch['decoder_tasks'][i, first:end] = example.task
      start = end
  return batch | _places(rows, room) if packed else batch


def _places(rows: Sequence[Sequence[Example]], room: tuple[int, int]) -> Batch:
  """Return the segment ids and positions of packed rows."""
  sizes = [
    [packing.needed(example, room[0] == 0) for example in row] for row in rows
  ]
  found: Batch = {}
  for side, name in enumerate(('encoder', 'decoder')):
    if not room[side]:
      continue
    lengths = [[size[side] for size in row] for row in sizes]
    for what, place in (
      ('segment_ids', packing.segments),
      ('positions', packing.positions),
    ):
      found[f'{name}_{what}'] = np.stack(
        [place(row, room[side]) for row in lengths]
      )
  return found


def _fitting(longest: int, lengths: Sequence[int], what: str) -> int:
  """Return the first length that holds the longest row; raise if none does."""
  for length in lengths:
    if length >= longest:
      return length
  raise ValueError(
    f'{what} has {longest} tokens, the longest shape {lengths[-1]}; draw '
    'shorter ones or raise input_lengths or target_length.'
  )
